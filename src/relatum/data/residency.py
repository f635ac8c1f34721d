"""From listed images to images that can be trained on: each decoded once, to memory or to see that it can be.

Small sets of equal images are resident (one uint8 tensor); all others are streamed (decoded when read). What took
seconds to find out is kept in the user's cache, so that the next command does not decode again.
"""

import logging
import math
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
import PIL
import torch
from jaxtyping import Int
from PIL import Image
from torch import Tensor
from tqdm.auto import tqdm

from relatum.data import cache
from relatum.data.decoding import BadImage, fit
from relatum.data.images import Images, ResidentImages, StreamedImages, histogram_of, sample_of, to_tensor
from relatum.data.listing import LeftOut, Listing

log = logging.getLogger(__name__)

OnBadImage: TypeAlias = Literal["error", "skip"]
Residence: TypeAlias = Literal["auto", "yes", "no"]

GIB = 2**30
BUDGET = 4 * GIB  # bytes of decoded images that may be resident
CHECKED = 50_000  # a streamed set up to this size is decoded once, whole, before training
WORTH = 3.0  # seconds of decoding from which on the result is cached

Bad: TypeAlias = tuple[int, str, str]  # number of an image that cannot be decoded, what is wrong, and its kind


@dataclass(frozen=True)
class Wish:
    """What the user asks for: the arguments of `sources.load` of these names."""

    on_bad_image: OnBadImage = "error"
    resident: Residence = "auto"
    size: int | None = None
    budget: int = BUDGET


@dataclass(frozen=True)
class Settled:
    """Images that can be trained on.

    Attributes:
        parts: training images, and test images where there are any.
        how: resident or streamed, and why.
        left_out: images that cannot be decoded.
        histograms: those of training images that were met on the way, by their number.
    """

    parts: list[Images]
    how: str
    left_out: tuple[LeftOut, ...] = ()
    histograms: dict[int, Int[np.ndarray, "c 256"]] = field(default_factory=dict)

    @property
    def size(self) -> int | None:
        """The side of the images where all are squares of one size, else None."""
        shape = common_shape(self.parts)
        return shape[-1] if shape and shape[-1] == shape[-2] else None


class _OtherSize(Exception):
    """An image whose size differs from that of the others before it."""


def settle(name: str, listing: Listing, wish: Wish) -> Settled:
    """Decode all images to memory, or check that they can be streamed.

    Raises:
        BadImage: an image cannot be decoded, with `on_bad_image="error"`.
        ValueError: none can be, or `resident="yes"` with images of different sizes.
    """
    parts = [_scaled(images, wish.size) for images in listing.parts]
    why = "as asked"
    if wish.resident != "no":
        shape = common_shape(parts, wish.on_bad_image)
        need = sum(map(len, parts)) * math.prod(shape or ())
        if shape is None:
            why = "images of different sizes"
        elif wish.resident == "auto" and need > wish.budget:
            why = f"{need / GIB:.1f} GiB when decoded, more than {wish.budget / GIB:.1f}"
        else:
            try:
                decoded = [_decoded(images, shape, wish.on_bad_image) for images in parts]
            except _OtherSize as error:
                why = str(error)
            else:
                return _resident(decoded)
        if wish.resident == "yes":
            raise ValueError(
                f"resident=yes needs images of one size, but {name} has {why}; stream them with `--data.resident auto` "
                f"(in Python `load(..., size=64)` scales all to one size)"
            )
    if all(isinstance(images, ResidentImages) for images in parts):
        return _resident([(images, []) for images in parts])
    checked = [_checked(_at_random_access(images), wish.on_bad_image) for images in parts]
    left_out = _left_out(parts, [one.bad for one in checked])
    kept = [_without(images, one.bad) for images, one in zip((one.images for one in checked), checked)]
    # a histogram is known by its number among all; after leaving out, numbers are others
    histograms = {} if checked[0].bad else checked[0].histograms
    return Settled(kept, f"streamed ({why})", left_out, histograms)


