"""The view of contrastive methods: SimCLR's augmentation."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from relatum.data.views.checks import require, require_probability, require_scale
from relatum.data.views.color import color_jitter, gaussian_blur, jitter_parameters, luma
from relatum.data.views.crops import RandomView, resized_boxes
from relatum.data.views.pixels import chosen


@dataclass(frozen=True)
class ContrastiveView(RandomView):
    """The augmentation of SimCLR: random resized crop, mirroring, color jitter, gray, blur, solarization.

    Strength s draws the factors of brightness, contrast and saturation from [1 - 0.8 s, 1 + 0.8 s] and the shift of
    the hue from [-0.2 s, 0.2 s] of the circle; their order is drawn too. s = 0.5 and no blur are the setting for
    CIFAR. Chen et al. 2020, "A Simple Framework for Contrastive Learning of Visual Representations", appendix A;
    solarization as in Grill et al. 2020, appendix B.

    Args:
        min_scale: least share of the image's area in a crop; the largest is 1.
        strength: s, in [0, 2.5].
        jitter_probability, grayscale, blur, solarize: probability of each operation for an image. Blur has standard
            deviation 0.1 to 2 pixels and a kernel of a tenth of the image; solarization inverts what is >= 0.5.
    """

    kind: Literal["contrastive"] = "contrastive"
    min_scale: float = 0.08
    strength: float = 0.5
    jitter_probability: float = 0.8
    grayscale: float = 0.2
    blur: float = 0.0
    solarize: float = 0.0

    augment_draws: ClassVar[int] = 13

    def __post_init__(self) -> None:
        super().__post_init__()
        require_scale(self.min_scale)
        require(
            0 <= self.strength <= 2.5,
            f"strength is {self.strength}: expected 0 to 2.5 (where the hue turns by half a circle); "
            "0.5 is SimCLR's for CIFAR, 1 for ImageNet",
        )
        for name in ("jitter_probability", "grayscale", "blur", "solarize"):
            require_probability(name, getattr(self, name))

    def boxes(self, height: int, width: int, uniforms: Float[Tensor, "n b"]) -> Float[Tensor, "n 4"]:
        return resized_boxes(height, width, self.min_scale, uniforms)

    def augment_crops(
        self, crops: Float[Tensor, "n c s s"], mean: Sequence[float], uniforms: Float[Tensor, "n a"]
    ) -> Float[Tensor, "n c s s"]:
        jitter, gray, blur, solarize = uniforms.split((9, 1, 2, 1), 1)
        if self.jitter_probability and self.strength:
            crops = color_jitter(crops, *jitter_parameters(self.strength, self.jitter_probability, jitter))
        if self.grayscale:
            crops = crops.lerp(luma(crops), chosen(gray[:, 0], self.grayscale))
        if self.blur:
            sigma = torch.where(blur[:, 0] < self.blur, 0.1 + 1.9 * blur[:, 1], 0.0)
            crops = gaussian_blur(crops, sigma, 2 * (self.size // 20) + 1)
        if self.solarize:
            inverted = torch.minimum(crops, 1 - crops)
            crops = crops.lerp(inverted, chosen(solarize[:, 0], self.solarize))
        return crops
