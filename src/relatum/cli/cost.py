"""Measure what a training step takes, beside those of other methods on the same images."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

from relatum.cli.arguments import device_of, parse, precision_of, recipe_argument, write

USAGE = "RECIPE [SETTING] [--beside METHOD ...] [--repeats 10] [--out FILE.json] [--model.name resnet50 ...]"


def run(args: Sequence[str]) -> None:
    """Measure time, memory and parameters of a step."""
    import tyro

    recipe, rest = recipe_argument("cost", args)
    import torch

    from relatum.recipes import building, trial
    from relatum.recipes.recipe import Recipe
    from relatum.training.cost import measure_cost

    @dataclass(frozen=True)
    class Cost:
        recipe: Annotated[Recipe, tyro.conf.arg(name="")]
        beside: tuple[str, ...] = ()
        """More methods that take the same batch. The baseline (simclr or supervised) is always there, and kd beside a
        method that has a teacher."""
        repeats: int = 10
        """Turns that are timed, each a step of every method."""
        out: Path | None = None
        """Write the numbers to this JSON file."""

    chosen = parse(Cost, f"cost {args[0]}", rest, Cost(recipe))
    settings = chosen.recipe.train
    if settings.threads:
        torch.set_num_threads(settings.threads)
    device = device_of(chosen.recipe)
    prepared = building.prepare(chosen.recipe, trial.of(chosen.recipe))
    precision = precision_of(chosen.recipe, device)
    measured = measure_cost(chosen.recipe, prepared, device, precision, beside=chosen.beside, repeats=chosen.repeats)
    print(measured.table())
    if chosen.out:
        write(chosen.out, json.dumps(asdict(measured), indent=1) + "\n")
