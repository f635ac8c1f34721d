"""What verbs share: a recipe or a run as the first argument, options read by tyro, texts written whole."""

import contextlib
import io
import re
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from relatum.recipes import index

if TYPE_CHECKING:
    import torch

    from relatum.recipes.recipe import Recipe

NO_OPTION = "there is no option"


def parse(kind: Any, command: str, args: Sequence[str], default: Any = None, hint: str = "") -> Any:
    """Read options into the dataclass `kind`.

    Args:
        kind: the dataclass; its fields are the options.
        command: what stands before the options, for the help text.
        args: the words of the command line.
        default: what is not given is taken from here.
        hint: what an error adds to an option that does not exist.

    Raises:
        ValueError: for words that are no options of `kind`, or values that it does not take.
        SystemExit: after `--help`.
    """
    import tyro

    given = {} if default is None else {"default": default}
    # A recipe has decided which method and view it is of: the command line changes their fields.
    only: Any = tyro.conf.AvoidSubcommands
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            return tyro.cli(only[kind], prog=f"relatum {command}", args=list(args), **given)
    except SystemExit as stop:
        if not stop.code:
            raise
        text = _without_box(said.getvalue())
    raise ValueError(f"{text} {hint}" if hint and text.startswith(NO_OPTION) else text)


def _without_box(text: str) -> str:
    """tyro's message, which has a title and a box, or rules where a terminal has no lines; as any other error's."""
    lines = [re.sub(r"[\u2500-\u257f]+", " ", line).strip() for line in text.strip().splitlines()[1:]]
    said = " ".join(" ".join(line for line in lines if line.strip("-") and "full helptext" not in line).split())
    if found := re.match(r"Unrecognized options: (\S+?),?(?: |$)", said):
        known = dict.fromkeys(re.findall(r"--[\w.-]+", said.partition("Perhaps you meant:")[2]))
        hint = f"; did you mean {', '.join(list(known)[:3])}?" if known else "."
        return f"{NO_OPTION} {found.group(1)}{hint}"
    if found := re.match(r"invalid choice '(.*)' for argument '(.*)'\. Expected one of \((.*)\)\.", said):
        value, option, choices = found.groups()
        hint = index.did_you_mean(value, re.findall(r"'(.*?)'", choices))
        return f"{option} is {value!r}; {hint}"
    said = said.replace(" Argument helptext: ", ". Expected: ")
    return re.sub(r"^(Argument |Error parsing (?:\w+: )?)", "", said)


def recipe_argument(verb: str, args: Sequence[str]) -> "tuple[Recipe, Sequence[str]]":
    """The recipe that the first words name, under the setting that the next may name, and the words after them."""
    name, setting, rest = recipe_words(verb, args)
    from relatum.recipes.catalog import RECIPES, SETTINGS
    from relatum.recipes.recipe import read

    found = RECIPES[name]() if name in RECIPES else read(Path(name))
    return (SETTINGS[setting](found) if setting else found), rest


def recipe_words(verb: str, args: Sequence[str]) -> tuple[str, str, Sequence[str]]:
    """The name of a recipe or YAML file, of a setting or "", and the words after them.

    Raises:
        ValueError: for a recipe or a setting that does not exist.
    """
    if not args or args[0].startswith("-"):
        raise ValueError(
            f"`relatum {verb}` needs a recipe: relatum {verb} demo, for example; `relatum list` names all."
        )
    name, rest = args[0], args[1:]
    if Path(name).suffix not in (".yaml", ".yml") and name not in index.recipe_names():
        hint = index.did_you_mean(name, index.recipe_names(), ", or a .yaml file")
        raise ValueError(f"there is no recipe {name!r}; {hint}")
    if not rest or rest[0].startswith("-"):
        return name, "", rest
    if rest[0] not in index.setting_names():
        hint = index.did_you_mean(rest[0], index.setting_names(), ", or an option")
        raise ValueError(f"there is no setting {rest[0]!r}; {hint}")
    return name, rest[0], rest[1:]


def run_argument(verb: str, args: Sequence[str]) -> tuple[Path, Sequence[str]]:
    """The run folder that the first word names, and the words after it.

    Raises:
        ValueError, FileNotFoundError: where there is none, or it holds no encoder.
    """
    if not args or args[0].startswith("-"):
        raise ValueError(f"`relatum {verb}` needs a run folder: relatum {verb} runs/demo, for example.")
    run = Path(args[0])
    if not (run / "encoder.safetensors").is_file() and not any(run.glob("checkpoints/epoch-*.pt")):
        raise FileNotFoundError(
            f"{run} holds no trained encoder and no checkpoint; expected the folder of a run with a finished epoch."
        )
    return run, args[1:]


def recipe_of(run: Path) -> "Recipe":
    """The recipe that a run was started with."""
    from relatum.recipes.recipe import read

    return read(run / "recipe.yaml")


def free(folder: Path) -> Path:
    """`folder`, or the first of `folder-2`, `folder-3`, ... that does not exist."""
    number, found = 1, folder
    while found.exists():
        number += 1
        found = folder.with_name(f"{folder.name}-{number}")
    return found


def device_of(recipe: "Recipe") -> "torch.device":
    """The GPU, where there is one and the recipe does not ask for the processor."""
    import torch

    return torch.device("cuda" if torch.cuda.is_available() and recipe.train.accelerator != "cpu" else "cpu")


def precision_of(recipe: "Recipe", device: "torch.device") -> "Callable[[], AbstractContextManager]":
    """The context in which the recipe's encoder runs in training: measured in another, its numbers are others."""
    import torch

    from relatum.training import hardware

    return partial(torch.autocast, device.type, torch.bfloat16, enabled=hardware.precision_of(recipe) == "bf16-mixed")


def write(path: Path, text: str) -> None:
    """Write a text in UTF-8, whole or not at all.

    Raises:
        OSError: naming the file, where it cannot be written.
    """
    from relatum.reports.records import write_atomically

    try:
        write_atomically(path, text)
    except OSError as error:
        raise OSError(f"{path} cannot be written: {error.strerror or error}. Choose another --out.") from error
