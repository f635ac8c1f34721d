"""The answer of a study: a pure function of its Records, with what the evidence does not show said beside it."""

import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean, median

from relatum.reports.records import Record, write_atomically
from relatum.reports.tables import Bold, Format, Table, mean_and_spread
from relatum.studies import trees
from relatum.studies.plan import Cell, Plan
from relatum.studies.statistics import LEAST_SEEDS, Difference, corrected, detectable, mcnemar, paired

CSV_COLUMNS = (
    *("row", "column", "metric", "n", "mean", "sd", "baseline", "difference", "low", "high", "p", "verdict"),
    *("published", "seconds", "image_passes", "parameters", "memory_mib"),
)
"""What the answer of a study as CSV holds of each number."""


@dataclass(frozen=True)
class Place:
    """One number of the answer: a row, a column and a metric."""

    row: str
    column: str
    metric: str


class Evidence:
    """The Records of a plan, and what follows from them.

    Args:
        plan: the runs of the study.

    Attributes:
        records: row and column -> seed -> Record, of what is done.

    Raises:
        ValueError: for a Record of another recipe in a cell, or two Records for one seed.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan, self.grid = plan, plan.grid
        self.cells: dict[tuple[str, str], list[Cell]] = {}
        self.records: dict[tuple[str, str], dict[int, Record]] = {}
        for cell in plan.cells:
            if cell.kind == "run":
                self.cells.setdefault((cell.row, cell.column), []).append(cell)
                record = plan.record(cell)
                if record is not None:
                    self.records.setdefault((cell.row, cell.column), {})[cell.seed] = record

    def values(self, place: Place) -> dict[int, float]:
        """The numbers of a place by their seeds."""
        found = self.records.get((place.row, place.column), {})
        measured = {seed: measure(record, place.metric) for seed, record in sorted(found.items())}
        return {seed: value for seed, value in measured.items() if value is not None}

    @cached_property
    def places(self) -> list[Place]:
        """Every place that has a number, or a published one."""
        grid = self.grid
        every = (Place(r, c, m) for r in grid.rows for c in grid.columns for m in grid.study.metrics)
        return [p for p in every if self.values(p) or grid.published(p.row, p.column, p.metric)]

    @cached_property
    def columns(self) -> list[tuple[str, str]]:
        """The columns of the table: column and metric."""
        return list(dict.fromkeys((place.column, place.metric) for place in self.places))

    @cached_property
    def differences(self) -> dict[Place, Difference]:
        """The difference of each place to its baseline, corrected over the whole table."""
        found: dict[Place, Difference] = {}
        for place in self.places:
            baseline = self.grid.baseline_of(place.row)
            if baseline is not None:
                difference = paired(self.values(place), self.values(Place(baseline, place.column, place.metric)))
                if difference is not None:
                    found[place] = difference
        return dict(zip(found, corrected(list(found.values()))))

    def best(self, column: str, metric: str) -> str | None:
        """The row with the largest mean, if it is told apart from its baseline."""
        means = {row: fmean(v.values()) for row in self.grid.rows if (v := self.values(Place(row, column, metric)))}
        best = min if self.grid.study.smaller else max
        top = best(means, key=lambda row: means[row], default="")
        difference = self.differences.get(Place(top, column, metric))
        return top if difference is not None and self.verdict(difference) == "better" else None

    def verdict(self, difference: Difference) -> str:
        """What may be said of a difference; better is what the study says is better."""
        said = difference.verdict
        return {"better": "worse", "worse": "better"}.get(said, said) if self.grid.study.smaller else said


def measure(record: Record, metric: str) -> float | None:
    """A metric of a Record; `epoch_seconds` is the median of its epochs' but the first, which warms up."""
    if metric == "epoch_seconds":
        seconds = [float(entry["seconds"]) for entry in record.history]
        return median(seconds[1:] or seconds) if seconds else None
    return record.metrics.get(metric)


