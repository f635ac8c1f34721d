"""Recipes as plain trees, without torch: what a study changes, and the command that trains the changed recipe."""

import re
from collections.abc import Mapping
from functools import cache
from typing import Any

from relatum.recipes import index
from relatum.recipes.index import did_you_mean


@cache
def tree(recipe: str) -> dict[str, Any]:
    """The fields of a recipe by their dotted names, such as `method.temperature`.

    Raises:
        ValueError: for a recipe that does not exist.
    """
    from relatum.reports.records import flat

    if recipe not in recipes():
        raise ValueError(f"there is no recipe {recipe!r}; {did_you_mean(recipe, recipes())}")
    return flat(index.recipe_tree(recipe))


def recipes() -> list[str]:
    """The names of all recipes."""
    return index.recipe_names()


def changed(recipe: str, changes: Mapping[str, Any]) -> dict[str, Any]:
    """The changes that change something, each checked against the field that it changes.

    Raises:
        ValueError: for a field that the recipe does not have, or a value of another kind than the field's.
    """
    fields = tree(recipe)
    kept = {}
    for name, value in changes.items():
        if name not in fields or name in ("name", "method.name", "data.view.kind"):
            raise ValueError(f"the recipe {recipe!r} has no field {name!r} to change; {did_you_mean(name, fields)}")
        old, new = fields[name], list(value) if isinstance(value, tuple) else value
        if not _alike(old, new):
            raise ValueError(f"{name} is {value!r}; expected a value such as {old!r}, which {recipe} has.")
        if new != old:
            kept[name] = new
    return kept


def _alike(old: Any, new: Any) -> bool:
    if old is None or new is None:
        return True
    if isinstance(old, bool) or isinstance(new, bool):
        return isinstance(old, bool) and isinstance(new, bool)
    if isinstance(old, int | float):
        return isinstance(new, int | float)
    return isinstance(new, type(old))


def words(changes: Mapping[str, Any]) -> list[str]:
    """Changed fields as options of `relatum train`."""
    return [word for name, value in changes.items() for word in _option(name.replace("_", "-"), value)]


def _option(name: str, value: Any) -> list[str]:
    if isinstance(value, bool):
        room, _, leaf = name.rpartition(".")
        return [f"--{name}" if value else f"--{room}.no-{leaf}"]
    return [f"--{name}", *map(str, value if isinstance(value, list) else [value])]


def parsed(text: str) -> Any:
    """A value of the command line: a number, true, false, none, a tuple in brackets, or a word."""
    text = text.strip()
    if text[:1] in "([" and text[-1:] in ")]":
        return tuple(parsed(part) for part in parts(text[1:-1]))
    if text.lower() in ("none", "null"):
        return None
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    if re.fullmatch(r"[+-]?\d+", text):
        return int(text)
    try:
        return float(text)
    except ValueError:
        return text


def parts(text: str) -> list[str]:
    """The text between its commas; those inside of brackets part nothing."""
    found, depth = [""], 0
    for letter in text:
        depth += (letter in "([") - (letter in ")]")
        if letter == "," and not depth:
            found.append("")
        else:
            found[-1] += letter
    return [part for part in found if part.strip()]
