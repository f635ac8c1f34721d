"""The data sets: a name or a path -> training and test images, classes, mean and standard deviation.

Small sets of equal images are resident (one uint8 tensor); all others are streamed (encoded, decoded when read).
"""

import logging
import math
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
import torch
from jaxtyping import Int
from PIL import Image
from torch import Tensor

from relatum.data.decoding import BadImage, fit
from relatum.data.images import Images, ResidentImages, StreamedImages, check_range, mean_std, to_tensor
from relatum.data.layouts import (
    Parts,
    at_random_access,
    cifar_binary,
    cifar_python,
    cub,
    folder,
    hub,
    parquet,
    tiny_imagenet,
)

log = logging.getLogger(__name__)

OnBadImage: TypeAlias = Literal["error", "skip"]
Residence: TypeAlias = Literal["auto", "yes", "no"]

GIB = 2**30
BUDGET = 4 * GIB  # bytes of decoded images that may be resident
CHECKED = 50_000  # a streamed set up to this size is decoded once, whole, before training


@dataclass(frozen=True)
class Source:
    """A data set.

    Attributes:
        name: what it was loaded by.
        train: the training images.
        test: the test images, or None where the set has none.
        classes: the name of each class; empty without labels.
        mean, std: of the training images' pixels in [0, 1], per channel: for training and test alike.
        size: the side of the images where all are squares of one size, else None.
    """

    name: str
    train: Images
    test: Images | None
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    size: int | None


def load(
    name: str,
    *,
    root: str | Path = ".data",
    on_bad_image: OnBadImage = "error",
    resident: Residence = "auto",
    size: int | None = None,
    budget: int = BUDGET,
) -> Source:
    """Load a data set by name, by path, or from the Hugging Face hub.

    By name: `digits` (inside scikit-learn); `cifar10`, `cifar100`, `tiny-imagenet`, `cub200` and `cub200-boxes`
    (cut to the birds' bounding boxes), in the official layout or as Parquet shards, under `root` or `root/name`,
    else downloaded; `imagenet`, in folders `train` and `val`. By path: a folder of images, labeled by sub-folder
    or flat, perhaps in `train` and `test` (or `val`); a Parquet file, or a folder of shards, with the columns
    `image: {bytes, path}` and `label`. From the hub: `hf:OWNER/NAME`.

    Every image is decoded once before this returns, so that a bad one stops nobody's training: except in a
    streamed set of more than 50,000, where `"error"` meets it when it is read, and `"skip"` decodes all of them.

    Args:
        name: the name, path or `hf:OWNER/NAME`.
        root: where named sets are looked for and downloaded to.
        on_bad_image: `"error"` stops at an image that cannot be decoded; `"skip"` lists such images and drops them.
        resident: whether to hold the decoded images in memory: `"auto"` does if all have one size and need
            together at most `budget` bytes. Sets that come as arrays (digits, CIFAR's official layout) always are.
        size: side in pixels of the square that every image is cut (at the center) and scaled to; None leaves them.
        budget: bytes.

    Raises:
        FileNotFoundError: the set is not there, an image or a file of its layout is missing, or a folder is empty.
        ValueError: an unknown name, a damaged layout, labels out of range, no image left, or `resident="yes"` with
            images of different sizes.
        BadImage: an image cannot be decoded, with `on_bad_image="error"`.
    """
    root = Path(root)
    if size is not None and size < 1:
        raise ValueError(f"size={size} must be a positive number of pixels")
    parts = _find(name, root)
    for images in parts[:2]:
        if images is not None:
            check_range(images.labels, len(parts.classes))
    ready = _settle(name, parts, on_bad_image, resident, size, budget, root)
    mean, std = STATISTICS[name] if name in STATISTICS else mean_std(ready[0])
    shape = _common_shape(ready)
    side = shape[-1] if shape and shape[-1] == shape[-2] else None
    return Source(name, ready[0], ready[1] if len(ready) > 1 else None, parts.classes, mean, std, side)


# Means and standard deviations of all pixels of the training images; for CIFAR exact to four digits.
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
STATISTICS: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "cifar100": ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
    "imagenet": IMAGENET,
    "cub200": IMAGENET,
    "cub200-boxes": IMAGENET,  # smaller than what its encoders are pretrained on
}