def answer(plan: Plan, kind: Format = "markdown") -> str:
    """The answer in a format: tables of numbers, differences, cost and choices; as CSV one table of all of it.

    Raises:
        ValueError: for a Record of another recipe in a cell, or two Records for one seed.
    """
    evidence = Evidence(plan)
    if kind == "csv":
        return everything(evidence).render("csv")
    parts = (numbers, differences, images, curves, published, cost, choices)
    found = [part(evidence) for part in parts]
    return "\n".join(table.render(kind) for table in found if table is not None)


def numbers(evidence: Evidence) -> Table:
    """Mean ± standard deviation of each place, and how many seeds it has."""
    grid, study = evidence.grid, evidence.grid.study
    bold = {(c, m): evidence.best(c, m) for c, m in evidence.columns}
    rows = []
    for row in grid.rows:
        cells = []
        for column, metric in evidence.columns:
            values = list(evidence.values(Place(row, column, metric)).values())
            text = f"{mean_and_spread(values)} (n={len(values)})" if values else ""
            cells.append(Bold(text) if bold[column, metric] == row else text)
        rows.append([row, *cells])
    headings = [f"{column} {study.metrics[metric]}" for column, metric in evidence.columns]
    protocols = dict.fromkeys(
        f"{name}: {text}"
        for by_seed in evidence.records.values()
        for record in by_seed.values()
        for name, text in record.protocols.items()
        if any(metric.startswith(name) for metric in study.metrics)
    )
    return Table(
        ["", *headings],
        rows,
        [f"Scale {grid.scale}: {study.scales[grid.scale].about}.", *_state(evidence), *protocols, *study.notes],
        title=study.question,
    )


def _state(evidence: Evidence) -> list[str]:
    total = sum(map(len, evidence.cells.values()))
    done = sum(map(len, evidence.records.values()))
    lines = [] if done == total else [f"{done} of {total} runs are done; the others have no number here."]
    if evidence.grid.baseline is not None:
        lines.append("mean ± standard deviation over seeds; the best is bold only where told apart from its baseline.")
    else:
        lines.append("mean ± standard deviation over seeds.")
    grid = evidence.grid
    planned = grid.study.at(grid.scale).baseline
    if planned not in (None, grid.baseline):
        lines.append(
            f"Compared with {grid.baseline} here, where the study plans to compare with {planned}: an exploration, "
            "whose intervals are corrected for this table alone."
        )
    hosts = {
        str(record.machine.get("host") or record.machine.get("device", ""))
        for by_seed in evidence.records.values()
        for record in by_seed.values()
    }
    return [*lines, f"Run on {len(hosts)} machine{'s' * (len(hosts) > 1)}."] if hosts else lines


def differences(evidence: Evidence) -> Table | None:
    """Each place against its baseline, seed by seed."""
    found = evidence.differences
    if not found:
        return None
    metrics, rows = evidence.grid.study.metrics, []
    for place, d in found.items():
        # With one seed there is no interval, and "nan" would look like one.
        interval = f"{d.low:+.2f} to {d.high:+.2f}" if d.n > 1 else ""
        seen = f"{detectable(d.spread, d.n, comparisons=_tested(found)):.2f}" if d.n > 1 else ""
        p = f"{d.p:.2g}" if d.n > 1 else ""
        against = f"{place.row} - {evidence.grid.baseline_of(place.row)}"
        where = f"{place.column} {metrics[place.metric]}"
        rows.append([against, where, str(d.n), f"{d.mean:+.2f}", interval, p, seen, evidence.verdict(d)])
    return Table(
        ["difference", "where", "n", "mean", "interval", "p", "can be seen", "verdict"],
        rows,
        [
            f"Paired over common seeds; t intervals with Holm's correction over the {_tested(found)} differences "
            f"of this table, 95 % for all together; p as it is, before the correction.",
            f"A difference is called one from {LEAST_SEEDS} seeds on, and where its interval excludes 0.",
            "can be seen: the mean difference that as many seeds, with this spread, would find in 4 of 5 studies.",
        ],
        title="Differences to the baseline",
    )


