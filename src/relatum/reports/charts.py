"""Charts of Records and answers as Vega-Lite, drawn in the reader's browser: no image is made here.

Each chart carries a description in words, which becomes the label that screen readers read.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import altair as alt

from relatum.reports.records import BESIDE_LOSSES, Record, is_measurement

HEIGHT = 280  # pixels of a chart; its width is that of its place on the page


class Difference(NamedTuple):
    """How one row of a table differs from the baseline.

    Attributes:
        row: the name of the row.
        mean: the mean of the paired differences, in the metric's unit.
        low, high: the confidence interval of the mean.
        seeds: the number of pairs.
        told_apart: whether the difference is called one.
    """

    row: str
    mean: float
    low: float
    high: float
    seeds: int
    told_apart: bool


def measured_while_training(groups: Mapping[str, Sequence[Record]]) -> list[str]:
    """The names of what was measured between epochs in any run, in the order of their first appearance."""
    names = (n for records in groups.values() for r in records for entry in r.history for n in entry)
    return [n for n in dict.fromkeys(names) if is_measurement(n)]


def curves(groups: Mapping[str, Sequence[Record]], metric: str, title: str) -> alt.LayerChart | None:
    """One measurement, epoch by epoch: the mean over the seeds of each group, and a band from the least to the largest.

    Args:
        groups: Records by the name of their row.
        metric: a key of the history; "loss" is the sum of all loss terms.
        title: the heading of the vertical axis.

    Returns:
        the chart; None where no run has measured it.
    """
    rows: list[dict[str, Any]] = []
    for name, records in groups.items():
        values: dict[int, list[float]] = {}
        for record in records:
            for entry in record.history:
                value = _loss(entry) if metric == "loss" else entry.get(metric)
                if value is not None:
                    values.setdefault(int(entry["epoch"]), []).append(float(value))
        rows += [
            {"row": name, "epoch": e, "mean": sum(v) / len(v), "low": min(v), "high": max(v), "seeds": len(v)}
            for e, v in sorted(values.items())
        ]
    if not rows:
        return None
    picked = alt.selection_point(fields=["row"], bind="legend")
    faint = alt.condition(picked, alt.value(1.0), alt.value(0.1))
    base = alt.Chart(alt.Data(values=rows)).encode(
        x=alt.X("epoch:Q", title="epoch", axis=alt.Axis(format="d", tickMinStep=1)),
        color=alt.Color("row:N", title=None, sort=list(groups)),
    )
    band = base.mark_area().encode(
        y=alt.Y("low:Q", title=title, scale=alt.Scale(zero=False)),
        y2="high:Q",
        opacity=alt.condition(picked, alt.value(0.18), alt.value(0.03)),
    )
    tips = [
        alt.Tooltip("row:N", title="row"),
        alt.Tooltip("epoch:Q", title="epoch"),
        alt.Tooltip("mean:Q", title="mean", format=".4g"),
        alt.Tooltip("low:Q", title="least", format=".4g"),
        alt.Tooltip("high:Q", title="largest", format=".4g"),
        alt.Tooltip("seeds:Q", title="seeds"),
    ]
    few = max(row["epoch"] for row in rows) <= 40
    line = base.mark_line(point=few).encode(y="mean:Q", tooltip=tips, opacity=faint)
    return (
        (band + line)
        .add_params(picked)
        .properties(
            width="container",
            height=HEIGHT,
            description=f"{title} over the epochs for {', '.join(groups)}: mean over seeds, band from least to largest",
        )
    )


def differences(found: Sequence[Difference], metric: str, baseline: str) -> alt.LayerChart:
    """The mean difference of each row to the baseline with its interval; a full dot where it is told apart.

    Args:
        found: one entry a row.
        metric: the heading of what was measured.
        baseline: the row that is subtracted.
    """
    values = [
        d._asdict() | {"verdict": "told apart" if d.told_apart else "not told apart", "n": d.seeds} for d in found
    ]
    base = alt.Chart(alt.Data(values=values)).encode(y=alt.Y("row:N", sort=[d.row for d in found], title=None))
    tips = [
        alt.Tooltip("row:N", title="row"),
        alt.Tooltip("mean:Q", title="difference", format="+.2f"),
        alt.Tooltip("low:Q", title="from", format="+.2f"),
        alt.Tooltip("high:Q", title="to", format="+.2f"),
        alt.Tooltip("n:Q", title="seeds"),
        alt.Tooltip("verdict:N", title="verdict"),
    ]
    color = alt.Color("verdict:N", title=None, scale=alt.Scale(domain=["told apart", "not told apart"]))
    bars = base.mark_rule(strokeWidth=3).encode(
        x=alt.X("low:Q", title=f"{metric}: difference to {baseline}"), x2="high:Q", color=color, tooltip=tips
    )
    dots = base.mark_point(size=90, filled=True, opacity=1).encode(x="mean:Q", color=color, tooltip=tips)
    zero = alt.Chart(alt.Data(values=[{"x": 0}])).mark_rule(strokeDash=[4, 4], opacity=0.6).encode(x="x:Q")
    return (zero + bars + dots).properties(
        width="container",
        height=max(60, 26 * len(found)),
        description="; ".join(
            f"{d.row}: {d.mean:+.2f} ({d.low:+.2f} to {d.high:+.2f}), {d.seeds} seeds" for d in found
        ),
    )


def cost_against(groups: Mapping[str, Sequence[Record]], metric: str, title: str) -> alt.LayerChart | None:
    """Training time against one metric: a dot a run, a larger one for the mean of each row.

    Args:
        groups: Records by the name of their row.
        metric: a key of `Record.metrics`.
        title: its heading.
    """
    runs: list[dict[str, Any]] = [
        {"row": name, "minutes": r.seconds / 60, "value": r.metrics[metric], "seed": r.seed}
        for name, records in groups.items()
        for r in records
        if metric in r.metrics
    ]
    if not runs:
        return None
    means = []
    for name in groups:
        own = [run for run in runs if run["row"] == name]
        if own:
            minutes, value = (sum(run[key] for run in own) / len(own) for key in ("minutes", "value"))
            means.append({"row": name, "seeds": len(own), "minutes": minutes, "value": value})
    color = alt.Color("row:N", title=None, sort=list(groups))
    x = alt.X("minutes:Q", title="minutes of training", scale=alt.Scale(zero=False))
    y = alt.Y("value:Q", title=title, scale=alt.Scale(zero=False))
    tips = [
        alt.Tooltip("row:N", title="row"),
        alt.Tooltip("minutes:Q", format=".2f"),
        alt.Tooltip("value:Q", title=title, format=".2f"),
    ]
    small = alt.Chart(alt.Data(values=runs)).mark_point(size=28, filled=True, opacity=0.45)
    large = alt.Chart(alt.Data(values=means)).mark_point(size=160, filled=True, opacity=1)
    return (
        small.encode(x=x, y=y, color=color, tooltip=[*tips, alt.Tooltip("seed:Q", title="seed")])
        + large.encode(x=x, y=y, color=color, tooltip=[*tips, alt.Tooltip("seeds:Q", title="mean of seeds")])
    ).properties(
        width="container",
        height=HEIGHT,
        description=f"{title} against minutes of training: "
        + "; ".join(f"{m['row']}: {m['value']:.2f} in {m['minutes']:.1f} minutes" for m in means),
    )


def sensitivity(points: Mapping[float, Sequence[float]], field: str, title: str) -> alt.LayerChart:
    """One metric over the values of one field of the recipe: the mean over seeds, and every seed.

    Args:
        points: the metric of each seed, by the value of the field.
        field: the name of the field.
        title: the heading of the metric.
    """
    rows = [{"x": x, "y": y} for x, ys in points.items() for y in ys]
    means = [{"x": x, "y": sum(ys) / len(ys)} for x, ys in sorted(points.items())]
    positive = [x for x in points if x > 0]
    wide = len(positive) == len(points) and max(positive) / min(positive) >= 10
    x = alt.X("x:Q", title=field, scale=alt.Scale(type="log") if wide else alt.Scale(zero=False))
    y = alt.Y("y:Q", title=title, scale=alt.Scale(zero=False))
    tips = [alt.Tooltip("x:Q", title=field), alt.Tooltip("y:Q", title=title, format=".2f")]
    dots = (
        alt.Chart(alt.Data(values=rows)).mark_point(size=28, filled=True, opacity=0.45).encode(x=x, y=y, tooltip=tips)
    )
    line = alt.Chart(alt.Data(values=means)).mark_line(point=True).encode(x=x, y=y, tooltip=tips)
    return (line + dots).properties(
        width="container",
        height=HEIGHT,
        description=f"{title} by {field}: " + "; ".join(f"{m['x']:g}: {m['y']:.2f}" for m in means),
    )


def _loss(entry: Mapping[str, int | float]) -> float | None:
    terms = [float(v) for name, v in entry.items() if name not in BESIDE_LOSSES and not is_measurement(name)]
    return sum(terms) if terms else None
