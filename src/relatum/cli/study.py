"""Run what a study lacks, on any engine, and tell its answer."""

import argparse
import shlex
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from relatum.reports.tables import Format
    from relatum.studies.executor import Outcome
    from relatum.studies.plan import Plan

USAGE = "[NAME] [--scale cpu] [--over FIELD=V,V] [--seeds 0-5] [--jobs N] [--dry-run]"


def run(args: Sequence[str]) -> None:
    """NAME [--scale cpu] [--seeds 0-5] [--jobs N] [--dry-run] ...: run a study, or any grid of a recipe's settings."""
    chosen = _parser().parse_args(args)
    if chosen.jobs < 1:
        raise ValueError(f"--jobs is {chosen.jobs}; expected at least one run at a time.")
    if chosen.verdicts:
        _verdicts(chosen)
        return
    if not chosen.name:
        _print_studies()
        return
    from dataclasses import replace

    from relatum.reports.tables import format_of
    from relatum.studies.catalog import grid_of
    from relatum.studies.plan import plan

    seeds = None if chosen.seeds is None else seeds_of(chosen.seeds)
    grid = grid_of(chosen.name, scale=chosen.scale, over=chosen.over, seeds=seeds, select=chosen.select)
    if chosen.baseline:
        grid = replace(grid, baseline=chosen.baseline)
    given = dict(_field(text) for text in chosen.set)
    found = plan(grid, chosen.runs, results=chosen.results, seeds=seeds, only=chosen.only, incidental=given)
    kind = format_of(chosen.out, chosen.format)  # refuses before hours of work
    if chosen.dry_run:
        _dry_run(found, chosen.jobs)
        return
    outcome = None
    if not chosen.answer:
        outcome = _run(found, chosen)
    if chosen.collect:
        from relatum.studies.answer import collect

        print(f"{collect(found)} Records collected in {found.results}", file=sys.stderr)
    _tell(found, chosen, kind)
    if outcome is not None and (outcome.failed or outcome.waiting):
        raise RuntimeError(
            f"{len(outcome.failed)} of {len(found.cells)} runs failed and {len(outcome.waiting)} wait on them; what "
            "they printed last stands above. The same command runs what is missing."
        )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="relatum study", description=__doc__, allow_abbrev=False)
    add = parser.add_argument
    add("name", nargs="?", default="", help="a study, or a recipe with --over; without it, all studies are listed")
    add("--scale", default="cpu", help="paper, gpu or cpu")
    add("--over", action="append", default=[], metavar="FIELD=V,V", help="vary a field of a recipe; may be repeated")
    add("--select", default="", metavar="METRIC", help="choose one row by this measurement of held-out images")
    add("--only", action="extend", nargs="+", default=[], metavar="ROW|COLUMN|PATTERN", help="these alone")
    add("--baseline", default="", metavar="ROW", help="compare with this row; one that was not planned is exploration")
    add("--seeds", metavar="0-5", help="numbers and ranges, such as 0-5 or 0,3,7")
    add("--set", action="append", default=[], metavar="FIELD=VALUE", help="of every run, such as data.root=/data")
    add("--jobs", type=int, default=1, help="runs at once")
    add("--engine", default="local", help="local, slurm or ray")
    add("--option", action="append", default=[], metavar="NAME=VALUE", help="of the engine, such as address=HOST:PORT")
    add("--retries", type=int, default=2, help="how often a run that was killed or lost is started again")
    add("--runs", type=Path, default=Path("runs"), help="the folder of run folders")
    add("--results", type=Path, default=Path("results"), help="the folder of collected Records")
    add("--collect", action="store_true", help="copy the Records of finished runs to --results")
    add("--dry-run", action="store_true", help="print the commands, one a line, and the hours")
    add("--verdicts", action="store_true", help="run nothing: tell what the Records say of the papers' claims")
    add("--answer", action="store_true", help="run nothing: tell what the Records say")
    add("--out", type=Path, help="write the answer there: .md, .tex or .csv, or into its place in a text")
    add("--format", choices=("markdown", "latex", "csv"), help="of the answer")
    return parser


def _field(text: str) -> tuple[str, object]:
    from relatum.studies.trees import parsed

    name, sign, value = text.partition("=")
    if not sign or not value:
        raise ValueError(f"--set {text}: expected a field and its value, such as --set data.root=/data")
    return name, parsed(value)


