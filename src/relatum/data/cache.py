"""A private cache of the user: what was made of data sets, so that it need not be made again.

Each entry is a file and a note beside it, with the file's length and SHA-256. Both are checked before an entry is
used, because damaged bytes that are mapped into memory crash the process. What is damaged or stale is removed and
made anew.
"""

import hashlib
import json
import logging
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import platformdirs

log = logging.getLogger(__name__)

VARIABLE = "RELATUM_CACHE"


class Key(NamedTuple):
    """What an entry was made of.

    Attributes:
        sources: paths of the files or folders.
        use: what was read of the sources, and how. A new entry replaces others of the same kind, sources and use.
        content: what changes when the sources do, such as their sizes and times.
        kind: what is stored: the ending of the file's name.
    """

    sources: tuple[str, ...]
    use: str
    content: str
    kind: str

    @property
    def source_part(self) -> str:
        """The part of the file's name that all states of the same sources share."""
        return _hash(repr((self.sources, self.use)))

    @property
    def name(self) -> str:
        """The name of the entry's file."""
        return f"{self.source_part}-{_hash(self.content)}.{self.kind}"


class Entry(NamedTuple):
    """A checked file, and what was noted beside it."""

    path: Path
    note: dict[str, Any]


def stamp(paths: Sequence[str | Path]) -> list[tuple[str, int, int]]:
    """(absolute path, size, time of the last change) of files: what changes where their content does."""
    found = []
    for path in paths:
        status = os.stat(path)
        found.append((os.path.abspath(path), status.st_size, status.st_mtime_ns))
    return found


def folder() -> Path | None:
    """The cache, made if it is not there; None, with a warning, where the user has no private one."""
    chosen = os.environ.get(VARIABLE)
    path = Path(chosen) if chosen else platformdirs.user_cache_path("relatum")
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = os.lstat(path)
    except OSError as error:
        return _unusable(path, str(error))
    if not stat.S_ISDIR(status.st_mode):
        return _unusable(path, "it is a link, not a folder" if path.is_symlink() else "it is no folder")
    if hasattr(os, "geteuid"):
        if status.st_uid != os.geteuid():
            return _unusable(path, "it belongs to another user")
        if status.st_mode & 0o022:
            return _unusable(path, "other users may write to it; `chmod 700` it")
    return path if os.access(path, os.W_OK) else _unusable(path, "it cannot be written to")


def find(key: Key) -> Entry | None:
    """The entry, its owner, length and hash checked; None where there is none. A damaged one is removed."""
    base = folder()
    if base is None or not (base / key.name).exists():
        return None
    path = base / key.name
    try:
        note = _note_of(path)
        ours = not hasattr(os, "geteuid") or os.lstat(path).st_uid == os.geteuid()
        if ours and stat.S_ISREG(os.lstat(path).st_mode) and path.stat().st_size == note["length"]:
            with path.open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() == note["sha256"]:
                    return Entry(path, note["note"])
    except (OSError, ValueError, KeyError, TypeError):
        pass
    log.warning("the cached %s is damaged; it is made anew", path)
    remove(key)
    return None


def store(key: Key, write: Callable[[Path], None], note: dict[str, Any] | None = None) -> Entry:
    """Make an entry: `write` fills the file at the path it is given.

    Without a private cache the file lies in a private temporary folder, and is gone when the process ends.

    Raises:
        OSError: the file cannot be written; the message names the variable that moves the cache.
    """
    base = folder() or _temporary()
    path = base / key.name
    handle, part_name = tempfile.mkstemp(prefix=f"{key.name}.", suffix=".part", dir=base)
    os.close(handle)
    part = Path(part_name)
    try:
        write(part)
        with part.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        content = {"length": part.stat().st_size, "sha256": digest, "sources": key.sources, "note": note or {}}
        noted = part.with_suffix(".json")
        noted.write_text(json.dumps(content), encoding="utf-8")
        part.replace(path)
        noted.replace(_note_path(path))
    except OSError as error:
        raise OSError(
            f"cannot write the cache {path} ({error}): make room there, or name another folder with {VARIABLE}=FOLDER"
        ) from error
    finally:
        part.unlink(missing_ok=True)
        part.with_suffix(".json").unlink(missing_ok=True)
    _remove_stale(base, key)
    return Entry(path, note or {})


def remove(key: Key) -> None:
    """Remove an entry, if it is there."""
    base = folder()
    if base is not None:
        _remove(base / key.name)


def _remove_stale(base: Path, key: Key) -> None:
    """Remove what was made of earlier states of the same files, and of files that are no more."""
    for noted in base.glob(f"*.{key.kind}.json"):
        path = noted.with_suffix("")
        if path.name == key.name:
            continue
        try:
            gone = not any(os.path.exists(source) for source in _note_of(path)["sources"])
        except (OSError, ValueError, KeyError, TypeError):
            gone = True
        if gone or path.name.startswith(f"{key.source_part}-"):
            _remove(path)


def _remove(path: Path) -> None:
    for file in (path, _note_path(path)):
        try:
            file.unlink(missing_ok=True)
        except OSError as error:
            log.warning("cannot remove %s: %s", file, error)


def _note_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")


def _note_of(path: Path) -> dict[str, Any]:
    return json.loads(_note_path(path).read_text(encoding="utf-8"))


@cache
def _unusable(path: Path, why: str) -> None:  # cached: said once
    log.warning("the cache %s is not used: %s. Name another folder with %s=FOLDER", path, why, VARIABLE)


@cache
def _temporary() -> Path:
    import atexit

    path = Path(tempfile.mkdtemp(prefix="relatum-"))  # a new name that nobody can foresee, for this user alone
    atexit.register(shutil.rmtree, path, ignore_errors=True)
    return path


def _hash(text: str) -> str:
    return hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=12).hexdigest()
