"""Does every recipe train on this device: its losses and gradients beside a processor's, and its seconds a step.

A row for each recipe for small images. The processor computes in float32; the device in float32, in bfloat16 where a
recipe allows it, and compiled. Differences are relative. Networks of a method that draws at random on its device
(MoCo's groups of keys) differ by what they draw.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from benchmarks.harness import machine, versions

from relatum.core.types import Batch
from relatum.methods import Method
from relatum.recipes.building import Prepared, build, build_loader, prepare
from relatum.recipes.catalog import RECIPES
from relatum.recipes.recipe import Recipe, Train
from relatum.reports import records
from relatum.training.loop import fit

SOURCE = "digits"  # comes with scikit-learn: the machine needs no data, and no network
Precision = Callable[[], AbstractContextManager[Any]]


def recipes() -> list[str]:
    """Those for small images, whose networks fit any GPU."""
    return [
        name
        for name, entry in RECIPES.items()
        if entry.recipe.data.source.startswith("cifar") and not name.startswith("paper") and name != "teacher"
    ]


def small(recipe: Recipe, images: int, network: str, teacher: Path) -> Recipe:
    """The recipe on images that come with the library, in batches of this size."""
    data = replace(recipe.data, source=SOURCE, batch_size=images, validation=0.0, images_per_class=0)
    method = recipe.method
    if hasattr(method, "teacher") and not getattr(method, "virtual", False):
        method = replace(method, teacher=str(teacher))
    return replace(recipe, method=method, data=data, model=replace(recipe.model, name=network))


def train_teacher(network: str, folder: Path, device: str) -> None:
    """A classifier of the images, for recipes that need one."""
    recipe = small(RECIPES["supervised"](), 96, network, folder)
    train = Train(epochs=1, accelerator="cuda" if device == "cuda" else "cpu", precision="32-true")
    evaluation = replace(recipe.evaluation, run=("classifier",), every=0, figures=False)
    fit(replace(recipe, train=train, evaluation=evaluation), folder, resume=True, quiet=True)


def moved(batch: Batch, device: str) -> Batch:
    """The batch on a device."""
    views = tuple(view.to(device) for view in batch.views)
    return batch._replace(views=views, labels=batch.labels.to(device), index=batch.index.to(device))


def loss_and_gradient(method: Method, batch: Batch, precision: Precision = nullcontext) -> tuple[float, torch.Tensor]:
    """The sum of the losses, and the gradient of the backbone as one vector on the processor."""
    method.zero_grad()
    with precision():
        loss = torch.stack(list(method.losses(batch).values())).sum()
    loss.backward()
    gradients = [p.grad.float().flatten().cpu() for p in method.backbone.parameters() if p.grad is not None]
    return loss.item(), torch.cat(gradients)


def seconds_of_step(method: Method, batch: Batch, precision: Precision, device: str, repeats: int) -> float:
    """The median of some steps, forward and backward, after three that are not counted."""
    times = []
    for repeat in range(3 + repeats):
        start = time.perf_counter()
        with precision():
            loss = torch.stack(list(method.losses(batch).values())).sum()
        loss.backward()
        method.zero_grad()
        if device == "cuda":
            torch.cuda.synchronize()
        if repeat >= 3:
            times.append(time.perf_counter() - start)
    return statistics.median(times)


def measured(name: str, args: argparse.Namespace, teacher: Path) -> dict[str, float]:
    """What one recipe does on the device, beside the processor."""
    fresh, batch = _made(name, args.images, args, teacher)
    loss, gradient = loss_and_gradient(fresh(), batch)
    there = moved(batch, args.device)
    bfloat16 = partial(torch.autocast, args.device, torch.bfloat16)
    other, its_gradient = loss_and_gradient(fresh().to(args.device), there)
    half, _ = loss_and_gradient(fresh().to(args.device), there, bfloat16)
    found = {
        "loss": loss,
        "loss differs by": abs(other - loss) / abs(loss),
        "gradient differs by": ((its_gradient - gradient).norm() / gradient.norm()).item(),
        "bfloat16 differs by": abs(half - loss) / abs(loss),
    }
    size = args.images if args.device == "cpu" else RECIPES[name].recipe.data.batch_size
    fresh, batch = _made(name, size, args, teacher)
    method, there = fresh().to(args.device, memory_format=torch.channels_last).train(), moved(batch, args.device)
    for what, precision in (("float32", nullcontext), ("bfloat16", bfloat16)):
        found[f"{what}, ms a step"] = 1e3 * seconds_of_step(method, there, precision, args.device, args.repeats)
    if args.compile:
        method.backbone.compile()
        seconds = seconds_of_step(method, there, bfloat16, args.device, args.repeats)
        found["compiled bfloat16, ms a step"] = 1e3 * seconds
    return found


def _made(name: str, images: int, args: argparse.Namespace, teacher: Path) -> tuple[Callable[[], Method], Batch]:
    recipe = small(RECIPES[name](), images, args.network, teacher)
    prepared: Prepared = prepare(recipe)
    return partial(build, recipe, prepared), next(build_loader(recipe, prepared, torch.device("cpu")).epoch(0))


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; the exit status is the number of recipes that raised."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu.works", description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda", help="cpu or cuda")
    parser.add_argument("--recipes", nargs="+", default=recipes())
    parser.add_argument("--network", default="", help="resnet18 on a GPU, resnet8 on a processor")
    parser.add_argument("--images", type=int, default=96, help="of the batch whose losses are compared")
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, default=None)
    parser.add_argument("--out", type=Path, required=True, help="the JSON file")
    args = parser.parse_args(argv)
    on_processor = args.device == "cpu"
    args.network = args.network or ("resnet8" if on_processor else "resnet18")
    args.compile = not on_processor if args.compile is None else args.compile
    teacher = args.out.with_name("teacher")
    train_teacher(args.network, teacher, args.device)
    rows: dict[str, dict[str, Any]] = {}
    for name in args.recipes:
        try:
            rows[name] = measured(name, args, teacher)
        except Exception as error:  # the next recipe may work, and minutes are few
            rows[name] = {"error": f"{type(error).__name__}: {error}".splitlines()[0]}
        print(name, {k: float(f"{v:.3g}") if isinstance(v, float) else v for k, v in rows[name].items()}, flush=True)
        result = {"recipes": rows, "machine": machine(args.device, torch.get_num_threads()), "versions": versions()}
        records.write_atomically(args.out, json.dumps(result, indent=1) + "\n")
    return sum("error" in row for row in rows.values())


if __name__ == "__main__":
    sys.exit(main())
