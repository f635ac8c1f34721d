"""Folders of images as people have them, and what else may stand in their place: one image, a pattern, a .zip.

A tree is listed first, all of it: files that are images, and what is left out with its reason. Then labels are given:
by sub-folder, by a table, or none.
"""

import glob
import os
import stat
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import torch

from relatum.data.decoding import HEIC, HEIC_HINT, reads_heic, suffixes
from relatum.data.files import Files, Zipped, streamed
from relatum.data.images import Images, StreamedImages
from relatum.data.labels import LEAVE, Labeled, labeling
from relatum.data.listing import LeftOut, Listing

VIDEOS = (".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".3gp", ".wmv")
TEST_PARTS = ("test", "val", "valid", "validation")


@dataclass
class Tree:
    """The files of a tree.

    Attributes:
        root: the folder or archive.
        files: paths of images, relative to the root, with `/`, in order.
        folders: paths of the folders that were read.
        left_out: everything that is not used.
        archive: whether the root is a .zip.
        prefix: what stands before all paths in the archive.
    """

    root: Path
    files: list[str]
    folders: list[str]
    left_out: list[LeftOut]
    archive: bool = False
    prefix: str = ""

    def full(self, file: str) -> str:
        """The path of a file of this tree."""
        return f"{self.root}/{self.prefix}{file}"

    def images(self, files: Sequence[str], labels: Sequence[int]) -> StreamedImages:
        """The given files of this tree as images."""
        if self.archive:
            return streamed(Zipped(self.root, [f"{self.prefix}{file}" for file in files]), labels)
        return streamed(Files([os.path.join(self.root, file) for file in files]), labels)


def scan(root: Path) -> Tree:
    """List a folder and all its sub-folders.

    Regular files alone are images: a pipe or a device with an image's name would be read for ever. Hidden folders are
    not read, and links to folders only at the first level (a folder of links to classes), because deeper ones may
    lead back.
    """
    tree = Tree(root, [], [], [])
    _scan(tree, root, "")
    tree.files.sort(key=_flat_first)
    return tree


def _scan(tree: Tree, folder: Path, inside: str) -> None:
    try:
        with os.scandir(folder) as listed:
            entries = sorted(listed, key=lambda entry: entry.name)
    except OSError as error:
        if not inside:
            raise type(error)(error.errno, f"cannot read the folder {folder}: {error.strerror}") from error
        tree.left_out.append(LeftOut(str(folder), "unreadable folder"))
        tree.folders.remove(inside.rstrip("/"))
        return
    for entry in entries:
        is_folder = entry.is_dir()
        if entry.name.startswith("."):
            tree.left_out.append(LeftOut(entry.path, "hidden folder" if is_folder else "hidden"))
        elif is_folder and entry.is_symlink() and (inside or _leads_back(entry.path, tree.root)):
            tree.left_out.append(LeftOut(entry.path, "linked folder"))
        elif is_folder:
            tree.folders.append(f"{inside}{entry.name}")
            _scan(tree, Path(entry.path), f"{inside}{entry.name}/")
        elif reason := reason_to_leave(entry.name):
            tree.left_out.append(LeftOut(entry.path, reason))
        elif wrong := _no_image(entry.path):
            tree.left_out.append(LeftOut(entry.path, *wrong))
        else:
            tree.files.append(f"{inside}{entry.name}")


def _leads_back(link: str, root: Path) -> bool:
    return Path(link).resolve() in (root.resolve(), *root.resolve().parents)


def reason_to_leave(name: str) -> str | None:
    """Why a file of this name is no image, such as ".heic" or "video .mp4"; None where it should be one."""
    suffix = os.path.splitext(name)[1].lower()
    if suffix in suffixes():
        return None
    if suffix in VIDEOS:
        return f"video {suffix}"
    return suffix if suffix in HEIC else f"other ({suffix})" if suffix else "other"


def _no_image(path: str) -> tuple[str, str] | None:
    """(what it is counted under, what is wrong) of a path with an image's name that cannot be one."""
    try:
        path.encode("utf-8")
    except UnicodeEncodeError:
        return "name not UTF-8", "its name is no text (not UTF-8): rename it"
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        dangling = os.path.islink(path)
        return ("dangling link", "a link that leads nowhere") if dangling else ("unreadable", str(error))
    return None if stat.S_ISREG(mode) else ("not a regular file", "it is no regular file but a pipe or a device")


def scan_zip(path: Path) -> Tree:
    """List a .zip archive; a single folder that holds folders of images is passed over."""
    try:
        with zipfile.ZipFile(path) as packed:
            names = sorted(info.filename for info in packed.infolist() if not info.is_dir())
    except (zipfile.BadZipFile, OSError) as error:
        raise ValueError(f"cannot read the archive {path}: {error}; expected a .zip of images") from error
    tree = Tree(path, [], [], [], archive=True)
    for name in names:
        parts = PurePosixPath(name).parts
        if any(part.startswith(".") or part == "__MACOSX" for part in parts):
            tree.left_out.append(LeftOut(f"{path}/{name}", "hidden"))
        elif reason := reason_to_leave(name):
            tree.left_out.append(LeftOut(f"{path}/{name}", reason))
        else:
            tree.files.append(name)
    tops = {file.split("/")[0] if "/" in file else "" for file in tree.files}
    inner = {file.split("/")[1] for file in tree.files if file.count("/") > 1}
    if len(tops) == 1 and inner:
        tree.prefix = f"{tops.pop()}/"
        tree.files = [file.removeprefix(tree.prefix) for file in tree.files]
    tree.files.sort(key=_flat_first)
    return tree


def _flat_first(file: str) -> tuple[bool, tuple[str, ...]]:
    return "/" in file, PurePosixPath(file).parts


def folder(root: Path, labels: str = "folders", *, together: bool = False) -> Listing:
    """A folder of images, or one that holds `train` and `test` (or `val`).

    Args:
        root: the folder.
        labels: `"folders"`, `"none"`, or the path of a table (`labels.label_by_table`).
        together: take `train` and `test` as two folders among others: all images are one set.

    Raises:
        FileNotFoundError: there is no image.
        ValueError: a class of the test part that the training part lacks, or a table that does not fit.
    """
    return _listing(scan(root), labels, together)


def archive(path: Path, labels: str = "folders", *, together: bool = False) -> Listing:
    """A .zip archive that holds what `folder` takes. Args, Raises: the same; ValueError: it cannot be read."""
    return _listing(scan_zip(path), labels, together)


def pattern(text: str, labels: str = "folders") -> Listing:
    """All images that a pattern such as `photos/2024-*/**/*.jpg` names; labels by the folders they lie in.

    Raises:
        FileNotFoundError: it names no image.
    """
    found = sorted(glob.glob(text, recursive=True))
    left_out, files = [], []
    for path in found:
        if os.path.isdir(path):
            continue
        wrong = _no_image(path)
        if reason := reason_to_leave(path):
            left_out.append(LeftOut(path, reason))
        elif wrong:
            left_out.append(LeftOut(path, *wrong))
        else:
            files.append(path)
    if not files:
        raise FileNotFoundError(f"the pattern {text} names no image; expected files {', '.join(sorted(suffixes()))}")
    root = Path(os.path.commonpath([os.path.dirname(os.path.abspath(file)) for file in files]))
    relative = [Path(os.path.abspath(file)).relative_to(root).as_posix() for file in files]
    return _listing(Tree(root, relative, [], left_out), labels, True)


def single(path: Path) -> Listing:
    """One image file."""
    wrong = _no_image(str(path))
    left_out = (LeftOut(str(path), *wrong),) if wrong else ()
    return Listing(streamed(Files([str(path)]), [-1]), None, (), left_out=left_out)


def _listing(tree: Tree, labels: str, together: bool) -> Listing:
    if not tree.files:
        raise FileNotFoundError(_nothing(str(tree.root), tree))
    read = labeling(labels, tree.root)
    tops = {file.split("/")[0] for file in tree.files if "/" in file} | {f for f in tree.folders if "/" not in f}
    if together or "train" not in tops:
        train, labeled = _part(tree, tree.files, read, "")
        return _finished(tree, train, None, labeled)
    part = next((part for part in TEST_PARTS if part in tops), None)
    inside = {p: [file for file in tree.files if file.startswith(f"{p}/")] for p in ("train", part) if p}
    if not inside["train"]:
        raise FileNotFoundError(_nothing(f"{tree.root}/train", tree))
    used = {file for files in inside.values() for file in files}
    reason = f"beside {' and '.join(inside)}"
    tree.left_out += [LeftOut(tree.full(file), reason) for file in tree.files if file not in used]
    train, labeled = _part(tree, inside["train"], read, "train/")
    if part is None or not inside[part]:
        return _finished(tree, train, None, labeled)
    test, labeled_test = _part(tree, inside[part], read, f"{part}/")
    unknown = sorted(set(labeled_test.classes) - set(labeled.classes))
    if unknown:
        raise ValueError(
            f"{tree.root}/{part}/{unknown[0]} is a class that {tree.root}/train lacks; give both the same classes"
        )
    number = torch.tensor([*(labeled.classes.index(c) for c in labeled_test.classes), -1])  # the last for no class
    return _finished(tree, train, replace(test, labels=number[test.labels]), labeled)


def _part(
    tree: Tree, files: Sequence[str], read: Callable[[Sequence[str], str], Labeled], prefix: str
) -> tuple[StreamedImages, Labeled]:
    """Files with their labels as images; those that are to be left out are."""
    labeled = read(files, prefix)
    kept = [(file, label) for file, label in zip(files, labeled.labels) if label != LEAVE]
    leave = (file for file, label in zip(files, labeled.labels) if label == LEAVE)
    tree.left_out += [LeftOut(tree.full(file), "beside the class folders") for file in leave]
    return tree.images([file for file, _ in kept], [label for _, label in kept]), labeled


def _finished(tree: Tree, train: Images, test: Images | None, labeled: Labeled) -> Listing:
    """A listing; folders that hold no image are named, because one might have been meant as a class."""
    full = {str(parent) for file in tree.files for parent in PurePosixPath(file).parents}
    empty = (f for f in tree.folders if f not in full and str(PurePosixPath(f).parent) in full)
    tree.left_out += [LeftOut(tree.full(name), "empty folder") for name in empty]
    return Listing(train, test, labeled.classes, labeled.labels_from, tuple(tree.left_out))


def _nothing(where: str, tree: Tree) -> str:
    seen = ", ".join(sorted({item.reason for item in tree.left_out}))
    return (
        f"{where} holds no image: expected files {', '.join(sorted(suffixes()))}, or folders of them, one per class"
        + (f"; what it holds is {seen}" if seen else "")
        + (f" ({HEIC_HINT})" if not reads_heic() and any(item.reason in HEIC for item in tree.left_out) else "")
    )
