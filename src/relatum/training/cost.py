"""What a method costs in training beside others: measured in one process, on the same images.

The sides take turns, A B C A B C ..., so that what disturbs the machine disturbs all. The first beside a method that
contrasts two views is SimCLR with the cosine, beside all others cross-entropy, and then KD beside one that has a
teacher. All encode all images of the method's batch, so that a ratio is what the method adds, and not what more images
cost.
"""

import statistics
import time
from collections.abc import Callable, Sequence, Set
from contextlib import nullcontext
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from relatum.core.types import Batch
from relatum.measurement.measurer import PrecisionContext
from relatum.methods import METHODS, Method
from relatum.recipes.building import Prepared, build, build_loader
from relatum.recipes.options import options, options_of
from relatum.recipes.recipe import Recipe
from relatum.training.optimizers import build_optimizer

WARM_UP = 2  # steps of each side that are not counted


@dataclass(frozen=True)
class Side:
    """What one method takes.

    Attributes:
        method: the name of the method.
        seconds: for each image of a training step (forward, backward, optimizer, what follows), the median.
        parameters: how many it trains.
        activation_bytes: on a processor, what autograd keeps of the forward pass for the backward pass, each storage
            once, parameters and buffers apart (layers that are computed again keep nothing and count nothing). On a
            GPU, by how much a step's forward and backward pass raise the allocated memory, gradients included.
        time_ratio: the time of the measured method over that of this one: the median of the repeats, each a turn.
        time_range: the smallest and the largest of these.
    """

    method: str
    seconds: float
    parameters: int
    activation_bytes: int
    time_ratio: float
    time_range: tuple[float, float]


@dataclass(frozen=True)
class Cost:
    """What a method takes, and others beside it.

    Attributes:
        images: how many pass the backbone in one step.
        repeats: steps of each side that were timed.
        side: the method.
        beside: the others, the baseline first.
    """

    images: int
    repeats: int
    side: Side
    beside: tuple[Side, ...]

    @property
    def baseline(self) -> Side:
        """SimCLR or cross-entropy."""
        return self.beside[0]

    def table(self) -> str:
        """The numbers as lines for a terminal."""
        rows = [("", "milliseconds an image", "trained parameters", "activations, MiB", f"time of {self.side.method}")]
        for side in (self.side, *self.beside):
            low, high = side.time_range
            over = f"{side.time_ratio:.2f} of this ({low:.2f} to {high:.2f})" if side is not self.side else ""
            numbers = (f"{1e3 * side.seconds:.3f}", f"{side.parameters:,}", f"{side.activation_bytes / 2**20:.1f}")
            rows.append((side.method, *numbers, over))
        widths = [max(map(len, column)) for column in zip(*rows)]
        lines = ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip() for row in rows]
        how = f"{self.images} images a step, {self.repeats} repeats; ratios are medians of turns, and their range."
        return "\n".join([*lines, how])


def measure_cost(
    recipe: Recipe,
    prepared: Prepared,
    device: torch.device,
    precision: PrecisionContext = nullcontext,
    *,
    beside: Sequence[str] = (),
    repeats: int = 10,
) -> Cost:
    """Time, parameters and memory of a recipe's training step, and of others on the same batch.

    Args:
        recipe: whose method is measured; its backbone, batch, images and optimizer serve all sides.
        prepared: the recipe's images.
        device: where.
        precision: makes the context of the forward pass, as in training.
        beside: more methods with their default options, and the recipe's teacher where they have one.
        repeats: turns that are timed, at least 1.

    Raises:
        ValueError: for no repeats, for a method that does not exist or takes other batches, and as `build` and
            `build_loader`.
    """
    if repeats < 1:
        raise ValueError(f"repeats is {repeats}; expected at least 1 (10 is the default).")
    others = [replace(recipe, method=_as_beside(recipe, name)) for name in _names_beside(recipe, beside)]
    batch = next(build_loader(recipe, prepared, device).epoch(0))
    images = sum(map(len, batch.views))
    steps = [_Step(side, prepared, batch, device, precision) for side in (recipe, *others)]
    memory = [step.activation_bytes() for step in steps]
    for step in steps * WARM_UP:
        step()
    times = [[_seconds(step, device) for step in steps] for _ in range(repeats)]
    sides = []
    for step, seconds, kept in zip(steps, zip(*times), memory):
        ratios = [turn[0] / own for turn, own in zip(times, seconds)]
        own = statistics.median(seconds) / images
        spread = (min(ratios), max(ratios))
        sides.append(Side(step.name, own, step.parameters, kept, statistics.median(ratios), spread))
    return Cost(images, repeats, sides[0], tuple(sides[1:]))


def _names_beside(recipe: Recipe, beside: Sequence[str]) -> list[str]:
    pairing = METHODS[recipe.method.name].pairing
    contrasts = pairing == "two-views"
    for name in beside:
        if name in METHODS and METHODS[name].pairing != pairing:
            raise ValueError(
                f"{name} cannot stand beside {recipe.method.name}: it needs batches of {METHODS[name].pairing}, and "
                f"these are of {pairing}; name methods that take the same."
            )
    names = ["simclr" if contrasts else "supervised"]
    if getattr(recipe.method, "teacher", "") and not contrasts and recipe.method.name != "kd":
        names.append("kd")
    return [*names, *(name for name in dict.fromkeys(beside) if name not in names)]


def _as_beside(recipe: Recipe, name: str) -> Any:
    """The options of another method, with the recipe's teacher where it has one."""
    known = {field.name for field in fields(options_of(name))}
    teacher = getattr(recipe.method, "teacher", "")
    return replace(options(name), teacher=teacher) if "teacher" in known and teacher else options(name)


class _Step:
    """One training step of a recipe's method, again and again on one batch."""

    def __init__(
        self, recipe: Recipe, prepared: Prepared, batch: Batch, device: torch.device, precision: PrecisionContext
    ) -> None:
        self.name = recipe.method.name
        self.method: Method = build(recipe, prepared).to(device).to(memory_format=torch.channels_last).train()
        self.optimizer = build_optimizer(self.method, recipe.optim)
        self.parameters = sum(p.numel() for p in self.method.parameters() if p.requires_grad)
        self.batch, self.device, self.precision = batch, device, precision

    def loss(self) -> Tensor:
        with self.precision():
            return torch.stack(list(self.method.losses(self.batch).values())).sum()

    def __call__(self) -> None:
        self.loss().backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.method.after_step(0.5)

    def activation_bytes(self) -> int:
        """See `Side`."""
        if self.device.type != "cuda":
            own = {t.untyped_storage().data_ptr() for t in (*self.method.parameters(), *self.method.buffers())}
            return saved_bytes(self.loss, own)
        self()  # the optimizer has its state, cuDNN its plans
        torch.cuda.synchronize(self.device)
        torch.cuda.reset_peak_memory_stats(self.device)
        before = torch.cuda.memory_allocated(self.device)
        self.loss().backward()
        torch.cuda.synchronize(self.device)
        peak = torch.cuda.max_memory_allocated(self.device)
        self.optimizer.zero_grad()
        return peak - before


def saved_bytes(forward: Callable[[], Any], but: Set[int] = frozenset()) -> int:
    """The bytes of all storages that autograd keeps of `forward`, each once, but for those at the addresses `but`."""
    storages: dict[int, int] = {}
    kept: list[Tensor] = []  # alive until the end, or another tensor might come to lie at the same address

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in but:
            storages[storage.data_ptr()] = storage.nbytes()
            kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = forward()
    del result
    return sum(storages.values())


def _seconds(step: _Step, device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    step()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start
