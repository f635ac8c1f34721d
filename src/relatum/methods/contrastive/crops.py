"""Multi-crop: large and small crops of an image, and which of them meet.

    L = 1 / |T| sum_{(i, v) in T} l(i, v),   T = {(i, v): i a large crop, v any other crop of the image}

Mathilde Caron, Ishan Misra, Julien Mairal, Priya Goyal, Piotr Bojanowski, Armand Joulin: Unsupervised Learning of
Visual Features by Contrasting Cluster Assignments. NeurIPS 2020, Eq. (6). Small crops see what large ones say, and no
small crop meets a small one.
"""

from collections import Counter
from collections.abc import Sequence
from itertools import groupby

import torch
from jaxtyping import Float
from torch import Tensor

from relatum.core.precision import full_precision
from relatum.core.types import Batch
from relatum.networks.backbones import Backbone


def embed_crops(backbone: Backbone, views: Sequence[Float[Tensor, "n c _h _w"]]) -> Float[Tensor, "m d"]:
    """The features of all views one after the other, `m = n len(views)`: a forward pass for each size.

    Args:
        backbone: the encoder.
        views: those of one size are neighbors.
    """
    sizes = (torch.cat(list(same)) for _, same in groupby(views, key=lambda view: view.shape[2:]))
    return torch.cat([backbone.embed(images) for images in sizes])


@full_precision
def told_by_large(
    scores: Float[Tensor, "v n k"], targets: Float[Tensor, "l n k"], temperature: float
) -> Float[Tensor, ""]:
    """`-1 / |T| sum_{(i, v) in T} mean_n sum_k targets_i log softmax(scores_v / temperature)`.

    Args:
        scores: of all crops, the large ones first.
        targets: a distribution for each large crop of each image.
        temperature: that of the scores.

    Raises:
        ValueError: for fewer than two crops.
    """
    large, crops = len(targets), len(scores)
    if crops < 2:
        raise ValueError(f"{crops} crop of an image has nothing to tell another; expected at least 2.")
    logs = (scores / temperature).log_softmax(2)
    heard = targets.flatten(1) @ logs.flatten(1).T
    itself = torch.eye(large, crops, dtype=torch.bool, device=scores.device)
    return -heard.masked_fill(itself, 0).sum() / (large * (crops - 1) * scores.shape[1])


def crop_pairs(batch: Batch) -> Counter[tuple[int, int]]:
    """How often two views meet in the sum over T of a loss that is the same in both directions: 2 for large ones.

    Raises:
        ValueError: for fewer than two views, or no large one.
    """
    if len(batch.views) < 2 or batch.large < 1:
        raise ValueError(
            f"a batch of {batch.large} large and {batch.small} small crops has no pair to compare; expected a large "
            "crop and another one."
        )
    terms = ((i, v) for i in range(batch.large) for v in range(len(batch.views)) if v != i)
    return Counter((min(term), max(term)) for term in terms)
