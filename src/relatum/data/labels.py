"""Classes for the files of a tree: from the folders that they lie in, from a table, or none."""

import csv
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

FILE_COLUMNS = ("file", "filename", "file_name", "path", "image", "name")
LABEL_COLUMNS = ("label", "class", "category", "target")


LEAVE = -2  # in the place of a class: the file is not used


class Labeled(NamedTuple):
    """Classes of files.

    Attributes:
        labels: the class of each file, -1 for none, or `LEAVE` where the file is to be left out.
        classes: the name of each class, in order.
        labels_from: where they come from, in a few words.
    """

    labels: list[int]
    classes: tuple[str, ...]
    labels_from: str


def labeling(labels: str, root: Path) -> Callable[[Sequence[str], str], Labeled]:
    """What gives classes to files of the tree `root`, for each part of it.

    Args:
        labels: `"folders"`, `"none"`, or the path of a table.
        root: the folder or archive that paths in a table are relative to.

    Returns:
        a function of the paths of files, relative to the root, and of the part of each path that all share, such as
        `train/`.

    Raises:
        FileNotFoundError, ValueError: the table is not there, or does not fit.
    """
    if labels == "folders":
        return by_folder
    if labels == "none":
        return lambda files, prefix: Labeled([-1] * len(files), (), "as asked")
    table = Path(labels).expanduser()
    if not table.is_file():
        raise FileNotFoundError(f"labels={labels}: there is no such table; expected folders, none, or a file FILE.csv")
    rows = read_table(table)
    return lambda files, prefix: by_table(table, rows, root, files)


def by_folder(files: Sequence[str], prefix: str) -> Labeled:
    """The class of a file is the folder of the first level that it lies in.

    Images beside the folders have no class and are left out. Where they are more than those in folders, or where there
    is a single folder beside them, the folders are no classes: nothing has one, and nothing is left out.
    """
    tops = [file.removeprefix(prefix).split("/")[0] if "/" in file.removeprefix(prefix) else None for file in files]
    classes = tuple(sorted({top for top in tops if top is not None}))
    loose = tops.count(None)
    if not classes:
        return Labeled([-1] * len(files), (), "")
    if loose and (len(classes) == 1 or loose > len(files) / 2):
        text = f"{loose:,} images lie beside the folder{'s' * (len(classes) > 1)} {', '.join(classes[:3])}"
        return Labeled([-1] * len(files), (), text)
    number = {name: i for i, name in enumerate(classes)}
    return Labeled([LEAVE if top is None else number[top] for top in tops], classes, "folders")


def read_table(table: Path) -> dict[str, str]:
    """A table of comma-, semicolon- or tab-separated columns, with a header: path -> class; "" for none.

    Raises:
        ValueError: it is no such table, or gives a file two classes.
    """
    try:
        text = table.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{table} is not UTF-8 text ({error}): save it as CSV in UTF-8") from error
    head = text.split("\n", 1)[0]
    delimiter = max(",;\t", key=head.count)
    reader = csv.DictReader(text.splitlines(), delimiter=delimiter)
    columns = {(name or "").strip().lower(): name for name in reader.fieldnames or ()}
    file = next((columns[c] for c in FILE_COLUMNS if c in columns), None)
    label = next((columns[c] for c in LABEL_COLUMNS if c in columns), None)
    if file is None or label is None:
        raise ValueError(
            f"{table} has the columns {', '.join(columns) or '(none)'}; expected a header with a column "
            f"{' or '.join(FILE_COLUMNS)} and a column {' or '.join(LABEL_COLUMNS)}"
        )
    rows: dict[str, str] = {}
    for number, row in enumerate(reader, 2):
        name, value = (row[file] or "").strip().replace("\\", "/").removeprefix("./"), (row[label] or "").strip()
        if rows.setdefault(name, value) != value:
            raise ValueError(
                f"{table}, line {number}: {name} has the class {value}, and {rows[name]} before; correct it"
            )
    return rows


def by_table(table: Path, rows: dict[str, str], root: Path, files: Sequence[str]) -> Labeled:
    """The class of a file is that of its row, whose path is relative to the folder, or absolute, or its bare name.

    Raises:
        ValueError: no row names any of the files.
    """
    names = [next((n for n in (file, f"{root}/{file}", file.rsplit("/", 1)[-1]) if n in rows), None) for file in files]
    given = [None if name is None else rows[name] or None for name in names]
    classes = tuple(sorted({value for value in given if value is not None}))
    if not classes:
        raise ValueError(
            f"no row of {table} names one of the {len(files):,} images under {root}, such as {files[0]}; its first "
            f"row names {next(iter(rows), 'nothing')}"
        )
    number = {name: i for i, name in enumerate(classes)}
    labels = [-1 if value is None else number[value] for value in given]
    missing = labels.count(-1)
    text = table.name + (f", {missing:,} images have none" if missing else "")
    return Labeled(labels, classes, text)
