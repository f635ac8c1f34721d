"""A recipe: everything that decides a run, as a tree of frozen dataclasses.

Recipes are made by the functions of `relatum.recipes`, changed on the command line, written to and read from YAML, and
stored in every Record. The options of a method are not declared here: they are derived from the keywords of its
constructor, so that a method has one signature and one place that describes it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

import pydantic

from relatum.core import plugins
from relatum.core.schedules import Schedule
from relatum.data.pairing import TripleMode
from relatum.data.views import ClassifierView, ContrastiveView
from relatum.methods import METHODS
from relatum.recipes import evaluation as measuring
from relatum.recipes.evaluation import READING, Evaluation, evaluation_of
from relatum.recipes.index import did_you_mean
from relatum.recipes.limits import check
from relatum.recipes.options import AnyOptions, MethodOptions, current, options, options_of
from relatum.recipes.text import read_tree, shortened, write_tree
from relatum.reports.records import flat

__all__ = [
    "Data",
    "Evaluation",
    "Model",
    "Optim",
    "Recipe",
    "Train",
    "difference",
    "from_dict",
    "from_yaml",
    "options",
    "read",
    "to_dict",
    "to_yaml",
]

ViewOptions: TypeAlias = Annotated[ContrastiveView | ClassifierView, pydantic.Field(discriminator="kind")]


@dataclass(frozen=True)
class Model:
    """The backbone."""

    name: str = "resnet18"
    """A backbone of `relatum list`, or any timm model with staged features."""
    stem: Literal["imagenet", "cifar", "tiny"] = "cifar"
    """imagenet: as timm makes it. cifar: 3x3, stride 1, no max-pool. tiny: 3x3, stride 1, max-pool."""
    patch_size: int | None = None
    """Side of a vision transformer's patches in pixels, none for timm's; its images have the size of the views."""
    pretrained: bool = False
    """Start from timm's published weights (needs a network, once), unless `initial` names others."""
    initial: str = ""
    """Start from the encoder of this run folder or .safetensors file, or from a file of published weights."""


@dataclass(frozen=True)
class Data:
    """The images."""

    source: str = "cifar10"
    """A name of `relatum list`, a folder, .zip or pattern of images, a Parquet file or folder, or hf:OWNER/NAME."""
    root: str = ".data"
    """Where named sets are found, or downloaded to."""
    labels: str = "folders"
    """Labels of a folder, .zip or pattern: folders (each a class), none, or FILE.csv with columns file and label."""
    train_images: int | None = None
    """Use this many training images, a fixed class-balanced part; none for all."""
    validation: float = 0.1
    """The share of the training images that is held out, for everything that is looked at before the end."""
    test_share: float = 0.2
    """The share of a labeled set without test images that is held out where validation is 0; 0 measures nothing."""
    view: ViewOptions = field(default_factory=ContrastiveView)
    """What training sees of an image."""
    batch_size: int = 256
    """Images a step, over all devices; a triple counts three."""
    triples: TripleMode = "disjoint"
    """disjoint: each image once an epoch. spread: these, with the anchors of a step of as many classes as can be.
    anchor: each image is an anchor once (three times the images)."""
    images_per_class: int = 0
    """Batches of whole groups of one class, of this size; 0 for plain shuffling."""
    on_bad_image: Literal["error", "skip"] = "error"
    """What to do with a file that cannot be read."""
    resident: Literal["auto", "yes", "no"] = "auto"
    """Hold all images in memory, or stream them through workers."""
    workers: int = 2
    """Processes that decode streamed images."""


@dataclass(frozen=True)
class Optim:
    """The optimizer and its schedule."""

    name: Literal["sgd", "adam", "adamw", "lars"] = "sgd"
    """The optimizer."""
    lr: float = 0.06
    """The learning rate at its highest."""
    momentum: float = 0.9
    """Momentum of SGD and LARS, in [0, 1]."""
    nesterov: bool = False
    """Nesterov's form of the momentum of SGD."""
    weight_decay: float = 5e-4
    """Weight decay of weights; biases and normalization parameters have it too only if decay_all."""
    decay_all: bool = True
    """Let biases and normalization parameters decay too, as most published recipes do."""
    schedule: Schedule = "cosine"
    """How the learning rate moves."""
    warmup_epochs: float = 0.0
    """Linear warm-up."""
    milestones: tuple[float, ...] = ()
    """Epochs at which the schedule "step" multiplies the rate by gamma."""
    gamma: float = 0.1
    """What the schedule "step" multiplies the rate by at each milestone, in [0, 1]."""
    clip: float = 0.0
    """The largest norm of the gradient; 0 for no clipping."""


@dataclass(frozen=True)
class Train:
    """How long, on what."""

    epochs: int = 100
    """Passes through the training images."""
    seed: int = 0
    """Seed of everything random: initial weights, order, views."""
    devices: int = 1
    """Processes of a machine that train together (DistributedDataParallel)."""
    nodes: int = 1
    """Machines that train together, each with `devices` processes; torchrun or srun starts the command on each."""
    accelerator: Literal["auto", "cpu", "cuda"] = "auto"
    """auto takes a GPU where there is one."""
    precision: Literal["auto", "32-true", "bf16-mixed"] = "auto"
    """auto takes bf16-mixed where the processor has it."""
    threads: int = 0
    """Processor threads of a process; 0 leaves torch's choice."""
    sync_batchnorm: bool = False
    """Share batch statistics among GPUs."""
    compile: bool = False
    """Compile the networks and the views with torch.compile: faster steps, after a start that takes minutes."""
    chunk: int = 0
    """Encode this many images at a time and compute them again for the gradient: the memory of a chunk is enough for a
    batch of any size, for one more forward pass. 0 encodes the batch at once."""
    chunk_batchnorm: bool = False
    """Allow chunks of a backbone with batch normalization: its statistics are then those of each chunk."""
    log_every: int = 20
    """Steps between two looks at the loss: each look waits for the device."""
    tracker: Literal["none", "trackio", "wandb"] = "none"
    """Tell a tracker, too, beside TensorBoard: pip install 'relatum[trackio]', or 'relatum[wandb]'."""


