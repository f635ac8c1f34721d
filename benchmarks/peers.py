"""The losses of distillation, beside torchdistill's."""

import argparse
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from benchmarks.harness import Benchmark, Case, Job, Outcome, run
from torch import Tensor
from torch.nn import functional as F

from relatum.losses.objectives import kl_divergence
from relatum.methods.distill.at import attention_loss
from relatum.methods.distill.cc import correlation_loss
from relatum.methods.distill.crd import chosen_logits, nce_loss
from relatum.methods.distill.dist import correlation_gaps
from relatum.methods.distill.distiller import standardized
from relatum.methods.distill.review_kd import hierarchical_context_loss
from relatum.methods.distill.rkd import angle_loss, distance_loss, distances
from relatum.methods.distill.sp import similarity_loss
from relatum.relations import Cosine

Loss = Callable[[Tensor, Tensor], Tensor]

MAPS = (64, 8, 8)
SHAPES = {  # of one image: ResNet-20's on CIFAR-100
    "KD": (100,),
    "KD of standardized logits": (100,),
    "DIST": (100,),
    "AT": MAPS,
    "SP": MAPS,
    "CC": (128,),
    "RKD": (64,),
    "ReviewKD": MAPS,
    "CRD": (128,),
}
BANK, SAMPLES = 50_000, 4096  # of CRD: its authors' on CIFAR-100
LARGEST = {"RKD": 256, "CRD": 1024}
"""The most images at which a side fits in memory: all triples of images, or a copy of each image's own samples."""


def drawn(rows: int) -> tuple[Tensor, Tensor, Tensor]:
    """Two banks of CRD, and which of their rows each image meets: its own first."""
    g = torch.Generator().manual_seed(1)
    banks = [F.normalize(torch.randn(BANK, *SHAPES["CRD"], generator=g)) for _ in range(2)]
    columns = torch.randint(BANK, (rows, SAMPLES + 1), generator=g)
    columns[:, 0] = torch.arange(rows)
    return banks[0], banks[1], columns


def relatum_loss(name: str, rows: int) -> Loss:
    match name:
        case "KD":
            return lambda s, t: kl_divergence(s, t, 4.0)
        case "KD of standardized logits":
            # torchdistill divides by another deviation, which is another temperature, and multiplies by its own.
            temperature = 2.0 * (100 / 99) ** 0.5
            return lambda s, t: (4 / temperature**2) * kl_divergence(standardized(s), standardized(t), temperature)
        case "DIST":
            return lambda s, t: 4 * torch.stack(correlation_gaps(s, t, 2.0)).sum()
        case "AT":
            return lambda s, t: attention_loss([s], [t], "squared")
        case "ReviewKD":
            return hierarchical_context_loss
        case "CRD":
            student_bank, teacher_bank, columns = drawn(rows)

            def crd(s: Tensor, t: Tensor) -> Tensor:
                found = []
                for query, bank in ((F.normalize(s), teacher_bank), (F.normalize(t), student_bank)):
                    logits = chosen_logits(query, bank, columns, Cosine(), 0.07)
                    scale = logits.detach().logsumexp((0, 1)) - math.log(logits.numel())
                    found.append(nce_loss(logits, scale))
                return torch.stack(found).sum()

            return crd
        case "RKD":

            def rkd(s: Tensor, t: Tensor) -> Tensor:
                a, b = distances(s), distances(t)
                return 25 * distance_loss(a, b, "all") + 50 * angle_loss(a, b, "all")

            return rkd
        case "SP":
            return similarity_loss
    return correlation_loss


