"""ReviewKD: each stage of the teacher teaches the student's stage of that depth and, through it, all deeper ones.

    r_S = 1x1(F_S),   r_i = a_i 1x1(F_i) + b_i up(r_{i+1}),   (a_i, b_i) = sigmoid(1x1([1x1(F_i), up(r_{i+1})]))
    L = CE(z_s, y) + weight sum_i HCL(3x3(r_i), T_i)
    HCL(A, B) = (d(A, B) + sum_l 2^{-k(l)} d(pool_l A, pool_l B)) / (1 + sum_l 2^{-k(l)})

d is the mean squared difference. F_1 ... F_S are the student's maps, shallow to deep, and its embedding as a map of
one pixel; T_i the teacher's. r_i has one width at all depths; a_i and b_i are a number for each pixel. l runs over 4,
2 and 1 pixels along a side as far as they are fewer than the map has, k(l) = 1, 2, 3 counts them. Each 1x1 to the
common width and each 3x3 is followed by batch normalization.

Pengguang Chen, Shu Liu, Hengshuang Zhao, Jiaya Jia: Distilling Knowledge via Knowledge Review. CVPR 2021, Figure 3 (the
attention-based fusion) and Section 3.3 (the hierarchical context loss).

The authors' code: width min(512, that of the embedding); a weight for each pair of networks, 0.6 for ResNet-56 to 20,
1 for 110 to 32, 8 for ResNet-32x4 to ShuffleNetV2, 5 for the others that it lists; the weight grows
during the first 20 of 240 epochs, a step at each epoch (`warmup=1 / 12` grows with every step). It reads the teacher's
maps before the last ReLU of a stage, and asks for square maps whose sizes are written down for each pair. A `Backbone`
gives maps as they leave a stage, which for networks without pre-activation is after the ReLU; sizes are those of the
maps. torchdistill's loss and fusion are the same, for maps of the teacher's own sizes. Published on CIFAR-100:
ResNet-56 to 20 71.89, ResNet-32x4 to 8x4 75.63, WRN-40-2 to 16-2 76.12.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from relatum.core.precision import full_precision
from relatum.core.types import Batch, Features
from relatum.methods.checks import at_least_zero
from relatum.methods.distill.distiller import Distiller, Warmup
from relatum.networks.backbones import Backbone

LEVELS = (4, 2, 1)
"""Pixels along a side of the coarser maps that are compared, too."""


class ReviewKD(Distiller, pairing="single"):
    """Learn from the maps of a frozen teacher, each reviewed by all student maps that are as deep or deeper.

    Maps are paired from the deepest up: where one network has more stages, its shallowest have no partner.

    Args:
        backbone: the student, with classes.
        teacher: a trained network.
        weight: weight of all maps together; depends on the pair of networks, 0.6 to 8 in the authors' code.
        width: channels of the fused maps; none means those of the student's embedding, at most 512.
        warmup: the share of all steps, at the start, in which the weight grows from 0; the authors' code has 20 of
            240 epochs.
        task_weight: weight of the cross-entropy.
        kd_weight: weight of the divergence from the teacher's logits.
        temperature: temperature of that divergence.

    Raises:
        ValueError: for networks whose classes do not fit, or options out of range.
    """

    def __init__(
        self,
        backbone: Backbone,
        *,
        teacher: Backbone,
        weight: float = 1.0,
        width: int | None = None,
        warmup: float = 0.0,
        task_weight: float = 1.0,
        kd_weight: float = 0.0,
        temperature: float = 4.0,
    ) -> None:
        super().__init__(backbone, teacher, task_weight, kd_weight, temperature)
        self.weight = at_least_zero("weight", weight)
        width = min(512, backbone.embedding_dim) if width is None else width
        if width < 1:
            raise ValueError(f"width is {width}; expected a positive number of channels such as 256.")
        own, goal = ((*network.stage_channels, network.embedding_dim)[::-1] for network in (backbone, teacher))
        self.fusions = nn.ModuleList(
            Fusion(before, width, after, alone=depth == 0) for depth, (before, after) in enumerate(zip(own, goal))
        )
        self.warmup = Warmup(warmup)

    def losses(self, batch: Batch) -> dict[str, Float[Tensor, ""]]:
        student, teacher, labels = self.features(batch)
        reviewed: Tensor | None = None
        found = []
        for fusion, own, goal in zip(self.fusions, _deepest_first(student), _deepest_first(teacher)):
            adapted, reviewed = fusion(own, reviewed, (goal.shape[2], goal.shape[3]))
            found.append(hierarchical_context_loss(adapted, goal))
        review = self.weight * self.warmup() * torch.stack(found).sum()
        return self.class_terms(student, teacher, labels) | {"review": review}

    def after_step(self, progress: float) -> None:
        self.warmup.update(progress)


def _deepest_first(features: Features) -> list[Float[Tensor, "n _c _h _w"]]:
    """The embedding as a map of one pixel, then the maps."""
    return [features.embedding[:, :, None, None], *features.stages[::-1]]


class Fusion(nn.Module):
    """A student's map and what deeper ones have left, weighed pixel by pixel, and as the teacher's map is.

    Args:
        before: channels of the student's map.
        width: channels of what is handed on.
        after: channels of the teacher's map.
        alone: the deepest map, to which nothing deeper is fused.
    """

    def __init__(self, before: int, width: int, after: int, *, alone: bool) -> None:
        super().__init__()
        self.narrow = nn.Sequential(nn.Conv2d(before, width, 1, bias=False), nn.BatchNorm2d(width))
        self.attention = None if alone else nn.Conv2d(2 * width, 2, 1)
        self.adapt = nn.Sequential(nn.Conv2d(width, after, 3, padding=1, bias=False), nn.BatchNorm2d(after))

    def forward(
        self, maps: Float[Tensor, "n _b h w"], deeper: Float[Tensor, "n _c _p _q"] | None, size: tuple[int, int]
    ) -> tuple[Float[Tensor, "n _a _h _w"], Float[Tensor, "n _c _h _w"]]:
        """The map for the teacher's, of `size`, and what is handed on."""
        own = self.narrow(maps)
        if self.attention is not None:
            assert deeper is not None
            deeper = F.interpolate(deeper, maps.shape[2:], mode="nearest")
            share = self.attention(torch.cat([own, deeper], dim=1)).sigmoid()
            own = own * share[:, :1] + deeper * share[:, 1:]
        if own.shape[2:] != size:
            own = F.interpolate(own, size, mode="nearest")
        return self.adapt(own), own


@full_precision
def hierarchical_context_loss(
    student: Float[Tensor, "n c h w"], teacher: Float[Tensor, "n c h w"]
) -> Float[Tensor, ""]:
    """The mean squared difference of maps, and of their averages over ever larger parts, each half as heavy."""
    total, weight, weights = F.mse_loss(student, teacher), 1.0, 1.0
    for level in LEVELS:
        if level < min(student.shape[2:]):
            weight /= 2
            weights += weight
            own, goal = (F.adaptive_avg_pool2d(maps, level) for maps in (student, teacher))
            total = total + weight * F.mse_loss(own, goal)
    return total / weights