def images(evidence: Evidence) -> Table | None:
    """Each pair of runs of one seed on the same test images, by McNemar's test, where both Records hold the images."""
    rows = []
    for place in evidence.differences:
        baseline, name = evidence.grid.baseline_of(place.row), guesser(place.metric)
        ours, other = (evidence.records.get((row or "", place.column), {}) for row in (place.row, baseline))
        pairs = {
            seed: mcnemar(ours[seed].correct[name], other[seed].correct[name])
            for seed in sorted(ours.keys() & other.keys())
            if name in ours[seed].correct and name in other[seed].correct
        }
        if pairs:
            said = "; ".join(f"{seed}: {only} / {theirs} (p {p:.2g})" for seed, (only, theirs, p) in pairs.items())
            where = f"{place.column} {evidence.grid.study.metrics[place.metric]}"
            rows.append([f"{place.row} - {baseline}", where, said])
    if not rows:
        return None
    return Table(
        ["difference", "where", "seed: only the row / only its baseline got it right"],
        rows,
        [
            "McNemar's exact test of two networks on the same test images: their noise alone. A small p says that "
            "these two networks differ; whether the rows do, the seeds tell, above. Not corrected."
        ],
        title="Image by image",
    )


def guesser(metric: str) -> str:
    """The evaluator whose first guesses a metric counts, by which a Record keeps them."""
    return "classifier" if metric == "top1" else metric.removesuffix("_top1")


def _tested(found: Mapping[Place, Difference]) -> int:
    return max(1, sum(d.n > 1 for d in found.values()))


def curves(evidence: Evidence) -> Table | None:
    """What the study follows over the epochs, at five of them."""
    curve = evidence.grid.study.curve
    rows: list[list[str]] = []
    shown: list[int] = []
    for (row, column), by_seed in evidence.records.items() if curve else ():
        at: dict[int, list[float]] = {}
        for record in by_seed.values():
            for entry in record.history:
                if curve in entry:
                    at.setdefault(int(entry["epoch"]), []).append(float(entry[curve]))
        shown = shown or sorted({max(1, round(max(at) * part / 5)) for part in range(1, 6)} & set(at)) if at else shown
        rows.append([row, column, *(mean_and_spread(at.get(epoch, [])) for epoch in shown)])
    if not rows:
        return None
    return Table(["", "column", *(f"epoch {epoch}" for epoch in shown)], rows, title=f"{curve} over the epochs")


def published(evidence: Evidence) -> Table | None:
    """Ours beside what others printed for the same cell."""
    rows: list[list[str]] = []
    notes: dict[str, None] = {}
    for place in evidence.places:
        number = evidence.grid.published(place.row, place.column, place.metric)
        if number is not None:
            value, source = number
            ours = mean_and_spread(list(evidence.values(place).values()))
            where = f"{place.column} {evidence.grid.study.metrics[place.metric]}"
            rows.append([place.row, where, ours, f"{value:g}", source.source])
            notes[f"{source.source}: {source.protocol}"] = None
    if not rows:
        return None
    return Table(["", "where", "ours", "published", "source"], rows, tuple(notes), title="Published numbers")


def cost(evidence: Evidence) -> Table | None:
    """Seconds, image passes, parameters and memory of each row, and how they relate to the baseline's."""
    rows = []
    for row in evidence.grid.rows:
        for column in evidence.grid.columns:
            own = _costs(evidence.records.get((row, column), {}).values())
            if own is None:
                continue
            baseline = evidence.grid.baseline_of(row)
            other = _costs(evidence.records.get((baseline, column), {}).values()) if baseline else None
            texts = [f"{own[0]:,.0f}", f"{own[1]:,.0f}", f"{own[2]:,.0f}" if own[2] else "", f"{own[3]:,.0f}"]
            if other is not None:
                texts = [f"{t} (x {a / b:.2f})" if t and b else t for t, a, b in zip(texts, own, other)]
            rows.append([row, column, *texts])
    if not rows:
        return None
    return Table(
        ["", "column", "seconds", "image passes", "parameters", "memory (MiB)"],
        rows,
        [
            "Means over the seeds, of training without measuring; x relates to the baseline of the row.",
            "parameters: of the network that is kept.",
            *_trials(evidence),
        ],
        title="Cost",
    )


