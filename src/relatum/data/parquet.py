"""Parquet files in the Hugging Face image layout: columns `image: {bytes, path}` and `label`.

Imported where there is such a file: pyarrow is the heaviest package beside torch, and an extra.
"""

import json
import logging
import os
import re
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from jaxtyping import Int64
from torch import Tensor

from relatum.data import cache
from relatum.data.decoding import BadImage
from relatum.data.images import StreamedImages
from relatum.data.listing import Listing

log = logging.getLogger(__name__)

IMAGE_COLUMNS = ("image", "img")
LABEL_COLUMNS = ("label", "fine_label", "labels")
PARTS = {"test": "test", "val": "val", "valid": "val", "validation": "val"}


class Rows:
    """The image column of Parquet shards, read whole; or of an Arrow file, mapped into memory."""

    def __init__(self, files: Sequence[Path], column: str, counts: Sequence[int], arrow: Path | None = None) -> None:
        self.files, self.column, self.arrow = tuple(files), column, arrow
        self.ends = np.cumsum(counts)

    def __len__(self) -> int:
        return int(self.ends[-1])

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "images"}  # workers map it anew

    def __getitem__(self, i: int) -> tuple[str, bytes]:
        image, name = self.images[i].as_py(), self.name(i)
        if image is None or image["bytes"] is None:
            raise BadImage(name, "the row has no bytes", "empty row")
        return name, image["bytes"]

    def name(self, i: int) -> str:
        """The file and the row in it."""
        shard = int(np.searchsorted(self.ends, i, "right"))
        return f"{self.files[shard]}, row {i - (int(self.ends[shard - 1]) if shard else 0)}"

    def made_of(self) -> tuple[tuple[str, ...], str]:
        """The shards; and what changes when one of them does."""
        return tuple(os.path.abspath(file) for file in self.files), repr(cache.stamp(self.files))

    def batches(self) -> Iterator[pa.RecordBatch]:
        """The image column, in parts.

        Raises:
            ValueError: a shard is damaged.
        """
        for file in self.files:
            try:
                yield from pq.ParquetFile(file).iter_batches(256, columns=[self.column])
            except (pa.ArrowException, OSError) as error:
                raise ValueError(_damaged(file, error)) from error

    @cached_property
    def images(self) -> pa.ChunkedArray:
        """The column."""
        if self.arrow is not None:
            return pa.ipc.open_file(pa.memory_map(str(self.arrow))).read_all().column(0)
        return pa.chunked_array([batch.column(0) for batch in self.batches()])

    def mapped(self) -> "Rows":
        """The same rows at random access without reading all: an Arrow file in the user's cache, written once.

        A Parquet file gives a row only with the thousand others of its row group.
        """
        if self.arrow is not None:
            return self
        sources, content = self.made_of()
        key = cache.Key(sources, self.column, content, "arrow")
        entry = cache.find(key)
        if entry is None:
            log.info("unpacking %d Parquet files for random access", len(self.files))
            entry = cache.store(key, self._write)
        return Rows(self.files, self.column, np.diff(self.ends, prepend=0).tolist(), entry.path)

    def _write(self, path: Path) -> None:
        batches = self.batches()
        head = next(batches)
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, head.schema) as writer:
            writer.write_batch(head)
            for batch in batches:
                writer.write_batch(batch)


def parquet(files: Sequence[Path], label: str = "") -> Listing:
    """Parquet shards; which part each belongs to is the start of its name.

    Args:
        files: the shards.
        label: the column of the class; the first of `LABEL_COLUMNS` that is there, if not given.

    Raises:
        FileNotFoundError: there is no training shard, or no row.
        ValueError: a shard is damaged, or its columns are not those of images and classes.
    """
    parts: dict[str, list[Path]] = {"train": [], "test": [], "val": []}
    for file in files:
        word = re.split(r"[-_.]", file.name)[0].lower()
        parts["train" if len(files) == 1 else PARTS.get(word, "train")].append(file)
    test_files = parts["test"] or parts["val"]
    if not parts["train"]:
        raise FileNotFoundError(f"no training shard train-*.parquet beside {test_files[0]}; add it")
    train, classes = _shards(parts["train"], label)
    test = None
    if test_files:
        test, test_classes = _shards(test_files, label)
        if classes != test_classes:
            raise ValueError(
                f"{test_files[0]} names other classes than {parts['train'][0]} ({len(test_classes)} against "
                f"{len(classes)}): they belong to different sets"
            )
    return Listing(train, test, classes, "column of labels" if classes else "")


