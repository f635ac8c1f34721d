"""Readers of data sets on disk: a folder of a known layout -> images, labels and class names."""

import pickle
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from relatum.data import trees
from relatum.data.decoding import BadImage, read_file
from relatum.data.files import Files, streamed
from relatum.data.images import ResidentImages, StreamedImages
from relatum.data.listing import Listing


def cifar_python(labels: str, names: str, train: Sequence[str], test: str, meta: str, folder: Path) -> Listing:
    """CIFAR's official layout "python version": pickles of {"data": uint8 "n 3072", labels: list}."""

    def read(files: Sequence[str]) -> ResidentImages:
        batches = [_unpickle(_existing(folder / file)) for file in files]
        pixels = np.concatenate([np.asarray(batch["data"], np.uint8) for batch in batches])
        classes = [label for batch in batches for label in batch[labels]]
        return ResidentImages(torch.from_numpy(pixels).view(-1, 3, 32, 32), torch.tensor(classes))

    return Listing(read(train), read([test]), tuple(_unpickle(_existing(folder / meta))[names]))


def cifar_binary(label: int, labels: int, train: Sequence[str], test: str, names: str, folder: Path) -> Listing:
    """CIFAR's official layout "binary version": rows of so many labels, of which `label` counts, and 3072 pixels."""

    def read(files: Sequence[str]) -> ResidentImages:
        rows = np.concatenate([np.fromfile(_existing(folder / file), np.uint8) for file in files])
        if rows.size % (labels + 3072):
            raise ValueError(f"{folder}: {rows.size:,} bytes are not rows of {labels + 3072}; download it again")
        table = torch.from_numpy(rows).view(-1, labels + 3072)
        return ResidentImages(table[:, labels:].reshape(-1, 3, 32, 32), table[:, label].long())

    return Listing(read(train), read([test]), tuple(_existing(folder / names).read_text().split()))


class _Unpickler(pickle.Unpickler):
    """Unpickles containers, strings, numbers and NumPy arrays: nothing that could run foreign code."""

    ADMITTED = {  # noqa: RUF012
        (module, name): admitted
        for name, admitted in [
            ("_reconstruct", np.empty(0).__reduce__()[0]),
            ("ndarray", np.ndarray),
            ("dtype", np.dtype),
        ]
        for module in ("numpy", "numpy.core.multiarray", "numpy._core.multiarray")
    }

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self.ADMITTED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, and only NumPy arrays are admitted")
        return self.ADMITTED[module, name]


def _unpickle(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        try:
            content = _Unpickler(file, encoding="latin1").load()  # written by Python 2
        except Exception as error:  # a damaged pickle can raise anything
            raise ValueError(f"cannot read {path}: {error}; expected a batch of CIFAR, download it again") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds a {type(content).__name__}, not a batch of CIFAR; download it again")
    return content


def _existing(path: Path) -> Path:
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing: the folder is not complete, unpack it again")
    return path


def tiny_imagenet(folder: Path) -> Listing:
    """The official layout: train/<wnid>/images/*, val/images/* with val_annotations.txt, words.txt."""
    training = trees.folder(_existing(folder / "train"))
    wnids = training.classes
    number = {wnid: i for i, wnid in enumerate(wnids)}
    rows = [line.split("\t")[:2] for line in _existing(folder / "val" / "val_annotations.txt").read_text().splitlines()]
    unknown = {wnid for _, wnid in rows} - set(wnids)
    if unknown:
        raise ValueError(f"{folder}: val_annotations.txt names {min(unknown)}, which has no folder in train")
    test = [(str(folder / "val" / "images" / file), number[wnid]) for file, wnid in rows]
    words = dict(line.split("\t")[:2] for line in _existing(folder / "words.txt").read_text().splitlines())
    names = tuple(words.get(wnid, wnid).split(",")[0] for wnid in wnids)
    return Listing(training.train, _files(test), names, left_out=training.left_out)


def cub(bounding_boxes: bool, folder: Path) -> Listing:
    """The official layout of Caltech-UCSD Birds 200: tables "number value(s)" and images/<class>/*.jpg."""

    def table(file: str) -> list[list[str]]:
        return [line.split() for line in _existing(folder / file).read_text().splitlines()]

    names, training, labels = table("images.txt"), table("train_test_split.txt"), table("image_class_labels.txt")
    classes = [name.split(".", 1)[-1] for _, name in table("classes.txt")]
    boxes = table("bounding_boxes.txt") if bounding_boxes else names
    if not [r[0] for r in names] == [r[0] for r in training] == [r[0] for r in labels] == [r[0] for r in boxes]:
        raise ValueError(f"{folder}: the tables do not list the same images in the same order; unpack it again")
    images = _files([(str(folder / "images" / n), int(c) - 1) for (_, n), (_, c) in zip(names, labels)])
    if bounding_boxes:
        left, top, width, height = torch.tensor([[float(v) for v in row[1:]] for row in boxes]).unbind(1)
        edges = torch.stack([left, top, left + width, top + height], 1)
        images = replace(images, boxes=edges.round().long())
    chosen = torch.tensor([flag == "1" for _, flag in training])
    return Listing(
        images.subset(chosen.nonzero().flatten()), images.subset((~chosen).nonzero().flatten()), tuple(classes)
    )


def imagenet(folder: Path) -> Listing:
    """Folders train/<wnid> and val/<wnid>."""
    listing = trees.folder(folder)
    if not listing.classes:
        raise ValueError(f"{folder}/train holds images without class folders; expected train/<wnid>/*.JPEG")
    return listing


def _files(labeled: Sequence[tuple[str, int]]) -> StreamedImages:
    return streamed(Files([path for path, _ in labeled]), [label for _, label in labeled])


class _HubRows:
    """The image column of a split of the `datasets` library, which maps it into memory itself."""

    def __init__(self, part: str, rows: Any, column: str) -> None:
        self.part, self.rows, self.column = part, rows, column

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, i: int) -> tuple[str, bytes]:
        image, name = self.rows[i][self.column], self.name(i)
        if image is None:
            raise BadImage(name, "the row is empty", "empty row")
        return name, image["bytes"] if image["bytes"] is not None else read_file(image["path"])

    def name(self, i: int) -> str:
        """The set, its part and the row."""
        return f"{self.part}, row {i}"

    def made_of(self) -> None:
        """None: the library keeps its own cache."""
        return None


