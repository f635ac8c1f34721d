"""The alarm of a run: when the features of different images have become the same."""

from collections.abc import Mapping, Sequence

LEAST = 2.0
"""Directions that features must use. The effective rank is 1 where all images lie on one line through the origin, which
is a complete collapse, and 2 for two directions of equal weight."""

SHARE = 0.25
"""Of the largest effective rank of the run so far. Encoders that learn gain directions: on held-out digits SimCLR, BYOL
and SimSiam with a ResNet-8 went from 5.5 (untrained) to between 9 and 13, and none fell below 0.9 of its largest;
SimSiam without its predictor and its stopped gradient lost three quarters within 60 steps (4.9 to 1.1 with a small
transformer, 11.6 to 2.5 with a ResNet-8 that decays)."""


def alarm(history: Sequence[Mapping[str, float]]) -> str:
    """What a run without labels is to be told of the effective rank of its features; "" for nothing.

    They have collapsed where it is below `LEAST`, a complete collapse, or below `SHARE` of the largest so far, which is
    one of dimensions (Jing et al. 2022, "Understanding Dimensional Collapse in Contrastive Self-supervised Learning").
    Features that were trained with labels gather around as many directions as there are classes, and are meant to
    (Papyan et al. 2020): of such methods nothing is asked here.

    Args:
        history: the entries of the epochs; those with `effective_rank` count.

    Returns:
        the first epoch at which it was so, what was measured, and what to do.
    """
    largest = 0.0
    for entry in history:
        rank = entry.get("effective_rank")
        if rank is None:
            continue
        largest = max(largest, rank)
        if rank < LEAST or rank < SHARE * largest:
            before = f", and had been {largest:.1f}" if largest > rank else ""
            return (
                f"collapse: after epoch {entry['epoch']:.0f} the effective rank of the features is {rank:.2f}{before}: "
                "different images have nearly the same features. Lower --optim.lr or let it rise slowly "
                "(--optim.warmup-epochs 10), and see what holds images apart: negatives (--data.batch-size, a larger "
                "queue, a lower temperature), a predictor, or a slower copy (a momentum closer to 1)."
            )
    return ""
