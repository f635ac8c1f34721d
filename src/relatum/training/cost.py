"""What a method costs in training beside the baseline: measured in one process, on the same images.

The two sides take turns, A B A B ..., so that what disturbs the machine disturbs both. The baseline of a method that
contrasts two views is SimCLR with the cosine, that of all others cross-entropy; it encodes all images of the method's
batch, so that the ratio is what the method adds, and not what more images cost.
"""

import statistics
import time
from collections.abc import Callable, Set
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from relatum.core.types import Batch
from relatum.measurement.measurer import PrecisionContext
from relatum.methods import METHODS, Method
from relatum.recipes.building import Prepared, build, build_loader
from relatum.recipes.recipe import Recipe, options
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
    """

    method: str
    seconds: float
    parameters: int
    activation_bytes: int


@dataclass(frozen=True)
class Cost:
    """What a method takes, and the baseline beside it.

    Attributes:
        images: how many pass the backbone in one step.
        repeats: steps of each side that were timed.
        side: the method.
        baseline: the baseline.
        time_ratio: the method's time over the baseline's: the median of the repeats, each a pair of neighbors.
        time_range: the smallest and the largest of these.
    """

    images: int
    repeats: int
    side: Side
    baseline: Side
    time_ratio: float
    time_range: tuple[float, float]

    def table(self) -> str:
        """The numbers as lines for a terminal."""
        a, b = self.side, self.baseline
        rows = [
            ("", a.method, b.method, "ratio"),
            ("milliseconds an image", f"{1e3 * a.seconds:.3f}", f"{1e3 * b.seconds:.3f}", f"{self.time_ratio:.2f}"),
            ("trained parameters", f"{a.parameters:,}", f"{b.parameters:,}", f"{a.parameters / b.parameters:.2f}"),
            (
                "activations, MiB",
                f"{a.activation_bytes / 2**20:.1f}",
                f"{b.activation_bytes / 2**20:.1f}",
                f"{a.activation_bytes / b.activation_bytes:.2f}",
            ),
        ]
        widths = [max(map(len, column)) for column in zip(*rows)]
        lines = ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows]
        low, high = self.time_range
        how = f"{self.images} images a step, {self.repeats} repeats; ratios of time from {low:.2f} to {high:.2f}"
        return "\n".join([*lines, how])


def measure_cost(
    recipe: Recipe,
    prepared: Prepared,
    device: torch.device,
    precision: PrecisionContext = nullcontext,
    *,
    repeats: int = 10,
) -> Cost:
    """Time, parameters and memory of a recipe's training step, and of the baseline on the same batch.

    Args:
        recipe: whose method is measured; its backbone, batch, images and optimizer serve both sides.
        prepared: the recipe's images.
        device: where.
        precision: makes the context of the forward pass, as in training.
        repeats: pairs of steps that are timed, at least 1.

    Raises:
        ValueError: for no repeats, and as `build` and `build_loader`.
    """
    if repeats < 1:
        raise ValueError(f"repeats is {repeats}; expected at least 1 (10 is the default).")
    contrasts = METHODS[recipe.method.name].pairing == "two-views"
    baseline = replace(recipe, method=options("simclr" if contrasts else "supervised"))
    batch = next(build_loader(recipe, prepared, device).epoch(0))
    images = sum(map(len, batch.views))
    steps = [_Step(side, prepared, batch, device, precision) for side in (recipe, baseline)]
    memory = [step.activation_bytes() for step in steps]
    for step in steps * WARM_UP:
        step()
    times = [[_seconds(step, device) for step in steps] for _ in range(repeats)]
    side, other = (
        Side(step.name, statistics.median(seconds) / images, step.parameters, kept)
        for step, seconds, kept in zip(steps, zip(*times), memory)
    )
    ratios = [ours / theirs for ours, theirs in times]
    return Cost(images, repeats, side, other, statistics.median(ratios), (min(ratios), max(ratios)))


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
