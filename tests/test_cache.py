"""The user's cache: private, checked, made anew when damaged, gone when stale."""

import os
import stat
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from relatum.data import cache, residency
from relatum.data.decoding import BadImage
from relatum.data.images import ResidentImages
from relatum.data.sources import load
from test_sources import pixels, shard, tree


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("RELATUM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(residency, "WORTH", 0.0)  # everything is worth it
    cache._unusable.cache_clear()
    cache._temporary.cache_clear()
    return tmp_path / "cache"


KEY = cache.Key(("/set",), "whole", "1", "pixels")


def write(content: bytes):
    return lambda path: path.write_bytes(content)


def test_an_entry_is_found_with_its_note_in_a_folder_of_the_user_alone(folder):
    cache.store(KEY, write(b"abc"), {"shape": [1]})
    found = cache.find(KEY)
    assert (found.path.read_bytes(), found.note) == (b"abc", {"shape": [1]})
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert sorted(p.suffix for p in folder.iterdir()) == [".json", ".pixels"]
    assert cache.find(KEY._replace(content="2")) is None


@pytest.mark.parametrize("damage", [b"", b"abd", b"abcd"], ids=["empty", "flipped", "longer"])
def test_a_damaged_entry_is_removed(damage, folder, caplog):
    cache.store(KEY, write(b"abc")).path.write_bytes(damage)
    assert cache.find(KEY) is None
    assert "damaged" in caplog.text
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("note", ["", "5", "{}", "\x00"], ids=["empty", "number", "fields", "zero"])
def test_a_damaged_note_is_no_error(note, folder):
    entry = cache.store(KEY, write(b"abc"))
    entry.path.with_name(f"{entry.path.name}.json").write_text(note)
    assert cache.find(KEY) is None


def test_stale_entries_are_removed(tmp_path, folder):
    here = KEY._replace(sources=(str(tmp_path),))
    cache.store(KEY._replace(sources=(str(tmp_path / "gone"),)), write(b"of files that are no more"))
    cache.store(here, write(b"old"))
    cache.store(here._replace(use="half"), write(b"another use"))
    cache.store(here._replace(content="2"), write(b"new"))
    assert sorted(p.read_bytes() for p in folder.glob("*.pixels")) == [b"another use", b"new"]


@pytest.mark.parametrize("who", ["group", "link", "file"])
def test_a_folder_that_others_can_change_is_not_trusted(who, tmp_path, folder, caplog):
    if who == "group":
        folder.mkdir()
        folder.chmod(0o777)
    elif who == "link":
        (tmp_path / "real").mkdir(mode=0o700)
        folder.symlink_to(tmp_path / "real")
    else:
        folder.write_text("")
    assert cache.find(KEY) is None
    made = cache.store(KEY, write(b"abc")).path  # for this process, in a folder that nobody can foresee
    assert made.read_bytes() == b"abc"
    assert stat.S_IMODE(made.parent.stat().st_mode) == 0o700
    assert folder not in made.parents
    assert "is not used" in caplog.text


def test_a_folder_of_another_user_is_not_trusted(folder, monkeypatch):
    folder.mkdir(mode=0o700)
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    assert cache.folder() is None


def test_a_failed_write_leaves_nothing_and_names_the_variable(folder):
    def full(path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match=r"No space left.*RELATUM_CACHE"):
        cache.store(KEY, full)
    assert list(folder.iterdir()) == []


# Data sets


def arrow_of(tmp_path: Path, folder: Path) -> Path:
    shard(tmp_path / "train.parquet", [pixels(i, height=9 + i) for i in range(6)], [0, 1] * 3, ["a", "b"])
    load(str(tmp_path / "train.parquet"))
    (arrow,) = folder.glob("*.arrow")
    return arrow


@pytest.mark.parametrize("where", [0, 1 / 3, 1 / 2, 0.99])
def test_a_damaged_parquet_cache_is_made_anew(where, tmp_path, folder, caplog):
    arrow = arrow_of(tmp_path, folder)
    content = bytearray(arrow.read_bytes())
    start = int(where * len(content))
    content[start : start + 8] = b"\xff" * 8
    arrow.write_bytes(content)
    source = load(str(tmp_path / "train.parquet"))
    for i in range(6):
        assert torch.equal(source.train.read(i), torch.from_numpy(pixels(i, height=9 + i)).permute(2, 0, 1))
    assert "damaged" in caplog.text


def test_nothing_in_the_shared_temporary_folder_is_trusted(tmp_path, folder, monkeypatch):
    """A planted file once replaced a victim's images: now no name there can be foreseen, and no root is needed."""
    shared = tmp_path / "tmp"
    shared.mkdir()
    monkeypatch.setenv("TMPDIR", str(shared))
    monkeypatch.setattr("tempfile.tempdir", None)
    arrow_of(tmp_path, folder)
    assert list(shared.iterdir()) == []


def test_a_changed_parquet_file_replaces_its_entry(tmp_path, folder):
    arrow = arrow_of(tmp_path, folder)
    shard(tmp_path / "train.parquet", [pixels(i, height=19 + i) for i in range(6)], [0, 1] * 3, ["a", "b"])
    assert load(str(tmp_path / "train.parquet")).train.read(0).shape == (3, 19, 32)
    assert not arrow.exists()


@pytest.mark.parametrize("resident", ["yes", "no"])
def test_a_folder_is_decoded_once(resident, tmp_path, folder, monkeypatch):
    root = tree(tmp_path / "set")
    first = load(str(root), resident=resident)
    decoded = []
    real = residency.StreamedImages.picture
    monkeypatch.setattr(residency.StreamedImages, "picture", lambda self, i: decoded.append(i) or real(self, i))
    again = load(str(root), resident=resident)
    assert decoded == []
    assert (again.mean, again.std) == (first.mean, first.std)
    assert all(torch.equal(again.train.read(i), first.train.read(i)) for i in range(8))
    Image.fromarray(np.zeros((32, 32, 3), np.uint8)).save(root / "ant" / "0.png")
    assert load(str(root), resident=resident).train.read(0).max() == 0  # a changed file is seen


@pytest.mark.parametrize("resident", ["yes", "no"])
def test_what_was_bad_stays_bad(resident, tmp_path):
    root = tree(tmp_path / "set")
    (root / "ant" / "2.png").write_bytes(b"hello")
    first = load(str(root), resident=resident, on_bad_image="skip")
    again = load(str(root), resident=resident, on_bad_image="skip")
    assert again.found == first.found == "7 images, 2 classes (folders), 1 skipped: 1 not an image"
    assert again.train.names == first.train.names
    assert isinstance(again.train, ResidentImages) == (resident == "yes")
    with pytest.raises(BadImage, match=r"2\.png"):
        load(str(root), resident=resident)