def _print_studies() -> None:
    from relatum.studies.catalog import studies

    known = studies()
    width = max(map(len, known))
    for name, found in known.items():
        print(f"  {name:{width}}  {found.question} ({', '.join(found.scales)})")


def seeds_of(text: str) -> list[int]:
    """The seeds that numbers and ranges name.

    Raises:
        ValueError: for anything else.
    """
    found: list[int] = []
    for part in text.split(","):
        first, dash, last = part.partition("-")
        if not first.isdigit() or (dash and not last.isdigit()) or (dash and int(last) < int(first)):
            raise ValueError(f"--seeds is {text!r}; expected numbers and ranges, such as 0-5 or 0,3,7.")
        found += range(int(first), int(last if dash else first) + 1)
    return list(dict.fromkeys(found))


def _dry_run(found: "Plan", jobs: int) -> None:
    from relatum.studies.executor import duration, lacking
    from relatum.studies.plan import command, measured_seconds

    missing = lacking(found.cells, found.done, found.usable)
    later = 0
    for cell in missing:
        if cell.choice is not None and not all(map(found.done, cell.needs)):
            later += 1
            continue
        print(shlex.join(command(found.resolved(cell))))
    seconds = measured_seconds(found)
    known = [seconds[cell.folder] for cell in missing if cell.folder in seconds]
    lines = [f"{len(found.cells)} runs, {len(found.cells) - len(missing)} of them done or not needed any more"]
    if later:
        lines.append(f"{later} more runs get their settings from the trials above, and follow them")
    if known:
        lines.append(
            f"{len(known)} of the {len(missing)} that are missing have been measured: {duration(sum(known))} of "
            f"training in all, about {duration(sum(known) / jobs)} with {jobs} at once"
        )
    if len(known) < len(missing):
        lines.append(f"{len(missing) - len(known)} have not been measured: nobody knows how long they take")
    print("\n".join(f"# {line}" for line in lines), file=sys.stderr)


def _run(found: "Plan", chosen: argparse.Namespace) -> "Outcome | None":
    from relatum.studies.engines import engine
    from relatum.studies.executor import Executor, lacking
    from relatum.studies.plan import command, measured_seconds

    options = dict(text.partition("=")[::2] for text in chosen.option)
    if not lacking(found.cells, found.done, found.usable):
        return None
    started = engine(chosen.engine, jobs=chosen.jobs, folder=chosen.runs / ".engine", options=options)

    executor = Executor(
        found.cells,
        started,
        done=found.done,
        usable=found.usable,
        argv=lambda cell: command(found.resolved(cell)),
        retries=chosen.retries,
        expected=measured_seconds(found),
        say=lambda line: print(line, file=sys.stderr, flush=True),
    )
    with _terminated_like_interrupted():
        return executor.run()


@contextmanager
def _terminated_like_interrupted() -> Iterator[None]:
    """SIGTERM and SIGINT both stop the runs before they stop the study, even where a shell has set SIGINT aside."""
    before = {number: signal.signal(number, signal.default_int_handler) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _verdicts(chosen: argparse.Namespace) -> None:
    from relatum.reports.tables import format_of
    from relatum.studies.verdicts import verdicts

    if chosen.name:
        raise ValueError(f"--verdicts is of all studies; leave {chosen.name!r} out.")
    kind = format_of(chosen.out, chosen.format)
    _write(verdicts(chosen.runs, chosen.results).render(kind), "relatum study --verdicts", chosen.out)


def _tell(found: "Plan", chosen: argparse.Namespace, kind: "Format") -> None:
    from relatum.studies.answer import answer

    place = f"relatum study {chosen.name} --scale {found.grid.scale}"
    if chosen.baseline:
        place += f" --baseline {shlex.quote(chosen.baseline)}"
    _write(answer(found, kind), place, chosen.out)


def _write(text: str, place: str, out: Path | None) -> None:
    """Print a text, or write it: into its place in a text that has one."""
    from relatum.reports.records import write_atomically
    from relatum.reports.tables import filled

    if out is None:
        print(text, end="")
        return
    old = out.read_text(encoding="utf-8") if out.is_file() else ""
    write_atomically(out, filled(old, place, text) if f"<!-- {place} -->" in old else text)
