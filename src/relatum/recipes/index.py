"""What `relatum list`, `relatum show` and the planning of studies need to know of all recipes, without torch.

It stands in `index.json` beside this file, which one command writes, with the types for editors in `options.pyi`:

    python -m relatum.recipes.index
"""

import copy
import json
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from relatum.core import plugins

FILE = Path(__file__).with_name("index.json")


def contents() -> Mapping[str, Any]:
    """The whole index: recipes, settings, methods, relations, backbones, data sets; those of plugins, too.

    Where there are plugins, they are loaded for it, and torch is waited for.
    """
    return _with_plugins(tuple(plugins.wanted())) if plugins.wanted() else shipped()


@cache
def shipped() -> Mapping[str, Any]:
    """The index of what Relatum brings."""
    return json.loads(FILE.read_text(encoding="utf-8"))


@cache
def _with_plugins(wanted: tuple[str, ...]) -> Mapping[str, Any]:
    from relatum.recipes import generate

    plugins.load()
    return generate.index_tree()


def recipe_names() -> list[str]:
    """The names of all recipes, in the order of the catalog."""
    return list(contents()["recipes"])


def recipe_tree(name: str) -> dict[str, Any]:
    """The recipe `name` in plain types, as `relatum.recipes.recipe.to_dict` gives it.

    Raises:
        ValueError: for a recipe that does not exist.
    """
    return copy.deepcopy(_recipe(name)["tree"])


def recipe_doc(name: str) -> str:
    """What the recipe `name` is, its source, command, cost, and the numbers that are published and that are ours.

    Raises:
        ValueError: for a recipe that does not exist.
    """
    return _recipe(name)["doc"]


def recipe_tasks() -> dict[str, list[str]]:
    """The recipes of each task."""
    tasks: dict[str, list[str]] = {}
    for name, recipe in contents()["recipes"].items():
        tasks.setdefault(recipe["task"], []).append(name)
    return tasks


def setting_names() -> list[str]:
    """The names of all settings."""
    return list(contents()["settings"])


def did_you_mean(name: str, known: Iterable[str], otherwise: str = "") -> str:
    """What an error says of a name that is not known: close ones, or all, and what else there could be."""
    import difflib

    known = list(known)
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    return f"did you mean {', '.join(close)}?" if close else f"expected one of {', '.join(known)}{otherwise}."


def _recipe(name: str) -> dict[str, Any]:
    recipes = contents()["recipes"]
    if name not in recipes:
        raise ValueError(f"there is no recipe {name!r}; {did_you_mean(name, recipes, ', or a .yaml file')}")
    return recipes[name]


if __name__ == "__main__":
    from relatum.recipes import generate

    generate.main()
