"""Losses of all pairs: by blocks, plain, and those of other libraries."""

import argparse
from collections.abc import Callable
from functools import partial

import torch
from benchmarks.harness import Benchmark, Case, Job, Outcome, Target, run
from torch import Tensor

from relatum.losses.objectives import contrast_terms, query_key_contrast, supcon_loss, two_view_contrast
from relatum.relations import Cosine, Euclidean, Jaccard, Relation, Tanimoto

WIDTH = 128
TEMPERATURE = 0.2
ALLOCATORS = {
    "default": {},
    "kept": {"MALLOC_MMAP_THRESHOLD_": str(2**40), "MALLOC_TRIM_THRESHOLD_": str(2**40)},
}


def by_autograd(relation: Relation) -> Relation:
    """The same relation without its derivative by hand: blocks differentiate its value, a tile at a time."""
    kind = type(relation)
    relation.__class__ = type(kind.__name__, (kind,), {"value": lambda self, *x: kind.value(self, *x), "bounded": True})
    relation.__class__.low, relation.__class__.high = kind.low, kind.high
    return relation


BY_AUTOGRAD = {
    "cosine": by_autograd(Cosine()),
    "tanimoto": by_autograd(Tanimoto()),
    "jaccard": by_autograd(Jaccard()),
    "softplus": by_autograd(Jaccard("softplus")),
}
TERMS = {
    "cosine": contrast_terms(Cosine(), TEMPERATURE),
    "tanimoto": contrast_terms(Tanimoto(), TEMPERATURE),
    "euclidean": contrast_terms(Euclidean(), TEMPERATURE),
    "softplus": contrast_terms(Jaccard("softplus"), TEMPERATURE),
    "jaccard": contrast_terms(Jaccard(), TEMPERATURE),
    "three-term": contrast_terms(Jaccard(), TEMPERATURE, (0.3, 0.3)),
}
TASKS = (
    "cosine",
    "tanimoto",
    "jaccard",
    "softplus",
    "euclidean",
    "three-term",
    "cosine-keys",
    "jaccard-keys",
    "three-term-keys",
    "supcon",
)
SPEED = {"cosine": 3, "jaccard": 2, "three-term": 2}  # asked of the blocks, from 8,192 rows on


def loss_of(task: str, side: str, args: argparse.Namespace) -> Callable[[Tensor], Tensor]:
    """A function of embeddings `z` whose result is the loss."""
    if side == "lightly":
        from lightly.loss import NTXentLoss

        criterion = NTXentLoss(temperature=TEMPERATURE)
        return lambda z: criterion(*z.chunk(2))
    if side == "pytorch-metric-learning":
        from pytorch_metric_learning.losses import NTXentLoss

        criterion = NTXentLoss(temperature=TEMPERATURE)
        return lambda z: criterion(z, torch.arange(len(z) // 2, device=z.device).repeat(2))
    size = None if side == "plain" else args.block
    if task == "supcon":
        return lambda z: supcon_loss(z, torch.arange(len(z), device=z.device) % 100, Cosine(), TEMPERATURE, size)
    terms = TERMS[task.removesuffix("-keys")]
    if side == "by autograd":
        terms = contrast_terms(BY_AUTOGRAD[task], TEMPERATURE)
    if task.endswith("-keys"):
        return lambda z: sum(
            query_key_contrast(z, z.detach().roll(1, 0), z.detach(), terms, size).values(), z.new_zeros(())
        )
    return lambda z: sum(two_view_contrast(*z.chunk(2), terms, size).values(), z.new_zeros(()))


def inputs(task: str, rows: int, device: str) -> Tensor:
    spaces = 2 if task.startswith(("jaccard", "softplus", "three-term")) else 1
    generator = torch.Generator().manual_seed(0)
    return torch.randn(rows, spaces * WIDTH, generator=generator).to(device).requires_grad_()


def forward_backward(task: str, rows: int, side: str, args: argparse.Namespace) -> Job:
    loss = loss_of(task, side, args)
    loss(inputs(task, 8, args.device)).backward()
    z = inputs(task, rows, args.device)
    direction = torch.randn(z.shape, generator=torch.Generator().manual_seed(1)).to(args.device)

    def job() -> Outcome:
        z.grad = None
        value = loss(z)
        value.backward()
        return lambda: {"loss": value.item(), "gradient norm": z.grad.norm().item(), "gradient": along(z.grad)}

    def along(gradient: Tensor) -> float:
        """`5 |g| + <g, d>`: a number that tells gradients apart, and is not near zero."""
        return (5 * gradient.norm() + (gradient * direction).sum()).item()

    return job


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--sizes", type=int, nargs="+", default=[1024, 4096, 8192], help="rows of the matrix of pairs")
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--allocators", nargs="+", choices=ALLOCATORS, default=["default"])
    parser.add_argument("--block", type=lambda s: s if s == "auto" else int(s), default="auto")
    parser.add_argument("--largest-plain", type=int, default=16384, help="rows above which only blocks are tried")


def cases(args: argparse.Namespace) -> dict[str, Case]:
    found = {}
    for task in args.tasks:
        peers = ("lightly", "pytorch-metric-learning") if task == "cosine" else ()
        if task in BY_AUTOGRAD:
            peers = ("by autograd", *peers)
        for rows in args.sizes:
            sides = ("blocks", *(("plain", *peers) if rows <= args.largest_plain else ()))
            targets = []
            if task in SPEED and 8192 <= rows <= args.largest_plain and args.device == "cpu":
                targets = [Target("plain", at_least=SPEED[task]), Target("plain", "peak MiB", at_least=50)]
            for allocator in args.allocators if args.device == "cpu" else ["default"]:
                found[f"{task}, {rows} rows, {allocator} allocator"] = Case(
                    {side: partial(forward_backward, task, rows, side, args) for side in sides},
                    targets=targets,
                    environment=ALLOCATORS[allocator],
                )
    return found


BENCHMARK = Benchmark(
    name="losses",
    question="What do losses of all pairs cost, by blocks, plain, and in other libraries?",
    work=(
        f"value and gradient of the same loss on the same float32 embeddings, {WIDTH} wide in each space; loss and "
        "gradient must agree to 0.1 %. `rows` is the side of the matrix of pairs: N = rows / 2 images for the 2N-view "
        "losses, as many queries as negatives for query/keys. The allocator `default` is that of the C library as it "
        "comes, `kept` gives no memory back to the system: the page faults of fresh matrices are a large part of the "
        "plain forms' cost. `blocks` is what Relatum takes by itself at each size: plain below a measured "
        "one. `by autograd`: the same blocks, without the derivative that the relation has by hand."
    ),
    limits=(
        "how much of a step the loss is: at batches that an encoder usually takes, next to nothing (see `jaccard`). A "
        "side without a number raised, or was ended by the system; its error stands in its place."
    ),
    arguments=arguments,
    cases=cases,
)

if __name__ == "__main__":
    run(BENCHMARK)
