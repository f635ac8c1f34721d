"""What all benchmarks share: sides that take turns, the peak memory of each in a fresh process, and a JSON file.

A benchmark asks one question. Its cases are settings in which the question is asked, and a case has sides that do the
same work; the first is the one that all others are divided by. Every measurement runs in a fresh process with a fixed
number of threads: one process times all sides of a case in turns, forwards and backwards, after one turn that warms up
and is not counted, so that a drift of the machine's speed meets all sides alike; and one process for each side measures
the memory of a single run. Seconds of the clock and of this process's processor time are both kept, since only the
second is blind to what else the machine does.

The JSON holds each repeat, and `benchmarks.report` makes medians and ratios of it.
"""

import argparse
import ctypes
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from benchmarks.report import render

from relatum.reports import records
from relatum.training.hardware import processor

ROOT = Path(__file__).resolve().parent.parent
PEERS = ("lightly", "pytorch-metric-learning", "kornia", "torchdistill")

Outcome = Callable[[], Mapping[str, float]]
Job = Callable[[], Outcome | None]
"""One run of a side. What it returns tells, when asked outside the measured time, numbers in which all sides agree."""


@dataclass(frozen=True)
class Target:
    """A bound on a ratio, over the first side of its case, and what a paper reports for it.

    Attributes:
        side: whose ratio.
        what: `time`, or the name of a quantity such as `peak MiB`.
        at_most, at_least: the bound.
        paper: the published ratio.
    """

    side: str
    what: str = "time"
    at_most: float | None = None
    at_least: float | None = None
    paper: float | None = None


@dataclass(frozen=True)
class Case:
    """One setting of a question.

    Attributes:
        sides: name -> a function that makes the side's job: data, networks, and a warm-up of the libraries, none of
            which is measured. A side that raises is reported with its error; so is one whose library is missing.
        targets: what was asked for.
        tolerance: the largest relative difference of the jobs' outcomes.
        quantities: side -> more numbers of which ratios are made, each named with its unit.
        facts: side -> numbers that stand for themselves.
        environment: variables of the processes.
    """

    sides: Mapping[str, Callable[[], Job]]
    targets: Sequence[Target] = ()
    tolerance: float = 1e-3
    quantities: Callable[[str], Mapping[str, float]] = lambda side: {}
    facts: Callable[[str], Mapping[str, float]] = lambda side: {}
    environment: Mapping[str, str] | None = None


@dataclass(frozen=True)
class Benchmark:
    """A question and how to answer it.

    Attributes:
        name: of the module, and of its JSON.
        question: one line.
        work: what both sides do.
        limits: what the number does not say.
        arguments: adds the options of this benchmark to a parser.
        cases: options -> cases by name.
    """

    name: str
    question: str
    work: str
    limits: str
    arguments: Callable[[argparse.ArgumentParser], object]
    cases: Callable[[argparse.Namespace], Mapping[str, Case]]


def turns(names: Sequence[str], repeats: int) -> list[list[str]]:
    """The order of the sides in each turn: forwards, backwards, forwards, ..."""
    return [list(names[:: 1 if turn % 2 == 0 else -1]) for turn in range(repeats)]


def time_in_turns(
    jobs: Mapping[str, Job], repeats: int, wait: Callable[[], object] = lambda: None
) -> dict[str, dict[str, Any]]:
    """Seconds of each repeat of each job, the outcome of its first run, or the error that it raised.

    Args:
        jobs: name -> job.
        repeats: counted turns, after one that is not.
        wait: returns when the device has nothing left to do.
    """
    found: dict[str, dict[str, Any]] = {name: {"seconds": [], "cpu_seconds": []} for name in jobs}
    for turn, order in enumerate(turns(tuple(jobs), repeats + 1)):
        for name in order:
            if "error" in found[name]:
                continue
            wait()
            busy, start = time.process_time(), time.perf_counter()
            try:
                outcome = jobs[name]()
                wait()
            except Exception as error:
                found[name] = {"error": f"{type(error).__name__}: {error}".splitlines()[0]}
                continue
            if turn:
                found[name]["seconds"].append(time.perf_counter() - start)
                found[name]["cpu_seconds"].append(time.process_time() - busy)
            else:
                found[name]["outcome"] = dict(outcome()) if outcome else {}
    return found


def disagreement(outcome: Mapping[str, float], first: Mapping[str, float], tolerance: float) -> str | None:
    """Why two sides did not do the same work, or None if they did."""
    for name in outcome.keys() & first.keys():
        if not math.isclose(outcome[name], first[name], rel_tol=tolerance, abs_tol=1e-12):
            return f"not the same work: {name} is {outcome[name]:.6g}, the first side's {first[name]:.6g}"
    return None


def peak_bytes(job: Job, device: str) -> int:
    """The memory that one run needs beyond what is in use before it: of the GPU, or resident (Linux)."""
    if device != "cpu":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        job()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    ctypes.CDLL(None).malloc_trim(0)  # or the run would live in what building it has left behind
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts anew
    before = _resident("VmRSS")
    job()
    return max(_resident("VmHWM") - before, 0)


def _resident(field: str) -> int:
    status = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line.split()[1] for line in status if line.startswith(field)))


