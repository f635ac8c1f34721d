"""Images with labels, resident or streamed; parts of them, and what is computed from them."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Protocol, TypeAlias, runtime_checkable

import numpy as np
import torch
from jaxtyping import Int, UInt8
from PIL import Image
from torch import Tensor

from relatum.core.randomness import generator_of
from relatum.data.decoding import decode, fit, size_of

SAMPLE = 2_000  # images that mean and standard deviation are computed from


@runtime_checkable
class Encoded(Protocol):
    """Image files at random access.

    `encoded[i]` is (name for errors, bytes of the file, or the picture); `name(i)` is the name alone. `made_of()` is
    (paths of the sources, what changes when they do), from which a cache knows them again; or None.
    """

    def __len__(self) -> int: ...
    def __getitem__(self, i: int) -> tuple[str, bytes | Image.Image]: ...
    def name(self, i: int) -> str: ...
    def made_of(self) -> tuple[tuple[str, ...], str] | None: ...


@dataclass(frozen=True)
class ResidentImages:
    """A whole set in memory.

    Attributes:
        images: "n c h w", 0 to 255.
        labels: classes in [0, number of classes), or -1 for none.
        files: the name of the file of each image, where it came from one.
    """

    images: UInt8[Tensor, "n c h w"]
    labels: Int[Tensor, " n"]
    files: tuple[str, ...] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def names(self) -> list[str]:
        """What errors and tables call each image: its file, or its number, since arrays have no names."""
        return [str(i) for i in range(len(self))] if self.files is None else list(self.files)

    def read(self, i: int) -> UInt8[Tensor, "c h w"]:
        """Image number `i`."""
        return self.images[i]

    def histogram(self, i: int) -> Int[np.ndarray, "c 256"]:
        """How often each value occurs in each channel of image number `i`."""
        return np.stack([np.bincount(channel.ravel(), minlength=256) for channel in self.images[i].cpu().numpy()])

    def subset(self, index: Int[Tensor, " m"]) -> "ResidentImages":
        """The images with the numbers `index`, in that order."""
        files = None if self.files is None else tuple(self.files[i] for i in index.tolist())
        return replace(self, images=self.images[index], labels=self.labels[index], files=files)


@dataclass(frozen=True)
class StreamedImages:
    """Images that are decoded each time they are read.

    Attributes:
        encoded: the files.
        labels: classes in [0, number of classes), or -1 for none.
        rows: where each image is in `encoded`.
        boxes: for each image (left, top, right, bottom) in pixels, cut out when read; None for whole images.
        size: the side of the square that each image is cut and scaled to when read; None for its own size.
    """

    encoded: Encoded
    labels: Int[Tensor, " n"]
    rows: Int[Tensor, " n"]
    boxes: Int[Tensor, "n 4"] | None = None
    size: int | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def picture(self, i: int) -> Image.Image:
        """Image number `i`, decoded to RGB.

        Raises:
            BadImage: it cannot be decoded.
        """
        name, encoded = self.encoded[int(self.rows[i])]
        image = decode(encoded, name) if isinstance(encoded, bytes) else encoded
        if self.boxes is not None:
            image = image.crop(tuple(self.boxes[i].tolist()))
        return image if self.size is None else fit(image, self.size)

    def size_of(self, i: int) -> tuple[int, int]:
        """(width, height) of `picture(i)`, without decoding it."""
        if self.size is not None:
            return self.size, self.size
        if self.boxes is not None:
            left, top, right, bottom = self.boxes[i].tolist()
            return right - left, bottom - top
        name, encoded = self.encoded[int(self.rows[i])]
        return size_of(encoded, name) if isinstance(encoded, bytes) else encoded.size

    @property
    def names(self) -> list[str]:
        """What errors and tables call each image: its file, or its row."""
        return [self.encoded.name(row) for row in self.rows.tolist()]

    def read(self, i: int) -> UInt8[Tensor, "3 h w"]:
        """`picture(i)` as a tensor."""
        return to_tensor(self.picture(i))

    def histogram(self, i: int) -> Int[np.ndarray, "3 256"]:
        """How often each value occurs in each channel of image number `i`."""
        return histogram_of(self.picture(i))

    def subset(self, index: Int[Tensor, " m"]) -> "StreamedImages":
        """The images with the numbers `index`, in that order."""
        boxes = None if self.boxes is None else self.boxes[index]
        return replace(self, labels=self.labels[index], rows=self.rows[index], boxes=boxes)


Images: TypeAlias = ResidentImages | StreamedImages


def histogram_of(picture: Image.Image) -> Int[np.ndarray, "3 256"]:
    """How often each value occurs in each channel of an RGB picture."""
    return np.array(picture.histogram()).reshape(3, 256)


def sample_of(count: int) -> list[int]:
    """The numbers of the images, among `count`, that mean and standard deviation are computed from: always the same."""
    return torch.randperm(count, generator=generator_of(0))[:SAMPLE].sort().values.tolist()


def mean_std(
    images: Images, known: Mapping[int, Int[np.ndarray, "c 256"]] | None = None
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of the pixels in [0, 1], per channel, each image with the same weight.

    From a random sample of 2,000 images, the same each time; all where there are fewer. They follow, exactly, from
    how often each of the 256 values occurs: an image of any size takes no more memory than it takes decoded.

    Args:
        images: the training images.
        known: histograms of images that were met before, by their number.
    """
    chosen, known = sample_of(len(images)), known or {}
    values = np.arange(256) / 255
    moments = 0.0
    for i in chosen:
        counts = known[i] if i in known else images.histogram(i)
        moments = moments + counts @ np.stack([values, values**2], 1) / counts[0].sum()
    mean, square = np.asarray(moments).T / len(chosen)
    std = np.sqrt(np.maximum(square - mean**2, 255.0**-2))  # images of one color must not divide by zero
    return tuple(mean.tolist()), tuple(std.tolist())


