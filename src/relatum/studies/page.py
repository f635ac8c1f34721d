"""The page of a study: its answer as tables that sort, what it was made of as charts, the recipes behind it."""

import re
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean
from typing import Literal

from relatum.reports import charts
from relatum.reports.page import Cell as TableCell
from relatum.reports.page import Page
from relatum.reports.records import Record
from relatum.reports.tables import Bold, Table
from relatum.studies import answer
from relatum.studies.answer import Evidence, Place
from relatum.studies.plan import Plan

PICTURED = 8  # rows whose pictures fit into a page


def page_of(plan: Plan) -> Page:
    """The page of a study at one scale.

    Raises:
        ValueError: for a study none of whose runs is done, a Record of another recipe, or two Records for one seed.
    """
    evidence = Evidence(plan)
    study, grid = plan.grid.study, plan.grid
    if not evidence.records:
        raise ValueError(
            f"no run of {study.name} at the scale {grid.scale!r} is done in {plan.runs} or {plan.results}; run it with "
            f"`relatum study {study.name} --scale {grid.scale}`."
        )
    page = Page(study.question, f"{study.name} at the scale {grid.scale}: {study.scales[grid.scale].about}.")
    _table(page, "Answer", answer.numbers(evidence))
    _table(page, "Differences to the baseline", answer.differences(evidence))
    page.charts("Differences, drawn", _differences(evidence), "An interval that crosses 0 tells nothing apart.")
    page.charts("Sensitivity", _sensitivity(evidence))
    page.charts("While training", _curves(evidence), "Of held-out training images; a click on a name singles it out.")
    page.charts("Cost against accuracy", _costs(evidence), "A large dot is the mean of a row, a small one a run.")
    for title, table in (
        ("Image by image", answer.images(evidence)),
        ("Cost", answer.cost(evidence)),
        ("Published numbers", answer.published(evidence)),
        ("Chosen on held-out images", answer.choices(evidence)),
    ):
        _table(page, title, table)
    _pictures(page, evidence)
    page.recipes(
        {f"{row}, {column}": by_seed[min(by_seed)] for (row, column), by_seed in evidence.records.items() if by_seed}
    )
    differs = answer.protocol(plan)
    if differs:
        page.text(f"What the scale {grid.scale} changes", differs)
    return page


def _table(page: Page, title: str, table: Table | None) -> None:
    if table is not None:
        headings = [heading or "row" for heading in table.headings]
        page.table(title, headings, [[_cell(text) for text in row] for row in table.rows], below=table.notes)


def _cell(text: str) -> TableCell:
    """A text that begins with a number sorts by it; a verdict and the best number are colored."""
    found = re.match(r"[+-]?\d[\d,]*(?:\.\d+)?(?:e[+-]?\d+)?", text)
    value = float(found.group().replace(",", "")) if found else None
    tone: Literal["", "better", "worse"] = "worse" if text == "worse" else ""
    return TableCell(str(text), value, "better" if isinstance(text, Bold) or text == "better" else tone)


def _in_column(evidence: Evidence, column: str) -> dict[str, list[Record]]:
    rows = {row: evidence.records.get((row, column), {}) for row in evidence.grid.rows}
    return {row: [by_seed[seed] for seed in sorted(by_seed)] for row, by_seed in rows.items() if by_seed}


def _differences(evidence: Evidence) -> list[charts.alt.LayerChart]:
    drawn = []
    for column, metric in evidence.columns:
        found = [
            charts.Difference(place.row, d.mean, d.low, d.high, d.n, evidence.verdict(d) in ("better", "worse"))
            for place, d in evidence.differences.items()
            if (place.column, place.metric) == (column, metric) and d.n > 1
        ]
        if found:
            baselines = {str(evidence.grid.baseline_of(d.row)) for d in found}
            against = baselines.pop() if len(baselines) == 1 else "its baseline"
            heading = f"{column} {evidence.grid.study.metrics[metric]}"
            drawn.append(charts.differences(found, heading, against))
    return drawn


def _sensitivity(evidence: Evidence) -> list[charts.alt.LayerChart]:
    drawn = []
    for name in evidence.grid.study.plot:
        for column, metric in evidence.columns:
            points: Mapping[float, list[float]] = {
                float(value): found
                for value, row in evidence.grid.sensitivity(name).items()
                if (found := list(evidence.values(Place(row, column, metric)).values()))
            }
            if len(points) > 1:
                drawn.append(charts.sensitivity(points, name, f"{column} {evidence.grid.study.metrics[metric]}"))
    return drawn


def _curves(evidence: Evidence) -> list[charts.alt.LayerChart | None]:
    drawn = []
    for column in evidence.grid.columns:
        groups = _in_column(evidence, column)
        names = charts.measured_while_training(groups)
        drawn += [charts.curves(groups, name, f"{column}: {name.replace('_', ' ')}") for name in names]
        drawn.append(charts.curves(groups, "loss", f"{column}: sum of the loss terms"))
    return drawn


def _costs(evidence: Evidence) -> list[charts.alt.LayerChart | None]:
    return [
        charts.cost_against(_in_column(evidence, column), metric, f"{column} {evidence.grid.study.metrics[metric]}")
        for column, metric in evidence.columns
        if metric in {name for r in _in_column(evidence, column).values() for record in r for name in record.metrics}
    ]


def _pictures(page: Page, evidence: Evidence) -> None:
    """The picture that answers the study, of each row: that of its best seed would be a choice, so of its first."""
    name = evidence.grid.study.pictures
    if not name:
        return
    found: dict[str, Path] = {}
    for (row, column), cells in evidence.cells.items():
        path = cells[0].folder / name
        if path.is_file() and len(found) < PICTURED:
            numbers = [evidence.values(Place(row, column, metric)) for metric in evidence.grid.study.metrics]
            means = ", ".join(f"{fmean(v.values()):.2f}" for v in numbers if v)
            found[f"{row}, {column}, seed {cells[0].seed} ({means})"] = path
    page.pictures("By depth", found)
