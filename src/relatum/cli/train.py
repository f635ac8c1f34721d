"""Train an encoder as a recipe says, and measure it.

RECIPE is a name of `relatum list` or a .yaml file, SETTING a name of a published schedule. Every field of the recipe is
an option: --optim.lr 1e-3, --data.source my-photos.
"""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from relatum.cli.arguments import free, parse, recipe_argument
from relatum.cli.errors import Interrupted
from relatum.core import plugins

USAGE = "RECIPE [SETTING] [--run DIR] [--resume] [--profile] [--optim.lr 1e-3 ...]"


def run(args: Sequence[str]) -> None:
    """Train."""
    import tyro

    recipe, rest = recipe_argument("train", args)
    from relatum.recipes.recipe import Recipe
    from relatum.training.loop import fit

    @dataclass(frozen=True)
    class Train:
        recipe: Annotated[Recipe, tyro.conf.arg(name="")]
        run: Path | None = None
        """The run folder; runs/RECIPE, or the next free name beside it, if not given."""
        resume: bool = False
        """Go on from the last checkpoint of --run."""
        profile: bool = False
        """Write where the time of a step goes: profile.txt, and trace.json for a trace viewer."""

    chosen = parse(Train, f"train {args[0]}", rest, Train(recipe))
    if chosen.resume and chosen.run is None:
        raise ValueError("--resume goes on with a run: name its folder with --run DIR.")
    folder = chosen.run or free(Path("runs") / chosen.recipe.name)
    try:
        fit(chosen.recipe, folder, resume=chosen.resume, profile=chosen.profile)
    except KeyboardInterrupt:
        raise Interrupted(resuming(args, folder)) from None


def resuming(args: Sequence[str], folder: Path) -> str:
    """The command that goes on with the run in `folder`, which the words `args` began."""
    words = [word for i, word in enumerate(args) if word not in ("--run", "--resume") and args[i - 1 : i] != ["--run"]]
    words = [word for word in words if not word.startswith("--run=")]
    return shlex.join(["relatum", "train", *words, *plugins.words(), "--run", str(folder), "--resume"])
