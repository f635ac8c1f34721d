"""Print what recipes, settings, methods, relations, evaluators, backbones and data sets there are."""

import textwrap
from collections.abc import Mapping, Sequence

from relatum.recipes import index

USAGE = ""


def run(args: Sequence[str]) -> None:
    """List."""
    if args:
        raise ValueError(f"`relatum list` takes no arguments, and was given {' '.join(args)}.")
    contents = index.contents()
    for task, names in index.recipe_tasks().items():
        _print(f"recipes {task}:", {name: index.recipe_doc(name).splitlines()[0] for name in names})
    _print("settings (`relatum train RECIPE SETTING`):", contents["settings"])
    _print("methods:", {name: method["about"] for name, method in contents["methods"].items()})
    _print("relations:", contents["relations"])
    _print("evaluators:", contents["evaluators"])
    for title, names in (
        ("backbones (and every timm model with staged features)", contents["backbones"]),
        ("data sets (and folders of images, Parquet files, hf:OWNER/NAME)", contents["data"]),
    ):
        print(f"{title}:\n{textwrap.fill(', '.join(names), 118, initial_indent='  ', subsequent_indent='  ')}")


def _print(title: str, rows: Mapping[str, str]) -> None:
    width = max(map(len, rows))
    print(title)
    print("\n".join(f"  {name:{width}}  {text}" for name, text in rows.items()))
