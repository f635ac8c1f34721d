"""Encoding in chunks: the memory that it saves, and the time that it costs."""

import argparse
from collections.abc import Iterable
from functools import partial

import torch
from benchmarks.harness import Benchmark, Case, Job, Outcome, run
from torch.nn import Parameter

from relatum.core.types import Batch
from relatum.methods.contrastive.simclr import SimCLR
from relatum.networks.backbones import Backbone


def step(args: argparse.Namespace, images: int, chunk: int) -> Job:
    torch.manual_seed(0)
    backbone = Backbone(args.backbone)
    backbone.chunk = chunk
    method = SimCLR(backbone).to(args.device).to(memory_format=torch.channels_last)
    g = torch.Generator().manual_seed(1)
    views = tuple(torch.randn(images, 3, args.size, args.size, generator=g).to(args.device) for _ in range(2))
    batch = Batch.unlabeled(*views)

    def job() -> Outcome:
        method.zero_grad()
        loss = sum(method.losses(batch).values(), torch.zeros((), device=args.device))
        loss.backward()
        return lambda: {"loss": loss.item(), "gradient norm": norm(method.parameters())}

    return job


def norm(parameters: Iterable[Parameter]) -> float:
    gradients = [p.grad for p in parameters if p.grad is not None]
    return torch.stack([g.norm() for g in gradients]).norm().item()


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--backbone", default="convnext_atto", help="a network without batch statistics")
    parser.add_argument("--size", type=int, default=64, help="height and width of the views")
    parser.add_argument("--images", type=int, nargs="+", default=[64, 128, 256], help="there are twice as many views")
    parser.add_argument("--chunk", type=int, default=32, help="views encoded at a time")


def cases(args: argparse.Namespace) -> dict[str, Case]:
    sides = {f"chunks of {args.chunk}": args.chunk, "at once": 0}
    return {
        f"SimCLR, {args.backbone}, {images} images of {args.size}x{args.size}": Case(
            {name: partial(step, args, images, chunk) for name, chunk in sides.items()},
        )
        for images in args.images
    }


BENCHMARK = Benchmark(
    name="chunks",
    question="What does encoding in chunks save, and what does it cost?",
    work=(
        "the losses and all gradients of a SimCLR batch of random views: the chunks are encoded without a gradient, "
        "the loss compares all views, and the backward pass encodes chunk by chunk again. Loss and gradient norm must "
        "agree to 0.1 %."
    ),
    limits=(
        "a network with batch normalization, for which chunks are another computation. What does not grow with the "
        "number of chunks is what the encoder holds; embeddings, the images themselves and the gradients are there on "
        "both sides."
    ),
    arguments=arguments,
    cases=cases,
)

if __name__ == "__main__":
    run(BENCHMARK)
