"""Checkpoints: written whole or not at all, never with a damaged weight, and read only if each byte is as written."""

import hashlib
import io
import logging
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from relatum.core.files import write_durably

log = logging.getLogger(__name__)

KEPT = 2  # the last, and the one before it in case the last is damaged
SEAL = b"relatum-sha256:"  # it and 64 digits follow what torch has written
SEAL_BYTES = len(SEAL) + 64


class DamagedError(ValueError):
    """A checkpoint is not as it was written."""


class NonFiniteWeightsError(RuntimeError):
    """A weight, or what the optimizer remembers of it, is infinite or no number."""


def found(folder: Path) -> list[Path]:
    """The checkpoints of a run folder, from the oldest to the last, by the number of the epoch."""
    numbered = {
        int(match[1]): path
        for path in (folder / "checkpoints").glob("epoch-*.pt")
        if (match := re.fullmatch(r"epoch-(\d+)\.pt", path.name))
    }
    return [numbered[number] for number in sorted(numbered)]


def write(folder: Path, epoch: int, content: Mapping[str, Any]) -> None:
    """Write the checkpoint of an epoch; older ones but one go once it is there.

    Args:
        folder: the run folder.
        epoch: its number, counted from 1.
        content: numbers, texts, tensors, and lists and mappings of them.

    Raises:
        NonFiniteWeightsError: for a tensor with an element that is not finite.
        OSError: it cannot be written; the checkpoints before it stay.
    """
    _write(folder, folder / "checkpoints" / f"epoch-{epoch:05d}.pt", content)
    for old in found(folder)[:-KEPT]:
        old.unlink()


def part_of(folder: Path, epoch: int, number: int) -> Path:
    """Where process `number` keeps what it alone has of the checkpoint of an epoch."""
    return folder / "checkpoints" / f"epoch-{epoch:05d}.part-{number}.pt"


def write_part(folder: Path, epoch: int, number: int, content: Mapping[str, Any]) -> None:
    """Write what process `number` alone has, before the first one writes the checkpoint itself.

    One more than there are checkpoints is kept: the one that this is a part of is not there yet. Raises: as `write`.
    """
    _write(folder, part_of(folder, epoch, number), content)
    for old in sorted((folder / "checkpoints").glob(f"epoch-*.part-{number}.pt"))[: -KEPT - 1]:
        old.unlink()


def _write(folder: Path, path: Path, content: Mapping[str, Any]) -> None:
    """A file that is whole or not there."""
    refuse_non_finite(content)
    buffer = io.BytesIO()
    try:
        torch.save(content, buffer)
        raw = buffer.getbuffer()
        seal = SEAL + hashlib.sha256(raw).hexdigest().encode()
        write_durably(path, lambda file: (file.write(raw), file.write(seal)))
    except (OSError, RuntimeError) as error:
        free = shutil.disk_usage(folder).free // 2**20
        raise OSError(
            f"{path} cannot be written ({error}; {free} MiB free). The checkpoints before it are whole: make room and "
            "go on with --resume."
        ) from None


def read(path: Path) -> dict[str, Any]:
    """What `write` was given, its tensors on the CPU. No code of the file is run.

    Raises:
        DamagedError: it is not what was written.
    """
    raw = path.read_bytes()
    content, seal = raw[:-SEAL_BYTES], raw[-SEAL_BYTES:]
    if seal != SEAL + hashlib.sha256(content).hexdigest().encode():
        raise DamagedError(f"{path} is damaged: its bytes do not match their SHA-256 checksum")
    try:
        state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:
        raise DamagedError(f"{path} is no checkpoint of Relatum ({error})") from None
    if not isinstance(state, dict):
        raise DamagedError(f"{path} is no checkpoint of Relatum: it holds {type(state).__name__}")
    return state


def last_good(folder: Path) -> dict[str, Any] | None:
    """The last checkpoint that is as it was written; None where no epoch was finished.

    A damaged one is passed over with a warning.

    Raises:
        DamagedError: all are damaged.
    """
    paths = found(folder)[::-1]
    for number, path in enumerate(paths):
        try:
            return read(path)
        except DamagedError as error:
            if number + 1 == len(paths):
                raise DamagedError(f"{error}, and there is no other to go on from: start anew.") from None
            log.warning("%s. Going on from the one before it, %s.", error, paths[number + 1].name)
    return None


def refuse_non_finite(content: Any) -> None:
    """That all tensors in nested lists and mappings are finite.

    Raises:
        NonFiniteWeightsError: naming the first that is not.
    """
    for name, tensor in _tensors(content, ""):
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            bad = int((~tensor.isfinite()).sum())
            raise NonFiniteWeightsError(f"{bad:,} of {tensor.numel():,} numbers of {name} are infinite or no numbers")


def _tensors(content: Any, name: str) -> Iterator[tuple[str, Tensor]]:
    if isinstance(content, Tensor):
        yield name, content
    elif isinstance(content, Mapping):
        for key, value in content.items():
            yield from _tensors(value, f"{name}.{key}" if name else str(key))
    elif isinstance(content, (list, tuple)):
        for number, value in enumerate(content):
            yield from _tensors(value, f"{name}.{number}")
