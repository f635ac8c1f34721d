"""The losses of distillation, beside torchdistill's."""

import argparse
from collections.abc import Callable
from functools import partial

import torch
from benchmarks.harness import Benchmark, Case, Job, Outcome, run
from torch import Tensor
from torch.nn import functional as F

from relatum.losses.objectives import kl_divergence
from relatum.methods.distill.cc import correlation_loss
from relatum.methods.distill.rkd import angle_loss, distance_loss, distances
from relatum.methods.distill.sp import similarity_loss

Loss = Callable[[Tensor, Tensor], Tensor]

SHAPES = {"KD": (100,), "RKD": (64,), "SP": (64, 8, 8), "CC": (128,)}  # of one image: ResNet-20's on CIFAR-100


def relatum_loss(name: str) -> Loss:
    match name:
        case "KD":
            return lambda s, t: kl_divergence(s, t, 4.0)
        case "RKD":

            def rkd(s: Tensor, t: Tensor) -> Tensor:
                a, b = distances(s), distances(t)
                return 25 * distance_loss(a, b, "all") + 50 * angle_loss(a, b, "all")

            return rkd
        case "SP":
            return similarity_loss
    return correlation_loss


def torchdistill_loss(name: str) -> Loss:
    from torchdistill.losses.mid_level import CCKDLoss, KDLoss, RKDLoss, SPKDLoss

    match name:
        case "KD":
            module, factor = KDLoss("f", "output", "f", "output", temperature=4.0, alpha=0), 16.0
        case "RKD":
            module, factor = RKDLoss("f", "f", 25, 50, "mean"), 1.0
        case "SP":
            module, factor = SPKDLoss("f", "f", "batchmean"), 1.0
        case _:
            # A distance where the paper squares, and rows that it takes as they come.
            kernel = CCKDLoss("f", "f", {"type": "gaussian", "gamma": 0.4, "max_p": 2}, "batchmean")
            return lambda s, t: (
                len(s) * kernel({"f": {"output": F.normalize(s)}}, {"f": {"output": F.normalize(t)}})
            ).square()
    return lambda s, t: factor * module({"f": {"output": s}}, {"f": {"output": t}})


def forward_backward(args: argparse.Namespace, name: str, make: Callable[[str], Loss]) -> Job:
    loss = make(name)
    g = torch.Generator().manual_seed(0)
    student, teacher = (torch.randn(args.batch, *SHAPES[name], generator=g).to(args.device) for _ in range(2))
    student.requires_grad_()

    def job() -> Outcome:
        student.grad = None
        value = loss(student, teacher)
        value.backward()
        if name == "SP":  # torchdistill scales rows by the sum of their magnitudes: as much work, another value
            return dict
        return lambda: {"loss": value.item(), "gradient norm": student.grad.norm().item()}

    return job


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--batch", type=int, default=128)


def cases(args: argparse.Namespace) -> dict[str, Case]:
    makers = {"relatum": relatum_loss, "torchdistill": torchdistill_loss}
    return {
        f"{name}, {args.batch} images": Case(
            {side: partial(forward_backward, args, name, make) for side, make in makers.items()}
        )
        for name in SHAPES
    }


BENCHMARK = Benchmark(
    name="peers",
    question="How fast are the losses of distillation, beside torchdistill's?",
    work=(
        "value and gradient for the student's features, of the shapes that ResNet-20 has on CIFAR-100; loss and "
        "gradient must agree to 0.1 %. RKD is over all tuples on both sides (torchdistill's form; Relatum's default "
        "leaves out tuples that repeat an image), distances and angles. CC is brought to the paper's form: "
        "torchdistill's distance is squared, and its rows are normalized before."
    ),
    limits=(
        "these losses are a small part of a step (see `distill`). SP's values differ, because torchdistill scales the "
        "rows of the similarity matrix by the sum of their magnitudes and the paper by their length; the work is the "
        "same. Relatum's distances are in float64, as close pairs cancel in float32."
    ),
    arguments=arguments,
    cases=cases,
)

if __name__ == "__main__":
    run(BENCHMARK)
