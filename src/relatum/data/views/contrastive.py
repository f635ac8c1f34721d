"""The view of contrastive methods: SimCLR's augmentation."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from relatum.data.views.checks import require, require_probability, require_scale
from relatum.data.views.color import color_jitter, gaussian_blur, jitter_parameters, luma
from relatum.data.views.crops import RandomView, resized_boxes
from relatum.data.views.pixels import chosen


@dataclass(frozen=True)
class SmallCrops:
    """Small crops of an image beside its large ones: multi-crop (Caron et al. 2020, "SwAV", section 3.3).

    They show a small part of the image in few pixels, and so cost little: a method compares each large crop with every
    other crop, and no small crop with a small one.

    Args:
        count: how many for each image; 0 for none.
        size: their height and width, in pixels; about half of the large ones'.
        min_scale, max_scale: least and largest share of the image's area; none means the least of the large crops.
        blur: probability of blur; none means that of the large crops.
    """

    count: int = 0
    size: int = 16
    min_scale: float = 0.05
    max_scale: float | None = None
    blur: float | None = None

    def __post_init__(self) -> None:
        require(self.count >= 0, f"small.count is {self.count}: expected 0 (none) or more small crops of each image")
        require(self.size >= 1, f"small.size is {self.size}: expected at least 1 pixel")
        require_scale(self.min_scale, "small.min_scale")
        if self.max_scale is not None:
            require_scale(self.max_scale, "small.max_scale")
        if self.blur is not None:
            require_probability("small.blur", self.blur)


@dataclass(frozen=True)
class ContrastiveView(RandomView):
    """The augmentation of SimCLR: random resized crop, mirroring, color jitter, gray, blur, solarization.

    Strength s draws the factors of brightness, contrast and saturation from [1 - 0.8 s, 1 + 0.8 s] and the shift of
    the hue from [-0.2 s, 0.2 s] of the circle; their order is drawn too. s = 0.5 and no blur are the setting for
    CIFAR. Chen et al. 2020, "A Simple Framework for Contrastive Learning of Visual Representations", appendix A;
    solarization as in Grill et al. 2020, appendix B.

    A method that compares views gets `large` of them of each image, and `small.count` small crops (multi-crop): SwAV
    2 + 6 with min_scale 0.14, DINO's code 2 + 8 with min_scale 0.4, its paper 2 + 10, both with small crops of 96
    beside large ones of 224 pixels.

    Args:
        min_scale, max_scale: least and largest share of the image's area in a crop.
        strength: s, in [0, 2.5].
        jitter_probability, grayscale, blur, solarize: probability of each operation for an image. Blur has standard
            deviation 0.1 to 2 pixels and a kernel of a tenth of the image; solarization inverts what is >= 0.5. Small
            crops are not solarized.
        large: how many large views of each image.
        second_blur, second_solarize, second_jitter, second_grayscale: the same of all large views but the first; none
            means as of the first. BYOL and DINO blur the first always (1.0), the second rarely (0.1), and solarize the
            second alone (0.2). ReSSL only crops and mirrors the second: 0 for all four.
        small: the small crops.
    """

    kind: Literal["contrastive"] = "contrastive"
    min_scale: float = 0.08
    max_scale: float = 1.0
    strength: float = 0.5
    jitter_probability: float = 0.8
    grayscale: float = 0.2
    blur: float = 0.0
    solarize: float = 0.0
    large: int = 2
    second_blur: float | None = None
    second_solarize: float | None = None
    second_jitter: float | None = None
    second_grayscale: float | None = None
    small: SmallCrops = field(default_factory=SmallCrops)

    augment_draws: ClassVar[int] = 13

    def __post_init__(self) -> None:
        super().__post_init__()
        require_scale(self.min_scale)
        require(
            0 <= self.strength <= 2.5,
            f"strength is {self.strength}: expected 0 to 2.5 (where the hue turns by half a circle); "
            "0.5 is SimCLR's for CIFAR, 1 for ImageNet",
        )
        require_scale(self.max_scale, "max_scale")
        require(
            self.min_scale <= self.max_scale,
            f"min_scale is {self.min_scale}: expected at most max_scale, {self.max_scale}",
        )
        seconds = ("second_blur", "second_solarize", "second_jitter", "second_grayscale")
        for name in ("jitter_probability", "grayscale", "blur", "solarize", *seconds):
            if getattr(self, name) is not None:
                require_probability(name, getattr(self, name))
        require(self.large >= 2, f"large is {self.large}: expected at least 2 views of an image to compare")
        highest = self.min_scale if self.small.max_scale is None else self.small.max_scale
        require(
            not self.small.count or self.small.min_scale <= highest,
            f"small.min_scale is {self.small.min_scale}, above the largest share of a small crop, {highest}: lower it, "
            "or choose min_scale or small.max_scale above it",
        )

    @property
    def large_crops(self) -> int:
        return self.large

    @property
    def small_crops(self) -> int:
        return self.small.count

    def of(self, number: int) -> "ContrastiveView":
        if self.large <= number < self.large + self.small.count:
            small = self.small
            return replace(
                self,
                size=small.size,
                min_scale=small.min_scale,
                max_scale=self.min_scale if small.max_scale is None else small.max_scale,
                blur=self.blur if small.blur is None else small.blur,
                solarize=0.0,
                small=SmallCrops(),
            )
        if not number:
            return self

        def second(value: float | None, first: float) -> float:
            return first if value is None else value

        return replace(
            self,
            blur=second(self.second_blur, self.blur),
            solarize=second(self.second_solarize, self.solarize),
            jitter_probability=second(self.second_jitter, self.jitter_probability),
            grayscale=second(self.second_grayscale, self.grayscale),
        )

    def boxes(self, height: int, width: int, uniforms: Float[Tensor, "n b"]) -> Float[Tensor, "n 4"]:
        return resized_boxes(height, width, self.min_scale, uniforms, self.max_scale)

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
