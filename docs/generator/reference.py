"""The reference of the public names: which there are, by room, and their docstrings as reStructuredText."""

import ast
import re
from pathlib import Path
from typing import Any

import relatum
from generator.methods import table
from generator.prose import capitalized, markdown

STUB = Path(relatum.__file__).with_name("__init__.pyi")

ROOMS = {
    "methods": ("Methods", "Each takes a backbone, and its `losses` a batch."),
    "losses": ("Losses", "Pure functions of tensors, for a loop of one's own."),
    "relations": ("Relations", "How alike two embeddings are: larger is more alike, always."),
    "networks": ("Backbones and export", "What is trained, and what is kept of it."),
    "data": ("Images and views", "From a name, a folder or tensors to views of images."),
    "evaluation": ("Evaluation", "What is measured of an encoder."),
    "recipes": ("Recipes", "Everything that decides a run."),
    "training": ("Training", "From a recipe to a Record."),
    "core": ("Types", "What a method takes, and what a backbone gives."),
}
"""The rooms in the order in which they are shown: title, and what is there."""

_HIDDEN = "losses, embed, after_step, predictions, forward, state_dict, load_state_dict, train, eval"
"""Members that every method has: `Method` itself describes them."""


def names() -> dict[str, list[str]]:
    """The public names of each room, as `__init__.pyi` lists them."""
    found: dict[str, list[str]] = {}
    for node in ast.parse(STUB.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom):
            room = (node.module or "").partition(".")[0]
            found.setdefault(room, []).extend(alias.asname or alias.name for alias in node.names)
    order = [*ROOMS, *(room for room in found if room not in ROOMS)]
    return {room: found[room] for room in order if room in found}


def room_title(room: str) -> str:
    """What the page of a room is called."""
    return ROOMS.get(room, (capitalized(room), ""))[0]


def page(room: str) -> str:
    """The page of a room, as Markdown: a list of its names, and each of them."""
    own = names()[room]
    rows = [(f"{{py:obj}}`~relatum.{name}`", summary(name)) for name in own]
    about = ROOMS.get(room, ("", ""))[1]
    blocks = [f"# {room_title(room)}", about, table(("name", "what it is"), rows, "names"), *map(_entry, own)]
    return "\n\n".join(block for block in blocks if block) + "\n"


def summary(name: str) -> str:
    """The first sentence of a name's docstring."""
    thing = getattr(relatum, name)
    text = DATA.get(name, thing.__doc__ or "").strip()
    return markdown(re.split(r"\n\s*\n", text)[0]).replace("|", "\\|").replace("\\\\|", "\\|")


DATA = {
    "METHODS": "Every method by the name that recipes and the command line use.",
    "RECIPES": "Every recipe by name.",
}
"""Public names that are no class and no function."""


def _entry(name: str) -> str:
    thing = getattr(relatum, name)
    if name in DATA:
        directive = [f".. py:data:: relatum.{name}", f"   :type: {type(thing).__name__}", "", f"   {DATA[name]}"]
    elif isinstance(thing, type):
        hidden = [f"   :exclude-members: {_HIDDEN}"] if issubclass(thing, relatum.Method) and name != "Method" else []
        directive = [f".. autoclass:: relatum.{name}", "   :members:", *hidden]
    else:
        directive = [f".. autofunction:: relatum.{name}"]
    return f"## {name}\n\n```{{eval-rst}}\n" + "\n".join(directive) + "\n```"


def short_signature(
    app: Any, what: str, name: str, obj: Any, options: Any, signature: str | None, returns: str | None
) -> tuple[str | None, str | None]:
    """Types by their last name: `Tensor`, not `torch.Tensor`; shapes as they are written."""
    return _short(signature), _short(returns)


def _short(text: str | None) -> str | None:
    return text and re.sub(r"(?<![\w.'\"])(?:[a-z_]\w*\.)+(?=[A-Za-z_])", "", text.replace("~", ""))


def as_restructured(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """What Sphinx calls with the lines of each docstring, which it replaces."""
    lines[:] = restructured("\n".join(lines)).split("\n")


def restructured(text: str) -> str:
    """A docstring of the package as reStructuredText, in which every sign stands for itself."""
    chunks = re.split(r"\n[ \t]*\n", text.strip("\n"))
    return "\n\n".join(
        "::\n\n" + chunk if _is_block(chunk, chunks[i - 1] if i else "") else _escaped(chunk)
        for i, chunk in enumerate(chunks)
    )


def _is_block(chunk: str, before: str) -> bool:
    """Whether all of a chunk is indented, and the one before is prose and no section such as `Args:`."""
    section = re.search(r"^[A-Z][a-z]+:$", before, flags=re.M)
    return bool(chunk) and not section and all(line.startswith("    ") for line in chunk.splitlines())


def _escaped(chunk: str) -> str:
    parts = re.split(r"(`[^`]+`)", chunk)
    found = ""
    for i, part in enumerate(parts):
        if i % 2:
            before = "\\ " if found[-1:].isalnum() else ""
            after = "\\ " if i + 1 < len(parts) and parts[i + 1][:1].isalnum() else ""
            found += f"{before}`{' '.join(part.split()) if chr(10) not in part else part}`{after}"
        else:
            found += re.sub(r"(\w)_(?!\w)", r"\1\\_", re.sub(r"([\\*|])", r"\\\1", part))
    return found
