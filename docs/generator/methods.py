"""The page of a method, from its docstring, its options and the recipes that use it."""

import inspect
import re
import sys
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import docstring_parser

from generator.prose import Docstring, before_sections, capitalized, cell, markdown, taken_apart
from relatum.methods import METHODS, Method
from relatum.recipes.catalog import RECIPES
from relatum.recipes.entry import Entry, Number
from relatum.recipes.options import SUPPLIED, held
from relatum.relations import RELATIONS, Relation
from relatum.reports.records import Record, read_record
from relatum.reports.tables import COLUMNS, distinct_names, mean_and_spread

RESULTS = Path(__file__).parent.parent.parent / "results"

PAIRINGS = {
    "single": "single images",
    "two-views": "two views of each image",
    "triples": "triples: an image, one of its class, one of another",
    "same-class-pairs": "pairs of images of one class",
}
"""What a batch is, in words."""


def page(name: str) -> str:
    """The page of the method `name`, as Markdown."""
    method = METHODS[name]
    text = docstring_of(method)
    parts = [
        f"# {title(name)}",
        f"*{markdown(text.summary)}*" if text.summary else "",
        *_docstring(text),
        *_of_the_class(method),
        *_options(name, method),
        *_recipes(name),
        *_records(name),
    ]
    return "\n\n".join(part for part in [*parts[:2], _facts(name, method), *parts[2:]] if part) + "\n"


def docstring_of(method: type[Method]) -> Docstring:
    """That of the method's module: one paper, one file."""
    return taken_apart(sys.modules[method.__module__].__doc__ or method.__doc__ or f"{method.__name__}:")


def title(name: str) -> str:
    """How the method is called; its name stands behind it where two share a file."""
    modules = [method.__module__ for method in METHODS.values()]
    method = METHODS[name]
    called = docstring_of(method).title
    return f"{called} ({name})" if modules.count(method.__module__) > 1 else called


def summary(name: str) -> str:
    """What the method is, in one sentence."""
    return markdown(capitalized((METHODS[name].__doc__ or "").strip().splitlines()[0]))


def groups() -> dict[str, list[str]]:
    """The methods by what they learn from."""
    found: dict[str, list[str]] = {"Without labels": [], "With labels": [], "From a teacher": [], "From oneself": []}
    for name, method in METHODS.items():
        hints = get_type_hints(method.__init__)
        if "teacher" in hints:
            found["From a teacher"].append(name)
        elif not (method.needs_labels or method.classifies):
            found["Without labels"].append(name)
        elif ".distill." in method.__module__ and name not in ("supervised", "label-smoothing"):
            found["From oneself"].append(name)
        else:
            found["With labels"].append(name)
    return {kind: names for kind, names in found.items() if names}


def _facts(name: str, method: type[Method]) -> str:
    relation = any(Relation in (hint, *get_args(hint)) for hint in get_type_hints(method.__init__).values())
    labels = "needed" if method.needs_labels or method.classifies else "not read"
    lines = [
        f"Class: {{py:class}}`relatum.{method.__name__}`",
        f"Trains on: {PAIRINGS.get(method.pairing, method.pairing)}{', or more crops' if method.multi_crop else ''}",
        f"Labels: {labels}",
        f"Relation: {'any of ' + ', '.join(f'`{r}`' for r in RELATIONS) if relation else 'has none to choose'}",
    ]
    return ":::{container} facts\n" + "\n".join(f"- {line}" for line in lines) + "\n:::"


def _docstring(text: Docstring) -> list[str]:
    """Equations and prose in the order of the docstring: from the first paragraph with a year on it is the source."""
    found: list[str] = ["## Equation"] if text.parts else []
    equations = [i for i, part in enumerate(text.parts) if part.kind == "equation"]
    years = [
        i for i, part in enumerate(text.parts) if part.kind == "prose" and re.search(r"\b(19|20)\d\d\b", part.text)
    ]
    after = [i for i in years if not equations or i > equations[0]]
    source = after[0] if after else (equations[0] + 1 if equations else 0)
    for i, part in enumerate(text.parts):
        if i == source:
            rest = " ".join(p.text for p in text.parts[i:])
            differs = re.search(r"\b(code|codes|here|ours|port|ports|differs?)\b", rest)
            found.append("## Source, and what differs" if differs else "## Source")
        if part.kind == "equation":
            found.append("```{equation}\n" + inspect.cleandoc("\n" + part.text) + "\n```")
        else:
            found.append(markdown(part.text))
    return found


def _of_the_class(method: type[Method]) -> list[str]:
    """What its class says beyond its first sentence and its options."""
    more = before_sections(method.__doc__ or "")
    blocks = re.split(r"\n\s*\n", more) if more else []
    return ["## In use", *(markdown(block) for block in blocks)] if blocks else []


def _options(name: str, method: type[Method]) -> list[str]:
    hints = get_type_hints(method.__init__)
    texts = {p.arg_name: p.description or "" for p in docstring_parser.parse(method.__doc__ or "").params}
    rows = []
    for option, parameter in options_of(name).items():
        values = _values(held(hints[option]))
        said = capitalized(texts.get(option, ""))
        rows.append((f"`{option}`", _default(parameter), cell(said) + (f" ({values})" if values else "")))
    if not rows:
        return ["## Options", "None."]
    option = rows[0][0].strip("`").replace("_", "-")
    said = f"On the command line `--method.{option}` and so on; in Python, keywords of `options({name!r}, ...)`."
    return ["## Options and defaults", said, table(("option", "default", "meaning"), rows, "options")]


