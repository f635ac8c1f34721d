"""Networks that score a pair of images from the feature maps of a stage.

CORSD (Yu et al. 2023, Section 2.1) splits the relation network of depth i into `Phi = psi o g`:

    Z = g([f_o, f_x])    feature projection layers: separable convolutions, then the mean over the positions
    R = psi(Z)           relational interaction block: fully connected layers

`R` is a *distance*: smaller is more alike. The relations of `relatum.relations` are similarities, larger is more
alike; where one of them stands in for `psi`, the distance is its negative.

All pairs of a batch go through together, as n anchors and a multiple m of n partners: partner j belongs to anchor
`j mod n`. The concatenation `[f_o, f_x]` is never made. The first depthwise convolution of a concatenation is the
concatenation of two depthwise convolutions, and the first pointwise one is a sum, `W [a, b] = W_a a + W_b b`: the
anchor's summand is computed once and shared by its partners. This is exact up to the first batch norm.
"""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from itertools import pairwise
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from relatum.core.precision import at_least_float32
from relatum.networks.heads import Projector, mlp, separable
from relatum.relations import Relation

__all__ = [
    "Activation",
    "Comparison",
    "ImageProjection",
    "Interaction",
    "PairProjection",
    "checkpointed",
    "stack_pairs",
]

Activation = Literal["sigmoid", "softplus", "none"]