def _find(name: str, root: Path) -> Parts:
    if name in NAMED:
        return NAMED[name](root)
    if name.startswith("hf:"):
        return hub(name.removeprefix("hf:"), root)
    path = Path(name)
    if path.is_file() and path.suffix == ".parquet":
        return parquet([path])
    if path.is_dir():
        shards = sorted(path.glob("*.parquet"))
        return parquet(shards) if shards else folder(path)
    near = get_close_matches(name, NAMED, 1)
    raise FileNotFoundError(
        f"no data set {name!r}: neither one of {', '.join(NAMED)}, nor a folder or Parquet file, nor hf:OWNER/NAME"
        + (f"; did you mean {near[0]}?" if near else "")
    )


class _OtherSize(Exception):
    """An image whose size differs from that of the others before it."""


def _settle(
    name: str, parts: Parts, on_bad_image: OnBadImage, resident: Residence, size: int | None, budget: int, root: Path
) -> list[Images]:
    """Decode training and test images to memory, or check that they can be streamed; log which, and why."""
    ready = [_scaled(images, size) for images in parts[:2] if images is not None]
    why = "as asked"
    if resident != "no":
        shape = _common_shape(ready, on_bad_image)
        need = sum(map(len, ready)) * math.prod(shape or ())
        if shape is None:
            why = "images of different sizes"
        elif resident == "auto" and need > budget:
            why = f"{need / GIB:.1f} GiB when decoded, more than {budget / GIB:.1f}"
        else:
            try:
                ready = [_decoded(images, shape, on_bad_image) for images in ready]
            except _OtherSize as error:
                why = str(error)
    streamed = any(isinstance(images, StreamedImages) for images in ready)
    if streamed and resident == "yes":
        raise ValueError(
            f"resident=yes needs images of one size, but {name} has {why}; give the size that all are scaled to "
            f"(`--data.size 64`), or `--data.resident auto`"
        )
    if streamed:
        ready = [_checked(at_random_access(images, root), on_bad_image) for images in ready]
    count = f"{sum(map(len, ready)):,} images"
    if streamed:
        log.info("%s: %s, streamed (%s)", name, count, why)
    else:
        held = sum(images.images.nbytes for images in ready if isinstance(images, ResidentImages))
        log.info("%s: %s, resident (%.2f GiB)", name, count, held / GIB)
    return ready


def _scaled(images: Images, size: int | None) -> Images:
    if size is None:
        return images
    if isinstance(images, StreamedImages):
        return replace(images, size=size)
    pictures = (Image.fromarray(pixels) for pixels in images.images.permute(0, 2, 3, 1).numpy())
    return replace(images, images=torch.stack([to_tensor(fit(picture, size)) for picture in pictures]))


def _common_shape(parts: Sequence[Images], on_bad_image: OnBadImage = "error") -> tuple[int, ...] | None:
    """The shape of the images if all those looked at (up to 32 of each part) share it, else None."""
    shapes = set()
    for images in parts:
        for i in np.unique(np.linspace(0, len(images) - 1, 32).astype(int)):
            try:
                shapes.add(tuple(images.read(int(i)).shape))
            except BadImage:
                if on_bad_image == "error":
                    raise
    return shapes.pop() if len(shapes) == 1 else None


def _decoded(images: Images, shape: tuple[int, ...], on_bad_image: OnBadImage) -> Images:
    if isinstance(images, ResidentImages):
        return images
    pixels = torch.empty((len(images), *shape), dtype=torch.uint8)
    rows = pixels.permute(0, 2, 3, 1).numpy()  # the same memory, as Pillow has it

    def store(i: int) -> None:
        picture = images.picture(i)
        if picture.size != shape[:0:-1]:
            raise _OtherSize(
                "images of different sizes, such as {} x {} and {} x {}".format(*shape[:0:-1], *picture.size)
            )
        rows[i] = picture

    bad = _bad_images(store, len(images), on_bad_image)
    if bad:
        kept = _without(len(images), bad)
        return ResidentImages(pixels[kept], images.labels[kept])
    return ResidentImages(pixels, images.labels)


