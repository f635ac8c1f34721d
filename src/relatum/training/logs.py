"""What a run says as it goes: a progress bar, lines, TensorBoard, metrics.csv, and a tracker."""

import csv
import io
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from relatum.reports.records import BESIDE_LOSSES, write_atomically
from relatum.training.tracking import Tracker


class Logs:
    """The logs of one process; those of the first are written, the others' go nowhere.

    Args:
        folder: of the run; None for a process that writes nothing.
        quiet: no progress bar and no lines.
        epochs: of the whole run.
        steps: of an epoch.
        done: epochs that were done before this process started.
        tracker: what else is told; None for nothing.
    """

    def __init__(
        self,
        folder: Path | None,
        quiet: bool,
        *,
        epochs: int,
        steps: int,
        done: int = 0,
        tracker: Tracker | None = None,
    ) -> None:
        self.epochs, self.steps, self._first = epochs, steps, done * steps
        self._start = time.perf_counter()
        self.folder, self.quiet = folder, quiet or folder is None
        self._writer = SummaryWriter(folder / "tensorboard") if folder is not None else None
        self._tracker = tracker if folder is not None else None

    def __enter__(self) -> "Logs":
        return self

    def __exit__(self, *exception: object) -> None:
        if self._writer is not None:
            self._writer.close()
        if self._tracker is not None:
            self._tracker.close()

    def say(self, line: str) -> None:
        """Print a line."""
        if not self.quiet:
            print(line, flush=True)

    def bar(self, batches: Iterable[Any], epoch: int) -> Any:
        """The batches of an epoch behind a progress bar; a terminal gets it, a log file does not."""
        hidden, title = True if self.quiet else None, self.title(epoch, 0)
        return tqdm(batches, total=self.steps, desc=title, leave=False, disable=hidden, unit="step")

    def title(self, epoch: int, step: int) -> str:
        """The epoch, counted from 0, and after `step` of its steps the time left of all; the bar adds the epoch's."""
        return ", ".join([f"epoch {epoch + 1}/{self.epochs}", *self.left(epoch * self.steps + step)])

    def left(self, at: int) -> list[str]:
        """The time that the run takes from step `at` on, in words, if it goes on as it went since this process started.

        Measurements between epochs count as they came; nothing is said before the first step and after the last.
        """
        done, missing = at - self._first, self.epochs * self.steps - at
        if done <= 0 or missing <= 0:
            return []
        seconds = (time.perf_counter() - self._start) / done * missing
        return [f"{tqdm.format_interval(seconds)} left in all"]

    def look(self, means: Mapping[str, float], rate: float, at: int) -> None:
        """The mean of each loss term since the last look, and the learning rate, after `at` steps."""
        if self._writer is not None:
            for name, mean in means.items():
                self._writer.add_scalar(f"loss/{name}", mean, at)
            self._writer.add_scalar("learning_rate", rate, at)
        if self._tracker is not None:
            self._tracker.log({f"loss/{name}": mean for name, mean in means.items()} | {"learning_rate": rate}, at)

    def epoch(self, history: Sequence[Mapping[str, int | float]]) -> None:
        """The last entry of the history."""
        entry = history[-1]
        self.table(history)
        if self._writer is not None:
            for name, value in entry.items():
                self._writer.add_scalar(f"epoch/{name}", value, int(entry["epoch"]))
            self._writer.flush()
        if self._tracker is not None:
            self._tracker.log({f"epoch/{k}": v for k, v in entry.items()}, int(entry["epoch"]) * self.steps)
        words = "  ".join(f"{name} {value:.4g}" for name, value in entry.items() if name not in BESIDE_LOSSES)
        left = self.left(int(entry["epoch"]) * self.steps)
        self.say("  ".join([f"epoch {int(entry['epoch']):4d}  {entry['seconds']:6.1f} s", words, *left]))

    def final(self, metrics: Mapping[str, float]) -> None:
        """What was measured at the end, for the tracker: the Record has it too."""
        if self._tracker is not None:
            self._tracker.log({f"test/{name}": value for name, value in metrics.items()}, self.epochs * self.steps)

    def table(self, history: Sequence[Mapping[str, int | float]]) -> None:
        """Write metrics.csv: all of the history, which a checkpoint holds and this file only repeats.

        Lightning's CSVLogger adds rows to a file: after a kill, a run that goes on would have epochs there twice.
        """
        if self.folder is None or not history:
            return
        text = io.StringIO()
        rows = csv.DictWriter(text, list(dict.fromkeys(name for entry in history for name in entry)))
        rows.writeheader()
        rows.writerows(history)
        write_atomically(self.folder / "metrics.csv", text.getvalue())
