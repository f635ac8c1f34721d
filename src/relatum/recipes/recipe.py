"""A recipe: everything that decides a run, as a tree of frozen dataclasses.

Recipes are made by the functions of `relatum.recipes`, changed on the command line, written to and read from YAML, and
stored in every Record. The options of a method are not declared here: they are derived from the keywords of its
constructor, so that a method has one signature and one place that describes it.
"""

import dataclasses
import difflib
import inspect
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias, Union, get_args, get_origin, get_type_hints

import docstring_parser
import pydantic
import tyro
import yaml

from relatum.core.schedules import Schedule
from relatum.data.views import ClassifierView, ContrastiveView
from relatum.evaluation.knn import KNN
from relatum.evaluation.linear import LinearProbe
from relatum.methods import METHODS, Method
from relatum.networks.backbones import Backbone
from relatum.relations import Cosine, Euclidean, Jaccard, Relation, Tanimoto
from relatum.reports.records import flat

RELATIONS: dict[str, Callable[[], Relation]] = {
    "cosine": Cosine,
    "euclidean": Euclidean,
    "jaccard": Jaccard,
    "jaccard-signed": lambda: Jaccard("signed"),
    "tanimoto": Tanimoto,
}
"""Every relation by the name that recipes and the command line use."""

SUPPLIED = ("num_samples",)  # keywords of methods that the training set decides, not the recipe


def _plain(annotation: Any) -> Any:
    """The type that a recipe holds in the place of what a method's constructor takes."""
    if get_origin(annotation) in (Union, types.UnionType):
        return Union[tuple(_plain(option) for option in get_args(annotation))]  # noqa: UP007 - made at run time
    if annotation is Relation:
        return Literal[tuple(RELATIONS)]
    return str if annotation is Backbone else annotation


def _default(parameter: inspect.Parameter) -> Any:
    if isinstance(parameter.default, Relation):
        return next(name for name, make in RELATIONS.items() if make is type(parameter.default))
    return "" if parameter.default is inspect.Parameter.empty else parameter.default


@cache
def options_of(name: str) -> type:
    """The dataclass of the options of the method `name`.

    Raises:
        ValueError: for a method that does not exist.
    """
    if name not in METHODS:
        raise ValueError(f"there is no method {name!r}; {_suggest(name, METHODS)}")
    method = METHODS[name]
    hints = get_type_hints(method.__init__)
    text = docstring_parser.parse(method.__doc__ or "")
    described = {p.arg_name: " ".join((p.description or "").split()) for p in text.params}
    members: list[Any] = [("name", Annotated[Literal[name], tyro.conf.Fixed], name)]
    for parameter in inspect.signature(method.__init__).parameters.values():
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY and parameter.name not in SUPPLIED:
            kind: Any = Annotated[_plain(hints[parameter.name]), tyro.conf.arg(help=described.get(parameter.name))]
            members.append((parameter.name, kind, _default(parameter)))
    made = dataclasses.make_dataclass(f"{method.__name__}Options", members, frozen=True)
    made.__doc__ = text.short_description
    return made


def options(name: str, **chosen: Any) -> Any:
    """The options of the method `name`, with those of `chosen` in the place of its defaults.

    Raises:
        ValueError: for an option that the method does not have.
    """
    known = {f.name for f in dataclasses.fields(options_of(name))}
    for key in chosen:
        if key not in known:
            raise ValueError(f"the method {name!r} has no option {key!r}; {_suggest(key, known)}")
    return options_of(name)(**chosen)


MethodOptions: Any = Annotated[
    Union[tuple(options_of(name) for name in METHODS)],  # noqa: UP007 - made at run time
    pydantic.Field(discriminator="name"),
]
ViewOptions: TypeAlias = Annotated[ContrastiveView | ClassifierView, pydantic.Field(discriminator="kind")]


@dataclass(frozen=True)
class Model:
    """The backbone."""

    name: str = "resnet18"
    """A backbone of `relatum list`, or any timm model with staged features."""
    stem: Literal["imagenet", "cifar", "tiny"] = "cifar"
    """imagenet: as timm makes it. cifar: 3x3, stride 1, no max-pool. tiny: 3x3, stride 1, max-pool."""
    pretrained: bool = False
    """Start from timm's ImageNet weights (needs a network)."""
    initial: str = ""
    """Start from the encoder of this run folder or .safetensors file."""


