"""What the Jaccard relation and the three-term loss cost over the cosine, as a part of a whole step."""

import argparse
import math
from functools import partial

import torch
from benchmarks.harness import Benchmark, Case, Job, Target, run
from benchmarks.step import autocast, setting, simclr, whole_step

from relatum.losses.objectives import two_view_contrast
from relatum.relations import Cosine, Jaccard, Relation

KINDS: dict[str, tuple[Relation, tuple[float, ...]]] = {
    "cosine": (Cosine(), ()),
    "Jaccard": (Jaccard(), ()),
    "three terms": (Jaccard(), (1 / 3, 1 / 3)),
}


def head_and_loss(args: argparse.Namespace, relation: Relation, alphas: tuple[float, ...]) -> Job:
    """Projector and loss, forward and backward, from features that are there."""
    method = simclr(args, relation, alphas)
    features = torch.rand(2 * args.batch, method.backbone.embedding_dim, device=args.device, requires_grad=True)

    def job() -> None:
        with autocast(args):
            terms = two_view_contrast(*method.projector(features).chunk(2), method.terms)
        sum(terms.values(), torch.zeros((), device=args.device)).backward()
        method.zero_grad()
        features.grad = None

    return job


def cases(args: argparse.Namespace) -> dict[str, Case]:
    steps = {f"{name} step": partial(whole_step, args, *kind) for name, kind in KINDS.items()}
    parts = {f"{name} head and loss alone": partial(head_and_loss, args, *kind) for name, kind in KINDS.items()}
    targets = [Target(f"{name} step", at_most=1.02, paper=1.11) for name in ("Jaccard", "three terms")]
    return {
        f"SimCLR, {args.backbone}, {2 * args.batch} views of {args.size}x{args.size}, {args.precision}": Case(
            steps | parts,
            targets=targets,
            tolerance=math.inf,  # the networks are meant to differ, by a projector
        )
    }


BENCHMARK = Benchmark(
    name="jaccard",
    question="What does Jaccard cost over the cosine?",
    work=(
        "a whole SimCLR step of Relatum: views, encoder, projector (two perceptrons for Jaccard, one for the cosine), "
        "loss, backward, SGD. The last rows are the projector and the loss alone, forward and backward on features "
        "that are there, over the whole cosine step: what two of them differ by is the overhead, free of the encoder's "
        "noise. The paper's 1.11 is the time of its own two programs, on a GPU."
    ),
    limits=(
        "the share falls with the cost of the encoder and grows with the batch: the loss is quadratic in it, the "
        "encoder linear. On a GPU a small batch pays for the number of kernels, not for the arithmetic."
    ),
    arguments=setting,
    cases=cases,
)

if __name__ == "__main__":
    run(BENCHMARK)
