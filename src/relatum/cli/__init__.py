"""The command line. Every verb imports what it needs when it is called, so that `relatum --help` answers at once."""

import difflib
import json
import logging
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

if TYPE_CHECKING:
    import torch

    from relatum.recipes.recipe import Recipe

TRACEBACK = "RELATUM_TRACEBACK"  # the environment variable that asks for the place of an error


def train(args: Sequence[str]) -> None:
    """RECIPE [SETTING] [--run DIR] [--resume] [--optim.lr 1e-3 ...]: train an encoder. RECIPE is a name or a .yaml."""
    import tyro

    recipe, rest = _recipe_argument("train", args)
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

    chosen = _parse(Train, f"train {args[0]}", rest, Train(recipe))
    if chosen.resume and chosen.run is None:
        raise ValueError("--resume goes on with a run: name its folder with --run DIR.")
    fit(
        chosen.recipe,
        chosen.run or _free(Path("runs") / chosen.recipe.name),
        resume=chosen.resume,
        profile=chosen.profile,
    )


def evaluate(args: Sequence[str]) -> None:
    """RUN [--evaluation.knn.k 20 --data.source cifar100 ...]: measure the encoder of a run, on its data or others."""
    import tyro

    run, rest = _run_argument("evaluate", args)
    from relatum.networks.export import load_encoder
    from relatum.recipes import building
    from relatum.recipes.recipe import Recipe
    from relatum.reports.tables import measured

    @dataclass(frozen=True)
    class Evaluate:
        recipe: Annotated[Recipe, tyro.conf.arg(name="")]
        out: Path | None = None
        """Write the numbers and how they were measured to this JSON file."""

    chosen = _parse(Evaluate, f"evaluate {run}", rest, Evaluate(_recipe_of(run)))
    backbone, info = load_encoder(building.encoder_of(str(run)))
    prepared = building.prepare(chosen.recipe)
    # The encoder knows one normalization: images of other sets are given to it as its own were.
    prepared = prepared._replace(source=replace(prepared.source, mean=info.mean, std=info.std))
    device = _device()
    result = building.measurer_of(chosen.recipe, prepared, device).final(backbone.to(device))
    print(measured(result.metrics, result.protocols))
    if chosen.out:
        chosen.out.write_text(json.dumps({"metrics": result.metrics, "protocols": result.protocols}, indent=1) + "\n")


def cost(args: Sequence[str]) -> None:
    """RECIPE [SETTING] [--out FILE.json] [...]: what a training step takes beside the baseline's on the same images."""
    import tyro

    recipe, rest = _recipe_argument("cost", args)
    from dataclasses import asdict
    from functools import partial

    import torch

    from relatum.recipes import building
    from relatum.recipes.recipe import Recipe
    from relatum.training.cost import measure_cost
    from relatum.training.loop import precision_of

    @dataclass(frozen=True)
    class Cost:
        recipe: Annotated[Recipe, tyro.conf.arg(name="")]
        repeats: int = 10
        """Steps of each side that are timed."""
        out: Path | None = None
        """Write the numbers to this JSON file."""

    chosen = _parse(Cost, f"cost {args[0]}", rest, Cost(recipe))
    settings = chosen.recipe.train
    if settings.threads:
        torch.set_num_threads(settings.threads)
    device = torch.device("cpu") if settings.accelerator == "cpu" else _device()
    bf16 = precision_of(chosen.recipe) == "bf16-mixed"
    precision = partial(torch.autocast, device.type, torch.bfloat16, enabled=bf16)
    prepared = building.prepare(chosen.recipe)
    measured = measure_cost(chosen.recipe, prepared, device, precision, repeats=chosen.repeats)
    print(measured.table())
    if chosen.out:
        chosen.out.write_text(json.dumps(asdict(measured), indent=1) + "\n")


def embed(args: Sequence[str]) -> None:
    """RUN --images DIR [--out FILE.npz]: the features of a folder of images, by the encoder of a run."""
    run, rest = _run_argument("embed", args)
    import numpy as np

    from relatum.data import sources
    from relatum.networks.export import load_encoder
    from relatum.recipes import building

    @dataclass(frozen=True)
    class Embed:
        images: str
        """A folder of images, or anything that --data.source takes."""
        out: Path = Path("embeddings.npz")
        """features (n, d) float32, labels (n) with -1 for none, names (n), classes."""
        root: str = ".data"
        """Where named sets are found."""
        on_bad_image: Literal["error", "skip"] = "error"
        """What to do with a file that cannot be read."""

    chosen = _parse(Embed, f"embed {run}", rest)
    recipe = _recipe_of(run)
    # Streamed images keep the names of their files.
    source = sources.load(chosen.images, root=chosen.root, on_bad_image=chosen.on_bad_image, resident="no")
    backbone, info = load_encoder(building.encoder_of(str(run)))
    source = replace(source, mean=info.mean, std=info.std)
    device = _device()
    measurer = building.measurer_of(recipe, building.Prepared(source, source.train, None), device)
    found = measurer.embed(backbone.to(device).eval().embed, source.train)
    np.savez(
        chosen.out,
        features=found.features.numpy(),
        labels=found.labels.numpy(),
        names=np.array(source.train.names),
        classes=np.array(source.classes),
    )
    print(f"{len(found.labels)} images, {found.features.shape[1]} features each, in {chosen.out}")


