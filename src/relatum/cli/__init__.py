"""The command line: a file a verb, and the only room that prints.

Verbs are imported when they are called and import what they need then, so that `relatum --help` answers at once. tyro
would parse the verbs too (`tyro.extras.SubcommandApp`), but it builds the options of all of them first, and what the
options of `train` are is not known before its recipe is.
"""

import logging
import sys
from importlib import import_module
from io import TextIOWrapper
from types import ModuleType

from relatum.cli.errors import TRACEBACK, explained
from relatum.core import plugins

VERBS = (
    *("train", "evaluate", "cost", "embed", "search", "predict", "export"),
    *("table", "list", "show", "study", "report", "completion"),
)
"""Every verb is a module of this room with `USAGE`, a docstring, and `run(args)`."""

OWN_HELP = ("table", "study", "report")
"""Verbs whose options are the same whatever their first argument is: their parsers describe them."""


def main() -> None:
    """The entry point of the command `relatum`."""
    args = sys.argv[1:]
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal that knows no plus-minus sign gets the rest
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    code = explained(lambda: _dispatch(args))
    if code:
        sys.exit(code)


def verb(name: str) -> ModuleType:
    """The module of a verb.

    Raises:
        ValueError: for a verb that does not exist.
    """
    if name not in VERBS:
        from relatum.recipes.index import did_you_mean

        raise ValueError(f"there is no verb {name!r}; {did_you_mean(name, VERBS)}")
    return import_module(f"relatum.cli.{name}")


def _dispatch(args: list[str]) -> None:
    args = _plugins_taken(args)
    if not args or args[0] in ("-h", "--help"):
        print(_help())
    elif args[0] == "--version":
        from importlib.metadata import version

        print(f"relatum {version('relatum')}")
    else:
        chosen = verb(args[0])
        if args[1:] in (["-h"], ["--help"]) and args[0] not in OWN_HELP:
            print(_help_of(args[0], chosen))
        else:
            chosen.run(args[1:])


def _plugins_taken(args: list[str]) -> list[str]:
    """The words without `--plugin FILE`, which stands anywhere and holds for every verb.

    Raises:
        ValueError, FileNotFoundError: for a plugin that is not named, or a file that is not there.
    """
    rest, found, words = [], [], iter(args)
    for word in words:
        option, equals, value = word.partition("=")
        if option != plugins.OPTION:
            rest.append(word)
            continue
        value = value if equals else next(words, "")
        if not value or value.startswith("-"):
            raise ValueError(
                f"{plugins.OPTION} names nothing; expected a .py file or a module: {plugins.OPTION} my.py."
            )
        found.append(value)
    if found:
        plugins.name_more(found)
    return rest


def _help() -> str:
    lines = ["Relatum trains image encoders from how images relate.", "", "usage: relatum VERB ...", ""]
    for name in VERBS:
        chosen = verb(name)
        lines += [f"  {name} {chosen.USAGE}".rstrip(), f"      {(chosen.__doc__ or '').splitlines()[0]}"]
    more = [
        "",
        "With every verb, --plugin FILE adds methods, relations, backbones, data sets, evaluators, recipes of yours.",
        "",
        "`relatum VERB --help` says more. Start with: relatum train demo",
    ]
    return "\n".join([*lines, *more])


def _help_of(name: str, chosen: ModuleType) -> str:
    """The help of a verb alone: which options it has depends on its first argument, which is not given."""
    text = [f"usage: relatum {name} {chosen.USAGE}".strip(), "", (chosen.__doc__ or "").strip()]
    if chosen.USAGE.startswith("RECIPE"):
        text += ["", f"`relatum {name} demo --help` lists every option, `relatum list` the recipes and settings."]
    elif chosen.USAGE.startswith("RUN"):
        text += ["", f"`relatum {name} RUN --help` lists every option, for a run folder of yours."]
    return "\n".join(text)


__all__ = ["TRACEBACK", "VERBS", "main", "verb"]
