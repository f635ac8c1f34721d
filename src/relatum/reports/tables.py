"""Tables: pure functions of Records, as Markdown, LaTeX or CSV, or as lines for a terminal."""

import csv
import io
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from relatum.reports.records import Record, flat

Format: TypeAlias = Literal["markdown", "latex", "csv"]

SUFFIXES: dict[str, Format] = {".md": "markdown", ".tex": "latex", ".csv": "csv"}
"""What a file's name says about its format."""

COLUMNS = {
    "top1": "top-1",
    "top5": "top-5",
    "knn_top1": "k-NN",
    "linear_top1": "linear",
    "calibration_error": "ECE",
}
"""The metrics that a table shows of Records that name no columns themselves, in this order, and their headings."""

INCIDENTAL = {
    "train.seed",
    "train.threads",
    "train.log_every",
    "data.root",
    "data.workers",
    "evaluation.figures",
    "method.teacher",  # the path of a run folder; two teachers of one seed are told apart below
}
"""The fields of a recipe in which two seeds of one setting may differ."""


class Bold(str):
    """The text of a cell that stands out."""


@dataclass(frozen=True)
class Table:
    """A table, in no format yet.

    Attributes:
        headings: what stands above the columns.
        rows: of texts, each as long as the headings; `Bold` stands out.
        notes: lines below it.
        title: above it, where there is one.
    """

    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = ()
    title: str = ""

    def render(self, kind: Format = "markdown") -> str:
        """The table as a text."""
        return {"markdown": self._markdown, "latex": self._latex, "csv": self._csv}[kind]()

    def _markdown(self) -> str:
        def line(cells: Sequence[str]) -> str:
            escaped = (cell.replace("|", "\\|") for cell in cells)
            return "| " + " | ".join(f"**{e}**" if isinstance(c, Bold) else e for e, c in zip(escaped, cells)) + " |"

        head = [f"### {self.title}", ""] if self.title else []
        below = ["", *(f"- {note}" for note in self.notes)]
        rule = "| --- " * len(self.headings) + "|"
        return "\n".join([*head, line(self.headings), rule, *map(line, self.rows), *below]) + "\n"

    def _latex(self) -> str:
        def line(cells: Sequence[str]) -> str:
            return " & ".join(rf"\textbf{{{_tex(c)}}}" if isinstance(c, Bold) else _tex(c) for c in cells) + r" \\"

        head = [f"% {self.title}"] if self.title else []
        return (
            "\n".join(
                [
                    *head,
                    rf"\begin{{tabular}}{{l{'r' * (len(self.headings) - 1)}}}",
                    r"\toprule",
                    line(self.headings),
                    r"\midrule",
                    *map(line, self.rows),
                    r"\bottomrule",
                    r"\end{tabular}",
                    *(f"% {note}" for note in self.notes),
                ]
            )
            + "\n"
        )

    def _csv(self) -> str:
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(self.headings)
        writer.writerows(self.rows)
        return text.getvalue()


