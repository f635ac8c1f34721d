"""Where the time of a training step goes, and a bare loop over the same encoder."""

import argparse
from functools import partial

import torch
from benchmarks.harness import Benchmark, Case, Job, Target, run
from benchmarks.jaccard import KINDS, head_and_loss
from benchmarks.step import autocast, batches, optimizer_of, setting, simclr, whole_step

from relatum.networks.backbones import Backbone


def loading_and_views(args: argparse.Namespace) -> Job:
    stream = batches(args)

    def job() -> None:
        next(stream)

    return job


def encoder(args: argparse.Namespace, step: bool) -> Job:
    """Forward and backward of the encoder on random tensors; with the optimizer's step, it is a bare loop."""
    torch.manual_seed(0)
    backbone = Backbone(args.backbone, stem="cifar").to(args.device).to(memory_format=torch.channels_last)
    views = torch.randn(2 * args.batch, 3, args.size, args.size, device=args.device)
    views = views.contiguous(memory_format=torch.channels_last)
    optimizer = optimizer_of(backbone)

    def job() -> None:
        with autocast(args):
            loss = backbone.embed(views).float().square().mean()
        loss.backward()
        if step:
            optimizer.step()
        optimizer.zero_grad()

    return job


def optimizer_step(args: argparse.Namespace) -> Job:
    method = simclr(args)
    optimizer = optimizer_of(method)

    def job() -> None:
        for parameter in method.parameters():
            parameter.grad = parameter.detach()
        optimizer.step()
        optimizer.zero_grad()

    return job


def cases(args: argparse.Namespace) -> dict[str, Case]:
    bare = "bare loop: encoder and optimizer"
    return {
        f"SimCLR, {args.backbone}, {args.batch} images of {args.size}x{args.size}, {args.precision}": Case(
            {
                "relatum, whole step": partial(whole_step, args),
                bare: partial(encoder, args, True),
                "encoder, forward and backward": partial(encoder, args, False),
                "loading and views": partial(loading_and_views, args),
                "head and loss": partial(head_and_loss, args, *KINDS["cosine"]),
                "optimizer": partial(optimizer_step, args),
            },
            targets=[Target(bare, at_least=0.95)],
        )
    }


BENCHMARK = Benchmark(
    name="parts",
    question="Where does a training step's time go?",
    work=(
        "each row is a part of Relatum's SimCLR step alone, over the whole step; the bare loop trains the same encoder "
        "at the same number of views on random tensors that are there, with the same optimizer and precision, and no "
        "head, no loss of pairs, no data."
    ),
    limits=(
        "parts timed alone find their data in the cache, and need not add up to the whole. Logging, checkpoints and "
        "the progress bar come every few steps, and are not in here: `relatum train --profile` shows a run with all."
    ),
    arguments=setting,
    cases=cases,
)

if __name__ == "__main__":
    run(BENCHMARK)
