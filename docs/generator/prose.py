"""Docstrings taken apart, and their prose as Markdown that shows every sign as it stands."""

import inspect
import re
from dataclasses import dataclass
from typing import Literal

_PUNCTUATION = re.compile(r"([\\!\"#$%&'()*+,./:;<=>?@\[\]^_`{|}~-])")
_CODE = re.compile(r"(`[^`]+`)")


@dataclass(frozen=True)
class Part:
    """A paragraph, or an indented block."""

    kind: Literal["prose", "equation"]
    text: str


@dataclass(frozen=True)
class Docstring:
    """A docstring: `title: summary`, then its parts in order."""

    title: str
    summary: str
    parts: tuple[Part, ...]


def taken_apart(text: str) -> Docstring:
    """The docstring of a method's module."""
    first, *blocks = re.split(r"\n\s*\n", inspect.cleandoc(text))
    title, _, summary = " ".join(first.split()).partition(": ")
    parts = []
    for block in blocks:
        indented = all(line.startswith("    ") for line in block.splitlines())
        parts.append(Part("equation" if indented else "prose", block))
    return Docstring(title.strip(), capitalized(summary), tuple(parts))


def markdown(text: str) -> str:
    """Prose of a docstring as one line of Markdown: code stays code, and no other sign means anything."""
    pieces = _CODE.split(" ".join(text.split()))
    return "".join(p if _CODE.fullmatch(p) else _PUNCTUATION.sub(r"\\\1", p) for p in pieces)


def cell(text: str) -> str:
    """The same for a cell of a table, in whose code a bar would end the cell."""
    return "".join(
        p.replace("|", "\\|") if _CODE.fullmatch(p) else _PUNCTUATION.sub(r"\\\1", p)
        for p in _CODE.split(" ".join(text.split()))
    )


def capitalized(text: str) -> str:
    """The text with a capital at its beginning."""
    return text[:1].upper() + text[1:]


def before_sections(text: str) -> str:
    """A class's docstring after its first paragraph and before `Args:` and its like."""
    body = re.split(r"^(?:Args|Attributes|Raises|Returns|Source|Sources):", inspect.cleandoc(text), flags=re.M)[0]
    return re.split(r"\n\s*\n", body, maxsplit=1)[1].strip() if re.search(r"\n\s*\n", body.strip()) else ""
