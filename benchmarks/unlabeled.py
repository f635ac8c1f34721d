"""Losses without labels, beside lightly's."""

import argparse
from collections.abc import Callable
from functools import partial

import torch
from benchmarks.harness import Benchmark, Case, Job, Outcome, run
from torch import Tensor

from relatum.losses.queries import in_batch_loss, most_alike, relation_consistency
from relatum.losses.sketches import gaussian_distance
from relatum.methods.contrastive.barlow_twins import barlow_terms
from relatum.methods.contrastive.vicreg import vicreg_terms
from relatum.relations import Cosine, unit

Loss = Callable[[Tensor, Tensor], Tensor]

COORDINATES = ("Barlow Twins", "VICReg")  # whose cost grows with the width
LINES, QUEUE, WIDTH = 1024, 16384, 256
TASKS = (*COORDINATES, "SIGReg", "NNCLR", "in the batch", "ReSSL")


def relatum_loss(task: str, width: int) -> Loss:
    queue = unit(torch.randn(QUEUE, width, generator=torch.Generator().manual_seed(2)))
    match task:
        case "Barlow Twins":

            def barlow(a: Tensor, b: Tensor) -> Tensor:
                invariance, redundancy = barlow_terms(a, b)
                return invariance + 5e-3 * redundancy

            return barlow
        case "VICReg":

            def vicreg(a: Tensor, b: Tensor) -> Tensor:
                invariance, variance, covariance = vicreg_terms(a, b)
                return 25 * invariance + 25 * variance / 2 + covariance

            return vicreg
        case "SIGReg":

            def sigreg(a: Tensor, b: Tensor) -> Tensor:
                torch.manual_seed(0)
                lines = torch.randn(width, LINES)
                lines = (lines / lines.norm(dim=0)).T.contiguous()  # those that lightly draws
                return (gaussian_distance(a, lines, 3.0, 33) + gaussian_distance(b, lines, 3.0, 33)) / 2

            return sigreg
        case "NNCLR":
            return lambda a, b: in_batch_loss(queue[most_alike(a, queue)], b, Cosine(), 0.1)
        case "in the batch":
            return lambda a, b: in_batch_loss(a, b, Cosine(), 0.2)
    return lambda a, b: relation_consistency(a, b, queue, Cosine(), 0.1, 0.04)


def plain_loss(task: str, width: int) -> Loss:
    queue = unit(torch.randn(QUEUE, width, generator=torch.Generator().manual_seed(2)))
    if task == "in the batch":
        return lambda a, b: in_batch_loss(a, b, Cosine(), 0.2, None)
    return lambda a, b: relation_consistency(a, b, queue, Cosine(), 0.1, 0.04, None)


def lightly_loss(task: str, width: int) -> Loss:
    from lightly import loss
    from lightly.models.modules import NNMemoryBankModule

    match task:
        case "Barlow Twins":
            return loss.BarlowTwinsLoss()
        case "VICReg":
            return loss.VICRegLoss()
        case "SIGReg":
            criterion = loss.LeJEPALoss(sigreg_num_vectors=LINES).sigreg

            def sigreg(a: Tensor, b: Tensor) -> Tensor:
                torch.manual_seed(0)
                return criterion(torch.stack([a, b]))

            return sigreg
    bank, contrast = NNMemoryBankModule(size=(QUEUE, width)), loss.NTXentLoss(temperature=0.1)
    return lambda a, b: contrast(bank(a.detach(), update=False), b)


SIDES = {"relatum": relatum_loss, "lightly": lightly_loss, "plain, all pairs at once": plain_loss}


def forward_backward(args: argparse.Namespace, task: str, rows: int, width: int, side: str) -> Job:
    loss = SIDES[side](task, width)
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(rows, width, generator=generator).to(args.device).requires_grad_() for _ in range(2))

    def job() -> Outcome:
        a.grad = b.grad = None
        value = loss(a, b)
        value.backward()
        if task == "NNCLR":  # lightly's contrast has other negatives: another value, and more work
            return dict
        gradients = [z.grad for z in (a, b) if z.grad is not None]
        return lambda: {"loss": value.item(), "gradient norm": torch.cat(gradients).norm().item()}

    return job


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--sizes", type=int, nargs="+", default=[256, 1024, 4096], help="images")
    parser.add_argument("--widths", type=int, nargs="+", default=[128, 2048, 8192], help="of Barlow Twins and VICReg")
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))


def cases(args: argparse.Namespace) -> dict[str, Case]:
    found = {}
    for task in args.tasks:
        peer = "plain, all pairs at once" if task in ("in the batch", "ReSSL") else "lightly"
        for rows in args.sizes:
            for width in args.widths if task in COORDINATES else [128 if task == "SIGReg" else WIDTH]:
                found[f"{task}, {rows} images, {width} wide"] = Case(
                    {side: partial(forward_backward, args, task, rows, width, side) for side in ("relatum", peer)}
                )
    return found


BENCHMARK = Benchmark(
    name="unlabeled",
    question="What do the losses without labels cost, beside lightly's?",
    work=(
        "value and gradient of the same loss on the same float32 projections of two views; loss and gradient must "
        f"agree to 0.1 %. SIGReg: {LINES} lines through each view, at the frequencies of lightly and of the authors' "
        f"package. NNCLR: the search in a queue of {QUEUE} and one direction of the loss, for which lightly's users "
        "take NT-Xent: four times the pairs, another value. lightly has no loss for keys of the batch alone (MoCo v3), "
        f"nor for ReSSL; there our own plain form stands beside the blocks, with a queue of {QUEUE} for ReSSL."
    ),
    limits=(
        "how much of a step the loss is, and several processes, which all compute the loss of the whole batch. Where "
        "lightly's Barlow Twins is faster (128 coordinates), ours pays for centering before it normalizes: a seventh "
        "to a fifth of its time there, without which a large mean cancels digits away."
    ),
    arguments=arguments,
    cases=cases,
)

if __name__ == "__main__":
    run(BENCHMARK)
