"""Image files at random access: on disk, in a .zip archive, or items of a torch Dataset."""

import os
import threading
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from relatum.data.cache import stamp
from relatum.data.decoding import BadImage, read_file
from relatum.data.images import StreamedImages

LARGEST = 2**30  # bytes of a file in an archive; its directory may promise anything

TEXT = np.dtypes.StringDType()
"""Texts of an array lie in its own memory, which worker processes share; those of a list they would copy."""


class Files:
    """Image files by path; the paths in one array, which worker processes share instead of copying."""

    def __init__(self, paths: Sequence[str]) -> None:
        self.paths = np.array(paths, dtype=TEXT)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, i: int) -> tuple[str, bytes]:
        path = self.paths[i]
        return path, read_file(path)

    def name(self, i: int) -> str:
        """The path of file number `i`."""
        return self.paths[i]

    def made_of(self) -> tuple[tuple[str, ...], str]:
        """The folder that holds all files; and what changes when one of them does."""
        paths = self.paths.tolist()
        return (os.path.commonpath([os.path.abspath(path) for path in paths]),), repr(stamp(paths))


class Zipped:
    """Image files in a .zip archive, read without unpacking it."""

    def __init__(self, path: Path, members: Sequence[str]) -> None:
        self.path, self.members = path, np.array(members, dtype=TEXT)
        self._opened = threading.local()

    def __len__(self) -> int:
        return len(self.members)

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "members": self.members}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.path, self.members, self._opened = state["path"], state["members"], threading.local()

    def __getitem__(self, i: int) -> tuple[str, bytes]:
        name, member = self.name(i), self.members[i]
        try:
            packed = self._archive()
            if packed.getinfo(member).file_size > LARGEST:
                raise BadImage(name, f"it unpacks to more than {LARGEST:,} bytes", "too large")
            return name, packed.read(member)
        except (zipfile.BadZipFile, RuntimeError, NotImplementedError, EOFError, OSError, KeyError) as error:
            raise BadImage(name, f"it cannot be unpacked: {error}", "not unpackable") from error

    def name(self, i: int) -> str:
        """The path of file number `i`, beginning with the archive's."""
        return f"{self.path}/{self.members[i]}"

    def made_of(self) -> tuple[tuple[str, ...], str]:
        """The archive; and what changes when it does."""
        return (os.path.abspath(self.path),), repr((stamp([self.path]), self.members.tolist()))

    def _archive(self) -> zipfile.ZipFile:
        """The archive, opened once for each thread and process: they would share a position in the file."""
        if getattr(self._opened, "process", None) != os.getpid():
            self._opened.archive, self._opened.process = zipfile.ZipFile(self.path), os.getpid()
        return self._opened.archive


def streamed(encoded: Any, labels: Sequence[int]) -> StreamedImages:
    """All of `encoded`, with their labels."""
    return StreamedImages(encoded, torch.tensor(labels, dtype=torch.int64), torch.arange(len(labels)))
