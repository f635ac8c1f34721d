"""Readers of data sets on disk: a folder of a known layout -> images, labels and class names."""

import json
import logging
import os
import pickle
import re
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from relatum.data.decoding import SUFFIXES, BadImage
from relatum.data.images import Images, ResidentImages, StreamedImages

log = logging.getLogger(__name__)


class Parts(NamedTuple):
    """What a reader finds on disk, before it is decided what is resident."""

    train: Images
    test: Images | None
    classes: tuple[str, ...]


def cifar_python(labels: str, names: str, train: Sequence[str], test: str, meta: str, folder: Path) -> Parts:
    """CIFAR's official layout "python version": pickles of {"data": uint8 "n 3072", labels: list}."""

    def read(files: Sequence[str]) -> ResidentImages:
        batches = [_unpickle(_existing(folder / file)) for file in files]
        pixels = np.concatenate([np.asarray(batch["data"], np.uint8) for batch in batches])
        classes = [label for batch in batches for label in batch[labels]]
        return ResidentImages(torch.from_numpy(pixels).view(-1, 3, 32, 32), torch.tensor(classes))

    return Parts(read(train), read([test]), tuple(_unpickle(_existing(folder / meta))[names]))


def cifar_binary(skip: int, train: Sequence[str], test: str, names: str, folder: Path) -> Parts:
    """CIFAR's official layout "binary version": rows of `skip` bytes, the label, and 3072 pixels."""

    def read(files: Sequence[str]) -> ResidentImages:
        rows = np.concatenate([np.fromfile(_existing(folder / file), np.uint8) for file in files])
        if rows.size % (skip + 3073):
            raise ValueError(f"{folder}: {rows.size:,} bytes are not rows of {skip + 3073}; download it again")
        table = torch.from_numpy(rows).view(-1, skip + 3073)
        return ResidentImages(table[:, skip + 1 :].reshape(-1, 3, 32, 32), table[:, skip].long())

    return Parts(read(train), read([test]), tuple(_existing(folder / names).read_text().split()))


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


def tiny_imagenet(folder: Path) -> Parts:
    """The official layout: train/<wnid>/images/*, val/images/* with val_annotations.txt, words.txt."""
    wnids, files = _class_folders(_existing(folder / "train"))
    number = {wnid: i for i, wnid in enumerate(wnids)}
    rows = [line.split("\t")[:2] for line in _existing(folder / "val" / "val_annotations.txt").read_text().splitlines()]
    unknown = {wnid for _, wnid in rows} - set(wnids)
    if unknown:
        raise ValueError(f"{folder}: val_annotations.txt names {min(unknown)}, which has no folder in train")
    test = [(str(folder / "val" / "images" / file), number[wnid]) for file, wnid in rows]
    words = dict(line.split("\t")[:2] for line in _existing(folder / "words.txt").read_text().splitlines())
    return Parts(_files(files), _files(test), tuple(words.get(wnid, wnid).split(",")[0] for wnid in wnids))


def cub(bounding_boxes: bool, folder: Path) -> Parts:
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
    return Parts(
        images.subset(chosen.nonzero().flatten()), images.subset((~chosen).nonzero().flatten()), tuple(classes)
    )


class _Files:
    """Image files by path; the paths in one Arrow array, which worker processes share instead of copying."""

    def __init__(self, paths: Sequence[str]) -> None:
        self.paths = pa.array(paths, pa.large_string())

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, i: int) -> tuple[str, bytes]:
        path = self.paths[i].as_py()
        return path, Path(path).read_bytes()


def _files(labeled: Sequence[tuple[str, int]]) -> StreamedImages:
    labels = torch.tensor([label for _, label in labeled], dtype=torch.int64)
    return StreamedImages(_Files([path for path, _ in labeled]), labels, torch.arange(len(labels)))


