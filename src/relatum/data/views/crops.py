"""Crops: random boxes of an image, resampled to a square and perhaps mirrored; the first half of a view."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import PIL.Image
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from relatum.core.precision import full_precision
from relatum.data.views.checks import require_probability
from relatum.data.views.interface import View
from relatum.data.views.pixels import integers, slices

RATIO = (3 / 4, 4 / 3)  # width over height of a random crop
ATTEMPTS = 10  # boxes drawn before the central one is taken


@dataclass(frozen=True)
class RandomView(View, ABC):
    """A view whose crop is a random box and a random mirroring.

    Args:
        flip: probability of a mirror image, left for right.
    """

    flip: float = 0.5

    crop_draws: ClassVar[int] = 2 * ATTEMPTS + 3  # shapes of boxes, position of the box, mirroring

    def __post_init__(self) -> None:
        super().__post_init__()
        require_probability("flip", self.flip)

    @abstractmethod
    def boxes(self, height: int, width: int, uniforms: Float[Tensor, "n b"]) -> Float[Tensor, "n 4"]:
        """A box (top, left, height, width) of whole pixels for each of n images of `height x width`."""

    def crop_batch(self, images: UInt8[Tensor, "n c h w"], uniforms: Float[Tensor, "n g"]) -> Float[Tensor, "n c s s"]:
        boxes = self.boxes(images.shape[2], images.shape[3], uniforms[:, :-1])
        return resample(images, boxes, uniforms[:, -1] < self.flip, self.size)

    def crop_image(self, image: PIL.Image.Image, generator: torch.Generator) -> UInt8[Tensor, "c s s"]:
        uniforms = torch.rand(1, self.crop_draws, generator=generator)
        boxes = self.boxes(image.height, image.width, uniforms[:, :-1])
        top, left, height, width = (int(edge) for edge in boxes[0].tolist())
        crop = image.crop((left, top, left + width, top + height))
        crop = crop.resize((self.size, self.size), PIL.Image.Resampling.BILINEAR)
        pixels: Tensor = F.pil_to_tensor(crop)
        return pixels.flip(2) if bool(uniforms[0, -1] < self.flip) else pixels


def resized_boxes(
    height: int, width: int, min_scale: float, uniforms: Float[Tensor, "n b"], max_scale: float = 1.0
) -> Float[Tensor, "n 4"]:
    """Boxes (top, left, height, width) of a random resized crop of images of `height x width`.

    The area is uniform in [min_scale, max_scale] of the image's and the logarithm of width / height uniform between
    those of 3/4 and 4/3; sides are rounded. The first of ten such shapes that fits is placed uniformly. Where none
    fits, it is the largest central box of a permitted ratio. Szegedy et al. 2015, in torchvision's form.

    Args:
        uniforms: ten numbers for the areas, ten for the ratios, two for the position; all in [0, 1).
    """
    low, high = (math.log(ratio) for ratio in RATIO)
    area = height * width * (min_scale + (max_scale - min_scale) * uniforms[:, :ATTEMPTS])
    ratio = (low + (high - low) * uniforms[:, ATTEMPTS : 2 * ATTEMPTS]).exp()
    heights, widths = (area / ratio).sqrt().round(), (area * ratio).sqrt().round()
    fits = (heights > 0) & (heights <= height) & (widths > 0) & (widths <= width)
    first = fits.int().argmax(1, keepdim=True)
    found = fits.any(1)

    if width < RATIO[0] * height:
        central = (round(width / RATIO[0]), width)
    elif width > RATIO[1] * height:
        central = (height, round(height * RATIO[1]))
    else:
        central = (height, width)
    starts, sides = [], []
    for axis, (extent, lengths) in enumerate(((height, heights), (width, widths))):
        side = torch.where(found, lengths.gather(1, first).squeeze(1), float(central[axis]))
        start = integers(uniforms[:, 2 * ATTEMPTS + axis], extent - side)
        starts.append(torch.where(found, start, float((extent - central[axis]) // 2)))
        sides.append(side)
    return torch.stack((*starts, *sides), 1)


@full_precision
def resample(
    images: UInt8[Tensor, "n c h w"], boxes: Float[Tensor, "n 4"], flips: Bool[Tensor, " n"], size: int
) -> Float[Tensor, "n c size size"]:
    """Each image's box as `size x size` pixels in [0, 1]: bilinear, antialiased, mirrored where `flips`.

    Cropping, resizing, mirroring and the division by 255 are one linear map for each axis, Y = R X C', with two banded
    matrices. What a box holds outside its image is zero.
    """
    channels, extent = images.shape[1], images.shape[2:]
    top, left, height, width = boxes.unbind(1)
    rows = resampling_matrix(top, height, torch.zeros_like(flips), size, extent[0]).div_(255)
    columns = resampling_matrix(left, width, flips, size, extent[1])
    crops = torch.empty(len(images), channels, size, size, device=images.device)
    for part in slices(images):
        pixels = images[part].transpose(1, 2)
        lines = pixels.to(torch.float32, memory_format=torch.contiguous_format).flatten(2)
        wide = (rows[part] @ lines).view(-1, size * channels, extent[1])
        crops[part] = (wide @ columns[part].mT).view(-1, size, channels, size).transpose(1, 2)
    return crops


def resampling_matrix(
    start: Float[Tensor, " n"],
    length: Float[Tensor, " n"],
    flips: Bool[Tensor, " n"],
    size: int,
    extent: int,
) -> Float[Tensor, "n size extent"]:
    """Weights of the `extent` pixels of a line for the `size` pixels of its resampled part [start, start + length).

    With scale = length / size, output o is centered on (o + 1/2) scale, and its weights are the triangle of half-width
    max(scale, 1) at the centers of the pixels of the part, divided by their sum.
    """
    output = torch.arange(size, dtype=torch.float32, device=start.device)
    output = torch.where(flips[:, None], size - 1 - output, output)
    pixel = torch.arange(extent, dtype=torch.float32, device=start.device) - start[:, None]
    inside = (pixel >= 0) & (pixel < length[:, None])
    scale = (length / size)[:, None]
    width = scale.clamp(min=1)
    source = torch.where(inside, (pixel + 0.5) / width, math.inf)
    target = (output + 0.5) * scale / width
    weights = (source[:, None, :] - target[:, :, None]).abs_().neg_().add_(1).clamp_(min=0)
    return weights.div_(weights.sum(2, keepdim=True).clamp_(min=0.1))  # only a line outside the image has < 0.5
