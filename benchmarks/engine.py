"""What the executor of studies adds to the commands that it runs."""

import argparse
import subprocess
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

from benchmarks.harness import Benchmark, Case, Job, Outcome, Target, run

from relatum.studies.engines import engine
from relatum.studies.executor import Executor
from relatum.studies.plan import Cell

XARGS = "xargs"


def command(seconds: float, done: Path) -> list[str]:
    return ["sh", "-c", f"sleep {seconds}; : > {done}"]


def by_relatum(args: argparse.Namespace, folder: Path) -> None:
    cells = [Cell("row", "column", seed, folder / f"{seed}", "demo", {}) for seed in range(args.commands)]

    def done(cell: Cell) -> bool:
        return (cell.folder / "done").exists()

    def argv(cell: Cell) -> list[str]:
        cell.folder.mkdir(exist_ok=True)
        return command(args.seconds, cell.folder / "done")

    local = engine("local", jobs=args.jobs, folder=folder / "jobs", options={})
    outcome = Executor(cells, local, done=done, usable=done, argv=argv, say=lambda line: None).run()
    assert len(outcome.done) == args.commands


def by_xargs(args: argparse.Namespace, folder: Path) -> None:
    lines = [" ".join(command(args.seconds, folder / f"{i}")[2:]) for i in range(args.commands)]
    words = ["xargs", "-P", str(args.jobs), "-d", "\n", "-n", "1", "sh", "-c"]
    subprocess.run(words, input="\n".join(lines), text=True, check=True)
    assert len(list(folder.iterdir())) == args.commands


def study(args: argparse.Namespace, way: Callable[[argparse.Namespace, Path], None]) -> Job:
    def job() -> Outcome:
        with tempfile.TemporaryDirectory() as folder:
            way(args, Path(folder))
        return dict

    return job


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--commands", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=1.0, help="that each command takes")
    parser.add_argument("--jobs", type=int, default=2, help="commands at once")


def cases(args: argparse.Namespace) -> dict[str, Case]:
    name = f"{args.commands} commands of {args.seconds:g} s, {args.jobs} at once"
    sides = {XARGS: partial(study, args, by_xargs), "relatum study": partial(study, args, by_relatum)}
    return {name: Case(sides, targets=[Target("relatum study", at_most=1.05)])}


BENCHMARK = Benchmark(
    name="engine",
    question="What does the executor of studies add to the commands that it runs?",
    work="the same commands, which sleep and write a file, in the same number at once; each is checked for its file.",
    limits="Slurm's and Ray's queues, and the start of Python and torch, which every run of a study pays itself.",
    arguments=arguments,
    cases=cases,
)

if __name__ == "__main__":
    run(BENCHMARK)