def _at_random_access(images: Images) -> Images:
    """The same images; those in Parquet are unpacked to the cache first."""
    mapped = getattr(images.encoded, "mapped", None) if isinstance(images, StreamedImages) else None
    return images if mapped is None else replace(images, encoded=mapped())


def _resident(decoded: Sequence[tuple[Images, list[Bad]]]) -> Settled:
    parts = [_without(images, bad) for images, bad in decoded]
    held = sum(images.images.nbytes for images in parts if isinstance(images, ResidentImages))
    left_out = tuple(item for images, bad in decoded for item in _left_out([images], [bad]))
    return Settled(parts, f"resident ({held / GIB:.2f} GiB)", left_out)


def _scaled(images: Images, size: int | None) -> Images:
    if size is None:
        return images
    if isinstance(images, StreamedImages):
        return replace(images, size=size)
    pictures = (Image.fromarray(pixels) for pixels in images.images.permute(0, 2, 3, 1).numpy())
    return replace(images, images=torch.stack([to_tensor(fit(picture, size)) for picture in pictures]))


def common_shape(parts: Sequence[Images], on_bad_image: OnBadImage = "error") -> tuple[int, ...] | None:
    """The shape of the images if all those looked at (up to 32 of each part) share it, else None."""
    shapes: set[tuple[int, ...]] = set()
    for images in parts:
        for i in np.unique(np.linspace(0, len(images) - 1, 32).astype(int)):
            if isinstance(images, ResidentImages):
                shapes.add(tuple(images.images.shape[1:]))
                break
            try:
                shapes.add((3, *images.size_of(int(i))[::-1]))
            except BadImage:
                if on_bad_image == "error":
                    raise
    return shapes.pop() if len(shapes) == 1 else None


def _decoded(images: Images, shape: tuple[int, ...], on_bad_image: OnBadImage) -> tuple[Images, list[Bad]]:
    """All images in memory, in their order, and which of them are bad: their pixels mean nothing."""
    if isinstance(images, ResidentImages):
        return images, []
    full = (len(images), *shape)
    key = _key(images, f"{shape}", "pixels")
    entry = cache.find(key) if key else None
    if entry is not None and tuple(entry.note["shape"]) == full:
        log.info("read from the cache %s", entry.path)
        bad = [(i, reason, kind) for i, reason, kind in entry.note["bad"]]
        _refuse(images, bad, on_bad_image)
        return _named(images, torch.from_numpy(np.fromfile(entry.path, np.uint8)).view(full)), bad
    pixels = torch.empty(full, dtype=torch.uint8)
    rows = pixels.permute(0, 2, 3, 1).numpy()  # the same memory, as Pillow has it

    def store(i: int) -> None:
        picture = images.picture(i)
        if picture.size != shape[:0:-1]:
            raise _OtherSize(
                "images of different sizes, such as {} x {} and {} x {}".format(*shape[:0:-1], *picture.size)
            )
        rows[i] = picture

    start = time.monotonic()
    bad = _bad_among(len(images), store, on_bad_image)
    _keep(key, start, pixels.numpy().tofile, {"shape": full, "bad": bad})
    return _named(images, pixels), bad


def _named(images: StreamedImages, pixels: Tensor) -> ResidentImages:
    return ResidentImages(pixels, images.labels, tuple(images.names))


class _Check(NamedTuple):
    images: Images
    bad: list[Bad]
    histograms: dict[int, Int[np.ndarray, "c 256"]]


