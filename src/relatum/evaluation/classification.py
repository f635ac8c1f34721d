"""How often a classifier is right, and whether it knows: top-k accuracy and calibration."""

import torch
from jaxtyping import Float, Int
from torch import Tensor


def classes_before(scores: Float[Tensor, "*n k"], labels: Int[Tensor, "*#n"]) -> Int[Tensor, "*n"]:
    """How many classes come before the true one: 0 is a hit. Equal scores: the lower class comes first.

    A class scored -inf is no candidate: as the true class all k come before it, so that it never counts as found.

    Raises:
        ValueError: if a score is NaN, which would compare as smaller than everything and look like a hit.
    """
    if scores.isnan().any():
        raise ValueError("scores hold NaN; expected numbers: the classifier has diverged")
    classes = scores.shape[-1]
    true = labels.expand(scores.shape[:-1])[..., None]
    own = scores.gather(-1, true)
    lower = torch.arange(classes, device=scores.device) < true
    before = ((scores > own) | ((scores == own) & lower)).sum(-1)
    return before.masked_fill(own.squeeze(-1) == -torch.inf, classes)


def hit_rates(before: Int[Tensor, " n"], classes: int, topk: tuple[int, ...] = (1, 5)) -> dict[str, float]:
    """`{"top1": ..., "top5": ...}` in percent. Top-k of at most k classes is 100 whatever the model: left out."""
    return {f"top{k}": 100 * (before < k).double().mean().item() for k in topk if k == 1 or k < classes}


def accuracy(
    logits: Float[Tensor, "n k"], labels: Int[Tensor, " n"], topk: tuple[int, ...] = (1, 5)
) -> dict[str, float]:
    """Percent of samples whose class is among the `topk` largest logits; equal logits: the lower class first.

    Args:
        logits: scores of any scale; only their order counts.
        labels: classes in [0, k).
        topk: the cut-offs; one that is no smaller than the number of classes says nothing and is left out.

    Raises:
        ValueError: if there is no sample, a label is out of range or a logit is NaN.
    """
    refuse_labels(logits, labels)
    return hit_rates(classes_before(logits, labels), logits.shape[1], topk)


def expected_calibration_error(logits: Float[Tensor, "n k"], labels: Int[Tensor, " n"], bins: int = 15) -> float:
    """`sum_b |B_b| / n |acc(B_b) - conf(B_b)|` in percent, over `bins` equal-width bins of the confidence.

    The confidence of a sample is its largest softmax probability; bin b holds confidences in (b / bins,
    (b + 1) / bins]. Source: Guo et al. 2017, "On Calibration of Modern Neural Networks", Eq. 3.

    Args:
        logits: unnormalized log-probabilities.
        labels: classes in [0, k).
        bins: number of bins, at least 1.

    Raises:
        ValueError: if there is no sample or bin, a label is out of range or a logit is NaN.
    """
    if bins < 1:
        raise ValueError(f"bins={bins}; expected at least 1 (15 is usual)")
    refuse_labels(logits, labels)
    correct = (classes_before(logits, labels) == 0).double()
    confidence = logits.double().softmax(1).amax(1)
    index = (confidence * bins).ceil().long().sub(1).clamp(0, bins - 1)
    gap = torch.zeros(bins, dtype=torch.double, device=logits.device)
    return 100 * gap.index_add(0, index, correct - confidence).abs().sum().item() / len(labels)


def refuse_labels(logits: Float[Tensor, "n k"], labels: Int[Tensor, " n"]) -> None:
    """Raise unless there is a sample and each label names a column of `logits`."""
    if len(labels) == 0:
        raise ValueError("no sample to score; expected at least one")
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= logits.shape[1]:
        raise ValueError(
            f"labels run from {low} to {high}; expected [0, {logits.shape[1]}) for {logits.shape[1]} logits: "
            "is the classifier of another data set, or an image unlabeled (-1)?"
        )