def _checked(images: Images, on_bad_image: OnBadImage) -> Images:
    if isinstance(images, ResidentImages) or (on_bad_image == "error" and len(images) > CHECKED):
        return images

    def check(i: int) -> None:
        images.read(i)

    bad = _bad_images(check, len(images), on_bad_image)
    return images.subset(_without(len(images), bad)) if bad else images


def _without(count: int, bad: list[int]) -> Int[Tensor, " m"]:
    kept = torch.ones(count, dtype=torch.bool)
    kept[bad] = False
    return kept.nonzero().flatten()


def _bad_images(visit: Callable[[int], None], count: int, on_bad_image: OnBadImage) -> list[int]:
    """Visit images 0 ... count - 1 on all processors (Pillow decodes outside the GIL); the numbers of bad ones."""

    def visit_all(numbers: range) -> list[tuple[int, BadImage]]:
        bad = []
        for i in numbers:
            try:
                visit(i)
            except BadImage as error:
                if on_bad_image == "error":
                    raise
                bad.append((i, error))
        return bad

    chunks = [range(start, min(start + 256, count)) for start in range(0, count, 256)]
    pool = ThreadPoolExecutor(os.cpu_count())
    try:
        bad = [found for part in pool.map(visit_all, chunks) for found in part]
    finally:
        pool.shutdown(cancel_futures=True)
    if bad:
        listed = "\n".join(f"  {error.name}: {error.reason}" for _, error in bad)
        if len(bad) == count:
            raise ValueError(f"none of {count:,} images can be decoded, so nothing is left to learn from:\n{listed}")
        log.warning("skipped %s of %s images that cannot be decoded:\n%s", f"{len(bad):,}", f"{count:,}", listed)
    return [i for i, _ in bad]


def _digits(root: Path) -> Parts:
    """scikit-learn's 1,797 handwritten digits, each on a 32 x 32 canvas at a random place and scale, as RGB.

    The side is uniform in 10 ... 24 pixels (bilinear), the place uniform among those inside the canvas. With a
    fixed seed: the same bytes always. The test set is a random 50 of each class.
    """
    from sklearn.datasets import load_digits

    data = load_digits()
    random = np.random.RandomState(0)  # the one NumPy generator whose stream is promised never to change
    canvas = np.zeros((len(data.images), 32, 32), np.uint8)
    for image, digit in zip(canvas, data.images):
        side = random.randint(10, 25)
        top, left = random.randint(0, 33 - side, 2)
        small = Image.fromarray(np.round(digit * (255 / 16)).astype(np.uint8))
        large = small.resize((side, side), Image.Resampling.BILINEAR)
        image[top : top + side, left : left + side] = np.asarray(large)
    place = random.permutation(len(canvas))
    labels = torch.from_numpy(data.target.astype(np.int64))
    test = torch.zeros(len(canvas), dtype=torch.bool)
    for c in range(10):
        members = np.flatnonzero(data.target == c)
        test[members[np.argsort(place[members])[:50]]] = True
    pixels = torch.from_numpy(canvas)[:, None].expand(-1, 3, -1, -1)
    parts = [ResidentImages(pixels[mask].contiguous(), labels[mask]) for mask in (~test, test)]
    return Parts(parts[0], parts[1], tuple("0123456789"))


class Published(NamedTuple):
    """A published set: where it is looked for, and where it comes from.

    Attributes:
        layouts: folder, relative to the root or to root/name -> its reader.
        counts: training and test images, to say what a partial copy lacks.
        classes: their number.
        archive: URL and MD5 of what is downloaded.
    """

    layouts: dict[str, Callable[[Path], Parts]]
    counts: tuple[int, int]
    classes: int
    archive: tuple[str, str]


def _published(name: str, published: Published, root: Path) -> Parts:
    parts = _on_disk(name, published, root)
    if parts is None:
        parts = _download(name, published, root)
    for part, images, total in zip(("training", "test"), parts[:2], published.counts):
        if images is not None and len(images) < total:
            log.warning("%s: %s of %s %s images found", name, f"{len(images):,}", f"{total:,}", part)
    return parts


