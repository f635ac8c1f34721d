"""What the relational distillation methods add to a step of knowledge distillation."""

import argparse
from functools import partial

import torch
from benchmarks.harness import Benchmark, Case, Job, Target, run

from relatum.core.types import Batch
from relatum.methods.base import Method
from relatum.methods.distill.cc import CC
from relatum.methods.distill.kd import KD
from relatum.methods.distill.rkd import RKD
from relatum.methods.distill.sp import SP
from relatum.networks.backbones import Backbone

CLASSES = 100


def method_of(side: str, student: Backbone, teacher: Backbone) -> Method:
    """KD, or KD and one more term."""
    match side:
        case "KD and RKD":
            return RKD(student, teacher=teacher, kd_weight=0.9)
        case "KD and SP":
            return SP(student, teacher=teacher, kd_weight=0.9)
        case "KD and CC":
            return CC(student, teacher=teacher, kd_weight=0.9)
    return KD(student, teacher=teacher)


def step(args: argparse.Namespace, side: str) -> Job:
    torch.manual_seed(0)
    student, teacher = (Backbone(name, stem="cifar", num_classes=CLASSES) for name in (args.student, args.teacher))
    method = method_of(side, student, teacher).to(args.device).to(memory_format=torch.channels_last)
    images = torch.randn(args.batch, 3, args.size, args.size, device=args.device)
    labels = torch.randint(CLASSES, (1, args.batch), device=args.device)
    index = torch.arange(args.batch, device=args.device)[None]
    batch = Batch((images.contiguous(memory_format=torch.channels_last),), labels, index)
    parameters = [p for p in method.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(parameters, lr=0.01, momentum=0.9, weight_decay=5e-4)

    def job() -> None:
        sum(method.losses(batch).values(), torch.zeros((), device=args.device)).backward()
        optimizer.step()
        optimizer.zero_grad()

    return job


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--student", default="resnet20", help="with the CIFAR stem")
    parser.add_argument("--teacher", default="resnet56", help="with the CIFAR stem")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--size", type=int, default=32, help="height and width of the images")


def cases(args: argparse.Namespace) -> dict[str, Case]:
    more = ("KD and RKD", "KD and SP", "KD and CC")
    return {
        f"{args.teacher} to {args.student}, {args.batch} images of {args.size}x{args.size}": Case(
            {side: partial(step, args, side) for side in ("KD", *more)},
            targets=[Target(side, at_most=1.05) for side in more],
        )
    }


BENCHMARK = Benchmark(
    name="distill",
    question="What do RKD, SP and CC add to a step of knowledge distillation?",
    work=(
        "a frozen teacher's forward pass, the student's forward and backward, cross-entropy and the divergence from "
        "the teacher's logits, SGD step, on the same random images; the others have one relational term more, with "
        "the defaults of the library (RKD: distances and angles)."
    ),
    limits="no loading and no views; on a larger student or teacher the shares fall.",
    arguments=arguments,
    cases=cases,
)

if __name__ == "__main__":
    run(BENCHMARK)