def export(args: Sequence[str]) -> None:
    """RUN [--to DIR] [--onnx]: the plain encoder, for use without Relatum."""
    run, rest = _run_argument("export", args)
    import torch

    from relatum.data.views import EvaluationView
    from relatum.networks.export import load_encoder, save_encoder, save_onnx
    from relatum.recipes import building

    @dataclass(frozen=True)
    class Export:
        to: Path | None = None
        """The folder; RUN/export if not given."""
        onnx: bool = False
        """Write encoder.onnx too, checked against PyTorch on images of the run's data."""

    chosen = _parse(Export, f"export {run}", rest)
    to = chosen.to or run / "export"
    backbone, info = load_encoder(building.encoder_of(str(run)))
    written = [save_encoder(backbone, to, mean=info.mean, std=info.std, size=info.size, classes=info.classes)]
    if chosen.onnx:
        source = building.prepare(_recipe_of(run)).source
        images = torch.stack([source.train.read(i) for i in range(8)])
        view = EvaluationView(size=info.size)
        real = view(images, info.mean, info.std, torch.Generator())
        written.append(save_onnx(backbone, to / "encoder.onnx", real))
    print("\n".join(map(str, written)))


def table(args: Sequence[str]) -> None:
    """RUN [RUN ...] [--out FILE.md|.tex|.csv]: a table of runs, with mean and spread over seeds."""
    import tyro

    from relatum.reports.records import find_records, write_atomically
    from relatum.reports.tables import comparison, filled, format_of

    @dataclass(frozen=True)
    class Table:
        runs: tyro.conf.Positional[tuple[Path, ...]]
        """Run folders, records, or folders that hold them."""
        out: Path | None = None
        """Write the table there."""
        format: Literal["markdown", "latex", "csv"] | None = None
        """Of the table; the suffix of --out says it too."""
        into: Path | None = None
        """Put the table into this text, between its lines `<!-- relatum table RUNS -->` and `<!-- end -->`."""

    chosen = _parse(Table, "table", args)
    text = comparison(find_records(chosen.runs), format_of(chosen.out, chosen.format))
    if chosen.out:
        write_atomically(chosen.out, text)
    if chosen.into:
        old = chosen.into.read_text(encoding="utf-8")
        write_atomically(chosen.into, filled(old, " ".join(map(str, chosen.runs)), text))
    if not (chosen.out or chosen.into):
        print(text, end="")


def list_names(args: Sequence[str]) -> None:
    """: what recipes, methods, relations, backbones and data sets there are."""
    if args:
        raise ValueError(f"`relatum list` takes no arguments, and was given {' '.join(args)}.")
    from relatum.data.sources import NAMED
    from relatum.methods import METHODS
    from relatum.networks.backbones import BACKBONES
    from relatum.networks.small_resnets import SMALL_RESNETS
    from relatum.recipes import RECIPES, SETTINGS
    from relatum.recipes.recipe import RELATIONS

    def first_line(thing: Any) -> str:
        return (thing.__doc__ or "").strip().splitlines()[0]

    for title, rows in (
        ("recipes", {name: first_line(recipe) for name, recipe in RECIPES.items()}),
        ("settings (`relatum train RECIPE SETTING`)", {name: first_line(s) for name, s in SETTINGS.items()}),
        ("methods", {name: first_line(method) for name, method in METHODS.items()}),
    ):
        print(f"{title}:")
        width = max(map(len, rows))
        print("\n".join(f"  {name:{width}}  {text}" for name, text in rows.items()))
    for title, names in (
        ("relations", RELATIONS),
        ("backbones (and every timm model with staged features)", [*BACKBONES, *SMALL_RESNETS]),
        ("data sets (and folders of images, Parquet files, hf:OWNER/NAME)", NAMED),
    ):
        print(f"{title}:\n  {', '.join(names)}")


