"""Downloads: over https, with timeouts and a progress bar, checked by SHA-256, unpacked beside and then renamed.

A process that is killed leaves nothing that looks whole: a partial download or unpacked folder has another name, and
a whole archive is not fetched again.
"""

import hashlib
import logging
import os
import shutil
import tarfile
import tempfile
import time
import urllib.request
import zipfile
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from tqdm.auto import tqdm

from relatum.data.catalog import Archive

log = logging.getLogger(__name__)

TIMEOUT = 30.0  # seconds without an answer or a byte
CHUNK = 2**20  # bytes read at once
ABANDONED = 3600.0  # seconds after which a folder that is still being unpacked counts as left behind


def fetch(archive: Archive, root: Path, wanted: Iterable[str]) -> None:
    """Download an archive to `root`, unless a whole one is there, and unpack the folders `wanted` of it.

    Raises:
        OSError: no network, or no room.
        ValueError: the address is not https, the file is not the expected one, or it holds paths outside itself.
    """
    root.mkdir(parents=True, exist_ok=True)
    path = root / PurePosixPath(urlsplit(archive.url).path).name
    if path.is_file() and _sha256(path) == archive.sha256:
        log.info("%s is there already", path)
    else:
        _download(archive, path)
    _unpack(path, root, tuple(wanted))


def _download(archive: Archive, path: Path) -> None:
    if not archive.url.startswith("https://"):
        raise ValueError(f"{archive.url} is not an https address, so that anyone on the way could change the file")
    log.info(
        "downloading %s to %s (%s; its SHA-256 is as users of the file have recorded it)",
        archive.url,
        path,
        f"the publisher states the MD5 {archive.md5}" if archive.md5 else "the publisher states no checksum",
    )
    handle, part = tempfile.mkstemp(prefix=f"{path.name}.", suffix=".part", dir=path.parent)
    digest = hashlib.sha256()
    try:
        with open(handle, "wb") as file, urllib.request.urlopen(archive.url, timeout=TIMEOUT) as answer:
            length = int(answer.headers.get("Content-Length") or 0)
            with tqdm(total=length or None, unit="B", unit_scale=True, desc=path.name, disable=None) as bar:
                while chunk := answer.read(CHUNK):
                    file.write(chunk)
                    digest.update(chunk)
                    bar.update(len(chunk))
            file.flush()
            os.fsync(file.fileno())
        if digest.hexdigest() != archive.sha256:
            raise ValueError(
                f"what came from {archive.url} has the SHA-256 {digest.hexdigest()}, and {archive.sha256} was "
                f"expected: it is damaged or another file, and was removed"
            )
        os.replace(part, path)
    finally:
        Path(part).unlink(missing_ok=True)


def _unpack(path: Path, root: Path, wanted: tuple[str, ...]) -> None:
    for left in root.glob(f".{path.name}.*.unpacking"):
        if time.time() - left.stat().st_mtime > ABANDONED:  # by a process that was killed, not by one beside this one
            shutil.rmtree(left, ignore_errors=True)
    log.info("unpacking %s", path)
    beside = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".unpacking", dir=root))
    try:
        extract(path, beside)
        for name in wanted:
            if (beside / name).is_dir() and not (root / name).exists():
                (beside / name).rename(root / name)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def extract(path: Path, to: Path) -> None:
    """Unpack a .zip or .tar archive into the folder `to`, and nowhere else.

    Raises:
        ValueError: a member would lie outside, is a device, or the archive cannot be read.
        RuntimeError: this Python cannot unpack .tar safely.
    """
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as packed:
                for name in packed.namelist():
                    inside = PurePosixPath(name.replace("\\", "/"))
                    if inside.is_absolute() or ".." in inside.parts:
                        raise ValueError(f"{path} holds {name}, which would lie outside its folder")
                packed.extractall(to)
            return
        if not hasattr(tarfile, "data_filter"):
            raise RuntimeError("unpacking .tar archives safely needs Python 3.11.4 or newer: update it")
        with tarfile.open(path) as tar:
            tar.extractall(to, filter="data")
    except (tarfile.TarError, zipfile.BadZipFile, EOFError) as error:
        raise ValueError(f"cannot unpack {path}: {error}") from error


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