@dataclass(frozen=True)
class Data:
    """The images."""

    source: str = "cifar10"
    """A name of `relatum list`, a folder of images, a Parquet file or folder, or hf:OWNER/NAME."""
    root: str = ".data"
    """Where named sets are found, or downloaded to."""
    train_images: int | None = None
    """Use this many training images, a fixed class-balanced part; none for all."""
    validation: float = 0.1
    """The share of the training images that is held out, for everything that is looked at before the end."""
    view: ViewOptions = field(default_factory=ContrastiveView)
    """What training sees of an image."""
    batch_size: int = 256
    """Images a step, over all devices; a triple counts three."""
    triples: Literal["disjoint", "anchor"] = "disjoint"
    """disjoint: each image once an epoch. anchor: each image is an anchor once (three times the images)."""
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
    """Of SGD and LARS."""
    nesterov: bool = False
    """Nesterov's form of the momentum of SGD."""
    weight_decay: float = 5e-4
    """Of weights; biases and normalization parameters have it too only if decay_all."""
    decay_all: bool = True
    """Let biases and normalization parameters decay too, as most published recipes do."""
    schedule: Schedule = "cosine"
    """How the learning rate moves."""
    warmup_epochs: float = 0.0
    """Linear warm-up."""
    milestones: tuple[float, ...] = ()
    """Epochs at which the schedule "step" multiplies the rate by gamma."""
    gamma: float = 0.1
    """See milestones."""
    clip: float = 0.0
    """The largest norm of the gradient; 0 for no clipping."""


@dataclass(frozen=True)
class Train:
    """How long, on what."""

    epochs: int = 100
    """Passes through the training images."""
    seed: int = 0
    """Of everything random: initial weights, order, views."""
    devices: int = 1
    """Processes that train together (DistributedDataParallel)."""
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


@dataclass(frozen=True)
class Evaluation:
    """What is measured. During training on the held-out part; on the test set once, after the last epoch."""

    every: int = 1
    """Epochs between two measurements; 0 for none before the end."""
    knn: KNN = field(default_factory=KNN)
    """Weighted k-NN."""
    linear: LinearProbe = field(default_factory=LinearProbe)
    """Linear probe on frozen features."""
    baselines: bool = False
    """Measure k-NN on raw pixels and on the untrained encoder too."""
    linear_augmented: bool = False
    """A linear probe on augmented images too: as many passes through the training images as it has epochs."""
    stages: bool = False
    """k-NN on the pooled features of every stage, and stages.png with a map of each."""
    figures: bool = True
    """Draw neighbors.png and tsne.png."""
    batch_size: int = 500
    """Images of one forward pass."""


@dataclass(frozen=True)
class Recipe:
    """Everything that decides a run."""

    name: str
    """What it is called; the default run folder has this name."""
    method: MethodOptions
    """The method and its options."""
    model: Model = field(default_factory=Model)
    data: Data = field(default_factory=Data)
    optim: Optim = field(default_factory=Optim)
    train: Train = field(default_factory=Train)
    evaluation: Evaluation = field(default_factory=Evaluation)

    def __post_init__(self) -> None:
        for name, value, least in (
            ("train.epochs", self.train.epochs, 1),
            ("train.devices", self.train.devices, 1),
            ("train.log_every", self.train.log_every, 1),
            ("train.threads", self.train.threads, 0),
            ("train.chunk", self.train.chunk, 0),
            ("data.batch_size", self.data.batch_size, 1),
            ("data.workers", self.data.workers, 0),
            ("evaluation.every", self.evaluation.every, 0),
            ("evaluation.batch_size", self.evaluation.batch_size, 1),
            ("optim.lr", self.optim.lr, 0),
            ("optim.weight_decay", self.optim.weight_decay, 0),
            ("optim.clip", self.optim.clip, 0),
        ):
            if not value >= least:
                raise ValueError(
                    f"{name} is {value}; expected at least {least}. Set it with --{name.replace('_', '-')}."
                )
        if not 0 <= self.data.validation < 1:
            raise ValueError(
                f"data.validation is {self.data.validation}; expected a share of the training set in [0, 1)."
            )
        if self.data.batch_size % self.train.devices:
            raise ValueError(
                f"data.batch_size {self.data.batch_size} cannot be shared by train.devices {self.train.devices}; "
                "choose a multiple."
            )


_ADAPTER = pydantic.TypeAdapter(Recipe)