def run(benchmark: Benchmark, argv: Sequence[str] | None = None) -> None:
    """The command line of a benchmark: measure all cases, print the report, and write the JSON."""
    argv = sys.argv[1:] if argv is None else list(argv)
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{benchmark.name}", description=benchmark.question)
    benchmark.arguments(parser)
    parser.add_argument("--repeats", type=int, default=5, help="counted turns; 0 measures memory alone")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--memory", action=argparse.BooleanOptionalAction, default=True, help="measure peak memory too")
    parser.add_argument("--only", default="", help="measure the cases with this in their name")
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "benchmarks" / f"{benchmark.name}.json")
    parser.add_argument("--measure", choices=("time", "memory"), help=argparse.SUPPRESS)
    parser.add_argument("--case", help=argparse.SUPPRESS)
    parser.add_argument("--sides", nargs="+", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.repeats < (0 if args.memory else 1) or args.threads < 1:
        parser.error(
            f"--repeats is {args.repeats} and --threads {args.threads}; expected at least 1 of each, or --repeats 0 "
            "for memory alone"
        )
    cases = benchmark.cases(args)
    if args.measure:
        torch.set_num_threads(args.threads)
        print(json.dumps(_measure(cases[args.case], args)))
        return
    chosen = {name: case for name, case in cases.items() if args.only in name}
    if not chosen:
        parser.error(f"--only {args.only} is in no case; expected a part of one of: {'; '.join(cases)}")
    measured = [_measured(benchmark, name, case, args, argv) for name, case in chosen.items()]
    hidden = ("out", "only", "measure", "case", "sides")
    result = {
        "name": benchmark.name,
        "question": benchmark.question,
        "work": benchmark.work,
        "limits": benchmark.limits,
        "settings": {key: value for key, value in vars(args).items() if key not in hidden},
        "machine": machine(args.device, args.threads),
        "versions": versions(),
        "commit": records.commit(),
        "cases": measured,
    }
    args.out.parent.mkdir(parents=True, exist_ok=True)
    records.write_atomically(args.out, json.dumps(result, indent=1, default=str) + "\n")
    print(render([json.loads(args.out.read_text())]))


def _measured(
    benchmark: Benchmark, name: str, case: Case, args: argparse.Namespace, argv: Sequence[str]
) -> dict[str, Any]:
    """All of one case. Memory first: a side that dies of it is not timed."""
    threads = {f"{library}_NUM_THREADS": str(args.threads) for library in ("OMP", "MKL", "OPENBLAS")}
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    environment = os.environ | threads | {"PYTHONPATH": path} | dict(case.environment or {})

    def child(what: str, sides: Sequence[str]) -> dict[str, dict[str, Any]]:
        command = [sys.executable, "-m", f"benchmarks.{benchmark.name}", *argv]
        command += ["--measure", what, "--case", name, "--sides", *sides]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        if done.returncode:
            last = done.stderr.strip().splitlines()[-1:] or [f"ended by signal {-done.returncode}"]
            return {side: {"error": last[0]} for side in sides}
        return json.loads(done.stdout.splitlines()[-1])

    print(f"{benchmark.name}: {name} ...", file=sys.stderr, flush=True)
    found: dict[str, dict[str, Any]] = {side: {"seconds": [], "cpu_seconds": []} for side in case.sides}
    if args.memory:
        for side in case.sides:
            found[side] |= child("memory", [side])[side]
    alive = [side for side in found if "error" not in found[side]] if args.repeats else []
    for side, entry in (child("time", alive) if alive else {}).items():
        entry["quantities"] = found[side].get("quantities", {}) | entry.get("quantities", {})
        found[side] = entry
    return {
        "name": name,
        "sides": [{"name": side, **found[side]} for side in case.sides],
        "targets": [asdict(target) for target in case.targets],
    }


def _measure(case: Case, args: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """What the process of one measurement finds, by side."""
    found: dict[str, dict[str, Any]] = {}
    jobs: dict[str, Job] = {}
    for side in args.sides:
        try:
            jobs[side] = case.sides[side]()
        except ImportError as error:
            found[side] = {"error": f"not installed: {error}"}
    if args.measure == "memory":
        return found | {
            side: {"quantities": {"peak MiB": peak_bytes(job, args.device) / 2**20}} for side, job in jobs.items()
        }
    found |= time_in_turns(jobs, args.repeats, torch.cuda.synchronize if args.device != "cpu" else lambda: None)
    first = found[args.sides[0]].get("outcome", {})
    for side, entry in found.items():
        if "error" not in entry:
            entry |= {"quantities": dict(case.quantities(side)), "facts": dict(case.facts(side))}
            difference = disagreement(entry["outcome"], first, case.tolerance)
            if difference:
                found[side] = {"error": difference}
    return found


def machine(device: str, threads: int) -> dict[str, Any]:
    """Where the numbers are from."""
    return {
        "processor": processor(),
        "cores": os.cpu_count(),
        "threads": threads,
        "gpu": torch.cuda.get_device_name() if device != "cpu" else None,
        "load": os.getloadavg()[0],
    }


def versions() -> dict[str, str]:
    """Of Relatum, of what it runs on, and of the peers that are installed."""
    found = records.versions()
    for package in PEERS:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