def folder(path: Path) -> Parts:
    """A folder of images, or one that holds `train` and `test` (or `val`)."""
    if not (path / "train").is_dir():
        classes, files = _class_folders(path)
        return Parts(_files(files), None, classes)
    classes, files = _class_folders(path / "train")
    test = next((path / part for part in ("test", "val", "valid", "validation") if (path / part).is_dir()), None)
    if test is None:
        return Parts(_files(files), None, classes)
    test_classes, test_files = _class_folders(test)
    if not set(test_classes) <= set(classes):
        unknown = min(set(test_classes) - set(classes))
        raise ValueError(f"{test / unknown} is a class that {path / 'train'} lacks; give both the same class folders")
    number = [classes.index(c) for c in test_classes]
    return Parts(_files(files), _files([(f, number[c] if c >= 0 else -1) for f, c in test_files]), classes)


def _class_folders(path: Path) -> tuple[tuple[str, ...], list[tuple[str, int]]]:
    """The names of the class folders in `path`, in order, and all image files with their class, -1 if flat."""
    flat = [str(f) for f in sorted(path.iterdir()) if f.is_file() and _is_image(f.name)]
    classes = sorted(f.name for f in path.iterdir() if f.is_dir() and not f.name.startswith("."))
    if flat and classes:
        raise ValueError(
            f"{path} holds both images ({Path(flat[0]).name}) and folders ({classes[0]}): expected one folder per "
            f"class, or images alone"
        )
    if not flat and not classes:
        raise FileNotFoundError(
            f"{path} holds no image: expected files {', '.join(sorted(SUFFIXES))}, or folders of them, one per class"
        )
    files = [(file, -1) for file in flat]
    for number, name in enumerate(classes):
        found = list(_walk(path / name))
        if not found:
            raise FileNotFoundError(f"the class folder {path / name} holds no image: add some, or remove the folder")
        files += [(file, number) for file in found]
    return tuple(classes), files


def _walk(folder: Path) -> Iterator[str]:
    for directory, folders, files in os.walk(folder):
        folders.sort()
        yield from (os.path.join(directory, file) for file in sorted(files) if _is_image(file))


def _is_image(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in SUFFIXES and not name.startswith(".")


class _Rows:
    """The column `image: {bytes, path}` of Parquet shards, read whole; or of an Arrow file, mapped into memory."""

    def __init__(self, files: Sequence[Path], column: str, counts: Sequence[int], arrow: Path | None = None) -> None:
        self.files, self.column, self.arrow = tuple(files), column, arrow
        self.ends = np.cumsum(counts)

    def __len__(self) -> int:
        return int(self.ends[-1])

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "images"}  # workers map it anew

    def __getitem__(self, i: int) -> tuple[str, bytes]:
        shard = int(np.searchsorted(self.ends, i, "right"))
        row = i - (int(self.ends[shard - 1]) if shard else 0)
        name = f"{self.files[shard]}, row {row}"
        image = self.images[i].as_py()
        if image is None or image["bytes"] is None:
            raise BadImage(name, "the row has no bytes")
        return name, image["bytes"]

    def batches(self) -> Iterator[pa.RecordBatch]:
        for file in self.files:
            yield from pq.ParquetFile(file).iter_batches(256, columns=[self.column])

    @cached_property
    def images(self) -> pa.ChunkedArray:
        if self.arrow is not None:
            return pa.ipc.open_file(pa.memory_map(str(self.arrow))).read_all().column(0)
        return pa.chunked_array([batch.column(0) for batch in self.batches()])

    def mapped(self, root: Path) -> "_Rows":
        """The same rows at random access without reading all: an Arrow file under `root`, written once.

        A Parquet file gives a row only with the thousand others of its row group.
        """
        stamp = [(str(f.resolve()), f.stat().st_size, f.stat().st_mtime_ns) for f in self.files]
        folder = root if _writable(root) else Path(tempfile.gettempdir())
        arrow = folder / f"relatum-{blake2b(repr(stamp).encode(), digest_size=8).hexdigest()}.arrow"
        if not arrow.exists():
            log.info("unpacking %d Parquet files to %s, for random access", len(self.files), arrow)
            part = arrow.with_suffix(f".{os.getpid()}.part")
            try:
                batches = self.batches()
                head = next(batches)
                with pa.OSFile(str(part), "wb") as sink, pa.ipc.new_file(sink, head.schema) as writer:
                    writer.write_batch(head)
                    for batch in batches:
                        writer.write_batch(batch)
                part.replace(arrow)
            finally:
                part.unlink(missing_ok=True)
        return _Rows(self.files, self.column, np.diff(self.ends, prepend=0).tolist(), arrow)


