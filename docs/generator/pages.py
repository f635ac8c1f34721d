"""Writes the pages that are made from the package: `docs/methods/` and `docs/api/`, which are not committed."""

from pathlib import Path

from generator import methods, reference
from relatum.methods import METHODS


def write(docs: Path) -> None:
    """Write what has changed, and delete pages of what is gone."""
    _into(docs / "methods", {"index": method_index()} | {name: methods.page(name) for name in METHODS})
    _into(docs / "api", {"index": api_index()} | {room: reference.page(room) for room in reference.names()})


def method_index() -> str:
    """All methods, by what they learn from."""
    blocks = [
        "# Methods",
        "A method is one paper in one file, with its loss inside. These pages are made from the files themselves: from "
        "their docstrings, their constructors and the recipes that use them. Equations are those of the papers; where "
        "the authors' code differs, the page says how, and the difference is an option.",
    ]
    for group, names in methods.groups().items():
        rows = [(f"[{methods.title(name)}]({name}.md)", f"`{name}`", methods.summary(name)) for name in names]
        blocks += [f"## {group}", methods.table(("method", "name", "what it does"), rows, "names")]
    toc = "\n".join(["```{toctree}", ":hidden:", "", *(n for names in methods.groups().values() for n in names), "```"])
    return "\n\n".join([*blocks, toc]) + "\n"


def api_index() -> str:
    """All public names, by room."""
    blocks = [
        "# Python reference",
        "Every public name is imported from `relatum`: `from relatum import SimCLR, Jaccard`. They are loaded when "
        "they are first used, and type checkers and editors know them.",
    ]
    for room, names in reference.names().items():
        links = " · ".join(f"{{py:obj}}`~relatum.{name}`" for name in names)
        blocks.append(f"**[{reference.room_title(room)}]({room}.md)**\n: {links}")
    toc = "\n".join(["```{toctree}", ":hidden:", "", *reference.names(), "```"])
    return "\n\n".join([*blocks, toc]) + "\n"


def _into(folder: Path, pages: dict[str, str]) -> None:
    folder.mkdir(exist_ok=True)
    for path in folder.glob("*.md"):
        if path.stem not in pages:
            path.unlink()
    for name, text in pages.items():
        path = folder / f"{name}.md"
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
