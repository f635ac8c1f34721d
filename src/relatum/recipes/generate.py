"""Makes the two generated files of this room: `index.json`, and `options.pyi` with the options of all methods."""

import dataclasses
import json
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from relatum.data.catalog import ADDED, CATALOG
from relatum.measurement.evaluators import EVALUATORS
from relatum.methods import METHODS
from relatum.networks.backbones import BACKBONES
from relatum.networks.registered import BUILDERS
from relatum.networks.small_networks import SMALL_NETWORKS
from relatum.recipes import index
from relatum.recipes.catalog import RECIPES, SETTINGS
from relatum.recipes.options import options_of
from relatum.recipes.recipe import to_dict
from relatum.relations import RELATIONS

STUB = Path(__file__).with_name("options.pyi")
COMMAND = "python -m relatum.recipes.index"


def main() -> None:
    """Write both files."""
    index.FILE.write_text(index_text(), encoding="utf-8")
    STUB.write_text(stub_text(), encoding="utf-8")


def index_tree() -> dict[str, dict[str, Any]]:
    """What there is, of every kind: a name, and what is known of it without torch."""
    recipes = {
        name: {"task": entry.task, "doc": entry.doc, "tree": to_dict(entry())} for name, entry in RECIPES.items()
    }
    return {
        "recipes": recipes,
        "settings": {name: _first_line(setting) for name, setting in SETTINGS.items()},
        "methods": {name: _method(name) for name in METHODS},
        "relations": {name: _first_line(getattr(make, "func", make)) for name, make in RELATIONS.items()},
        "backbones": dict.fromkeys([*BACKBONES, *SMALL_NETWORKS, *BUILDERS], ""),
        "data": {name: facts.about for name, facts in CATALOG.items()}
        | {name: _first_line(make) for name, make in ADDED.items()},
        "evaluators": {name: _first_line(kind) for name, kind in EVALUATORS.items()},
    }


def index_text() -> str:
    """The content of `index.json`; a recipe is a line."""
    tree = index_tree()
    parts = []
    for what, rows in tree.items():
        lines = ",\n".join(f"  {json.dumps(k)}: {json.dumps(v, ensure_ascii=False)}" for k, v in rows.items())
        parts.append(f" {json.dumps(what)}: {{\n{lines}\n }}")
    return "{\n" + ",\n".join(parts) + "\n}\n"


def _first_line(thing: Any) -> str:
    return next(iter((thing.__doc__ or "").strip().splitlines()), "")


def _method(name: str) -> dict[str, Any]:
    fields = dataclasses.fields(options_of(name))
    options = {f.name: _plain(f.default) for f in fields if f.name != "name"}
    return {"about": _first_line(METHODS[name]), "options": options}


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def stub_text() -> str:
    """The content of `options.pyi`: a class for each method, and an overload of `options` for each."""
    fields = {name: _fields(name) for name in METHODS}
    classes = {name: f"{method.__name__}Options" for name, method in METHODS.items()}
    parts = [_HEAD.format(command=COMMAND, relations=_literal(tuple(RELATIONS)))]
    for name, members in fields.items():
        body = "\n".join(f"    {member}: {kind} = ..." for member, kind in members.items())
        head = f"@dataclass(frozen=True)\nclass {classes[name]}(MethodOptions):"
        parts.append(f'{head}\n    name: Literal["{name}"] = ...\n{body}'.rstrip())
    parts.append("AnyOptions: TypeAlias = (\n    " + "\n    | ".join(classes.values()) + "\n)")
    for name, members in fields.items():
        given = "".join(f"    {member}: {kind} = ...,\n" for member, kind in members.items())
        star = "    *,\n" if given else ""
        parts.append(f'@overload\ndef options(\n    name: Literal["{name}"],\n{star}{given}) -> {classes[name]}: ...')
    return "\n\n".join([*parts, _TAIL])


def _fields(name: str) -> dict[str, str]:
    hints = get_type_hints(options_of(name))
    return {field: _spelled(kind) for field, kind in hints.items() if field != "name"}


def _spelled(kind: Any) -> str:
    """A type as Python source."""
    if kind is type(None):
        return "None"
    if get_origin(kind) is Literal:
        return "RelationName" if get_args(kind) == tuple(RELATIONS) else _literal(get_args(kind))
    if get_origin(kind) is tuple:
        return f"tuple[{', '.join('...' if a is Ellipsis else _spelled(a) for a in get_args(kind))}]"
    if get_args(kind):
        return " | ".join(dict.fromkeys(_spelled(option) for option in get_args(kind)))
    return kind.__name__


def _literal(names: tuple[Any, ...]) -> str:
    return f"Literal[{', '.join(json.dumps(name) for name in names)}]"


_HEAD = """# Written by `{command}`: what options.py derives from the methods, for editors and type checkers.
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, overload

from relatum.methods import Method
from relatum.networks.backbones import Backbone
from relatum.relations import Relation

SUPPLIED: tuple[str, ...]
RelationName: TypeAlias = {relations}

@dataclass(frozen=True)
class MethodOptions:
    name: str"""

_TAIL = """@overload
def options(name: str) -> Any: ...
def options_of(name: str) -> type[Any]: ...
def forget() -> None: ...
def current(chosen: MethodOptions) -> MethodOptions: ...
def held(annotation: Any) -> Any: ...
def relation_options() -> dict[str, Any]: ...
def takes_relation(annotation: Any) -> bool: ...
def build_relation(name: str, chosen: dict[str, Any]) -> Relation: ...
def build_method(
    chosen: MethodOptions, backbone: Backbone, *, num_samples: int, load_teacher: Callable[[str], Backbone]
) -> Method: ...
"""