def options_of(name: str) -> dict[str, inspect.Parameter]:
    """The keywords of the method's constructor that a recipe decides."""
    given = inspect.signature(METHODS[name].__init__).parameters
    keyword = inspect.Parameter.KEYWORD_ONLY
    return {key: value for key, value in given.items() if value.kind is keyword and key not in SUPPLIED}


def _default(parameter: inspect.Parameter) -> str:
    default = parameter.default
    if default is inspect.Parameter.empty:
        return "must be given"
    if isinstance(default, Relation):
        wanted = type(default)
        return f"`{next(name for name, make in RELATIONS.items() if getattr(make, 'func', make) is wanted)}`"
    if default is None or default == ():
        return "none"
    return f"`{default:g}`" if isinstance(default, float) else f"`{default}`"


def _values(hint: Any) -> str:
    """The values of an option that has few."""
    if get_origin(hint) is Literal and get_args(hint) != tuple(RELATIONS):
        return ", ".join(f"`{value}`" for value in get_args(hint))
    return ""


def entries_of(name: str) -> dict[str, Entry]:
    """The recipes of a method."""
    return {key: entry for key, entry in RECIPES.items() if entry.recipe.method.name == name}


def _recipes(name: str) -> list[str]:
    found = entries_of(name)
    if not found:
        return ["## Recipes", f"None yet: `options({name!r}, ...)` makes one in Python."]
    head = "Each prints whole with `relatum show NAME`; every field can be changed on the command line."
    return ["## Recipes", head, *(block for entry in found.values() for block in _recipe(entry))]


def _recipe(entry: Entry) -> list[str]:
    recipe = entry.recipe
    trained = f"{recipe.model.name} on {recipe.data.source}, {recipe.train.epochs:,} epochs, batches of "
    trained += f"{recipe.data.batch_size:,}, {recipe.optim.name} at {recipe.optim.lr:g} ({recipe.optim.schedule})"
    numbers = [("published", number) for number in entry.published] + [("ours", number) for number in entry.ours]
    lines = [
        f"### `{entry.name}`",
        markdown(entry.about),
        f"```bash\n{entry.command}\n```",
        f"- Setting: {markdown(trained)}.\n- Source: {markdown(entry.source)}\n- Cost: {markdown(entry.cost)}",
    ]
    said = [
        "" if entry.published else "No number is published for these settings.",
        "" if entry.ours else "We have not run these settings yet.",
    ]
    if numbers:
        lines.append(table(("whose", "what", "percent", "from"), [_number(*number) for number in numbers], "numbers"))
    return [*lines, " ".join(sentence for sentence in said if sentence)]


def _number(whose: str, number: Number) -> tuple[str, ...]:
    return whose, cell(number.what), f"{number.value:g}", cell(number.source)


def _records(name: str) -> list[str]:
    """A table of the runs of this method whose Records lie in `results/`, a row a recipe and data set."""
    blocks = []
    for folder, records in records_of(name).items():
        metrics = [m for m in COLUMNS if any(m in record.metrics for record in records)]
        rows: dict[tuple[str, str], list[Record]] = {}
        for record, called in zip(records, distinct_names(records)):
            rows.setdefault((called, record.recipe["data"]["source"]), []).append(record)
        lines = [
            [
                cell(f"`{called}`"),
                cell(source),
                str(len(group)),
                *(mean_and_spread([r.metrics[m] for r in group if m in r.metrics]) for m in metrics),
            ]
            for (called, source), group in rows.items()
        ]
        heads = ["run", "data", "seeds", *(COLUMNS[m] for m in metrics)]
        blocks.append(f"`results/{folder}`: {sum(map(len, rows.values()))} runs, mean ± standard deviation over seeds.")
        blocks.append(table(heads, lines, "runs"))
    if not blocks:
        return []
    said = "Runs of this library, of whatever size a processor allowed. [The results](../results.md) say how each was "
    said += "measured, and what may be concluded from it."
    return ["## Our runs", said, *blocks]


def records_of(name: str) -> dict[str, list[Record]]:
    """The Records of a method in `results/`, by study and scale; trials are none that count."""
    found: dict[str, list[Record]] = {}
    for folder, record in _all_records():
        if record.recipe["method"]["name"] == name:
            found.setdefault(folder, []).append(record)
    return found


@cache
def _all_records() -> list[tuple[str, Record]]:
    paths = (path.relative_to(RESULTS) for path in sorted(RESULTS.glob("*/*/**/*.json")))
    counted = [path for path in paths if not {"trials", "benchmarks"} & set(path.parts)]
    return [("/".join(path.parts[:2]), read_record(RESULTS / path)) for path in counted]


def table(headings: Iterable[str], rows: Iterable[Iterable[str]], kind: str) -> str:
    """A Markdown table of cells that are Markdown; `kind` is its class in the style sheet."""
    headings = tuple(headings)
    lines = [headings, ("---",) * len(headings), *rows]
    text = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
    return f":::{{container}} {kind}\n{text}\n:::"