def _on_disk(name: str, published: Published, root: Path) -> Parts | None:
    for base in (root / name, root):
        for layout, read in published.layouts.items():
            if (base / layout).is_dir():
                return read(base / layout)
    for shards in (sorted((root / name).rglob("*.parquet")), sorted(root.glob("*.parquet"))):
        if shards:
            parts = parquet(shards)
            if len(parts.classes) != published.classes:
                raise ValueError(
                    f"{shards[0]} has {len(parts.classes)} classes, but {name} has {published.classes}: name another "
                    f"`--data.root`, or load the folder by its path"
                )
            return parts
    return None


def _download(name: str, published: Published, root: Path) -> Parts:
    from torchvision.datasets.utils import download_and_extract_archive

    url, md5 = published.archive
    try:
        download_and_extract_archive(url, str(root), md5=md5)
    except (OSError, RuntimeError) as error:  # no network; or what came is damaged
        wanted = ", ".join(str(base / layout) for base in (root / name, root) for layout in published.layouts)
        raise FileNotFoundError(
            f"{name} is not under {root}, and downloading {url} failed ({error}). Looked for {wanted}, and for Parquet "
            f"shards train-*.parquet and test-*.parquet in {root / name} and {root}. Put one of them there, or name "
            f"another `--data.root`"
        ) from error
    parts = _on_disk(name, published, root)
    if parts is None:
        raise FileNotFoundError(f"{url} holds none of {', '.join(published.layouts)}; unpack {name} by hand in {root}")
    return parts


def _imagenet(root: Path) -> Parts:
    """Folders train/<wnid> and val/<wnid>."""
    for base in (root / "imagenet", root):
        if (base / "train").is_dir() and (base / "val").is_dir():
            parts = folder(base)
            if not parts.classes:
                raise ValueError(f"{base}/train holds images without class folders; expected train/<wnid>/*.JPEG")
            return parts
    raise FileNotFoundError(
        f"imagenet is not under {root}, and it is not free to download. Looked for train/<wnid> and val/<wnid> in "
        f"{root / 'imagenet'} and {root}; name another `--data.root`"
    )


CIFAR10 = Published(
    layouts={
        "cifar-10-batches-py": partial(
            cifar_python,
            "labels",
            "label_names",
            [f"data_batch_{i}" for i in range(1, 6)],
            "test_batch",
            "batches.meta",
        ),
        "cifar-10-batches-bin": partial(
            cifar_binary, 0, [f"data_batch_{i}.bin" for i in range(1, 6)], "test_batch.bin", "batches.meta.txt"
        ),
    },
    counts=(50_000, 10_000),
    classes=10,
    archive=("https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz", "c58f30108f718f92721af3b95e74349a"),
)
CIFAR100 = Published(
    layouts={
        "cifar-100-python": partial(cifar_python, "fine_labels", "fine_label_names", ["train"], "test", "meta"),
        "cifar-100-binary": partial(cifar_binary, 1, ["train.bin"], "test.bin", "fine_label_names.txt"),
    },
    counts=(50_000, 10_000),
    classes=100,
    archive=("https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz", "eb9058c3a382ffc7106e4002c42a8d85"),
)
TINY_IMAGENET = Published(
    layouts={"tiny-imagenet-200": tiny_imagenet},
    counts=(100_000, 10_000),
    classes=200,
    archive=("http://cs231n.stanford.edu/tiny-imagenet-200.zip", "90528d7ca1a48142e341f4ef8d21d0de"),
)
CUB200 = Published(
    layouts={"CUB_200_2011": partial(cub, False)},
    counts=(5_994, 5_794),
    classes=200,
    archive=(
        "https://data.caltech.edu/records/65de6-vp158/files/CUB_200_2011.tgz",
        "97eceeb196236b17998738112f37df78",
    ),
)
NAMED: dict[str, Callable[[Path], Parts]] = {
    "digits": _digits,
    "cifar10": partial(_published, "cifar10", CIFAR10),
    "cifar100": partial(_published, "cifar100", CIFAR100),
    "tiny-imagenet": partial(_published, "tiny-imagenet", TINY_IMAGENET),
    "imagenet": _imagenet,
    "cub200": partial(_published, "cub200", CUB200),
    "cub200-boxes": partial(_published, "cub200", CUB200._replace(layouts={"CUB_200_2011": partial(cub, True)})),
}