_TEX = {
    "\\": r"\textbackslash{}",
    **{letter: "\\" + letter for letter in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "→": r"$\to$",
}


def _tex(text: str) -> str:
    return "".join(_TEX.get(letter, letter) for letter in text)


def format_of(out: Path | None, asked: Format | None = None) -> Format:
    """The format of a table that is written to `out`, or printed.

    Raises:
        ValueError: for a suffix that is none of `SUFFIXES`, or is that of another format than asked for.
    """
    if out is None:
        return asked or "markdown"
    if out.suffix not in SUFFIXES:
        raise ValueError(
            f"{out}: a table is written as {', '.join(SUFFIXES)}, and {out.suffix or 'no suffix'} is none."
        )
    if asked and SUFFIXES[out.suffix] != asked:
        raise ValueError(
            f"{out} would be {SUFFIXES[out.suffix]}, and --format asks for {asked}; leave one of them out."
        )
    return SUFFIXES[out.suffix]


def measured(metrics: Mapping[str, float], protocols: Mapping[str, str]) -> str:
    """Measurements as lines, and below them how each group was measured."""
    shown = {name: value for name, value in metrics.items() if "validation@" not in name}
    width = max(map(len, shown), default=0)
    lines = [f"  {name:{width}}  {value:8.3f}" for name, value in shown.items()]
    return "\n".join(["measured:", *lines, "how:", *(f"  {name}: {text}" for name, text in protocols.items())])


def comparison(records: Sequence[Record], kind: Format = "markdown") -> str:
    """A table with one row for each recipe: mean and spread of the seeds, and every seed's number.

    Runs of one recipe that differ in the seed alone make one row; where runs of one name differ in more, their rows
    say in what, and where they are of several data sets, a column says of which. With n > 1 seeds a cell reads
    `mean ± standard deviation` (of the sample, n - 1), with one seed the number alone. The protocols stand below.

    Raises:
        ValueError: without records, or where two records are the same run.
    """
    if not records:
        raise ValueError("there are no records to compare; name run folders, or a folder that holds them.")
    rows = _rows(records)
    columns = _columns(records)
    sets = {record.recipe.get("data", {}).get("source", "") for record in records}
    headings = ["recipe", *(["data"] if len(sets) > 1 else []), "seeds", *columns.values(), "image passes", "each seed"]
    lines = []
    for name, group in rows.items():
        group.sort(key=lambda record: record.seed)
        source = [group[0].recipe.get("data", {}).get("source", "")] if len(sets) > 1 else []
        cells = [mean_and_spread([record.metrics[m] for record in group if m in record.metrics]) for m in columns]
        each = "; ".join(
            f"{record.seed}: "
            + ", ".join(f"{record.metrics[m]:.2f}" for m in [m for m in columns if m in record.metrics][:2])
            for record in group
        )
        passes = " / ".join(sorted({f"{record.images_passed:,}" for record in group}))
        lines.append([name, *source, str(len(group)), *cells, passes, each])
    protocols = dict.fromkeys(f"{key}: {text}" for record in records for key, text in record.protocols.items())
    return Table(headings, lines, tuple(protocols)).render(kind)


def _columns(records: Sequence[Record]) -> dict[str, str]:
    """The metrics that the records have and how they are called: by the records themselves, or by `COLUMNS`."""
    named = {metric: heading for record in records for metric, heading in record.columns.items()}
    known = COLUMNS | named
    return {metric: known[metric] for metric in known if any(metric in record.metrics for record in records)}


def _rows(records: Sequence[Record]) -> dict[str, list[Record]]:
    """The records of each row, by its name."""
    rows: dict[str, list[Record]] = {}
    for record, name in zip(records, distinct_names(records)):
        rows.setdefault(name, []).append(record)
    for name, group in list(rows.items()):
        if _repeated(group) and len({_teacher(record) for record in group}) > 1:
            del rows[name]
            for record in group:
                rows.setdefault(f"{name} (method.teacher {_teacher(record)})", []).append(record)
    for name, group in rows.items():
        if _repeated(group):
            seeds = sorted(record.seed for record in group)
            raise ValueError(f"the recipe {name!r} occurs twice with one seed ({seeds}); each run counts once.")
    return rows


def _repeated(group: Sequence[Record]) -> bool:
    return len({record.seed for record in group}) < len(group)


def _teacher(record: Record) -> str:
    return str(record.recipe.get("method", {}).get("teacher", ""))


def distinct_names(records: Sequence[Record]) -> list[str]:
    """The recipe of each record, with the fields in which its settings differ from others of that name."""
    settings = [{k: v for k, v in flat(record.recipe).items() if k not in INCIDENTAL} for record in records]
    values: dict[str, dict[str, list[object]]] = {}  # name -> field -> the values that namesakes have
    for own in settings:
        of_name = values.setdefault(own["name"], {})
        for field, value in own.items():
            seen = of_name.setdefault(field, [])
            if value not in seen:
                seen.append(value)
    names = []
    for own in settings:
        varied = [field for field in own if len(values[own["name"]][field]) > 1]
        names.append(own["name"] + (f" ({', '.join(f'{field} {own[field]}' for field in varied)})" if varied else ""))
    return names


def filled(text: str, runs: str, table: str) -> str:
    """`text` with `table` between `<!-- relatum table RUNS -->` and the next `<!-- end -->`.

    Args:
        text: with the place in it.
        runs: what the table is made of; a command that starts with "relatum" stands for itself.
        table: what is put there.

    Raises:
        ValueError: for a text without that place.
    """
    made_by = runs if runs.startswith("relatum ") else f"relatum table {runs}"
    start, end = f"<!-- {made_by} -->\n", "<!-- end -->"
    if start not in text or end not in text.partition(start)[2]:
        raise ValueError(f"there is no place for the table: expected the lines {start.strip()} and {end} in the text.")
    before, _, rest = text.partition(start)
    return f"{before}{start}{table}{end}{rest.partition(end)[2]}"


def mean_and_spread(values: Sequence[float]) -> str:
    """`mean ± standard deviation` of the sample, the number alone where there is one, nothing where there is none."""
    if not values:
        return ""
    mean = statistics.mean(values)
    return f"{mean:.2f} ± {statistics.stdev(values):.2f}" if len(values) > 1 else f"{mean:.2f}"
