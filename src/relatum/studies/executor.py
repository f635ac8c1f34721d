"""Runs what a study lacks: one loop over any engine, one counter of attempts, and the truth in the run folders."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from relatum.core.statuses import HELD, REFUSED
from relatum.studies.engines import Ended, Engine, Job
from relatum.studies.engines.payload import free_space, last_lines
from relatum.studies.plan import Cell

LEAST_SPACE = 200 * 2**20  # bytes: below, nothing new is started
BUSY = 5.0  # seconds until a run whose folder another process holds is tried again
TICK = 2.0  # seconds between two looks at the run folders


@dataclass
class Outcome:
    """What became of the runs.

    Attributes:
        done: they have a whole Record.
        failed: with the last lines that they printed.
        waiting: on a run that failed, which is named.
    """

    done: list[Cell] = field(default_factory=list)
    failed: dict[Cell, str] = field(default_factory=dict)
    waiting: dict[Cell, Cell] = field(default_factory=dict)


class Executor:
    """Keeps an engine busy with the runs that are not done, in their order, each after what it needs.

    Args:
        cells: in order; what a cell needs stands before it.
        engine: what runs commands.
        done: whether a cell has its Record.
        usable: whether others can go on from it.
        argv: the command of a cell whose needs are done.
        retries: how often a run that was killed or lost is started again. An attempt that got further than the one
            before (a checkpoint more) does not count, and a command that was refused is not repeated.
        expected: seconds that cells take, by their folders, where they are known.
        say: takes each line about what goes on.
    """

    def __init__(
        self,
        cells: Sequence[Cell],
        engine: Engine,
        *,
        done: Callable[[Cell], bool],
        usable: Callable[[Cell], bool],
        argv: Callable[[Cell], Sequence[str]],
        retries: int = 2,
        expected: Mapping[Path, float] | None = None,
        say: Callable[[str], None] = print,
    ) -> None:
        self.engine, self.done, self.usable, self.argv, self.say = engine, done, usable, argv, say
        self.retries = retries
        self.outcome = Outcome()
        self.expected = dict(expected or {})
        self.pending = lacking(cells, done, usable)
        self.outcome.done = [cell for cell in cells if cell not in set(self.pending)]
        self.total = len(cells)
        self.running: dict[str, tuple[Cell, float, int]] = {}  # job name -> its cell, its start, its progress before
        self.attempts: dict[Cell, int] = {}
        self.busy_until: dict[Cell, float] = {}

    def run(self) -> Outcome:
        """Run until nothing is left that can be run.

        Raises:
            OSError: for a full disk, before something new is started; what runs is stopped.
        """
        try:
            while self.pending or self.running:
                self._set_aside_what_waits()
                self._start_what_can_start()
                if not self.running and not self.busy_until:
                    break
                if not self.running:
                    time.sleep(0.2)
                    continue
                for ended in self.engine.wait(TICK):
                    self._take(ended)
        finally:
            self.engine.close()
        return self.outcome

    def _set_aside_what_waits(self) -> None:
        for cell in list(self.pending):
            lost = next((n for n in cell.needs if n in self.outcome.failed or n in self.outcome.waiting), None)
            if lost is not None:
                self.pending.remove(cell)
                cause = self.outcome.waiting.get(lost, lost)
                self.outcome.waiting[cell] = cause
                self.say(f"{self._count()} waits  {cell.name}: on {cause.name}, which failed")

    def _start_what_can_start(self) -> None:
        jobs = []
        for cell in list(self.pending):
            if len(self.running) >= self.engine.slots:
                break
            if not all(need in self.outcome.done for need in cell.needs):
                continue
            if self.busy_until.get(cell, 0.0) > time.monotonic():
                continue
            self.busy_until.pop(cell, None)
            if self.done(cell):
                self.pending.remove(cell)
                self.outcome.done.append(cell)
                continue
            space = free_space(cell.folder)
            if space < LEAST_SPACE:
                raise OSError(
                    f"{cell.folder} cannot be written: {space // 2**20} MiB are free, expected at least "
                    f"{LEAST_SPACE // 2**20}. Make room, and start the study again: it goes on where it was."
                )
            self.pending.remove(cell)
            try:
                argv = tuple(self.argv(cell))
            except ValueError as error:
                self._fail(cell, str(error))
                continue
            jobs.append(Job(str(cell.folder), argv, log_of(cell)))
            self.running[str(cell.folder)] = (cell, time.monotonic(), progress(cell))
        if jobs:
            self.engine.start(jobs)

    def _take(self, ended: Ended) -> None:
        cell, start, before = self.running.pop(ended.job.name)
        seconds = time.monotonic() - start
        if self.done(cell):
            self.outcome.done.append(cell)
            self.expected.setdefault(cell.folder, seconds)
            self.say(f"{self._count()} done   {cell.name}, {seconds:.0f} s{self._left()}")
            return
        last = last_lines(ended.job.log)
        if ended.code == 0:
            self._fail(cell, f"the command ended well and left no record.json in {cell.folder}\n{last}")
            return
        if ended.code == HELD:
            # A process that an engine lost, and that lives on: it may end the run, and nobody else may write there.
            self.say(f"{self._count()} busy   {cell.name}: {last.splitlines()[-1]}")
            self.busy_until[cell] = time.monotonic() + BUSY
            self.pending.insert(0, cell)
            return
        self.attempts[cell] = 0 if progress(cell) > before else self.attempts.get(cell, 0) + 1
        if ended.code == REFUSED or self.attempts[cell] > self.retries:
            self._fail(cell, f"{ended.reason}\n{last}")
            return
        self.say(f"{self._count()} again  {cell.name}: {ended.reason}; {last.splitlines()[-1]}")
        self.pending.insert(0, cell)

    def _fail(self, cell: Cell, text: str) -> None:
        self.outcome.failed[cell] = text
        self.say(
            f"{self._count()} FAILED {cell.name}: " + text.replace("\n", "\n    ") + f"\n    all of it: {log_of(cell)}"
        )

    def _count(self) -> str:
        width = len(str(self.total))
        failed = f", {len(self.outcome.failed)} failed" if self.outcome.failed else ""
        return f"[{len(self.outcome.done):{width}}/{self.total}, {len(self.running)} running{failed}]"

    def _left(self) -> str:
        """The time that is left, from what was measured."""
        by_cell: dict[Path, list[float]] = {}
        for folder, seconds in self.expected.items():
            by_cell.setdefault(folder.parent, []).append(seconds)
        means = {folder: sum(values) / len(values) for folder, values in by_cell.items()}
        overall = sum(means.values()) / len(means)
        left = sum(means.get(cell.folder.parent, overall) for cell in self.pending)
        for cell, start, _ in self.running.values():
            left += max(0.0, means.get(cell.folder.parent, overall) - (time.monotonic() - start))
        return f"; about {duration(left / self.engine.slots)} left" if left else ""


def lacking(cells: Sequence[Cell], done: Callable[[Cell], bool], usable: Callable[[Cell], bool]) -> list[Cell]:
    """The runs of the grid that are not done, and of what is trained before only what they wait for."""
    found: set[Cell] = set()

    def add(cell: Cell) -> None:
        found.add(cell)
        for need in cell.needs:
            if not usable(need):
                add(need)

    for cell in cells:
        if cell.kind == "run" and not done(cell):
            add(cell)
    return [cell for cell in cells if cell in found]


def log_of(cell: Cell) -> Path:
    """What a run prints is beside its folder, which is the run's own."""
    return cell.folder.with_name(f"{cell.folder.name}.log")


def progress(cell: Cell) -> int:
    """How far a run has got: the number of its newest checkpoint's epoch, 0 before the first."""
    found = [path.stem.rpartition("-")[2] for path in (cell.folder / "checkpoints").glob("epoch-*.pt")]
    return max((int(number) for number in found if number.isdigit()), default=0)


def duration(seconds: float) -> str:
    """Seconds in the unit that people would use."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
