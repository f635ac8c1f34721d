"""What pages can ask for beyond Markdown: equations, drawings, and tables of what the package holds."""

from collections.abc import Callable
from typing import Any, ClassVar

from docutils import nodes
from docutils.parsers.rst import Directive
from docutils.statemachine import StringList

from generator import drawings, listings
from generator.equations import equation


class Equation(Directive):
    """An equation as docstrings write it."""

    has_content = True

    def run(self) -> list[nodes.Node]:
        return [nodes.raw("", equation("\n".join(self.content)), format="html")]


class Drawing(Directive):
    """A drawing of `generator.drawings`, by its name, in the colors of the page."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        return [nodes.raw("", drawings.DRAWINGS[self.arguments[0]](), format="html")]


class Listing(Directive):
    """A table of `generator.listings`, by its name."""

    required_arguments = 1
    made: ClassVar[dict[str, Callable[[], str]]] = listings.LISTINGS

    def run(self) -> list[nodes.Node]:
        text = self.made[self.arguments[0]]()
        box = nodes.container()
        self.state.nested_parse(StringList(text.splitlines(), source="generated"), self.content_offset, box)
        return box.children


def add(app: Any) -> None:
    """Make them known to Sphinx."""
    app.add_directive("equation", Equation)
    app.add_directive("drawing", Drawing)
    app.add_directive("listing", Listing)