def _shards(files: Sequence[Path], asked: str) -> tuple[StreamedImages, tuple[str, ...]]:
    total = re.search(r"-of-(\d{1,9})\b", files[0].name)
    if total and len(files) < int(total[1]):
        log.warning("%d of %d shards found: %s", len(files), int(total[1]), ", ".join(f.name for f in files))
    shards = []
    for file in files:
        try:
            shards.append(pq.ParquetFile(file))
        except (pa.ArrowException, OSError) as error:
            raise ValueError(_damaged(file, error)) from error
    schema = shards[0].schema_arrow
    image = next((c for c in IMAGE_COLUMNS if c in schema.names), None)
    if image is None:
        raise ValueError(
            f"{files[0]} has the columns {', '.join(schema.names)}; expected image: {{bytes, path}}, and label"
        )
    label = asked or next((c for c in LABEL_COLUMNS if c in schema.names), None)
    if asked and asked not in schema.names:
        raise ValueError(f"{files[0]} has the columns {', '.join(schema.names)}, and none is called {asked}.")
    for file, shard in zip(files, shards):
        _check_columns(file, shard.schema_arrow, image, label)
    counts = [shard.metadata.num_rows for shard in shards]
    if not sum(counts):
        raise FileNotFoundError(f"{files[0]} holds no rows; download it again")
    classes: tuple[str, ...] = ()
    labels = torch.full((sum(counts),), -1)
    if label is not None:
        labels, classes = _labels(files, shards, label, _names(schema, label))
    return StreamedImages(Rows(files, image, counts), labels, torch.arange(len(labels))), classes


def _check_columns(file: Path, schema: pa.Schema, image: str, label: str | None) -> None:
    """That the columns have the types of images and classes: nothing is converted silently."""
    missing = {c for c in (image, label) if c is not None} - set(schema.names)
    if missing:
        raise ValueError(f"{file} lacks the column {min(missing)}, which the shards before it have")
    kind = schema.field(image).type
    bytes_ = kind.field("bytes").type if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0 else None
    if bytes_ is None or not (pa.types.is_binary(bytes_) or pa.types.is_large_binary(bytes_)):
        raise ValueError(f"{file}: the column {image} is of type {kind}; expected {{bytes: binary, path: string}}")
    if label is not None and not (_whole(schema.field(label).type) or _text(schema.field(label).type)):
        raise ValueError(
            f"{file}: the column {label} is of type {schema.field(label).type}; expected whole numbers or names of "
            f"classes: convert it, or rename the column to load the images without labels"
        )


def _whole(kind: pa.DataType) -> bool:
    return pa.types.is_integer(kind) or pa.types.is_boolean(kind) or pa.types.is_null(kind)


def _text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        return _text(kind.value_type)
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def _names(schema: pa.Schema, label: str) -> tuple[str, ...]:
    """The names of classes that the `datasets` library notes in a file; () where it notes none that can be read."""
    try:
        noted = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
        names = noted["info"]["features"][label]["names"]
    except (ValueError, KeyError, TypeError):
        return ()
    return tuple(names) if isinstance(names, list) and all(isinstance(name, str) for name in names) else ()


def _labels(
    files: Sequence[Path], shards: Sequence[pq.ParquetFile], label: str, names: tuple[str, ...]
) -> tuple[Int64[Tensor, " n"], tuple[str, ...]]:
    """The label of each row, and the names of all classes.

    Raises:
        ValueError: a shard is damaged; or labels without names that are numbers too high to count classes.
    """
    columns = []
    for file, shard in zip(files, shards):
        try:
            columns.append(shard.read([label]).column(0))
        except (pa.ArrowException, OSError) as error:
            raise ValueError(_damaged(file, error)) from error
    if _text(columns[0].type):
        given = [value for column in columns for value in column.to_pylist()]
        classes = tuple(sorted({value for value in given if value is not None}))
        number = {name: i for i, name in enumerate(classes)}
        return torch.tensor([-1 if value is None else number[value] for value in given]), classes
    try:
        numbers = [column.cast(pa.int64()).combine_chunks().fill_null(-1).to_numpy(False) for column in columns]
    except pa.ArrowException as error:
        raise ValueError(f"{files[0]}: a label is no number of a class: {error}") from error
    labels = torch.from_numpy(np.concatenate(numbers).astype(np.int64))
    if not names:
        highest = int(labels.max())
        if highest >= len(labels):
            raise ValueError(
                f"{files[0]}: the label {highest:,} among {len(labels):,} rows, without names of classes: classes are "
                f"numbered from 0, and there cannot be more than images; renumber them"
            )
        names = tuple(map(str, range(highest + 1)))
    return labels, names


def _damaged(file: Path, error: Exception) -> str:
    return f"cannot read the Parquet file {file}: {error}; download it again"