def show(args: Sequence[str]) -> None:
    """RECIPE [SETTING]: print the whole recipe as YAML, which `relatum train FILE.yaml` takes back."""
    recipe, rest = _recipe_argument("show", args)
    from relatum.recipes.recipe import Recipe, to_yaml

    print(to_yaml(_parse(Recipe, f"show {args[0]}", rest, recipe)), end="")


def study(args: Sequence[str]) -> None:
    """[NAME] [--scale cpu] [--seeds 0-5] [--jobs N] [--dry-run]: run what a study lacks, and tell its answer."""
    from relatum.cli.study import study as run

    run(args)


VERBS: dict[str, Callable[[Sequence[str]], None]] = {
    "train": train,
    "evaluate": evaluate,
    "cost": cost,
    "embed": embed,
    "export": export,
    "table": table,
    "list": list_names,
    "show": show,
    "study": study,
}


def main() -> None:
    """The entry point of the command `relatum`."""
    args = sys.argv[1:]
    if not args or args[0] in ("-h", "--help"):
        print(_help())
        return
    if args[0] == "--version":
        from importlib.metadata import version

        print(f"relatum {version('relatum')}")
        return
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        if args[0] not in VERBS:
            close = difflib.get_close_matches(args[0], VERBS, n=1)
            hint = f"did you mean {close[0]}?" if close else f"expected one of {', '.join(VERBS)}."
            raise ValueError(f"there is no verb {args[0]!r}; {hint}")
        VERBS[args[0]](args[1:])
    except (ValueError, OSError, RuntimeError) as error:
        if os.environ.get(TRACEBACK):
            raise
        print(f"relatum: {error}\n({TRACEBACK}=1 shows where)", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("stopped; `relatum train ... --run DIR --resume` goes on from the last epoch", file=sys.stderr)
        sys.exit(130)


def _help() -> str:
    lines = ["Relatum trains image encoders from how images relate.", "", "usage: relatum VERB ...", ""]
    for name, verb in VERBS.items():
        usage, _, text = (verb.__doc__ or "").partition(":")
        lines += [f"  {' '.join([name, usage]).strip()}", f"      {text.strip()}"]
    return "\n".join([*lines, "", "`relatum VERB ... --help` lists the options. Start with: relatum train demo"])


def _parse(kind: Any, command: str, args: Sequence[str], default: Any = None) -> Any:
    import tyro

    # A recipe has decided which method and view it is of: the command line changes their fields.
    given = {} if default is None else {"default": default}
    only: Any = tyro.conf.AvoidSubcommands
    return tyro.cli(only[kind], prog=f"relatum {command}", args=list(args), **given)


def _recipe_argument(verb: str, args: Sequence[str]) -> "tuple[Recipe, Sequence[str]]":
    if not args or args[0].startswith("-"):
        raise ValueError(
            f"`relatum {verb}` needs a recipe: relatum {verb} demo, for example; `relatum list` names all."
        )
    from relatum.recipes import RECIPES, SETTINGS, recipe

    name, rest = args[0], args[1:]
    if name in RECIPES:
        found = RECIPES[name]()
    elif Path(name).suffix in (".yaml", ".yml"):
        found = recipe.read(Path(name))
    else:
        close = difflib.get_close_matches(name, RECIPES, n=3, cutoff=0.5)
        hint = (
            f"did you mean {', '.join(close)}?" if close else f"expected one of {', '.join(RECIPES)}, or a .yaml file."
        )
        raise ValueError(f"there is no recipe {name!r}; {hint}")
    if rest and not rest[0].startswith("-"):
        if rest[0] not in SETTINGS:
            raise ValueError(f"there is no setting {rest[0]!r}; expected one of {', '.join(SETTINGS)}, or an option.")
        found, rest = SETTINGS[rest[0]](found), rest[1:]
    return found, rest


def _run_argument(verb: str, args: Sequence[str]) -> tuple[Path, Sequence[str]]:
    if not args or args[0].startswith("-"):
        raise ValueError(f"`relatum {verb}` needs a run folder: relatum {verb} runs/demo, for example.")
    run = Path(args[0])
    if not (run / "encoder.safetensors").is_file():
        raise FileNotFoundError(f"{run} holds no trained encoder; expected the folder of a run that was finished.")
    return run, args[1:]


def _recipe_of(run: Path) -> "Recipe":
    from relatum.recipes import recipe

    return recipe.read(run / "recipe.yaml")


def _free(folder: Path) -> Path:
    """`folder`, or the first of `folder-2`, `folder-3`, ... that does not exist."""
    number, free = 1, folder
    while free.exists():
        number += 1
        free = folder.with_name(f"{folder.name}-{number}")
    return free


def _device() -> "torch.device":
    import torch

    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
