"""The page of runs: what they measured, their curves, their cost, their pictures, and how their recipes differ."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

from relatum.reports import charts
from relatum.reports.page import Cell, Neighbor, Page
from relatum.reports.records import Record
from relatum.reports.tables import distinct_names

Galleries: TypeAlias = Mapping[str, Sequence[Sequence[Neighbor]]]

PICTURES = {
    "neighbors.png": "queries and their nearest neighbors",
    "tsne.png": "a map of the features",
    "stages.png": "a map of the features of every stage",
    "attention.png": "what the class token looks at, head by head",
}
PICTURED = 3  # runs whose pictures fit into a page


def page_of(runs: Mapping[Path, Record], galleries: Mapping[Path, Galleries]) -> Page:
    """The page of some runs.

    Args:
        runs: the Record of each folder or file.
        galleries: of some of these runs, by when they are: rows of neighbors, the query first.
    """
    records = list(runs.values())
    titles = {path: f"{name} seed {r.seed}" for (path, r), name in zip(runs.items(), distinct_names(records))}
    groups: dict[str, list[Record]] = {}
    for record, name in zip(records, distinct_names(records)):
        groups.setdefault(name, []).append(record)
    data = ", ".join(dict.fromkeys(str(r.recipe.get("data", {}).get("source", "?")) for r in records))
    page = Page(" and ".join(list(titles.values())[:2]) + ("" if len(runs) < 3 else f" and {len(runs) - 2} more"), data)
    _measurements(page, titles, runs)
    shown = charts.measured_while_training(groups)
    curves = [charts.curves(groups, name, name.replace("_", " ")) for name in shown]
    page.charts("While training", [*curves, charts.curves(groups, "loss", "sum of the loss terms")])
    headings = _headings(records)
    accuracies = [m for m in headings if m.endswith("top1")][:2]
    if len(runs) > 1:
        page.charts("Cost against accuracy", [charts.cost_against(groups, m, headings[m]) for m in accuracies])
    for path, found_in in galleries.items():
        first, *more = found_in.values()
        beside = [[*row, *(image for rows in more for image in rows[i][1:])] for i, row in enumerate(first)]
        gap = len(first[0]) if more and first else 0
        page.neighbors(f"Neighbors: {titles[path]}", beside, _of_neighbors(found_in), gap=gap)
    for path in list(runs)[:PICTURED]:
        own = [name for name in PICTURES if name != "neighbors.png" or path not in galleries]  # they show the same
        found = {f"{titles[path]}: {PICTURES[name]}": path / name for name in own if path.is_dir()}
        page.pictures(f"Pictures: {titles[path]}", found)
    page.recipes({title: runs[path] for path, title in titles.items()})
    return page


def _of_neighbors(galleries: Galleries) -> str:
    told = []
    for place, (when, rows) in zip(("then", "on the right"), galleries.items()):
        near = [image for row in rows for image in row[1:]]
        right = sum(image.same for image in near)
        of_class = f" ({right} of {len(near)} of the query's class, green)" if right else ""
        told.append(f"{place if len(galleries) > 1 else 'beside them'} those {when}{of_class}")
    return f"Queries on the left; {', '.join(told)}: the training images that are nearest, with their distances."


def _headings(records: Sequence[Record]) -> dict[str, str]:
    """The metrics that tables show, and their headings; those of Records without headings by their names."""
    found: dict[str, str] = {}
    for record in records:
        found |= record.columns or {m: m for m in record.metrics if m.endswith("top1")}
    return found


def _measurements(page: Page, titles: Mapping[Path, str], runs: Mapping[Path, Record]) -> None:
    headings = _headings(list(runs.values()))
    rows = []
    for path, title in titles.items():
        record = runs[path]
        numbers = [record.metrics.get(metric) for metric in headings]
        cells = [Cell("" if n is None else f"{n:.2f}", n) for n in numbers]
        passes = Cell(f"{record.images_passed:,}", record.images_passed)
        rows.append([Cell(title), *cells, Cell(f"{record.seconds / 60:.1f}", record.seconds), passes])
    protocols = dict.fromkeys(f"{name}: {text}" for record in runs.values() for name, text in record.protocols.items())
    notices = dict.fromkeys(notice for record in runs.values() for notice in record.notices)
    columns = ["run", *headings.values(), "minutes", "image passes"]
    page.table("Measured", columns, rows, below=[*protocols, *notices])
