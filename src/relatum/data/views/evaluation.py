"""The view of measurements: the whole image, without randomness."""

from dataclasses import dataclass

import PIL.Image
import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from relatum.data.views.checks import require
from relatum.data.views.interface import View
from relatum.data.views.pixels import to_unit


@dataclass(frozen=True)
class EvaluationView(View):
    """The view of k-NN, linear probes and tests, without randomness.

    An image of `size x size` passes unchanged. Of any other the shorter side is resized, antialiased, to `resize`, and
    the center of the result taken.

    Args:
        resize: length of the shorter side, in pixels; None is `size` up to 64 pixels and 256/224 of it above.
    """

    resize: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self.resize is None or self.resize >= self.size,
            f"resize is {self.resize}: expected at least size = {self.size}, or None for the usual value",
        )

    @property
    def shorter_side(self) -> int:
        """Length to which the shorter side is resized."""
        if self.resize is not None:
            return self.resize
        return self.size if self.size <= 64 else round(self.size * 256 / 224)

    def crop_batch(self, images: UInt8[Tensor, "n c h w"], uniforms: Float[Tensor, "n g"]) -> Float[Tensor, "n c s s"]:
        crops = to_unit(images)
        if images.shape[2:] == (self.size, self.size):
            return crops
        return F.center_crop(F.resize(crops, [self.shorter_side], antialias=True), [self.size, self.size])

    def crop_image(self, image: PIL.Image.Image, generator: torch.Generator) -> UInt8[Tensor, "c s s"]:
        if image.size != (self.size, self.size):
            image = F.center_crop(F.resize(image, [self.shorter_side]), [self.size, self.size])
        return F.pil_to_tensor(image)
