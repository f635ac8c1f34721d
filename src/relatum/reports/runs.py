"""The page of runs: what they measured, their curves, their cost, their pictures, and how their recipes differ."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from relatum.reports import charts
from relatum.reports.page import Cell, Neighbor, Page
from relatum.reports.records import Record
from relatum.reports.tables import distinct_names

PICTURES = {
    "neighbors.png": "queries and their nearest neighbors",
    "tsne.png": "a map of the features",
    "stages.png": "a map of the features of every stage",
    "attention.png": "what the class token looks at, head by head",
}
PICTURED = 3  # runs whose pictures fit into a page


def page_of(runs: Mapping[Path, Record], galleries: Mapping[Path, Sequence[Sequence[Neighbor]]]) -> Page:
    """The page of some runs.

    Args:
        runs: the Record of each folder or file.
        galleries: rows of neighbors of some of these runs, the query first.
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
    for path, rows in galleries.items():
        note = "Queries on the left; beside them the training images nearest to them, with their distances; green: the "
        page.neighbors(f"Neighbors: {titles[path]}", rows, note + "query's class.")
    for path in list(runs)[:PICTURED]:
        found = {f"{titles[path]}: {text}": path / name for name, text in PICTURES.items() if path.is_dir()}
        page.pictures(f"Pictures: {titles[path]}", found)
    page.recipes({title: runs[path] for path, title in titles.items()})
    return page


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
