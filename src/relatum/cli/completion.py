"""Print what completes `relatum` in a shell: verbs, recipes and options. It takes some seconds.

bash: relatum completion bash > ~/.local/share/bash-completion/completions/relatum
zsh: relatum completion zsh > ~/.zfunc/_relatum, with ~/.zfunc in fpath
fish: relatum completion fish > ~/.config/fish/completions/relatum.fish
"""

from collections.abc import Sequence
from dataclasses import make_dataclass
from pathlib import Path
from typing import Annotated, Any, Union

from relatum.recipes import index

USAGE = "bash|zsh|fish"
SHELLS = ("bash", "zsh", "fish")
Members = list[Any]


def run(args: Sequence[str]) -> None:
    """Print the script."""
    if list(args) not in [[shell] for shell in SHELLS]:
        given = " ".join(args) or "none"
        raise ValueError(f"`relatum completion` takes one shell of {', '.join(SHELLS)}, and was given {given}.")
    import tyro

    tyro.cli(_every_verb(), prog="relatum", args=["--tyro-print-completion", args[0]])


def _every_verb() -> Any:
    """All verbs as one type. tyro completes subcommands, so a recipe is one, and has the options of its fields."""
    from relatum.cli import VERBS
    from relatum.cli.embed import Embed
    from relatum.cli.export import Export

    out: Members = [("out", Path, Path())]
    trained: Members = [("run", Path, Path()), ("resume", bool, False), ("profile", bool, False)]
    measured = [field for field in _fields("demo") if field[0].startswith(("data_of", "evaluation_of"))]
    kinds: dict[str, Any] = {
        "train": _one_of({name: [*_fields(name), *trained] for name in index.recipe_names()}),
        "cost": _one_of({name: [("repeats", int, 10), *out] for name in index.recipe_names()}),
        "show": _one_of({name: [("about", bool, False)] for name in index.recipe_names()}),
        "evaluate": make_dataclass("evaluate", [*measured, *out]),
        "embed": Embed,
        "export": Export,
        "table": make_dataclass("table", [("format", str, ""), *out, ("into", Path, Path())]),
        "completion": _one_of({shell: [] for shell in SHELLS}),
    }
    return _union({name: kinds.get(name, make_dataclass(name, [])) for name in VERBS})


def _one_of(commands: dict[str, Members]) -> Any:
    """A command that goes on with one of these."""
    return make_dataclass(
        "one_of", [("chosen", _union({name: make_dataclass("x", m) for name, m in commands.items()}))]
    )


def _union(kinds: dict[str, Any]) -> Any:
    import tyro

    named = [Annotated[kind, tyro.conf.subcommand(name, prefix_name=False)] for name, kind in kinds.items()]
    union: Any = tyro.conf.OmitSubcommandPrefixes
    kinds_of: Any = Union
    return Annotated[kinds_of[tuple(named)], tyro.conf.arg(name=""), union]


def _fields(recipe: str) -> Members:
    """The fields of a recipe, each an option of its dotted name."""
    import tyro

    from relatum.reports.records import flat

    return [
        (path.replace(".", "_of_"), Annotated[str, tyro.conf.arg(name=path)], "")
        for path in flat(index.recipe_tree(recipe))
    ]
