"""The options of a method in a recipe: a frozen dataclass, derived from the keywords of the method's constructor.

So a method has one signature, one default for each option, and one place that describes it. What a recipe cannot hold
is named in its place: a relation by its name, a teacher by its run folder. The classes are attributes of this module
(`options.SimCLROptions`), made when they are first asked for. Editors and type checkers read `options.pyi`, which
`python -m relatum.recipes.index` writes.
"""

import dataclasses
import inspect
import types
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import docstring_parser
import pydantic
import torch
import tyro

from relatum.methods import METHODS, Method
from relatum.networks.backbones import Backbone
from relatum.recipes.index import did_you_mean
from relatum.relations import RELATIONS, Relation

SUPPLIED = ("num_samples",)
"""Keywords of methods that the training set decides, not the recipe."""


@dataclass(frozen=True)
class MethodOptions:
    """The options of a method: what all derived classes have in common."""

    name: str
    """The method, a name of `METHODS`."""


def held(annotation: Any) -> Any:
    """The type that a recipe holds in the place of what a method's constructor takes."""
    if get_origin(annotation) in (Union, types.UnionType):
        return Union[tuple(held(option) for option in get_args(annotation))]  # noqa: UP007 - made at run time
    if annotation is Relation:
        return Literal[tuple(RELATIONS)]
    return str if annotation is Backbone else annotation


def _default(parameter: inspect.Parameter) -> Any:
    if isinstance(parameter.default, Relation):
        return _name_of(parameter.default)
    return "" if parameter.default is inspect.Parameter.empty else parameter.default


def forget() -> None:
    """Make the options of all methods anew when they are next asked for: another relation or method was added."""
    options_of.cache_clear()


def _name_of(relation: Relation) -> str:
    """The name that builds a relation with the options that it has by default.

    Raises:
        ValueError: no name does.
    """
    for name, make in RELATIONS.items():
        if getattr(make, "func", make) is type(relation):
            return name
    kind = type(relation).__name__
    raise ValueError(
        f"{kind} is a relation without a name, and a recipe holds names: register it, @relatum.register_relation("
        f"{kind.lower()!r}), and write that name in its place."
    )


def relation_options() -> dict[str, Any]:
    """The keywords of relations, which a method's options have beside the relation's name: `relation_eps`, ..."""
    found: dict[str, Any] = {}
    for make in RELATIONS.values():
        for parameter in inspect.signature(make).parameters.values():
            if parameter.default is not inspect.Parameter.empty:
                found[f"relation_{parameter.name}"] = parameter.annotation | None
    return found


def takes_relation(annotation: Any) -> bool:
    """Whether a keyword of this type is a relation, or none."""
    return Relation in (annotation, *get_args(annotation))


@cache
def options_of(name: str) -> type[Any]:
    """The dataclass of the options of the method `name`, a subclass of `MethodOptions`.

    Raises:
        ValueError: for a method that does not exist.
    """
    if name not in METHODS:
        raise ValueError(f"there is no method {name!r}; {did_you_mean(name, sorted(METHODS))}")
    method = METHODS[name]
    hints = get_type_hints(method.__init__)
    text = docstring_parser.parse(method.__doc__ or "")
    described = {p.arg_name: " ".join((p.description or "").split()) for p in text.params}
    members: list[Any] = [("name", Annotated[Literal[name], tyro.conf.Fixed], name)]
    for parameter in inspect.signature(method.__init__).parameters.values():
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY and parameter.name not in SUPPLIED:
            kind: Any = Annotated[held(hints[parameter.name]), tyro.conf.arg(help=described.get(parameter.name))]
            members.append((parameter.name, kind, _default(parameter)))
            if takes_relation(hints[parameter.name]):
                for option, annotation in relation_options().items():
                    text_of = f"{option.removeprefix('relation_')} of the relation; none means the relation's own."
                    members.append((option, Annotated[annotation, tyro.conf.arg(help=text_of)], None))
    made = dataclasses.make_dataclass(_class_name(method), members, bases=(MethodOptions,), frozen=True)
    made.__module__ = __name__  # with `__getattr__` below, this is where pickle finds it
    made.__doc__ = text.short_description
    return made


