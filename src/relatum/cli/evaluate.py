"""Measure the encoder of a run, on its data or on others.

Options of the data and of the evaluators replace those of the run: --evaluation.knn.k 20, --data.source cifar100.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from relatum.cli.arguments import device_of, parse, precision_of, recipe_of, run_argument, write

USAGE = "RUN [--out FILE.json] [--evaluation.knn.k 20 --data.source cifar100 ...]"


def run(args: Sequence[str]) -> None:
    """Measure."""
    folder, rest = run_argument("evaluate", args)
    from relatum.networks.export import load_encoder
    from relatum.recipes import building
    from relatum.recipes.recipe import Data, Evaluation
    from relatum.reports.tables import measured

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
    backbone, info = load_encoder(building.encoder_of(str(folder)))
    prepared = building.prepare(recipe)
    # The encoder knows one normalization: images of other sets are given to it as its own were.
    prepared = prepared._replace(source=replace(prepared.source, mean=info.mean, std=info.std))
    device = device_of(recipe)
    measurer = building.measurer_of(recipe, prepared, device, precision_of(recipe, device))
    result = measurer.final(backbone.to(device))
    print(measured(result.metrics, result.protocols))
    if chosen.out:
        found = {"metrics": result.metrics, "protocols": result.protocols}
        write(chosen.out, json.dumps(found, indent=1, ensure_ascii=False) + "\n")
