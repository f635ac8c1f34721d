"""What others add: methods, relations, backbones, data sets, evaluators and recipes, each by a decorator.

    @relatum.register_method("mine")
    class Mine(relatum.Method, pairing="two-views"): ...

What is registered has a name in recipes, on the command line, in `relatum list` and in Records, like what Relatum
brings. So that the command line finds it, its file is named by `--plugin FILE`, or its package has an entry point in
the group `relatum.plugins`: see `relatum.core.plugins`.
"""

import dataclasses
import inspect
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from torch import nn

from relatum.data.catalog import ADDED, CATALOG
from relatum.evaluation.evaluator import Evaluator
from relatum.measurement.evaluators import EVALUATORS
from relatum.methods import METHODS, Method
from relatum.networks.backbones import BACKBONES
from relatum.networks.registered import BUILDERS
from relatum.networks.small_networks import SMALL_NETWORKS
from relatum.recipes.catalog import RECIPES
from relatum.recipes.entry import Entry
from relatum.recipes.options import forget, options_of
from relatum.recipes.recipe import Recipe
from relatum.relations import RELATIONS, Relation

AnyMethod = TypeVar("AnyMethod", bound=Method)
AnyRelation = TypeVar("AnyRelation", bound=Relation)
AnyEvaluator = TypeVar("AnyEvaluator", bound=Evaluator)
Builder = TypeVar("Builder", bound=Callable[..., nn.Module])
Loader = TypeVar("Loader", bound=Callable[[Path], object])
MakesRecipe = TypeVar("MakesRecipe", bound=Callable[[], Recipe])

TASK = "of plugins"
LIKE = {"two-views": "simclr", "same-class-pairs": "cs-kd", "triples": "corsd"}
"""Whose recipe a method takes over, by its pairing."""


def register_method(name: str, *, like: str = "") -> Callable[[type[AnyMethod]], type[AnyMethod]]:
    """A decorator that gives a method a name.

    The method also gets a recipe of its name, which is another recipe with this method in the place of its own.

    Args:
        name: what recipes and the command line call it.
        like: the recipe whose data, model, optimizer and so on the method's recipe has; by default that of another
            method with the same batches: simclr, supcon, supervised, kd, cs-kd or corsd.

    Raises:
        TypeError: for a class that is no final method, or has options that a recipe cannot hold.
        ValueError: for a name that is taken.
    """

    def register(method: type[AnyMethod]) -> type[AnyMethod]:
        if not (inspect.isclass(method) and issubclass(method, Method)):
            raise TypeError(f"{method!r} is no method; expected a subclass of relatum.Method.")
        if inspect.isabstract(method) or not hasattr(method, "pairing"):
            raise TypeError(
                f"{method.__name__} is not final: expected `losses`, and the kind of its batches in the first line, "
                f'class {method.__name__}(Method, pairing="two-views").'
            )
        for option in list(inspect.signature(method.__init__).parameters.values())[2:]:
            if option.kind is not inspect.Parameter.KEYWORD_ONLY or option.annotation is inspect.Parameter.empty:
                raise TypeError(
                    f"{option.name} of {method.__name__}.__init__ cannot be an option of recipes; expected keywords "
                    "with a type, behind a star: def __init__(self, backbone: Backbone, *, temperature: float = 0.5)."
                )
        METHODS.add(name, method)
        forget()
        try:
            options_of(name)
            RECIPES.add(name, _recipe_of(name, method, like))
        except Exception:
            METHODS.pop(name)
            forget()
            raise
        return method

    return register


def register_relation(name: str) -> Callable[[type[AnyRelation]], type[AnyRelation]]:
    """A decorator that gives a relation a name. The keywords of its constructor that have defaults are options of
    every recipe that takes a relation, `relation_eps` and its like.

    Raises:
        TypeError: for a class that is no relation, or that needs arguments.
        ValueError: for a name that is taken.
    """

    def register(relation: type[AnyRelation]) -> type[AnyRelation]:
        if not (inspect.isclass(relation) and issubclass(relation, Relation)):
            raise TypeError(f"{relation!r} is no relation; expected a subclass of relatum.Relation.")
        for option in inspect.signature(relation).parameters.values():
            if option.default is inspect.Parameter.empty or option.annotation is inspect.Parameter.empty:
                raise TypeError(f"{option.name} of {relation.__name__} needs a default and a type.")
        RELATIONS.add(name, relation)
        forget()
        return relation

    return register