def _checked(images: Images, on_bad_image: OnBadImage) -> _Check:
    """Decode each image once; keep what mean and standard deviation will ask for."""
    if isinstance(images, ResidentImages) or (on_bad_image == "error" and len(images) > CHECKED):
        return _Check(images, [], {})
    key = _key(images, "", "checked")
    entry = cache.find(key) if key else None
    if entry is not None:
        bad = [(i, reason, kind) for i, reason, kind in entry.note["bad"]]
        _refuse(images, bad, on_bad_image)
        return _Check(images, bad, dict(zip(entry.note["numbers"], np.load(entry.path, allow_pickle=False))))
    sampled = set(sample_of(len(images)))
    histograms: dict[int, Int[np.ndarray, "c 256"]] = {}

    def check(i: int) -> None:
        picture = images.picture(i)
        if i in sampled:
            histograms[i] = histogram_of(picture)

    start = time.monotonic()
    bad = _bad_among(len(images), check, on_bad_image)
    numbers = sorted(histograms)

    def write(path: Path) -> None:
        with path.open("wb") as file:
            np.save(file, np.stack([histograms[i] for i in numbers]).astype(np.int64), allow_pickle=False)

    _keep(key, start, write, {"bad": bad, "numbers": numbers})
    return _Check(images, bad, histograms)


def _key(images: StreamedImages, use: str, kind: str) -> cache.Key | None:
    """What a cache knows these images again by; None where their source has no such thing."""
    made_of = images.encoded.made_of()
    if made_of is None:
        return None
    sources, content = made_of
    boxes = None if images.boxes is None else images.boxes.tolist()
    use = repr((use, images.rows.tolist(), boxes, images.size))
    return cache.Key(sources, use, f"{content} Pillow {PIL.__version__}", kind)


def _keep(key: cache.Key | None, start: float, write: Callable[[Path], Any], note: dict[str, Any]) -> None:
    """Keep a result in the user's cache if it took long; a failure to do so is no failure."""
    if key is None or time.monotonic() - start < WORTH or cache.folder() is None:
        return
    try:
        cache.store(key, write, note)
    except OSError as error:
        log.warning("%s", error)


def _refuse(images: StreamedImages, bad: Sequence[Bad], on_bad_image: OnBadImage) -> None:
    if bad and on_bad_image == "error":
        i, reason, kind = bad[0]
        raise BadImage(images.encoded.name(int(images.rows[i])), reason, kind)


def _left_out(parts: Sequence[Images], bad: Sequence[Sequence[Bad]]) -> tuple[LeftOut, ...]:
    return tuple(
        LeftOut(name, kind, reason)
        for images, found in zip(parts, bad)
        for (_, reason, kind), name in zip(found, images.subset(torch.tensor([b[0] for b in found]).long()).names)
    )


def _without(images: Images, bad: Sequence[Bad]) -> Images:
    if not bad:
        return images
    kept = torch.ones(len(images), dtype=torch.bool)
    kept[[i for i, *_ in bad]] = False
    return images.subset(kept.nonzero().flatten())


def _bad_among(count: int, read: Callable[[int], None], on_bad_image: OnBadImage) -> list[Bad]:
    """Which of the images 0 ... count - 1 are bad; all are read, on all processors (Pillow decodes outside the GIL).

    Raises:
        BadImage: one is, with `on_bad_image="error"`.
        ValueError: all are.
    """

    def read_all(numbers: range) -> tuple[int, list[tuple[int, BadImage]]]:
        bad = []
        for i in numbers:
            try:
                read(i)
            except BadImage as error:
                if on_bad_image == "error":
                    raise
                bad.append((i, error))
        return len(numbers), bad

    processors = os.cpu_count() or 1
    step = max(1, min(256, count // (8 * processors)))  # few enough at a time for the bar to move
    chunks = [range(start, min(start + step, count)) for start in range(0, count, step)]
    pool = ThreadPoolExecutor(processors)
    found: list[tuple[int, BadImage]] = []
    try:
        with tqdm(total=count, desc="decoding", unit="image", delay=1, leave=False, disable=None) as bar:
            for done, bad in pool.map(read_all, chunks):
                found += bad
                bar.update(done)
    finally:
        pool.shutdown(cancel_futures=True)
    if found and len(found) == count:
        listed = "\n".join(f"  {error.name}: {error.reason}" for _, error in found[:20])
        raise ValueError(f"none of {count:,} images can be decoded, so nothing is left to learn from:\n{listed}")
    return [(i, error.reason or "", error.kind) for i, error in found]