def _costs(records: Iterable[Record]) -> tuple[float, ...] | None:
    found = [(r.seconds, r.images_passed, r.parameters, r.peak_memory) for r in records]
    return tuple(fmean(column) for column in zip(*found)) if found else None


def _trials(evidence: Evidence) -> list[str]:
    trials = [cell for cell in evidence.plan.cells if cell.kind == "trial"]
    found = [record for cell in trials if (record := evidence.plan.record(cell)) is not None]
    if not trials:
        return []
    seconds, arms = sum(record.seconds for record in found), len({(cell.row, cell.column) for cell in trials})
    return [
        f"Not in the table: {len(found)} of {len(trials)} trials on held-out images, {len(trials) // arms} for each "
        f"arm, {seconds:,.0f} seconds in all."
    ]


def choices(evidence: Evidence) -> Table | None:
    """What the trials chose for each arm."""
    rows = []
    for (row, column), cells in evidence.cells.items():
        choice = cells[0].choice
        if choice is None or not all(map(evidence.plan.done, cells[0].needs)):
            continue
        chosen = evidence.plan.chosen(cells[0])
        said = ", ".join(f"{name} {value}" for name, value in chosen.items())
        rows.append([row, column, said, str(len(choice.trials)), choice.selection.metric])
    if not rows:
        return None
    return Table(["", "column", "chosen", "candidates", "by"], rows, title="Chosen on held-out images")


def everything(evidence: Evidence) -> Table:
    """One row for each number, for programs."""
    rows = []
    for place in evidence.places:
        values = list(evidence.values(place).values())
        d, number = evidence.differences.get(place), evidence.grid.published(place.row, place.column, place.metric)
        own = _costs(evidence.records.get((place.row, place.column), {}).values()) or (math.nan,) * 4
        spread = mean_and_spread(values).partition(" ± ")[2]
        rows.append(
            [
                place.row,
                place.column,
                place.metric,
                str(len(values)),
                f"{fmean(values):.4f}" if values else "",
                spread,
                evidence.grid.baseline_of(place.row) or "",
                *([f"{x:.4f}" for x in (d.mean, d.low, d.high, d.p)] if d else [""] * 4),
                evidence.verdict(d) if d else "",
                f"{number[0]:g}" if number else "",
                *("" if math.isnan(x) else f"{x:.0f}" for x in own),
            ]
        )
    return Table(CSV_COLUMNS, rows)


def protocol(plan: Plan) -> list[str]:
    """In which fields the plan's scale differs from the paper's, for the reader of two tables."""
    scales = plan.grid.study.scales
    if "paper" not in scales or plan.grid.scale == "paper":
        return []
    base = trees.tree(plan.grid.study.recipe)
    paper, own = (base | dict(scales[s].changes) for s in ("paper", plan.grid.scale))
    return [f"{k}: {paper[k]} in the paper, {own[k]} here" for k in own if k in paper and paper[k] != own[k]]


def collect(plan: Plan) -> int:
    """Copy the Records of finished runs to `RESULTS/STUDY/SCALE/CELL/SEED.json`; gives how many are new there.

    Raises:
        ValueError: for a Record of another recipe in a cell, or two Records for one seed.
    """
    new = 0
    for cell in plan.cells:
        own, to = cell.folder / "record.json", plan.collected(cell)
        if to is None or not own.is_file() or plan.record(cell) is None or to.is_file():
            continue
        os.makedirs(to.parent, exist_ok=True)
        write_atomically(to, own.read_text(encoding="utf-8"))
        new += 1
    return new
