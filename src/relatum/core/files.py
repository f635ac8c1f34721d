"""Files that are there whole or not at all, even after the power has failed."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO


def write_durably(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Write a file under another name, wait until it is on the disk, and rename it; the folder is waited for too.

    Whoever reads the folder meanwhile finds the file before or the new one, never a half.

    Args:
        path: the file.
        write: is given the open file, and writes all of it.

    Raises:
        OSError: for a full disk and the like; what was there before stays, and nothing else is left.
    """
    part = path.with_name(f"{path.name}.part")
    try:
        with part.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    """A rename is a change of the folder: without this, a power failure could undo it."""
    if os.name == "nt":  # Windows opens no folders
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
