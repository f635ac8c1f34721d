"""Downloads: checked, within their folder, and resumed where a process was killed."""

import hashlib
import io
import multiprocessing
import os
import tarfile
import urllib.request
import zipfile
from pathlib import Path

import pytest

from relatum.data import downloads
from relatum.data.catalog import Archive

OPEN = urllib.request.urlopen


def tar(path: Path, members: dict[str, bytes], **attributes) -> Archive:
    with tarfile.open(path, "w:gz") as file:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            for key, value in attributes.items():
                setattr(info, key, value)
            file.addfile(info, io.BytesIO(content))
    return Archive(f"https://example.org/{path.name}", hashlib.sha256(path.read_bytes()).hexdigest())


def serve(monkeypatch, path: Path) -> list[float]:
    """Answer every download with this file; the timeouts that were asked for."""
    timeouts = []

    def opened(url: str, timeout: float):
        timeouts.append(timeout)
        return OPEN(path.as_uri())

    monkeypatch.setattr(urllib.request, "urlopen", opened)
    return timeouts


@pytest.fixture
def published(tmp_path) -> Path:
    (tmp_path / "published").mkdir()
    return tmp_path / "published" / "set.tar.gz"


def test_fetched_once_and_unpacked(published, tmp_path, monkeypatch):
    archive = tar(published, {"layout/a.txt": b"a", "elsewhere/b.txt": b"b"})
    timeouts = serve(monkeypatch, published)
    root = tmp_path / "root"
    downloads.fetch(archive, root, ["layout"])
    assert (root / "layout" / "a.txt").read_bytes() == b"a"
    assert sorted(p.name for p in root.iterdir()) == ["layout", "set.tar.gz"]
    assert timeouts == [30.0]


def test_another_file_than_the_expected_is_refused_and_removed(published, tmp_path, monkeypatch):
    archive = tar(published, {"layout/a.txt": b"a"})
    tar(published, {"layout/a.txt": b"planted"})
    serve(monkeypatch, published)
    with pytest.raises(ValueError, match=f"SHA-256.*{archive.sha256}.*was removed"):
        downloads.fetch(archive, tmp_path / "root", ["layout"])
    assert list((tmp_path / "root").iterdir()) == []


def test_plain_http_is_refused(tmp_path):
    with pytest.raises(ValueError, match="not an https address"):
        downloads.fetch(Archive("http://example.org/set.zip", "0" * 64), tmp_path, ["layout"])


def _killed_while_unpacking(archive: Archive, root: Path) -> None:
    def half(path: Path, to: Path) -> None:
        (to / "layout").mkdir()
        (to / "layout" / "a.txt").write_text("half")
        os._exit(9)

    downloads.extract = half
    downloads.fetch(archive, root, ["layout"])


def test_a_kill_while_unpacking_leaves_it_resumable(published, tmp_path, monkeypatch):
    archive = tar(published, {"layout/a.txt": b"whole"})
    serve(monkeypatch, published)
    root = tmp_path / "root"
    child = multiprocessing.get_context("fork").Process(target=_killed_while_unpacking, args=(archive, root))
    child.start()
    child.join()
    assert child.exitcode == 9
    assert not (root / "layout").exists()
    timeouts = serve(monkeypatch, published)
    monkeypatch.setattr(downloads, "ABANDONED", -1.0)
    downloads.fetch(archive, root, ["layout"])
    assert (root / "layout" / "a.txt").read_bytes() == b"whole"
    assert timeouts == []  # the archive was whole
    assert sorted(p.name for p in root.iterdir()) == ["layout", "set.tar.gz"]


@pytest.mark.parametrize(
    ("name", "attributes"),
    [
        ("../evil.txt", {}),
        ("layout/link", {"type": tarfile.SYMTYPE, "linkname": "../../evil.txt"}),
        ("layout/pipe", {"type": tarfile.FIFOTYPE}),
    ],
    ids=["above", "link", "pipe"],
)
def test_a_tar_writes_nowhere_else(name, attributes, tmp_path):
    tar(tmp_path / "a.tar.gz", {name: b""}, **attributes)
    (tmp_path / "to").mkdir()
    with pytest.raises(ValueError, match="cannot unpack"):
        downloads.extract(tmp_path / "a.tar.gz", tmp_path / "to")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.tar.gz", "to"]


def test_a_python_without_filters_unpacks_no_tar(tmp_path, monkeypatch):
    tar(tmp_path / "a.tar.gz", {"a": b""})
    monkeypatch.delattr(tarfile, "data_filter")
    with pytest.raises(RuntimeError, match=r"3\.11\.4"):
        downloads.extract(tmp_path / "a.tar.gz", tmp_path)


@pytest.mark.parametrize("name", ["../evil.txt", "/evil.txt", "a/../../evil.txt", "..\\evil.txt"])
def test_a_zip_writes_nowhere_else(name, tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        file.writestr(name, b"")
    (tmp_path / "to").mkdir()
    with pytest.raises(ValueError, match="outside its folder"):
        downloads.extract(tmp_path / "a.zip", tmp_path / "to")
    assert list((tmp_path / "to").iterdir()) == []
