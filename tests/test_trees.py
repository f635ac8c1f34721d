"""Folders as people have them: what is an image, what has which class, and that nothing vanishes without a word."""

import logging
import os
import pickle
import socket
import threading
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from relatum.data import decoding
from relatum.data.decoding import BadImage
from relatum.data.images import Images
from relatum.data.loading import evaluation_batches
from relatum.data.sources import Source, find, load
from relatum.data.views import EvaluationView
from test_sources import chw, pixels, png, tree, write

pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")  # of fork


def reasons(source: Source) -> list[tuple[str, str]]:
    return sorted((item.reason, os.path.basename(item.name)) for item in source.left_out)


# What is an image


def fifo(path: Path) -> None:
    os.mkfifo(path)


def device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def dangling(path: Path) -> None:
    path.symlink_to(path.with_name("gone"))


def unix_socket(path: Path) -> None:
    here = os.getcwd()
    os.chdir(path.parent)  # the name of a socket is short
    try:
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(path.name)
    finally:
        os.chdir(here)


@pytest.mark.filterwarnings(
    "ignore:unclosed <socket:ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)
@pytest.mark.parametrize(
    ("plant", "reason"),
    [
        (fifo, "not a regular file"),
        (device, "not a regular file"),
        (unix_socket, "not a regular file"),
        (dangling, "dangling link"),
    ],
)
def test_what_has_an_images_name_and_cannot_be_one(plant, reason, tmp_path):
    """A pipe or a device once hung for ever: each case runs in a thread that must end."""
    plant(tree(tmp_path / "set") / "ant" / "x.png")
    found = []

    def work() -> None:
        try:
            load(str(tmp_path / "set"))
        except BadImage as error:
            found.append(str(error))
        found.append(load(str(tmp_path / "set"), on_bad_image="skip"))

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(20)
    assert not thread.is_alive()
    assert "x.png" in found[0]
    assert "--data.on-bad-image skip" in found[0]
    assert found[1].found == f"8 images, 2 classes (folders), 1 skipped: 1 {reason}"


def test_a_file_that_turns_into_a_pipe_does_not_hang(tmp_path):
    images = load(str(tree(tmp_path)), resident="no").train
    (tmp_path / "ant" / "0.png").unlink()
    os.mkfifo(tmp_path / "ant" / "0.png")
    with pytest.raises(BadImage, match=r"0\.png: it is no regular file"):
        images.read(0)


def test_a_name_that_is_no_text_is_skipped_and_counted(tmp_path):
    root = os.fsencode(tree(tmp_path))
    with open(root + b"/ant/caf\xe9.png", "wb") as file:
        file.write(png(pixels(0)))
    with pytest.raises(BadImage, match=r"caf\\udce9\.png.*not UTF-8.*rename it"):
        load(str(tmp_path))
    source = load(str(tmp_path), on_bad_image="skip")
    assert source.found == "8 images, 2 classes (folders), 1 skipped: 1 name not UTF-8"


def test_an_unreadable_file_is_a_bad_image(tmp_path, monkeypatch):
    tree(tmp_path)
    real = os.open

    def denied(path, flags, *rest, **options):  # who runs the tests may be root, who reads everything
        if str(path).endswith("ant/1.png"):
            raise PermissionError(13, "Permission denied")
        return real(path, flags, *rest, **options)

    monkeypatch.setattr(decoding.os, "open", denied)
    with pytest.raises(BadImage, match=r"ant/1\.png: Permission denied"):
        load(str(tmp_path))
    source = load(str(tmp_path), on_bad_image="skip")
    assert source.found == "7 images, 2 classes (folders), 1 skipped: 1 unreadable"


def test_an_unreadable_folder_is_named(tmp_path, monkeypatch):
    tree(tmp_path)
    real = os.scandir

    def denied(path):
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    (tmp_path / "ant" / "locked").mkdir()
    monkeypatch.setattr("relatum.data.trees.os.scandir", denied)
    assert reasons(load(str(tmp_path))) == [("unreadable folder", "locked")]
    with pytest.raises(PermissionError, match="cannot read the folder"):
        load(str(tmp_path / "ant" / "locked"))


def test_links_to_folders_are_classes_at_the_first_level_and_named_below(tmp_path):
    tree(tmp_path / "real", classes=("ant", "bee", "cat"))
    root = tmp_path / "set"
    root.mkdir()
    for name in ("ant", "bee"):
        (root / name).symlink_to(tmp_path / "real" / name)
    (root / "loop").symlink_to(root)
    (root / "above").symlink_to(tmp_path)
    (tmp_path / "real" / "ant" / "deeper").symlink_to(tmp_path / "real" / "cat")
    source = load(str(root))
    assert (len(source.train), source.classes) == (8, ("ant", "bee"))
    assert reasons(source) == [("linked folder", "above"), ("linked folder", "deeper"), ("linked folder", "loop")]


def test_everything_left_out_is_counted_and_named_in_one_line(tmp_path, caplog, monkeypatch):
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(decoding, "reads_heic", lambda: False)
    monkeypatch.setattr("relatum.data.listing.reads_heic", lambda: False)
    tree(tmp_path)
    for name in (
        "ant/a.heic",
        "ant/b.HEIC",
        "bee/film.mp4",
        "notes.txt",
        ".DS_Store",
        ".git/x.png",
        "ant/sub/.h/y.png",
    ):
        write(tmp_path / name, png(pixels(5)))
    write(tmp_path / "ant" / "cut.png", png(pixels(0))[:500])
    (tmp_path / "empty").mkdir()
    write(tmp_path / "docs" / "page.html", "x")
    source = load(str(tmp_path), on_bad_image="skip")
    assert source.found == (
        "8 images, 2 classes (folders), 12 skipped: 3 empty folders, 2 hidden folders, 2 .heic, 1 hidden, "
        "1 video .mp4, 1 other (.html), 1 other (.txt), 1 truncated (pip install 'relatum[heic]' reads .heic)"
    )
    assert source.classes == ("ant", "bee")
    assert source.found in caplog.text
    for name in ("a.heic", "b.HEIC", "film.mp4", "notes.txt", ".DS_Store", ".git", "empty", "docs", "cut.png"):
        assert name in caplog.text


def test_heic_is_read_with_the_extra(tmp_path):
    pytest.importorskip("pillow_heif")
    assert decoding.reads_heic()
    Image.fromarray(np.full((64, 64, 3), (200, 30, 90), np.uint8)).save(tmp_path / "a.heic", format="HEIF", quality=100)
    source = load(str(tmp_path))
    assert source.found == "1 image, no labels"
    assert (source.train.read(0).double().mean((1, 2)) - torch.tensor([200, 30, 90])).abs().max() < 4


# Which class


def test_images_beside_class_folders_are_left_out(tmp_path):
    write(tree(tmp_path) / "stray.png", png(pixels(0)))
    source = load(str(tmp_path))
    assert source.found == "8 images, 2 classes (folders), 1 skipped: 1 beside the class folders"
    assert reasons(source) == [("beside the class folders", "stray.png")]


@pytest.mark.parametrize("classes", [("edited",), ("edited", "raw")])
def test_folders_beside_more_images_are_no_classes(classes, tmp_path):
    tree(tmp_path, count=2, classes=classes)
    for i in range(9):
        write(tmp_path / f"{i}.png", png(pixels(i)))
    source = load(str(tmp_path))
    assert source.classes == ()
    assert len(source.train) == 9 + 2 * len(classes)
    assert f"no labels (9 images lie beside the folder{'s' * (len(classes) > 1)} edited" in source.found


def test_labels_none(tmp_path):
    write(tree(tmp_path) / "stray.png", png(pixels(0)))
    source = load(str(tmp_path), labels="none")
    assert source.found == "9 images, no labels (as asked)"
    assert source.train.labels.unique().tolist() == [-1]


@pytest.mark.parametrize(
    ("header", "join"), [("file,label", ","), ("Path;Class", ";"), ("\ufefffilename\tlabel", "\t")]
)
def test_labels_from_a_table(header, join, tmp_path):
    rows = [("ant/0.png", "red"), ("./ant/1.png", "blue"), ("bee\\2.png", "red"), (f"{tmp_path}/set/bee/3.png", "red")]
    tree(tmp_path / "set")
    write(tmp_path / "t.csv", "\n".join([header, *(join.join(row) for row in rows), f"bee/0.png{join}"]))
    source = load(str(tmp_path / "set"), labels=str(tmp_path / "t.csv"))
    assert source.classes == ("blue", "red")
    assert source.train.labels.tolist() == [1, 0, -1, -1, -1, -1, 1, 1]
    assert source.found == "8 images, 2 classes (t.csv, 4 images have none)"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n1,2", r"columns a, b; expected a header with a column file"),
        ("", r"columns \(none\)"),
        ("file,label\nx.png,a", r"no row of .*names one of the 8 images.*ant/0\.png.*x\.png"),
        ("file,label\nant/0.png,a\nant/0.png,b", r"line 3: ant/0\.png has the class b, and a before"),
        (b"\xff\xfe", "not UTF-8 text"),
    ],
)
def test_tables_that_do_not_fit(text, message, tmp_path):
    tree(tmp_path / "set")
    write(tmp_path / "t.csv", text)
    with pytest.raises(ValueError, match=message):
        load(str(tmp_path / "set"), labels=str(tmp_path / "t.csv"))