def stack_pairs(rows: Float[Tensor, "t d"], anchors: int) -> Float[Tensor, "m _d"]:
    """`[a, b]` of each partner `b` and its anchor `a`: the first `anchors` rows, then all others."""
    partners = rows[anchors:]
    return torch.cat([rows[:anchors].repeat(len(partners) // anchors, 1), partners], dim=1)


def _norm(width: int) -> list[nn.Module]:
    return [nn.BatchNorm2d(width), nn.ReLU(inplace=True)]


def _rest(widths: list[int]) -> nn.Sequential:
    """All that follows the first pointwise convolution: block t takes `widths[t]` channels to `widths[t + 1]`."""
    layers = [*_norm(widths[0]), separable(widths[0], widths[1], 1), *_norm(widths[1])]
    for before, after in pairwise(widths[1:]):
        layers += [separable(before, before, 2), *_norm(before), separable(before, after, 1), *_norm(after)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())


def _widths(width: int, layers: int) -> list[int]:
    """A width for each block's input, each half of the next, and `width` at the end."""
    return [max(1, width >> (layers - t)) for t in range(layers + 1)]


def _in_groups(module: nn.Module, x: Tensor, groups: int) -> Tensor:
    """`module` of each of `groups` equal parts of the batch, so that each has batch statistics of its own."""
    return module(x) if groups == 1 else torch.cat([module(part) for part in x.chunk(groups)])


class PairProjection(nn.Module):
    """Feature projection layers `g` on the concatenated maps of two images (CORSD, Section 2.1).

    `layers` separable convolutions, each (depthwise 3x3 of stride 2, pointwise, batch norm, ReLU, depthwise 3x3,
    pointwise to twice the width, batch norm, ReLU), then the mean over the positions. The first pointwise convolution
    takes the 2C channels of the pair to `width / 2^layers`, which are 2C again unless the width is capped.

    Args:
        channels: channels C of one image's map.
        width: width of the output.
        layers: separable convolutions, at least 1.
        groups: equal parts of the partners, each with batch statistics of its own.
    """

    def __init__(self, channels: int, width: int, layers: int, *, groups: int = 1) -> None:
        super().__init__()
        widths = _widths(width, layers)
        self.anchor = separable(channels, widths[0], 2)
        self.partner = separable(channels, widths[0], 2)
        self.rest = _rest(widths)
        self.groups = groups
        self.out_width = widths[-1]

    def forward(self, maps: Float[Tensor, "t c h w"], anchors: int) -> Float[Tensor, "m _d"]:
        """`Z` of each partner; the first rows of `maps` are the anchors, all others partners."""
        summed = self.partner(maps[anchors:]).unflatten(0, (-1, anchors)) + self.anchor(maps[:anchors])
        return _in_groups(self.rest, summed.flatten(0, 1), self.groups)


class ImageProjection(nn.Module):
    """Feature projection layers on single images; the projections of a pair are concatenated, `Z = [g(f_o), g(f_x)]`.

    With no layers it is the mean over the positions: the paper's `g` at the deepest stage, where pooling the
    concatenation is concatenating the pooled. With layers it is what a relation compares: both images pass the same
    weights, and each image once.

    Args:
        channels: channels of one image's map.
        width: width of the output for a pair, even; without layers it is twice the channels.
        layers: separable convolutions as in `PairProjection`.
    """

    def __init__(self, channels: int, width: int, layers: int) -> None:
        super().__init__()
        widths = _widths(width // 2, layers)
        self.network: nn.Module
        if layers:
            self.network = nn.Sequential(separable(channels, widths[0], 2), _rest(widths))
        else:
            self.network = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.out_width = 2 * (widths[-1] if layers else channels)

    def forward(self, maps: Float[Tensor, "t c h w"], anchors: int) -> Float[Tensor, "m _d"]:
        """`Z` of each partner; the first rows of `maps` are the anchors, all others partners."""
        return stack_pairs(self.network(maps), anchors)


class Interaction(nn.Module):
    """The relational interaction block `psi`: a learned distance of the two images in a pair (CORSD, Section 2.1).

    Fully connected, batch norm, ReLU, fully connected, activation.

    Args:
        width: width of the pair's features.
        hidden_width: width of the hidden layer.
        activation: "sigmoid" gives distances in (0, 1), "softplus" in (0, inf), "none" any number.
        groups: equal parts of the batch, each with batch statistics of its own.
    """

    def __init__(self, width: int, hidden_width: int, *, activation: Activation = "sigmoid", groups: int = 1) -> None:
        super().__init__()
        self.network = mlp((width, hidden_width, 1))
        self.activation = activation
        self.groups = groups

    def forward(self, pairs: Float[Tensor, "m _d"]) -> Float[Tensor, " m"]:
        score = at_least_float32(_in_groups(self.network, pairs, self.groups).squeeze(1))
        if self.activation == "none":
            return score
        return score.sigmoid() if self.activation == "sigmoid" else F.softplus(score)


class Comparison(nn.Module):
    """A relation in place of the interaction block: the distance of a pair is `-relation(h(a), h(b))`, `Z = [a, b]`.

    `h` has the fully connected layers of the interaction block, on each image by itself, and ends in unit vectors, one
    for each space of the relation (two for Jaccard: a bi-projector) instead of one number. The range is that of the
    relation: Euclidean [0, 2], Cosine [-1, 1], clamped Jaccard [-1, 0).

    Args:
        width: width of the pair's features, twice that of an image's.
        hidden_width: width of the hidden layer, and of each unit vector.
        relation: how two images compare.
    """

    def __init__(self, width: int, hidden_width: int, relation: Relation) -> None:
        super().__init__()
        self.projector = Projector(width // 2, hidden_width, hidden_width, spaces=relation.spaces)
        self.relation = relation

    def forward(self, pairs: Float[Tensor, "m _d"]) -> Float[Tensor, " m"]:
        a, b = self.projector(torch.cat(pairs.chunk(2, dim=1))).chunk(2)
        return -self.relation.matched(a, b)


def checkpointed(projection: nn.Module, maps: Float[Tensor, "t c h w"], anchors: int) -> Float[Tensor, "m _d"]:
    """`projection(maps, anchors)`, which keeps nothing for the backward pass and runs again there (Chen et al. 2016).

    Values, gradients and running statistics are those of one plain call: the second run moves copies of the statistics.
    """
    return checkpoint(
        projection,
        maps,
        anchors,
        use_reentrant=False,
        preserve_rng_state=False,  # nothing is drawn
        context_fn=lambda: (nullcontext(), _buffers_kept(projection)),
    )


@contextmanager
def _buffers_kept(module: nn.Module) -> Iterator[None]:
    """Let what happens inside move copies of the buffers; the buffers themselves come back as they were."""
    owners = [(m, dict(m._buffers)) for m in module.modules()]
    for owner, buffers in owners:
        owner._buffers.update({name: None if b is None else b.clone() for name, b in buffers.items()})
    try:
        yield
    finally:
        for owner, buffers in owners:
            owner._buffers.update(buffers)