def torchdistill_loss(name: str, rows: int) -> Loss:
    from torchdistill.losses import mid_level as peers

    factor = 1.0
    match name:
        case "KD":
            module, factor = peers.KDLoss("f", "output", "f", "output", temperature=4.0, alpha=0), 16.0
        case "KD of standardized logits":
            module = peers.LogitStdKDLoss("f", "output", "f", "output", temperature=2.0, alpha=1e-30, beta=1.0)
            labels = torch.zeros(rows, dtype=torch.long)  # its weight of them is as good as 0, which it refuses
            return lambda s, t: module({"f": {"output": s}}, {"f": {"output": t}}, labels)
        case "DIST":
            module = peers.DISTLoss("f", "output", "f", "output", beta=1.0, gamma=1.0, tau=2.0)
        case "AT":
            place = {"path": "f", "io": "output"}
            module = peers.ATLoss({"pair": {"student": place, "teacher": place, "weight": 1}}, mode="code")
        case "SP":
            module = peers.SPKDLoss("f", "f", "batchmean")
        case "RKD":
            module = peers.RKDLoss("f", "f", 25, 50, "mean")
        case "ReviewKD":
            module = peers.HierarchicalContextLoss("f", "output", "f", "output")
            return lambda s, t: module({"f": {"output": (s, None)}}, {"f": {"output": t}})
        case "CRD":
            return _torchdistill_crd(peers, rows)
        case _:
            # A distance where the paper squares, and rows that it takes as they come.
            kernel = peers.CCKDLoss("f", "f", {"type": "gaussian", "gamma": 0.4, "max_p": 2}, "batchmean")
            return lambda s, t: (
                len(s) * kernel({"f": {"output": F.normalize(s)}}, {"f": {"output": F.normalize(t)}})
            ).square()
    return lambda s, t: factor * module({"f": {"output": s}}, {"f": {"output": t}})


def _torchdistill_crd(peers: Any, rows: int) -> Loss:
    module = peers.CRDLoss("n", "e", "n", *SHAPES["CRD"], BANK, SAMPLES, BANK, temperature=0.07, eps=0.0)
    student_bank, teacher_bank, columns = drawn(rows)

    def crd(s: Tensor, t: Tensor) -> Tensor:
        # As at the first step of a training: the banks and constants are as they were, whatever the last call did.
        module.memory_v1, module.memory_v2, module.params[2:4] = student_bank.clone(), teacher_bank.clone(), -1
        supplied = {"pos_idx": columns[:, 0], "contrast_idx": columns}
        student = {"n": {"output": F.normalize(s)}, "e": {"input": supplied}}
        return module(student, {"n": {"output": F.normalize(t)}}).squeeze()

    return crd


def forward_backward(args: argparse.Namespace, name: str, rows: int, make: Callable[[str, int], Loss]) -> Job:
    loss = make(name, rows)
    g = torch.Generator().manual_seed(0)
    student, teacher = (torch.randn(rows, *SHAPES[name], generator=g).to(args.device) for _ in range(2))
    student.requires_grad_()

    def job() -> Outcome:
        student.grad = None
        # The hierarchical loss of torchdistill changes what it is given.
        value = loss(student * 1 if name == "ReviewKD" else student, teacher)
        value.backward()
        if name == "SP":  # torchdistill scales rows by the sum of their magnitudes: as much work, another value
            return dict
        return lambda: {"loss": value.item(), "gradient norm": student.grad.norm().item()}

    return job


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--sizes", type=int, nargs="+", default=[256, 1024, 4096], help="images")
    parser.add_argument("--tasks", nargs="+", choices=list(SHAPES), default=list(SHAPES))


def cases(args: argparse.Namespace) -> dict[str, Case]:
    makers = {"relatum": relatum_loss, "torchdistill": torchdistill_loss}
    return {
        f"{name}, {rows} images": Case(
            {side: partial(forward_backward, args, name, rows, make) for side, make in makers.items()}
        )
        for name in args.tasks
        for rows in args.sizes
        if rows <= LARGEST.get(name, rows)
    }


BENCHMARK = Benchmark(
    name="peers",
    question="How fast are the losses of distillation, beside torchdistill's?",
    work=(
        "value and gradient for the student's features, of the shapes that ResNet-20 has on CIFAR-100; loss and "
        "gradient must agree to 0.1 %. RKD is over all tuples on both sides (torchdistill's form; Relatum's default "
        "leaves out tuples that repeat an image), distances and angles. CC is brought to the paper's form: "
        "torchdistill's distance is squared, and its rows are normalized before. CRD: 4,096 samples an image from a "
        "bank of 50,000, given to both; torchdistill copies each image's samples, which does not fit beyond 1,024 "
        "images, as all triples of RKD do not beyond 256. torchdistill has no DKD and no SEED."
    ),
    limits=(
        "these losses are a small part of a step (see `distill`). SP's values differ, because torchdistill scales the "
        "rows of the similarity matrix by the sum of their magnitudes and the paper by their length; the work is the "
        "same. Relatum's distances are in float64, as close pairs cancel in float32. Of CC at 4,096 images "
        "torchdistill's value is 0.14 % off in float32: in float64 it has Relatum's, 0.0020241."
    ),
    arguments=arguments,
    cases=cases,
)

if __name__ == "__main__":
    run(BENCHMARK)