def test_a_table_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"labels=folder: .*expected folders, none, or a file"):
        load(str(tree(tmp_path)), labels="folder")


# Parts


def test_train_and_test_are_two_parts_or_one_set(tmp_path):
    tree(tmp_path / "train")
    tree(tmp_path / "test", count=1)
    write(tmp_path / "extra" / "x.png", png(pixels(0)))
    source = load(str(tmp_path))
    assert source.found == "8 training and 2 test images, 2 classes (folders), 1 skipped: 1 beside train and test"
    whole = load(str(tmp_path), together=True)
    assert whole.found == "11 images, 3 classes (folders)"
    assert whole.test is None


def test_nothing_is_decoded_before_the_check(tmp_path):
    write(tree(tmp_path) / "ant" / "9.png", "hello")

    class Refused(Exception):
        pass

    def check(listing) -> None:
        assert [len(part) for part in listing.parts] == [9]
        assert listing.classes == ("ant", "bee")
        raise Refused

    with pytest.raises(Refused):
        load(str(tmp_path), check=check)


# What stands in the place of a folder


def read_all(images: Images) -> list[torch.Tensor]:
    return [images.read(i) for i in range(len(images))]


@pytest.mark.parametrize("wrapper", ["", "photos/"])
def test_a_zip_is_read_as_the_folder_that_it_holds(wrapper, tmp_path):
    root = tree(tmp_path / "set", height=9)
    write(root / "bee" / "wide.png", png(pixels(3, height=5, width=50)))
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as packed:
        for file in sorted(root.rglob("*.png")):
            packed.write(file, wrapper + str(file.relative_to(root)))
        packed.writestr(f"{wrapper}notes.txt", "x")
        packed.writestr(f"__MACOSX/{wrapper}ant/._0.png", "x")
    folder, packed = load(str(root)), load(str(tmp_path / "set.zip"))
    assert packed.found == "9 images, 2 classes (folders), 2 skipped: 1 hidden, 1 other (.txt)"
    assert packed.train.labels.tolist() == folder.train.labels.tolist()
    assert all(torch.equal(a, b) for a, b in zip(read_all(packed.train), read_all(folder.train), strict=True))
    assert packed.train.names[0] == f"{tmp_path}/set.zip/{wrapper}ant/0.png"
    again = pickle.loads(pickle.dumps(packed.train))
    options = {"mean": (0.0,) * 3, "std": (1.0,) * 3, "batch_size": 2, "device": "cpu"}
    batches = [list(evaluation_batches(x, EvaluationView(size=6), workers=2, **options)) for x in (again, folder.train)]
    assert all(torch.equal(a, b) for (a, _), (b, _) in zip(*batches, strict=True))