def register_backbone(name: str) -> Callable[[Builder], Builder]:
    """A decorator that gives a function that makes a module a name: `--model.name`.

    The function is called with those of the keywords `num_classes`, `in_channels`, `size` (the side of the images in
    pixels) and `pretrained` that it has. It returns the module, or `Backbone.wrap` of it, with stages for methods that
    need them.

    Raises:
        ValueError: for a name that is taken.
    """

    def register(builder: Builder) -> Builder:
        if name in BACKBONES or name in SMALL_NETWORKS:
            raise ValueError(f"there is a backbone {name!r} already (Relatum's); choose another name.")
        BUILDERS.add(name, builder)
        return builder

    return register


def register_data(name: str) -> Callable[[Loader], Loader]:
    """A decorator that gives a function that makes a data set a name: `--data.source`.

    The function is called with the folder of named sets, `data.root`, and returns what `fit(data=...)` takes too: a
    `Source`, a torch `Dataset` or a pair (training, test) of them, or tensors.

    Raises:
        ValueError: for a name that is taken.
    """

    def register(loader: Loader) -> Loader:
        if name in CATALOG:
            raise ValueError(f"there is a data set {name!r} already (Relatum's); choose another name.")
        ADDED.add(name, loader)
        return loader

    return register


def register_evaluator(name: str) -> Callable[[type[AnyEvaluator]], type[AnyEvaluator]]:
    """A decorator that gives an evaluator, a frozen dataclass, a name: `--evaluation.run`, and options.

    Raises:
        TypeError: for a class that is no evaluator, or no frozen dataclass.
        ValueError: for a name that is taken, or that is no identifier.
    """

    def register(kind: type[AnyEvaluator]) -> type[AnyEvaluator]:
        frozen = dataclasses.is_dataclass(kind) and kind.__dataclass_params__.frozen
        if not (inspect.isclass(kind) and issubclass(kind, Evaluator) and frozen):
            raise TypeError(f"{kind!r} is no evaluator; expected a frozen dataclass that is an Evaluator.")
        if not name.isidentifier():
            raise ValueError(f"{name!r} names fields of recipes; expected an identifier, such as 'my_evaluator'.")
        EVALUATORS.add(name, kind)
        return kind

    return register


def register_recipe(name: str) -> Callable[[MakesRecipe], MakesRecipe]:
    """A decorator that gives a function that makes a recipe a name: `relatum train NAME`.

    Args:
        name: what the command line calls it; the first line of the function's docstring says what it is.

    Raises:
        ValueError: for a name that is taken.
    """

    def register(make: MakesRecipe) -> MakesRecipe:
        about = next(iter((make.__doc__ or "").strip().splitlines()), f"The recipe {name}.")
        RECIPES.add(name, Entry(about, make(), "a plugin", "not said", name=name, task=TASK))
        return make

    return register


def _recipe_of(name: str, method: type[Method], like: str) -> Entry:
    """The recipe `like` with this method in the place of its own."""
    hints = inspect.signature(method.__init__).parameters
    chosen = like or ("kd" if "teacher" in hints else LIKE.get(method.pairing, "supervised"))
    if not like and method.pairing == "two-views" and method.needs_labels:
        chosen = "supcon"
    base: Any = RECIPES[chosen]()
    about = next(iter((method.__doc__ or "").strip().splitlines()), f"The method {name}.")
    recipe = replace(base, name=name, method=options_of(name)())
    options = "--method.teacher RUN" if "teacher" in hints else ""
    source = f"a plugin; all but the method is that of the recipe {chosen}"
    return Entry(about, recipe, source, "not measured", options=options, name=name, task=TASK)
