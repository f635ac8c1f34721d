"""A named recipe: the recipe itself, where it comes from, what it costs, and the number to expect."""

from dataclasses import dataclass, replace
from typing import NamedTuple

from relatum.recipes.recipe import Recipe


class Number(NamedTuple):
    """A published or measured number.

    Attributes:
        value: in percent.
        what: the metric, and the data where they are not the recipe's own.
        source: who reports it, where, and what differs from the recipe.
    """

    value: float
    what: str
    source: str


@dataclass(frozen=True)
class Entry:
    """A recipe of the catalog; called, it gives the `Recipe`.

    Attributes:
        about: what it is, in one sentence.
        recipe: without its name, which the catalog gives.
        source: where the settings come from, and which are ours.
        cost: the time of a run, or what it is relative to.
        published: the numbers that others report.
        ours: the numbers that this library reached; none means that it was not run yet.
        options: what a command must add, such as a teacher.
        name: what the command line calls it.
        task: under which heading `relatum list` names it.
    """

    about: str
    recipe: Recipe
    source: str
    cost: str
    published: tuple[Number, ...] = ()
    ours: tuple[Number, ...] = ()
    options: str = ""
    name: str = ""
    task: str = ""

    def __call__(self) -> Recipe:
        return replace(self.recipe, name=self.name)

    @property
    def command(self) -> str:
        """What trains it."""
        return f"relatum train {self.name} {self.options}".strip()

    @property
    def doc(self) -> str:
        """All that is known of it, a line a fact."""
        published = _by_source(self.published) or "no number is published for these settings."
        ours = _by_source(self.ours) or "not run yet."
        lines = {
            "Source": self.source,
            "Command": self.command,
            "Cost": self.cost,
            "Published": published,
            "Ours": ours,
        }
        return "\n".join([self.about, "", *(f"{what}: {text}" for what, text in lines.items())])


def _by_source(numbers: tuple[Number, ...]) -> str:
    """The numbers, those of one source together."""
    sources = dict.fromkeys(number.source for number in numbers)
    groups = {s: ", ".join(f"{n.what} {n.value:g}" for n in numbers if n.source == s) for s in sources}
    return "; ".join(f"{text} ({source})" for source, text in groups.items())


def named(task: str, entries: dict[str, Entry]) -> dict[str, Entry]:
    """The entries of one task, each called as its key says."""
    return {name: replace(entry, name=name, task=task) for name, entry in entries.items()}