def hub(name: str, root: Path) -> Listing:
    """A data set of the Hugging Face hub: its first image column and its first column of class labels."""
    try:
        import datasets
    except ImportError as error:
        raise ImportError("hf: data sets need the `datasets` library: pip install 'relatum[hub]'") from error
    try:
        splits = datasets.load_dataset(name, cache_dir=str(root / "hub"))
    except (OSError, ValueError, RuntimeError) as error:
        raise FileNotFoundError(f"cannot load hf:{name} ({error}); expected OWNER/NAME of a public set") from error
    test = next((part for part in ("test", "validation", "valid", "val") if part in splits), None)
    if "train" not in splits:
        raise ValueError(f"hf:{name} has the parts {', '.join(splits)}, and none is called train")
    features = splits["train"].features
    image = next((c for c, f in features.items() if isinstance(f, datasets.Image)), None)
    label = next((c for c, f in features.items() if isinstance(f, datasets.ClassLabel)), None)
    if image is None:
        raise ValueError(f"hf:{name} has the columns {', '.join(features)}, and none holds images")

    def part(split: str) -> StreamedImages:
        rows = splits[split]
        labels = [-1] * len(rows) if label is None else [-1 if v is None else v for v in rows[label]]
        encoded = _HubRows(f"hf:{name} {split}", rows.cast_column(image, datasets.Image(decode=False)), image)
        return StreamedImages(encoded, torch.tensor(labels), torch.arange(len(rows)))

    return Listing(part("train"), part(test) if test else None, tuple(features[label].names) if label else ())


READERS: dict[str, Callable[[Path], Listing]] = {
    "cifar10_python": partial(
        cifar_python, "labels", "label_names", [f"data_batch_{i}" for i in range(1, 6)], "test_batch", "batches.meta"
    ),
    "cifar10_binary": partial(
        cifar_binary, 0, 1, [f"data_batch_{i}.bin" for i in range(1, 6)], "test_batch.bin", "batches.meta.txt"
    ),
    "cifar100_python": partial(cifar_python, "fine_labels", "fine_label_names", ["train"], "test", "meta"),
    "cifar100_binary": partial(cifar_binary, 1, 2, ["train.bin"], "test.bin", "fine_label_names.txt"),
    "cifar100_python_coarse": partial(cifar_python, "coarse_labels", "coarse_label_names", ["train"], "test", "meta"),
    "cifar100_binary_coarse": partial(cifar_binary, 0, 2, ["train.bin"], "test.bin", "coarse_label_names.txt"),
    "tiny_imagenet": tiny_imagenet,
    "cub": partial(cub, False),
    "cub_boxes": partial(cub, True),
}
"""The reader of each layout that the catalog names."""
