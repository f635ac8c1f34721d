"""Tables: pure functions of Records, as Markdown or as lines for a terminal."""

import statistics
from collections.abc import Mapping, Sequence

from relatum.reports.records import Record, flat

COLUMNS = {
    "top1": "top-1",
    "top5": "top-5",
    "knn_top1": "k-NN",
    "linear_top1": "linear",
    "calibration_error": "ECE",
}
"""The metrics that a table shows, in this order, and their headings."""

INCIDENTAL = {"train.seed", "train.threads", "train.log_every", "data.root", "data.workers", "evaluation.figures"}
"""The fields of a recipe in which two seeds of one setting may differ."""


def measured(metrics: Mapping[str, float], protocols: Mapping[str, str]) -> str:
    """Measurements as lines, and below them how each group was measured."""
    shown = {name: value for name, value in metrics.items() if "@" not in name}
    width = max(map(len, shown), default=0)
    lines = [f"  {name:{width}}  {value:8.3f}" for name, value in shown.items()]
    return "\n".join(["measured:", *lines, "how:", *(f"  {name}: {text}" for name, text in protocols.items())])


def comparison(records: Sequence[Record]) -> str:
    """A Markdown table, one row for each recipe: mean and spread of the seeds, and every seed's number.

    Runs of one recipe that differ in the seed alone make one row; where runs of one name differ in more, their rows
    say in what. With n > 1 seeds a cell reads `mean ± standard
    deviation` (of the sample, n - 1), with one seed the number alone. The protocols stand below the table.

    Raises:
        ValueError: without records, or where two records are the same run.
    """
    if not records:
        raise ValueError("there are no records to compare; name run folders, or a folder that holds them.")
    rows: dict[str, list[Record]] = {}
    for record, name in zip(records, _names(records)):
        rows.setdefault(name, []).append(record)
    for name, group in rows.items():
        seeds = [record.seed for record in group]
        if len(set(seeds)) < len(seeds):
            raise ValueError(f"the recipe {name!r} occurs twice with one seed ({sorted(seeds)}); each run counts once.")
    shown = [metric for metric in COLUMNS if any(metric in record.metrics for record in records)]
    lines = [
        "| " + " | ".join(["recipe", "seeds", *(COLUMNS[m] for m in shown), "image passes", "each seed"]) + " |",
        "| --- " * (len(shown) + 4) + "|",
    ]
    for name, group in rows.items():
        group.sort(key=lambda record: record.seed)
        cells = [_cell([record.metrics[m] for record in group if m in record.metrics]) for m in shown]
        each = "; ".join(
            f"{record.seed}: "
            + ", ".join(f"{record.metrics[m]:.2f}" for m in [m for m in shown if m in record.metrics][:2])
            for record in group
        )
        passes = " / ".join(sorted({f"{record.images_passed:,}" for record in group}))
        lines.append("| " + " | ".join([name, str(len(group)), *cells, passes, each]) + " |")
    protocols = dict.fromkeys(f"{key}: {text}" for record in records for key, text in record.protocols.items())
    return "\n".join([*lines, "", *(f"- {text}" for text in protocols)]) + "\n"


def _names(records: Sequence[Record]) -> list[str]:
    """The recipe of each record, with the fields in which its settings differ from others of that name."""
    settings = [{k: v for k, v in flat(record.recipe).items() if k not in INCIDENTAL} for record in records]
    names = []
    for own in settings:
        namesakes = [other for other in settings if other["name"] == own["name"]]
        varied = [field for field in own if any(other.get(field, own[field]) != own[field] for other in namesakes)]
        names.append(own["name"] + (f" ({', '.join(f'{field} {own[field]}' for field in varied)})" if varied else ""))
    return names


def filled(text: str, runs: str, table: str) -> str:
    """`text` with `table` between `<!-- relatum table RUNS -->` and the next `<!-- end -->`.

    Raises:
        ValueError: for a text without that place.
    """
    start, end = f"<!-- relatum table {runs} -->\n", "<!-- end -->"
    if start not in text or end not in text.partition(start)[2]:
        raise ValueError(f"there is no place for the table: expected the lines {start.strip()} and {end} in the text.")
    before, _, rest = text.partition(start)
    return f"{before}{start}{table}{end}{rest.partition(end)[2]}"


def _cell(values: Sequence[float]) -> str:
    if not values:
        return ""
    mean = statistics.mean(values)
    return f"{mean:.2f} ± {statistics.stdev(values):.2f}" if len(values) > 1 else f"{mean:.2f}"