def at_random_access(images: Images, root: Path) -> Images:
    """The same images, those in Parquet unpacked to `root` first."""
    if isinstance(images, StreamedImages) and isinstance(images.encoded, _Rows):
        return replace(images, encoded=images.encoded.mapped(root))
    return images


def _writable(root: Path) -> bool:
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(root, os.W_OK)


def parquet(files: Sequence[Path]) -> Parts:
    """Parquet shards in the Hugging Face image layout; which part they belong to is the start of their names."""
    parts: dict[str, list[Path]] = {"train": [], "test": [], "val": []}
    for file in files:
        word = re.split(r"[-_.]", file.name)[0].lower()
        part = {"test": "test", "val": "val", "valid": "val", "validation": "val"}.get(word, "train")
        parts["train" if len(files) == 1 else part].append(file)
    test_files = parts["test"] or parts["val"]
    if not parts["train"]:
        raise FileNotFoundError(f"no training shard train-*.parquet beside {test_files[0]}; add it")
    train, classes = _shards(parts["train"])
    test = None
    if test_files:
        test, test_classes = _shards(test_files)
        if classes != test_classes:
            raise ValueError(
                f"{test_files[0]} names other classes than {parts['train'][0]} ({len(test_classes)} against "
                f"{len(classes)}): they belong to different sets"
            )
    return Parts(train, test, classes)


def _shards(files: Sequence[Path]) -> tuple[StreamedImages, tuple[str, ...]]:
    total = re.search(r"-of-(\d+)", files[0].name)
    if total and len(files) < int(total[1]):
        log.warning("%d of %d shards found: %s", len(files), int(total[1]), ", ".join(f.name for f in files))
    try:
        shards = [pq.ParquetFile(file) for file in files]
    except pa.ArrowInvalid as error:
        raise ValueError(f"cannot read the Parquet shards {files[0]} ...: {error}; download them again") from error
    schema = shards[0].schema_arrow
    image = next((c for c in ("image", "img") if c in schema.names), None)
    if image is None:
        raise ValueError(
            f"{files[0]} has the columns {', '.join(schema.names)}; expected image: {{bytes, path}}, and label"
        )
    label = next((c for c in ("label", "fine_label", "labels") if c in schema.names), None)
    counts = [shard.metadata.num_rows for shard in shards]
    labels = torch.full((sum(counts),), -1)
    classes: tuple[str, ...] = ()
    if label is not None:
        columns = [shard.read([label]).column(0) for shard in shards]
        labels = torch.tensor([-1 if v is None else v for column in columns for v in column.to_pylist()])
        features = json.loads((schema.metadata or {}).get(b"huggingface", b"{}")).get("info", {}).get("features", {})
        names = features.get(label, {}).get("names")
        classes = tuple(names or map(str, range(int(labels.max()) + 1)))
    if not len(labels):
        raise FileNotFoundError(f"{files[0]} holds no rows; download it again")
    return StreamedImages(_Rows(files, image, counts), labels, torch.arange(len(labels))), classes


class _HubRows:
    """The image column of a split of the `datasets` library, which maps it into memory itself."""

    def __init__(self, name: str, rows: Any, column: str) -> None:
        self.name, self.rows, self.column = name, rows, column

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, i: int) -> tuple[str, bytes]:
        image, name = self.rows[i][self.column], f"{self.name}, row {i}"
        if image is None:
            raise BadImage(name, "the row is empty")
        return name, image["bytes"] if image["bytes"] is not None else Path(image["path"]).read_bytes()


def hub(name: str, root: Path) -> Parts:
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

    return Parts(part("train"), part(test) if test else None, tuple(features[label].names) if label else ())
