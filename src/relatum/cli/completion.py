"""Print what completes `relatum` in a shell: verbs, recipes, settings and options.

bash: relatum completion bash > ~/.local/share/bash-completion/completions/relatum
zsh: relatum completion zsh > ~/.zfunc/_relatum, with ~/.zfunc in fpath
fish: relatum completion fish > ~/.config/fish/completions/relatum.fish
"""

from collections.abc import Sequence
from dataclasses import make_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Union

from relatum.recipes import index

USAGE = "bash|zsh|fish"
SHELLS = ("bash", "zsh", "fish")


def run(args: Sequence[str]) -> None:
    """Print the script."""
    if list(args) not in [[shell] for shell in SHELLS]:
        raise ValueError(f"`relatum completion` takes one shell, and was given {' '.join(args) or 'none'}; "
                         f"expected one of {', '.join(SHELLS)}.")  # fmt: skip
    import tyro

    tyro.cli(_every_verb(), prog="relatum", args=["--tyro-print-completion", args[0]])


def _every_verb() -> Any:
    """All verbs as one type, whose options are those of any recipe."""
    import tyro

    from relatum.cli import VERBS
    from relatum.cli.embed import Embed
    from relatum.cli.export import Export

    recipe = _one_of(index.recipe_names())
    setting = _one_of(["", *index.setting_names()])
    fields = _fields()
    trained: list[Any] = [("recipe", recipe), *fields, ("setting", setting, "")]
    run: list[Any] = [("run_folder", tyro.conf.Positional[Path])]
    measured = [f for f in fields if f[0] in ("data", "evaluation")]
    kinds: dict[str, Any] = {
        "train": [*trained, ("run", Path, Path()), ("resume", bool, False), ("profile", bool, False)],
        "cost": [*trained, ("repeats", int, 10), ("out", Path, Path())],
        "show": [*trained, ("about", bool, False)],
        "evaluate": [*run, *measured, ("out", Path, Path())],
        "embed": [*run, ("options", Annotated[Embed, tyro.conf.arg(name="")])],
        "export": [*run, ("options", Annotated[Export, tyro.conf.arg(name="")])],
        "table": [
            ("runs", tyro.conf.Positional[tuple[Path, ...]]),
            ("format", str, ""),
            ("out", Path, Path()),
            ("into", Path, Path()),
        ],
        "completion": [("shell", _one_of(SHELLS))],
    }
    made = [Annotated[make_dataclass(name, kinds.get(name, [])), tyro.conf.subcommand(name)] for name in VERBS]
    union: Any = Union
    return union[tuple(made)]


def _one_of(names: Sequence[str]) -> Any:
    """The type of an argument that is one of the names."""
    import tyro

    choices: Any = Literal  # made at run time: no types for a checker
    positional: Any = tyro.conf.Positional
    return positional[choices[tuple(names)]]


def _fields() -> list[Any]:
    """The sections of all recipes as they stand in the index: a type for each, every field of which is an option."""
    sections: dict[str, dict[str, Any]] = {}
    for name in index.recipe_names():
        for section, value in index.recipe_tree(name).items():
            if isinstance(value, dict):
                _merge(sections.setdefault(section, {}), value)
    return [(section, _kind(section, values)) for section, values in sections.items()]


def _merge(into: dict[str, Any], tree: dict[str, Any]) -> None:
    for key, value in tree.items():
        if isinstance(value, dict):
            _merge(into.setdefault(key, {}), value)
        else:
            into[key] = value


def _kind(name: str, values: dict[str, Any]) -> Any:
    nested = [(field, _kind(field, value)) for field, value in values.items() if isinstance(value, dict)]
    plain = [(field, str, "") for field, value in values.items() if not isinstance(value, dict) and field != "name"]
    return make_dataclass(name, [*nested, *plain])