def split(images: Images, part: int | float, *, seed: int) -> tuple[Images, Images]:
    """(kept, held out): a random part of each class is held out, the same for the same seed.

    Args:
        images: the training set; without labels the part is random in all of it.
        part: how many images to hold out: a fraction in (0, 1), or a number in [1, n).
        seed: what the choice depends on.

    Raises:
        ValueError: nothing would be held out, or nothing kept.
    """
    count = part if isinstance(part, int) else round(part * len(images))
    if not 0 < count < len(images) or (isinstance(part, float) and part >= 1):
        raise ValueError(
            f"part={part} of {len(images):,} images cannot be held out: give a fraction in (0, 1), or a number from "
            f"1 to {len(images) - 1:,}"
        )
    place, size = _places(images.labels, seed)
    held = torch.sort((place + 0.5) / size, stable=True).indices[:count]
    mask = torch.zeros(len(images), dtype=torch.bool)
    mask[held] = True
    return images.subset((~mask).nonzero().flatten()), images.subset(mask.nonzero().flatten())


def first(images: Images, n: int, *, seed: int) -> Images:
    """A fixed part of `n` images with as equal a number of each class as there is; smaller parts lie inside larger.

    Args:
        images: the training set; without labels the part is random in all of it.
        n: number of images, at most those there are.
        seed: what the choice depends on.

    Raises:
        ValueError: `n` is not in [1, number of images].
    """
    if not 0 < n <= len(images):
        raise ValueError(f"n={n:,} images cannot be taken of {len(images):,}: give 1 to {len(images):,}")
    place, _ = _places(images.labels, seed)
    chosen = torch.sort(place, stable=True).indices[:n]
    return images.subset(chosen.sort().values)


def _places(labels: Int[Tensor, " n"], seed: int) -> tuple[Int[Tensor, " n"], Int[Tensor, " n"]]:
    """The place of each image in a random order of its class, and the size of its class."""
    order = torch.randperm(len(labels), generator=generator_of(seed))
    by_class = order[torch.sort(labels[order], stable=True).indices]
    _, group, sizes = torch.unique_consecutive(labels[by_class], return_inverse=True, return_counts=True)
    start = sizes.cumsum(0) - sizes
    place, size = torch.empty_like(order), torch.empty_like(order)
    place[by_class] = torch.arange(len(labels)) - start[group]
    size[by_class] = sizes[group]
    return place, size


def check_labels(labels: Int[Tensor, " n"], num_classes: int) -> None:
    """That a classifier of `num_classes` can learn from these labels.

    Raises:
        ValueError: an image without a label, a label out of range, or a single class.
    """
    unlabeled = int((labels == -1).sum())
    if unlabeled:
        raise ValueError(
            f"{unlabeled:,} of {len(labels):,} images have no label, but this method learns from labels: put the "
            f"images into one folder per class, or choose a method that needs none, such as simclr"
        )
    check_range(labels, num_classes)
    if len(labels.unique()) < 2:
        raise ValueError(
            f"all {len(labels):,} images are of class {int(labels[0])}, and one class cannot be told from another; "
            f"add images of a second class"
        )


def check_range(labels: Int[Tensor, " n"], num_classes: int) -> None:
    """That all labels are in [-1, num_classes), where -1 is none; else a ValueError that names the first."""
    wrong = ((labels < -1) | (labels >= num_classes)).nonzero().flatten()
    if len(wrong):
        raise ValueError(
            f"label {int(labels[wrong[0]])} of image {int(wrong[0])} is not in 0 ... {num_classes - 1}, the range of "
            f"{num_classes} classes ({len(wrong):,} such labels); correct the labels or the number of classes"
        )


def to_tensor(image: Image.Image) -> UInt8[Tensor, "3 h w"]:
    """An RGB picture as a tensor."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()
