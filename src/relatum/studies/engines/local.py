"""The runs of a study as processes of this machine."""

import os
import queue
import subprocess
import threading
from collections.abc import Sequence
from pathlib import Path

from relatum.studies.engines import Ended, Engine, Job
from relatum.studies.engines.payload import child, environment, how

PATIENCE = 10  # seconds that a run has to end by itself before it is killed


class Local(Engine):
    """As many processes at once as there are slots; a thread waits for each, so that its end is seen at once."""

    def __init__(self, jobs: int) -> None:
        self.slots = jobs
        self._ended: queue.SimpleQueue[Ended] = queue.SimpleQueue()
        self._running: dict[Job, subprocess.Popen[bytes]] = {}

    def start(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            process = child(job.argv, job.log, environment((os.cpu_count() or 1) // self.slots))
            self._running[job] = process
            threading.Thread(target=self._watch, args=(job, process), daemon=True).start()

    def _watch(self, job: Job, process: "subprocess.Popen[bytes]") -> None:
        code = process.wait()
        self._ended.put(Ended(job, code if code >= 0 else None, how(code)))

    def wait(self, seconds: float) -> list[Ended]:
        try:
            found = [self._ended.get(timeout=seconds)]
        except queue.Empty:
            return []
        while not self._ended.empty():
            found.append(self._ended.get())
        for ended in found:
            del self._running[ended.job]
        return found

    def close(self) -> None:
        for process in self._running.values():
            if process.poll() is None:
                process.terminate()
        for process in self._running.values():
            try:
                process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()


def start(jobs: int, folder: Path, options: dict[str, str]) -> Local:
    """The engine of this machine, which has no options."""
    if options:
        raise ValueError(f"the local engine has no option {next(iter(options))!r}.")
    if jobs < 1:
        raise ValueError(
            f"--jobs is {jobs}; expected at least one run at a time (this machine has {os.cpu_count()} cores)."
        )
    return Local(jobs)
