"""The view of supervised training: crop and mirroring, with AutoAugment and Cutout as options."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from relatum.data.views.autoaugment import auto_augment
from relatum.data.views.checks import require, require_scale
from relatum.data.views.color import cutout_mask
from relatum.data.views.crops import RandomView, resized_boxes
from relatum.data.views.pixels import constants, integers, to_unit


@dataclass(frozen=True)
class ClassifierView(RandomView):
    """The augmentation of supervised training: crop and mirroring; AutoAugment and Cutout as options.

    Args:
        crop: `pad` takes a `size x size` window of the image with a border of zeros (CIFAR: He et al. 2016, section
            4.2); `resized` a random share of the area, as `ContrastiveView` does (ImageNet).
        padding: width of that border, in pixels; for `pad`.
        min_scale: least share of the image's area in a crop; for `resized`.
        autoaugment: the CIFAR-10 policy of Cubuk et al. 2019, a sub-policy per image. It waits for the device.
        cutout: side of a square of the mean color in pixels, 0 for none. Its center is uniform over the image, so
            that it may leave it (DeVries & Taylor 2017).
    """

    kind: Literal["classifier"] = "classifier"
    crop: Literal["pad", "resized"] = "pad"
    padding: int = 4
    min_scale: float = 0.08
    autoaugment: bool = False
    cutout: int = 0

    augment_draws: ClassVar[int] = 7

    def __post_init__(self) -> None:
        super().__post_init__()
        require_scale(self.min_scale)
        require(
            self.crop in ("pad", "resized"),
            f"crop is {self.crop!r}: expected 'pad' (CIFAR) or 'resized' (ImageNet)",
        )
        require(self.padding >= 0, f"padding is {self.padding}: expected 0 pixels or more")
        require(
            0 <= self.cutout <= 2 * self.size,
            f"cutout is {self.cutout}: expected 0 (off) to {2 * self.size} pixels, which hide the whole image; "
            "16 is usual for 32 x 32",
        )

    def boxes(self, height: int, width: int, uniforms: Float[Tensor, "n b"]) -> Float[Tensor, "n 4"]:
        if self.crop == "resized":
            return resized_boxes(height, width, self.min_scale, uniforms)
        free = [side + 2 * self.padding - self.size for side in (height, width)]
        require(
            min(free) >= 0,
            f"an image of {height} x {width} with a border of {self.padding} is too small for a window of "
            f"{self.size} x {self.size}: choose a smaller size, more padding, or crop='resized'",
        )
        corners = [integers(u, f) - self.padding for u, f in zip(uniforms[:, :2].unbind(1), free)]
        side = torch.full_like(corners[0], self.size)
        return torch.stack((*corners, side, side), 1)

    def augment_crops(
        self, crops: Float[Tensor, "n c s s"], mean: Sequence[float], uniforms: Float[Tensor, "n a"]
    ) -> Float[Tensor, "n c s s"]:
        if self.autoaugment:
            pixels = crops.mul(255).round().to(torch.uint8)
            crops = to_unit(auto_augment(pixels, uniforms[:, :5]))
        if self.cutout:
            hidden = cutout_mask(self.size, self.cutout, uniforms[:, 5:])
            crops = crops.lerp(constants(mean, crops), hidden[:, None].float())
        return crops