@dataclass(frozen=True)
class Recipe:
    """Everything that decides a run."""

    name: str
    """What it is called; the default run folder has this name."""
    method: AnyOptions
    """The method and its options."""
    model: Model = field(default_factory=Model)
    data: Data = field(default_factory=Data)
    optim: Optim = field(default_factory=Optim)
    train: Train = field(default_factory=Train)
    evaluation: Annotated[Evaluation, *READING] = field(default_factory=Evaluation)

    def __post_init__(self) -> None:
        # What plugins have added since these were made has options here, too.
        object.__setattr__(self, "method", current(self.method))
        object.__setattr__(self, "evaluation", measuring.current(self.evaluation))
        check(self)


_ADAPTER = pydantic.TypeAdapter(Recipe)


def to_dict(recipe: Recipe) -> dict[str, Any]:
    """The recipe in plain types, for YAML and JSON."""
    return _ADAPTER.dump_python(recipe, mode="json")


def to_yaml(recipe: Recipe) -> str:
    """The recipe as YAML, which `from_yaml` takes back."""
    return write_tree(to_dict(recipe))


def from_dict(tree: Mapping[str, Any]) -> Recipe:
    """The recipe that `to_dict` gave, or part of it: what is left out has its default.

    Raises:
        ValueError: for an unknown field, method or relation, or a value of the wrong type, each with what was expected.
    """
    plugins.load()
    method = tree.get("method")
    name = method.get("name") if isinstance(method, Mapping) else None
    if not isinstance(name, str) or name not in METHODS:
        hint = (
            did_you_mean(name, sorted(METHODS))
            if isinstance(name, str)
            else f"expected one of {', '.join(sorted(METHODS))}."
        )
        raise ValueError(f"method.name is {shortened(name)}; {hint} {OF_A_PLUGIN}")
    chosen: MethodOptions = _validated(pydantic.TypeAdapter(options_of(name)), method, "method.")
    parts: dict[str, Any] = {**tree, "method": chosen}
    if isinstance(tree.get("evaluation"), Mapping):
        parts["evaluation"] = _validated(pydantic.TypeAdapter(evaluation_of()), tree["evaluation"], "evaluation.")
    recipe = _validated(_ADAPTER, parts, "")
    _refuse_unknown(tree, to_dict(recipe), "")
    return recipe


def from_yaml(text: str) -> Recipe:
    """The recipe of a YAML text.

    Raises:
        ValueError: for text that is no YAML tree, and as `from_dict`.
    """
    return from_dict(read_tree(text))


def difference(a: Recipe, b: Recipe) -> list[str]:
    """The fields in which two recipes differ, as `field: value in a -> value in b`."""

    left, right = flat(to_dict(a)), flat(to_dict(b))
    return [f"{k}: {left.get(k)!r} -> {right.get(k)!r}" for k in left | right if left.get(k) != right.get(k)]


def read(path: Path) -> Recipe:
    """The recipe of a YAML file.

    Raises:
        FileNotFoundError, ValueError: for a file that is not there, or holds no recipe.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f"there is no recipe file {path}; `relatum list` names the recipes that come with Relatum."
        )
    try:
        return from_yaml(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no text in UTF-8 ({error.reason} at byte {error.start}); expected YAML.") from None


def _validated(adapter: pydantic.TypeAdapter, tree: Any, path: str) -> Any:
    try:
        return adapter.validate_python(dict(tree))
    except pydantic.ValidationError as error:
        raise ValueError("\n".join(_said(found, path) for found in error.errors())) from None


def _said(error: Any, path: str) -> str:
    """A pydantic error in our words: which field, what was expected, what was found."""
    where = path + ".".join(map(str, error["loc"]))
    if "error" in error.get("ctx", {}):  # what a dataclass itself has refused says it all
        return f"{where}: {error['ctx']['error']}" if error["loc"] else str(error["ctx"]["error"])
    return f"{where}: {error['msg']} (found {shortened(error['input'])})"


OF_A_PLUGIN = "If it is of a plugin, name its file: --plugin FILE."
_KINDS = {int: "a whole number", float: "a number", str: "a text", list: "a list"}


def _refuse_unknown(given: Any, known: Any, path: str) -> None:
    """A misspelt field must not be a default in silence, nor a truth value a number."""
    if isinstance(given, Mapping) and isinstance(known, Mapping):
        for key, value in given.items():
            if key not in known:
                hint = f" {OF_A_PLUGIN}" if path == "evaluation." else ""
                raise ValueError(f"there is no field {path}{key}; {did_you_mean(str(key), sorted(known))}{hint}")
            _refuse_unknown(value, known[key], f"{path}{key}.")
    elif isinstance(given, list | tuple) and isinstance(known, list):
        for one, other in zip(given, known):
            _refuse_unknown(one, other, path)
    elif isinstance(given, bool) != isinstance(known, bool):
        expected = "true or false" if isinstance(known, bool) else _KINDS.get(type(known), "something else")
        found = str(given).lower() if isinstance(given, bool) else shortened(given)
        raise ValueError(f"{path.removesuffix('.')} is {found}; expected {expected}.")
