"""The data sets: a name, a path, tensors or a torch Dataset -> training and test images, classes, mean and std."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Int, UInt8
from torch import Tensor
from torch.utils.data import Dataset

from relatum.data import trees
from relatum.data.catalog import ADDED, CATALOG, NamedSet, Statistics
from relatum.data.decoding import suffixes
from relatum.data.digits import digits
from relatum.data.downloads import fetch
from relatum.data.images import Images, ResidentImages, check_range, mean_std
from relatum.data.layouts import READERS, hub, imagenet
from relatum.data.listing import LeftOut, Listing, by_name, in_a_line, refuse_bad
from relatum.data.objects import listed
from relatum.data.residency import BUDGET, OnBadImage, Residence, Settled, Wish, settle

log = logging.getLogger(__name__)

PARQUET_HINT = "pip install 'relatum[parquet]'"
GIVEN = "python:"  # what the name begins with, in Records, of data that was given to `fit` as an object


@dataclass(frozen=True)
class Source:
    """A data set.

    Attributes:
        name: what it was loaded by.
        train: the training images.
        test: the test images, or None where the set has none.
        classes: the name of each class; empty without labels.
        mean, std: the training images' pixels have these in [0, 1], per channel; for training and test alike.
        size: the side of the images where all are squares of one size, else None.
        found: what was found, in a line: "420 images, 6 classes (folders), 3 skipped: 2 .heic, 1 truncated".
        left_out: what was found and is not used, with its reason.
    """

    name: str
    train: Images
    test: Images | None
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    size: int | None
    found: str = ""
    left_out: tuple[LeftOut, ...] = ()

    def tensors(self, part: Literal["train", "test"] = "train") -> tuple[UInt8[Tensor, "n c h w"], Int[Tensor, " n"]]:
        """The images of a part as one tensor, and their classes, for a loop of one's own.

        Args:
            part: "train" or "test".

        Returns:
            Images "n c h w", 0 to 255, and the class of each, -1 for none. Images that are streamed are decoded.

        Raises:
            ValueError: for a part that the set has not, or images of several sizes.
        """
        images = {"train": self.train, "test": self.test}.get(part)
        if images is None:
            has = "train, test" if self.test is not None else "train alone"
            raise ValueError(f"{self.name} has no images of the part {part!r}; expected {has}.")
        if isinstance(images, ResidentImages):
            return images.images, images.labels
        read = [images.read(i) for i in range(len(images))]
        if len({tuple(image.shape) for image in read}) > 1:
            raise ValueError(
                f"{self.name} holds images of several sizes, which are no one tensor; load({self.name!r}, size=64) "
                "scales all to one."
            )
        return torch.stack(read), images.labels


def load(
    name: str,
    *,
    root: str | Path = ".data",
    on_bad_image: OnBadImage = "error",
    resident: Residence = "auto",
    size: int | None = None,
    budget: int = BUDGET,
    labels: str = "folders",
    together: bool = False,
    check: Callable[[Listing], None] | None = None,
) -> Source:
    """Load a data set by name, by path, or from the Hugging Face hub.

    By name: one of `catalog.CATALOG`, in an official layout or as Parquet shards, under `root` or `root/name`, else
    downloaded. By path: a folder of images, labeled by sub-folder or flat, perhaps in `train` and `test` (or `val`);
    a .zip of such a folder; a single image; a pattern such as `photos/*/*.jpg`; a Parquet file, or a folder of
    shards, with the columns `image: {bytes, path}` and `label`. From the hub: `hf:OWNER/NAME`.

    Every image is decoded once before this returns, so that a bad one stops nobody's training: except in a
    streamed set of more than 50,000, where `"error"` meets it when it is read, and `"skip"` decodes all of them.

    Args:
        name: the name, path or `hf:OWNER/NAME`.
        root: where named sets are looked for and downloaded to.
        on_bad_image: `"error"` stops at an image that cannot be decoded, and at what has an image's name and cannot
            be one (a pipe, a dangling link, a name that is not UTF-8); `"skip"` lists such images and drops them.
        resident: whether to hold the decoded images in memory: `"auto"` does if all have one size and need
            together at most `budget` bytes. Sets that come as arrays (digits, CIFAR's official layout) always are.
        size: side in pixels of the square that every image is cut (at the center) and scaled to; None leaves them.
        budget: bytes.
        labels: for folders, archives and patterns: `"folders"`, `"none"`, or the path of a table with the columns
            `file` and `label`.
        together: take the folders `train` and `test` of a folder as two among others: one set of all images.
        check: called with what was listed before any image is decoded, to refuse it in time.

    Raises:
        FileNotFoundError: the set is not there, an image or a file of its layout is missing, or a folder is empty.
        ValueError: an unknown name, a damaged layout, labels out of range, no image left, or `resident="yes"` with
            images of different sizes.
        BadImage: an image cannot be decoded, with `on_bad_image="error"`.
    """
    if size is not None and size < 1:
        raise ValueError(f"size={size} must be a positive number of pixels")
    listing = find(name, root=root, labels=labels, together=together)
    if on_bad_image == "error":
        refuse_bad(listing.left_out)
    if check is not None:
        check(listing)
    settled = settle(name, listing, Wish(on_bad_image, resident, size, budget))
    return _source(name, listing, settled, CATALOG[name].statistics if name in CATALOG else None)


def find(name: str, *, root: str | Path = ".data", labels: str = "folders", together: bool = False) -> Listing:
    """List a data set without decoding an image. Args, Raises: as `load`."""
    listing = _find(name, Path(root), labels, together)
    for images in listing.parts:
        check_range(images.labels, len(listing.classes))
        if not len(images):
            raise FileNotFoundError(f"{name}: no image is left:\n{by_name(listing.left_out)}")
    return listing


def from_tensors(
    images: Tensor,
    labels: Tensor | None = None,
    *,
    test_images: Tensor | None = None,
    test_labels: Tensor | None = None,
    classes: Sequence[str] | None = None,
    name: str = "tensors",
) -> Source:
    """A data set of images in memory.

    Args:
        images: training images, uint8 of shape (n, c, h, w), 1 or 3 channels.
        labels: the class of each, from 0 on, or -1 for none; None for no labels.
        test_images, test_labels: the test part, where there is one.
        classes: the name of each class; by default their numbers.
        name: what it is called in Records.

    Raises:
        ValueError: no image, another type or number of channels, or labels that do not fit.
    """
    parts = [_part("images", images, labels)]
    if test_images is not None:
        parts.append(_part("test_images", test_images, test_labels))
        if images.shape[1] != test_images.shape[1]:
            raise ValueError(f"images have {images.shape[1]} channels and test_images {test_images.shape[1]}")
    listing = _in_memory(parts, classes)
    return _source(name, listing, settle(name, listing, Wish()), None)


def from_dataset(
    dataset: Dataset[Any],
    test: Dataset[Any] | None = None,
    *,
    classes: Sequence[str] | None = None,
    name: str = "dataset",
    resident: Residence = "auto",
) -> Source:
    """A data set of a torch Dataset, such as torchvision's, whose items are images or pairs (image, class).

    An image is a PIL picture, a uint8 tensor or array "c h w", or what torchvision's `ToTensor` makes of it. Random
    or normalizing transforms must be left out: Relatum makes its own views. Every item is read once for its label;
    images of one size are then kept in memory.

    Args:
        dataset: the training part.
        test: the test part, where there is one.
        classes: the name of each class; by default `dataset.classes`, or their numbers.
        name: what it is called in Records.
        resident: as for `load`.

    Raises:
        ValueError: an empty Dataset, or an item that is neither an image nor such a pair.
    """
    parts = [listed(one, part) for one, part in ((dataset, "train"), (test, "test")) if one is not None]
    listing = _in_memory(parts, classes or getattr(dataset, "classes", None))
    return _source(name, listing, settle(name, listing, Wish(resident=resident)), None)


def of(data: Any, name: str = "") -> Source:
    """A data set of whatever holds images: what `fit` and registered data sets take.

    Args:
        data: a `Source`; images as uint8 tensors (n, c, h, w); a torch Dataset (see `from_dataset`); (images, labels);
            or a pair of one of these, (training, test).
        name: what it is called in Records; "tensors" or "dataset" by default.

    Raises:
        ValueError: for anything else, and as `from_tensors` and `from_dataset`.
    """
    if isinstance(data, Source):
        return data
    if isinstance(data, tuple | list) and len(data) == 2:
        train, test = data
        if isinstance(train, Dataset) and isinstance(test, Dataset):
            return from_dataset(train, test, name=name or "dataset")
        both = [_images_and_labels(part) for part in (train, test)]
        if all(part is not None for part in both) and not (isinstance(test, Tensor) and test.ndim == 1):
            (images, labels), (others, their) = both  # type: ignore[misc]  # neither is None
            return from_tensors(images, labels, test_images=others, test_labels=their, name=name or "tensors")
    found = _images_and_labels(data)
    if found is not None:
        return from_tensors(*found, name=name or "tensors")
    if isinstance(data, Dataset):
        return from_dataset(data, name=name or "dataset")
    raise ValueError(
        f"the data is a {type(data).__name__}; expected a torch Dataset, images as a uint8 tensor (n, c, h, w), "
        "(images, labels), a pair (training, test) of one of these, or a relatum.Source."
    )


def _images_and_labels(data: Any) -> tuple[Tensor, Tensor | None] | None:
    if isinstance(data, Tensor):
        return data, None
    if isinstance(data, tuple | list) and len(data) == 2 and all(isinstance(part, Tensor) for part in data):
        return data[0], data[1]
    return None


def _part(what: str, images: Tensor, labels: Tensor | None) -> ResidentImages:
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] not in (1, 3) or not len(images):
        raise ValueError(
            f"{what} is {images.dtype} of shape {tuple(images.shape)}: expected uint8, 0 to 255, of shape (n, c, h, w) "
            f"with n >= 1 images of 1 or 3 channels; views scale and normalize them"
        )
    if labels is None:
        labels = torch.full((len(images),), -1)
    if labels.is_floating_point() or labels.shape != images.shape[:1]:
        raise ValueError(
            f"the labels of {what} are {labels.dtype} of shape {tuple(labels.shape)}: expected a whole number for "
            f"each of the {len(images):,} images"
        )
    return ResidentImages(images.cpu(), labels.long().cpu())


def _in_memory(parts: Sequence[Images], classes: Sequence[str] | None) -> Listing:
    highest = max(int(part.labels.max()) for part in parts)
    images = sum(map(len, parts))
    if classes is None and highest >= images:
        raise ValueError(
            f"the label {highest:,} among {images:,} images: classes are numbered from 0, and there cannot be more "
            f"than images; renumber them, or name the classes"
        )
    names = tuple(map(str, classes if classes is not None and highest >= 0 else range(highest + 1)))
    for part in parts:
        check_range(part.labels, len(names))
    return Listing(parts[0], parts[1] if len(parts) > 1 else None, names)


def _source(name: str, listing: Listing, settled: Settled, statistics: Statistics | None) -> Source:
    train = settled.parts[0]
    test = settled.parts[1] if len(settled.parts) > 1 else None
    left_out = (*listing.left_out, *settled.left_out)
    found = in_a_line(len(train), None if test is None else len(test), listing, left_out)
    log.info("%s: %s; %s", name, found, settled.how)
    if left_out:
        log.warning("left out:\n%s", by_name(left_out))
    mean, std = statistics or mean_std(train, settled.histograms)
    return Source(name, train, test, listing.classes, mean, std, settled.size, found, left_out)


def _find(name: str, root: Path, labels: str, together: bool) -> Listing:
    if name in CATALOG:
        return _named(name, CATALOG[name], root)
    if name in ADDED:
        made = of(ADDED[name](root), name)
        return Listing(made.train, made.test, made.classes)
    if name.startswith(GIVEN):
        raise FileNotFoundError(
            f"{name} is data that was given in Python, as fit(recipe, run, data=...), and has no name here: register "
            "what makes it, @relatum.register_data('my-data'), and name that file by --plugin; or choose other data "
            "with --data.source."
        )
    if name.startswith("hf:"):
        return hub(name.removeprefix("hf:"), root)
    path = Path(name).expanduser()
    if path.is_dir():
        shards = sorted(path.glob("*.parquet"))
        return _parquet(shards) if shards else trees.folder(path, labels, together=together)
    if path.is_file() and path.suffix.lower() == ".parquet":
        return _parquet([path])
    if path.is_file() and path.suffix.lower() == ".zip":
        return trees.archive(path, labels, together=together)
    if path.suffix.lower() in suffixes() and path.exists():
        return trees.single(path)
    if any(sign in name for sign in "*?["):
        return trees.pattern(str(path), labels)
    near = get_close_matches(name, [*CATALOG, *ADDED], 1)
    raise FileNotFoundError(
        f"no data set {name!r}: neither one of {', '.join([*CATALOG, *ADDED])}, nor a folder, .zip, image, pattern or "
        f"Parquet file, nor hf:OWNER/NAME" + (f"; did you mean {near[0]}?" if near else "")
    )


def _parquet(files: Sequence[Path], label: str = "") -> Listing:
    """`data.parquet.parquet`, imported where there are such files."""
    try:
        from relatum.data.parquet import parquet
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"reading {files[0]} needs {error.name}: {PARQUET_HINT}.", name=error.name) from None
    return parquet(files, label)


def _named(name: str, facts: NamedSet, root: Path) -> Listing:
    if name == "digits":
        return digits()
    if name == "digits24":
        return digits(24, 12, 16)
    if name == "imagenet":
        for base in (root / name, root):
            if (base / "train").is_dir() and (base / "val").is_dir():
                return imagenet(base)
        raise FileNotFoundError(
            f"imagenet is not under {root}, and it is not free to download. Looked for train/<wnid> and val/<wnid> in "
            f"{root / name} and {root}; name another `--data.root`"
        )
    listing = _on_disk(name, facts, root) or _downloaded(name, facts, root)
    for part, images, total in zip(("training", "test"), listing.parts, (facts.train, facts.test)):
        if len(images) < total:
            log.warning("%s: %s of %s %s images found", name, f"{len(images):,}", f"{total:,}", part)
    return listing


def _on_disk(name: str, facts: NamedSet, root: Path) -> Listing | None:
    own = root / (facts.folder or name)
    for base in (own, root):
        for layout, reader in facts.layouts:
            if (base / layout).is_dir():
                return READERS[reader](base / layout)
    for shards in (sorted(own.rglob("*.parquet")), sorted(root.glob("*.parquet"))):
        if shards:
            listing = _parquet(shards, facts.label)
            if len(listing.classes) != facts.classes:
                raise ValueError(
                    f"{shards[0]} has {len(listing.classes)} classes, but {name} has {facts.classes}: name another "
                    f"`--data.root`, or load the folder by its path"
                )
            return listing
    return None


def _downloaded(name: str, facts: NamedSet, root: Path) -> Listing:
    assert facts.archive is not None
    layouts = [layout for layout, _ in facts.layouts]
    try:
        fetch(facts.archive, root, layouts)
    except (OSError, ValueError) as error:  # no network; or what came is damaged
        wanted = ", ".join(str(base / layout) for base in (root / name, root) for layout in layouts)
        raise FileNotFoundError(
            f"{name} is not under {root}, and downloading {facts.archive.url} failed ({error}). Looked for {wanted}, "
            f"and for Parquet shards train-*.parquet and test-*.parquet in {root / name} and {root}. Put one of them "
            f"there, or name another `--data.root`"
        ) from error
    listing = _on_disk(name, facts, root)
    if listing is None:
        raise FileNotFoundError(
            f"{facts.archive.url} holds none of {', '.join(layouts)}; unpack {name} by hand in {root}"
        )
    return listing