def current(chosen: MethodOptions) -> MethodOptions:
    """The same options, as the relations that are registered now let them be: others may have been added since."""
    kind = options_of(chosen.name)
    if type(chosen) is kind:
        return chosen
    known = {field.name for field in dataclasses.fields(kind)}
    made: MethodOptions = kind(
        **{f.name: getattr(chosen, f.name) for f in dataclasses.fields(chosen) if f.name in known}
    )
    return made


def _class_name(method: type[Method]) -> str:
    return f"{method.__name__}Options"


def __getattr__(attribute: str) -> type[Any]:
    """`SimCLROptions` and its like."""
    for name, method in METHODS.items():
        if _class_name(method) == attribute:
            return options_of(name)
    raise AttributeError(f"module {__name__!r} has no attribute {attribute!r}")


def options(name: str, **chosen: Any) -> Any:
    """The options of the method `name`, with those of `chosen` in the place of its defaults.

    Raises:
        ValueError: for an option that the method does not have.
    """
    known = {f.name for f in dataclasses.fields(options_of(name))}
    for key in chosen:
        if key not in known:
            raise ValueError(f"the method {name!r} has no option {key!r}; {did_you_mean(key, sorted(known))}")
        _refuse_object(key, chosen[key])
    return options_of(name)(**chosen)


def _refuse_object(option: str, value: Any) -> None:
    """A recipe holds plain values, which a file can hold too."""
    if isinstance(value, Relation):
        name = _name_of(value)
        raise ValueError(
            f"{option} is the object {value!r}, and a recipe holds names: write {option}={name!r}, and the options of "
            "the relation as relation_eps=... and its like."
        )
    if isinstance(value, torch.nn.Module):
        raise ValueError(
            f"{option} is the object {type(value).__name__}, and a recipe holds names: a run folder, a file of an "
            f"encoder, or timm:NAME. In a loop of your own the method takes the object: "
            f"relatum.METHODS[...](backbone, {option}=...)."
        )


def _read(given: Any) -> MethodOptions:
    """Options from a mapping with a `name`; options that are made already pass."""
    if isinstance(given, MethodOptions):
        return given
    return pydantic.TypeAdapter(options_of(given["name"])).validate_python(given)


# Not a union, which would know the methods of the time of its making only.
AnyOptions: Any = Annotated[
    MethodOptions,
    pydantic.PlainValidator(_read),
    pydantic.PlainSerializer(lambda made: pydantic.TypeAdapter(type(made)).dump_python(made, mode="json")),
]
"""How a recipe holds the options of any method."""


def build_method(
    chosen: MethodOptions, backbone: Backbone, *, num_samples: int, load_teacher: Callable[[str], Backbone]
) -> Method:
    """The method with its options.

    Args:
        chosen: the options, as `options` makes them.
        backbone: what it trains.
        num_samples: how many training images there are.
        load_teacher: gives the backbone of a run folder.

    Raises:
        ValueError: where the method needs a teacher and the recipe names none.
    """
    method = METHODS[chosen.name]
    parameters = inspect.signature(method.__init__).parameters
    hints = get_type_hints(method.__init__)
    fields = {f.name: getattr(chosen, f.name) for f in dataclasses.fields(chosen)}
    given = {name: value for name, value in fields.items() if name in parameters}
    for name, value in given.items():
        if hints[name] is Backbone:
            if not value:
                raise ValueError(
                    f"the method {chosen.name!r} needs a {name}; name a run folder, a file of an encoder, or "
                    f"timm:NAME with --method.{name} RUN."
                )
            given[name] = load_teacher(value)
        elif isinstance(value, str) and takes_relation(hints[name]):
            given[name] = build_relation(value, {k: fields[k] for k in relation_options() if fields.get(k) is not None})
    if "num_samples" in parameters:
        given["num_samples"] = num_samples
    return method(backbone, **given)


def build_relation(name: str, chosen: dict[str, Any]) -> Relation:
    """The relation `name`, with its options as a recipe holds them (`relation_eps`, ...).

    Raises:
        ValueError: for an option that this relation does not have.
    """
    known = inspect.signature(RELATIONS[name]).parameters
    given = {option.removeprefix("relation_"): value for option, value in chosen.items()}
    for key in given:
        if key not in known:
            raise ValueError(
                f"method.relation_{key} is {given[key]}, and the relation {name!r} has no {key}; leave "
                f"--method.relation-{key} out, or choose another --method.relation."
            )
    return RELATIONS[name](**given)
