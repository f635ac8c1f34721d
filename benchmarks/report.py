"""One page of all measurements: `python -m benchmarks.report` reads results/benchmarks/*.json, writes benchmarks.md.

The page is a function of those files alone. A ratio is that of a side over the first side of its case, turn by turn;
what is shown is the median of the turns and, in brackets, the least and the largest.
"""

import argparse
import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

TIMES = {"time": "seconds", "CPU": "cpu_seconds"}
RESULTS = Path(__file__).resolve().parent.parent / "results"

HEAD = """# Benchmarks

Written by `python -m benchmarks.report` from `results/benchmarks/*.json`; each benchmark is
`python -m benchmarks.NAME`. A ratio divides a side by the first side of its table, turn by turn in one process: the
median, and in brackets the least and the largest of the turns. Times are medians too. "CPU" is the same ratio in
processor time of the main process, which other programs disturb less. Peak memory is what one run needs beyond its
inputs, in a fresh process.
"""


class Spread(NamedTuple):
    """The median of some repeats, and their range."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        if self.low == self.high:
            return number(self.median)
        return f"{number(self.median)} ({number(self.low)} to {number(self.high)})"


def spread(values: Sequence[float]) -> Spread:
    """Median and range of at least one value."""
    return Spread(statistics.median(values), min(values), max(values))


def number(value: float) -> str:
    """Three digits that matter."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}" if abs(value) < 1 else f"{value:.2f}"


def ratio(side: Mapping[str, Any], first: Mapping[str, Any], what: str) -> Spread | None:
    """`side` over `first`, paired by turn for times; None where one of them has no such number.

    Args:
        what: `time`, `CPU`, or the name of a quantity.
    """

    def values(entry: Mapping[str, Any]) -> list[float]:
        if what in TIMES:
            return entry.get(TIMES[what], [])
        return [entry["quantities"][what]] if what in entry.get("quantities", {}) else []

    pairs = [a / b for a, b in zip(values(side), values(first)) if b > 0]
    return spread(pairs) if pairs else None


def table(case: Mapping[str, Any]) -> str:
    """One row for each side."""
    sides = case["sides"]
    first = sides[0]
    quantities = list(dict.fromkeys(name for side in sides for name in side.get("quantities", {})))
    facts = list(dict.fromkeys(name for side in sides for name in side.get("facts", {})))
    heads = ["side", "seconds", "ratio", "CPU"]
    heads += [head for name in quantities for head in (name, "ratio")] + facts
    lines = [_row(heads), _row(["---"] * len(heads))]
    for side in sides:
        if "error" in side:
            lines.append(_row([side["name"], side["error"].replace("|", "\\|"), *[""] * (len(heads) - 2)]))
            continue
        seconds = str(spread(side["seconds"])) if side["seconds"] else ""
        cells = [side["name"], seconds, *(_ratio(side, first, w) for w in ("time", "CPU"))]
        for name in quantities:
            value = side["quantities"].get(name)
            cells += ["" if value is None else number(value), _ratio(side, first, name)]
        lines.append(_row(cells + [number(side["facts"][name]) if name in side["facts"] else "" for name in facts]))
    return "\n".join(lines)


def verdicts(results: Iterable[Mapping[str, Any]]) -> list[list[str]]:
    """For each target: where, what, found, asked, published, and whether it was reached."""
    rows = []
    for result in results:
        for case in result["cases"]:
            sides = {side["name"]: side for side in case["sides"]}
            first = case["sides"][0]
            for target in case["targets"]:
                side = sides[target["side"]]
                found = None if "error" in side or "error" in first else ratio(side, first, target["what"])
                if found is None and "error" not in side and "error" not in first:
                    continue  # not measured in this run
                low, high = target["at_least"], target["at_most"]
                asked = f"at least {low:g}" if low is not None else f"at most {high:g}" if high is not None else ""
                reached = ""
                if asked:
                    met = found is not None and (low is None or found.median >= low)
                    reached = "yes" if met and (high is None or found.median <= high) else "no"
                paper = "" if target["paper"] is None else f"{target['paper']:g}"
                what = f"{target['what']}: {target['side']} over {first['name']}"
                shown = str(found) if found else "failed"
                where = f"{result['name']}, {case['name']}, {_device(result)}"
                rows.append([where, what, shown, asked, paper, reached])
    return rows


def render(results: Sequence[Mapping[str, Any]]) -> str:
    """The page, as Markdown: a pure function of what the benchmarks wrote."""
    parts = [HEAD]
    rows = verdicts(results)
    if rows:
        heads = ["where", "what", "found", "asked", "paper", "reached"]
        parts.append("\n".join(["## What was asked for\n", _row(heads), _row(["---"] * len(heads)), *map(_row, rows)]))
    for name in dict.fromkeys(result["name"] for result in results):
        group = [result for result in results if result["name"] == name]
        first = group[0]
        parts.append(f"## {name}: {first['question']}")
        parts.append(f"**Both sides:** {first['work']}\n\n**What the numbers do not say:** {first['limits']}")
        for result in group:
            parts.append(_origin(result))
            parts += [f"### {case['name']}\n\n{table(case)}" for case in result["cases"]]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def _origin(result: Mapping[str, Any]) -> str:
    machine, settings = result["machine"], result["settings"]
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items() if version)
    options = ", ".join(f"{name.replace('_', '-')} {_option(value)}" for name, value in settings.items())
    return (
        f"Measured on {_device(result)} ({machine['cores']} cores; load {machine['load']:.1f} at the end), commit "
        f"{result['commit'][:12] or 'unknown'}{'+' * result['commit'].endswith('+')}. Settings: {options}. {versions}."
    )


def _option(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def _device(result: Mapping[str, Any]) -> str:
    machine = result["machine"]
    return machine["gpu"] or f"{machine['processor']}, {machine['threads']} thread(s)"


def _ratio(side: Mapping[str, Any], first: Mapping[str, Any], what: str) -> str:
    if side is first:
        return "1"
    found = None if "error" in first else ratio(side, first, what)
    return str(found) if found else ""


def _row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def main(argv: Sequence[str] | None = None) -> None:
    """Write the page."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.report", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--results", type=Path, default=RESULTS / "benchmarks", help="the folder of the JSON files")
    parser.add_argument("--out", type=Path, default=RESULTS / "benchmarks.md")
    args = parser.parse_args(argv)
    files = sorted(args.results.glob("*.json"))
    if not files:
        raise FileNotFoundError(
            f"there is no JSON in {args.results}; run a benchmark first: python -m benchmarks.views"
        )
    args.out.write_text(render([json.loads(file.read_text()) for file in files]))
    print(f"{args.out}: {len(files)} benchmark(s)")


if __name__ == "__main__":
    main()