def test_damaged_zips(tmp_path):
    write(tmp_path / "a.zip", b"PK\x03\x04 but not really")
    with pytest.raises(ValueError, match=r"cannot read the archive .*a\.zip"):
        load(str(tmp_path / "a.zip"))
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as packed:
        for i in range(3):
            packed.writestr(f"{i}.png", png(pixels(i)))
    content = bytearray((tmp_path / "b.zip").read_bytes())
    content[500:504] = b"\x00\x01\x02\x03"
    write(tmp_path / "b.zip", bytes(content))
    with pytest.raises(BadImage, match=r"b\.zip/0\.png.*CRC"):
        load(str(tmp_path / "b.zip"))
    assert (
        load(str(tmp_path / "b.zip"), on_bad_image="skip").found == "2 images, no labels, 1 skipped: 1 not unpackable"
    )


def test_a_single_image_and_a_pattern(tmp_path):
    tree(tmp_path)
    one = load(str(tmp_path / "bee" / "2.png"))
    assert one.found == "1 image, no labels"
    assert torch.equal(one.train.read(0), chw(pixels(1, 2)))
    some = load(f"{tmp_path}/*/[01].png")
    assert some.found == "4 images, 2 classes (folders)"
    assert some.train.labels.tolist() == [0, 0, 1, 1]
    flat = load(f"{tmp_path}/bee/*")
    assert flat.found == "4 images, no labels"
    with pytest.raises(FileNotFoundError, match="names no image"):
        load(f"{tmp_path}/*.tiff")


def test_nothing_found_says_what_is_there(tmp_path):
    write(tmp_path / "film.mp4", "x")
    with pytest.raises(FileNotFoundError, match=r"holds no image.*what it holds is video \.mp4"):
        find(str(tmp_path))
