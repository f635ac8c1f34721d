"""Measure the encoder of a run, on its data or on others.

Options of the data and of the evaluators replace those of the run: --evaluation.knn.k 20, --data.source cifar100.
Only what --evaluation.run names is measured, in the precision of the training.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from relatum.cli.arguments import device_of, parse, recipe_of, run_argument, write

USAGE = "RUN [--out FILE.json] [--evaluation.run knn retrieval --evaluation.knn.k 20 --data.source cifar100 ...]"


def run(args: Sequence[str]) -> None:
    """Measure."""
    folder, rest = run_argument("evaluate", args)
    from relatum.recipes.recipe import Data, Evaluation
    from relatum.reports.tables import measured
    from relatum.training.measuring import measure_run

    @dataclass(frozen=True)
    class Evaluate:
        data: Data = field(default_factory=Data)
        evaluation: Evaluation = field(default_factory=Evaluation)
        out: Path | None = None
        """Write the numbers and how they were measured to this JSON file."""

    recipe = recipe_of(folder)
    chosen = parse(
        Evaluate,
        f"evaluate {folder}",
        rest,
        Evaluate(recipe.data, recipe.evaluation),
        hint="The encoder is measured as it was trained: only --data.* and --evaluation.* can be changed.",
    )
    recipe = replace(recipe, data=chosen.data, evaluation=chosen.evaluation)
    result = measure_run(folder, recipe, device_of(recipe))
    print(measured(result.metrics, result.protocols))
    if chosen.out:
        found = {name: getattr(result, name) for name in ("metrics", "protocols", "columns", "correct", "notices")}
        write(chosen.out, json.dumps(found, indent=1, ensure_ascii=False) + "\n")
