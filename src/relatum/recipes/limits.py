"""What a recipe's fields may hold, checked when it is made: by name, before any work."""

import dataclasses
import math
import re
from typing import TYPE_CHECKING, Any

from relatum.methods import METHODS

if TYPE_CHECKING:
    from relatum.recipes.recipe import Recipe

RANGES: dict[str, tuple[float, float]] = {
    "train.epochs": (1, 1_000_000),
    "train.devices": (1, 4096),
    "train.nodes": (1, 4096),
    "train.log_every": (1, 2**31),
    "train.threads": (0, 4096),
    "train.chunk": (0, 2**31),
    "data.batch_size": (1, 2**31),
    "data.workers": (0, 1024),
    "data.images_per_class": (0, 2**31),
    "evaluation.every": (0, 2**31),
    "evaluation.batch_size": (1, 2**31),
    "optim.lr": (0, 1_000_000),
    "optim.weight_decay": (0, 1_000_000),
    "optim.momentum": (0, 1),
    "optim.warmup_epochs": (0, 1_000_000),
    "optim.gamma": (0, 1),
    "optim.clip": (0, 1_000_000_000),
}
"""The least and the largest value of a field; what has none may be any finite number."""

LARGEST = 2**63 - 1  # what torch and the formats of files can hold
PLAIN_NAME = re.compile(r"[^\W_][^/\\:*?\"<>|\x00-\x1f\x7f]*")
LONGEST_NAME = 200  # bytes; file systems take 255, and a run folder may be numbered


def check(recipe: "Recipe") -> None:
    """Refuse values that no run can have.

    Raises:
        ValueError: naming the field, its value, and what was expected.
    """
    _check_name(recipe.name)
    _check_numbers(recipe, "")
    for path, (least, most) in RANGES.items():
        section, field = path.split(".")
        value = getattr(getattr(recipe, section), field)
        if not least <= value <= most:
            expected = f"at least {least:,}" if value < least else f"at most {most:,}"
            raise ValueError(f"{path} is {value}; expected {expected}. Set it with {option(path)}.")
    for name in ("validation", "test_share"):
        share = getattr(recipe.data, name)
        if not 0 <= share < 1:
            raise ValueError(f"data.{name} is {share}; expected a share of the training set in [0, 1).")
    if recipe.data.train_images is not None and recipe.data.train_images < 1:
        raise ValueError(f"data.train_images is {recipe.data.train_images}; expected at least 1, or none for all.")
    if recipe.data.batch_size % (recipe.train.devices * recipe.train.nodes):
        raise ValueError(
            f"data.batch_size {recipe.data.batch_size} cannot be shared by train.devices {recipe.train.devices} "
            f"times train.nodes {recipe.train.nodes}; "
            "choose a multiple."
        )
    _check_crops(recipe)
    if recipe.evaluation.online and not recipe.evaluation.every:
        raise ValueError(
            "evaluation.online is true, and evaluation.every is 0, so that its probe would be trained and never "
            "measured: set --evaluation.every 1, or leave --evaluation.online out."
        )
    optim, epochs = recipe.optim, recipe.train.epochs
    if optim.warmup_epochs > epochs:
        raise ValueError(
            f"optim.warmup_epochs is {optim.warmup_epochs}; expected at most train.epochs, {epochs}. "
            "Set one of them with --optim.warmup-epochs or --train.epochs."
        )
    if list(optim.milestones) != sorted(set(optim.milestones)) or min(optim.milestones, default=1) <= 0:
        raise ValueError(
            f"optim.milestones is {optim.milestones}; expected epochs above 0, each larger than the one before. "
            "Set them with --optim.milestones."
        )


def _check_crops(recipe: "Recipe") -> None:
    view, method = recipe.data.view, METHODS[recipe.method.name]
    if not method.multi_crop and (view.small_crops or view.large_crops != 2):
        field, value = ("small.count", view.small_crops) if view.small_crops else ("large", view.large_crops)
        takers = ", ".join(name for name, kind in METHODS.items() if kind.multi_crop)
        kind = "two views of an image" if method.pairing == "two-views" else "no views of one image"
        raise ValueError(
            f"data.view.{field} is {value}, and the method {recipe.method.name} compares {kind}: leave "
            f"--data.view.{field} out, or choose a method that takes multi-crop ({takers})."
        )


def option(path: str) -> str:
    """How the command line spells a field."""
    return f"--{path.replace('_', '-')}"


def _check_name(name: Any) -> None:
    plain = isinstance(name, str) and PLAIN_NAME.fullmatch(name) and name == name.strip()
    if not plain or len(name.encode(errors="replace")) > LONGEST_NAME:
        raise ValueError(
            f"name is {name!r}; it names the run's folder: expected one plain file name that begins with a letter or "
            f'a digit, of at most {LONGEST_NAME} bytes and without / \\ : * ? " < > |. Choose a folder with --run DIR.'
        )


def _check_numbers(value: Any, path: str) -> None:
    """Every number is finite, and no whole number beyond what a file can hold."""
    if dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            _check_numbers(getattr(value, field.name), f"{path}.{field.name}" if path else field.name)
    elif isinstance(value, tuple | list):
        for part in value:
            _check_numbers(part, path)
    elif isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{path} is {value}; expected a finite number. Set it with {option(path)}.")
    elif isinstance(value, int) and abs(value) > LARGEST:
        raise ValueError(f"{path} is a number of {len(str(abs(value)))} digits; expected one below 2^63.")