def to_dict(recipe: Recipe) -> dict[str, Any]:
    """The recipe in plain types, for YAML and JSON."""
    return _ADAPTER.dump_python(recipe, mode="json")


def to_yaml(recipe: Recipe) -> str:
    """The recipe as YAML, which `from_yaml` takes back."""
    return yaml.safe_dump(to_dict(recipe), sort_keys=False)


def from_dict(tree: Mapping[str, Any]) -> Recipe:
    """The recipe that `to_dict` gave, or part of it: what is left out has its default.

    Raises:
        ValueError: for an unknown field, method or relation, or a value of the wrong type, each with what was expected.
    """
    method = tree.get("method")
    name = method.get("name") if isinstance(method, Mapping) else None
    if name not in METHODS:
        raise ValueError(f"method.name is {name!r}; {_suggest(str(name), METHODS)}")
    try:
        recipe = _ADAPTER.validate_python(dict(tree))
    except pydantic.ValidationError as error:
        raise ValueError("\n".join(map(_said, error.errors()))) from None
    _refuse_unknown(tree, to_dict(recipe), "")
    return recipe


def from_yaml(text: str) -> Recipe:
    """The recipe of a YAML text.

    Raises:
        ValueError: for text that is no YAML tree, and as `from_dict`.
    """
    try:
        tree = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"this is no YAML: {error}") from None
    if not isinstance(tree, Mapping):
        raise ValueError(f"a recipe is a tree of fields, not {type(tree).__name__}; `relatum show demo` prints one.")
    return from_dict(tree)


def difference(a: Recipe, b: Recipe) -> list[str]:
    """The fields in which two recipes differ, as `field: value in a -> value in b`."""

    left, right = flat(to_dict(a)), flat(to_dict(b))
    return [f"{k}: {left.get(k)!r} -> {right.get(k)!r}" for k in left | right if left.get(k) != right.get(k)]


def build_method(
    chosen: Any, backbone: Backbone, *, num_samples: int, load_teacher: Callable[[str], Backbone]
) -> Method:
    """The method with its options.

    Args:
        chosen: the options, as `options` makes them.
        backbone: what it trains.
        num_samples: of the training set.
        load_teacher: gives the backbone of a run folder.

    Raises:
        ValueError: where the method needs a teacher and the recipe names none.
    """
    method = METHODS[chosen.name]
    parameters = inspect.signature(method.__init__).parameters
    hints = get_type_hints(method.__init__)
    given: dict[str, Any] = {f.name: getattr(chosen, f.name) for f in dataclasses.fields(chosen) if f.name != "name"}
    for name, value in given.items():
        if hints[name] is Backbone:
            if not value:
                raise ValueError(
                    f"the method {chosen.name!r} needs a {name}; name a run folder with --method.{name} RUN."
                )
            given[name] = load_teacher(value)
        elif isinstance(value, str) and Relation in (hints[name], *get_args(hints[name])):
            given[name] = RELATIONS[value]()
    if "num_samples" in parameters:
        given["num_samples"] = num_samples
    return method(backbone, **given)


def read(path: Path) -> Recipe:
    """The recipe of a YAML file.

    Raises:
        FileNotFoundError, ValueError: for a file that is not there, or holds no recipe.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f"there is no recipe file {path}; `relatum list` names the recipes that come with Relatum."
        )
    return from_yaml(path.read_text())


def _said(error: Any) -> str:
    """A pydantic error in our words: which field, what was expected, what was found."""
    where = ".".join(map(str, error["loc"]))
    if "error" in error.get("ctx", {}):  # what a dataclass itself has refused says it all
        return f"{where}: {error['ctx']['error']}" if where else str(error["ctx"]["error"])
    return f"{where}: {error['msg']} (found {error['input']!r})"


def _suggest(name: str, known: Any) -> str:
    close = difflib.get_close_matches(name, list(known), n=3, cutoff=0.5)
    return f"did you mean {', '.join(close)}?" if close else f"expected one of {', '.join(sorted(known))}."


def _refuse_unknown(given: Any, known: Any, path: str) -> None:
    """A misspelt field must not be a default in silence."""
    if isinstance(given, Mapping) and isinstance(known, Mapping):
        for key, value in given.items():
            if key not in known:
                raise ValueError(f"there is no field {path}{key}; {_suggest(str(key), known)}")
            _refuse_unknown(value, known[key], f"{path}{key}.")
