"""What a view is: a pure function of images and random numbers, in two halves, crop and augmentation.

The names of a view's functions say which half they are:

- `crop_...` make crops of images: a box of each image, resampled to `size x size` and perhaps mirrored;
- `..._crops` take such crops and do the rest: colors, occlusions, normalization;
- all others do both.
"""

import copy
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import PIL.Image
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from relatum.data.views.checks import require, require_bytes
from relatum.data.views.pixels import normalize, to_unit


@dataclass(frozen=True)
class View(ABC):
    """A map from uint8 images to normalized images of `size x size`.

    Args:
        size: height and width of the output, in pixels.
    """

    size: int = 32

    crop_draws: ClassVar[int] = 0  # uniform numbers that the crop of one image takes
    augment_draws: ClassVar[int] = 0  # uniform numbers that the augmentation of one crop takes

    def __post_init__(self) -> None:
        require(self.size >= 1, f"size is {self.size}: expected at least 1 pixel")

    @abstractmethod
    def crop_batch(self, images: UInt8[Tensor, "n c h w"], uniforms: Float[Tensor, "n g"]) -> Float[Tensor, "n c s s"]:
        """The crops of images of equal size, in [0, 1]."""

    @abstractmethod
    def crop_image(self, image: PIL.Image.Image, generator: torch.Generator) -> UInt8[Tensor, "c s s"]:
        """The crop of one image of any size, made by a worker: the law of `crop_batch`, Pillow's values.

        Args:
            image: mode `RGB` or `L`.
            generator: source of randomness, on the CPU.
        """

    def augment_crops(
        self, crops: Float[Tensor, "n c s s"], mean: Sequence[float], uniforms: Float[Tensor, "n a"]
    ) -> Float[Tensor, "n c s s"]:
        """Colors and occlusions of crops in [0, 1]; `mean` is the color that a hole is filled with."""
        return crops

    def transform(
        self,
        images: UInt8[Tensor, "n c h w"],
        uniforms: Float[Tensor, "n u"],
        mean: Sequence[float],
        std: Sequence[float],
        dtype: torch.dtype = torch.float32,
    ) -> Float[Tensor, "n c s s"]:
        """`__call__` without its randomness: a pure function, which `torch.compile(fullgraph=True)` takes.

        Args:
            uniforms: numbers in [0, 1), `crop_draws` for each image and then `augment_draws`.
        """
        crop, augment = uniforms.split((self.crop_draws, self.augment_draws), 1)
        return self.transform_crops(self.crop_batch(images, crop), augment, mean, std, dtype)

    def transform_crops(
        self,
        crops: Float[Tensor, "n c s s"],
        uniforms: Float[Tensor, "n a"],
        mean: Sequence[float],
        std: Sequence[float],
        dtype: torch.dtype = torch.float32,
    ) -> Float[Tensor, "n c s s"]:
        """The second half of `transform`: all that comes after the crop."""
        return normalize(self.augment_crops(crops, mean, uniforms), mean, std, dtype)

    @property
    def large_crops(self) -> int:
        """How many views of an image a method that compares views gets, small crops apart."""
        return 2

    @property
    def small_crops(self) -> int:
        """How many small crops it gets beside them."""
        return 0

    def of(self, number: int) -> "View":
        """What makes view `number` of an image, counted from 0, small crops last: mostly the same for all."""
        return self

    def compiled(self) -> "View":
        """The same view, compiled by torch.compile when it is first called: that takes seconds to a minute.

        Its values differ by rounding. AutoAugment stays as it is: what it does depends on what it draws.
        """
        view = copy.copy(self)
        for name in ("transform", "transform_crops"):
            object.__setattr__(view, name, torch.compile(getattr(self, name)))  # the class is frozen
        return view

    def __call__(
        self,
        images: UInt8[Tensor, "n c h w"],
        mean: Sequence[float],
        std: Sequence[float],
        generator: torch.Generator,
        dtype: torch.dtype = torch.float32,
    ) -> Float[Tensor, "n c s s"]:
        """One view of each image: `(augment(crop(image)) - mean) / std`, in channels_last.

        Args:
            images: n images of equal size, 1 or 3 channels, 0 to 255.
            mean, std: those of each channel over the data set, on the scale of [0, 1].
            generator: source of randomness, on the device of the images.
            dtype: the type of the output; all before the last operation is float32.

        Raises:
            ValueError: images that are not uint8 or are too small for the crop; mean and std that do not fit the
                channels.
        """
        require_bytes(images)
        draws = (len(images), self.crop_draws + self.augment_draws)
        uniforms = torch.rand(draws, generator=generator, device=images.device)
        return self.transform(images, uniforms, mean, std, dtype)

    def finish_crops(
        self,
        crops: UInt8[Tensor, "n c s s"],
        mean: Sequence[float],
        std: Sequence[float],
        generator: torch.Generator,
        dtype: torch.dtype = torch.float32,
    ) -> Float[Tensor, "n c s s"]:
        """The second half of `__call__`, for a batch of crops that `crop_image` made. Args, Raises: the same."""
        require_bytes(crops)
        uniforms = torch.rand(len(crops), self.augment_draws, generator=generator, device=crops.device)
        return self.transform_crops(to_unit(crops), uniforms, mean, std, dtype)
