"""A run measured anew, on its data or on others, as training measured it."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from relatum.measurement.measurer import Measurements
from relatum.recipes import building
from relatum.recipes.recipe import Recipe
from relatum.reports.records import read_record
from relatum.training.hardware import precision_of
from relatum.training.run_folder import encoder_of


def measure_run(run: Path, recipe: Recipe, device: torch.device) -> Measurements:
    """What `recipe` says is to be measured of the encoder of a run folder, in the precision of its training.

    Args:
        run: the folder.
        recipe: of the run; its data and evaluation may differ.
        device: where to measure.

    Raises:
        FileNotFoundError, ValueError: for a folder without an encoder, and data that cannot be measured; if nothing of
            what was asked for can be measured.
    """
    backbone, info = encoder_of(run)
    prepared = building.prepare(recipe)
    # The encoder knows one normalization: images of other sets are given to it as its own were.
    prepared = prepared._replace(source=replace(prepared.source, mean=info.mean, std=info.std))
    trained_in = read_record(run).machine["precision"] if (run / "record.json").is_file() else precision_of(recipe)
    precision = partial(torch.autocast, device.type, torch.bfloat16, enabled=trained_in == "bf16-mixed")
    if recipe.train.threads:
        torch.set_num_threads(recipe.train.threads)
    measurer = building.measurer_of(recipe, prepared, device, precision, staged=bool(backbone.stage_channels))
    knows = backbone.num_classes if info.classes in (None, tuple(prepared.source.classes)) else 0
    measurer = replace(measurer, outputs=knows, heads=False)
    found = measurer.final(backbone.to(device).to(memory_format=torch.channels_last))
    if not found.metrics:
        raise ValueError(f"nothing was measured. {' '.join(found.notices)} Choose others with --evaluation.run.")
    return found
