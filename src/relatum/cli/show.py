"""Print a whole recipe as YAML, which `relatum train FILE.yaml` takes back.

With --about: where it comes from, what it costs, and the number to expect.
"""

import textwrap
from collections.abc import Sequence
from pathlib import Path

from relatum.cli.arguments import parse, recipe_argument, recipe_words
from relatum.recipes import index

USAGE = "RECIPE [SETTING] [--about] [--optim.lr 1e-3 ...]"


def run(args: Sequence[str]) -> None:
    """Show."""
    about = "--about" in args
    args = [word for word in args if word != "--about"]
    name, setting, rest = recipe_words("show", args)
    if about:
        _refuse_more(name, setting, rest)
        print(_wrapped(index.recipe_doc(name)))
    elif name in index.recipe_names() and not setting and not rest:
        from relatum.recipes.text import write_tree

        print(write_tree(index.recipe_tree(name)), end="")  # the recipe as it is, without torch
    else:
        from relatum.recipes.recipe import Recipe, to_yaml

        recipe, rest = recipe_argument("show", args)
        print(to_yaml(parse(Recipe, f"show {name}", rest, recipe)), end="")


def _refuse_more(name: str, setting: str, rest: Sequence[str]) -> None:
    if Path(name).suffix in (".yaml", ".yml"):
        raise ValueError(f"--about tells of the recipes of `relatum list`, and {name} is a file.")
    if setting or rest:
        raise ValueError(
            f"--about tells of a recipe as it is: leave {' '.join(word for word in (setting, *rest) if word)} out."
        )


def _wrapped(doc: str) -> str:
    return "\n".join(textwrap.fill(line, 100, subsequent_indent="    ") for line in doc.splitlines())
