"""The runs of a study on a Slurm cluster, as job arrays: `--engine slurm --option partition=gpu --option minutes=240`.

submitit writes the batch script and submits it. Whether a job still is in the queue is asked of squeue, which needs no
accounting; whether it is done, of its run folder. A job that Slurm pre-empts or requeues goes on by itself, since its
command goes on with a run; one that is cancelled, or past its time limit, leaves the queue and is submitted again.
"""

import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from relatum.studies.engines import Ended, Engine, Job
from relatum.studies.engines.payload import call

OPTIONS = {"minutes": "240", "partition": "", "cpus": "1", "gpus": "0", "memory": ""}
POLL = 1.0  # seconds between two questions to squeue
FOUND_DEAD = 3  # questions that find a job in no state before it is one that has left


class Slurm(Engine):
    """An array for all commands that are started together.

    Args:
        jobs: how many at once.
        folder: for the batch scripts and what Slurm itself prints.
        options: `minutes` (the time limit), `partition`, `cpus`, `gpus` and `memory` (such as 8GB) of a run.

    Raises:
        RuntimeError: where there is no Slurm.
    """

    def __init__(self, jobs: int, folder: Path, options: Mapping[str, str]) -> None:
        import submitit

        self.slots, self._cores = jobs, int(options["cpus"])
        try:
            _squeue([])
        except (OSError, subprocess.CalledProcessError) as error:
            said = (getattr(error, "stderr", "") or str(error)).strip().splitlines()[-1:]
            raise RuntimeError(
                f"no Slurm cluster answers here ({''.join(said)}); run the study on a machine where `squeue` works."
            ) from None
        self._submit = submitit.AutoExecutor(folder=str(folder), cluster="slurm")
        wanted: dict[str, Any] = {
            "name": "relatum",
            "timeout_min": int(options["minutes"]),
            "cpus_per_task": int(options["cpus"]),
            "slurm_array_parallelism": jobs,
            "slurm_use_srun": False,
            "slurm_additional_parameters": {"requeue": True},
        }
        wanted |= {"slurm_partition": options["partition"]} if options["partition"] else {}
        wanted |= {"gpus_per_node": int(options["gpus"])} if int(options["gpus"]) else {}
        wanted |= {"slurm_mem": options["memory"]} if options["memory"] else {}
        self._submit.update_parameters(**wanted)
        self._running: dict[str, Job] = {}
        self._missed: dict[str, int] = {}

    def start(self, jobs: Sequence[Job]) -> None:
        argvs, logs = [list(job.argv) for job in jobs], [str(job.log.resolve()) for job in jobs]
        submitted = self._submit.map_array(Payload(self._cores, str(Path.cwd())), argvs, logs)
        self._running |= {handle.job_id: job for handle, job in zip(submitted, jobs)}

    def wait(self, seconds: float) -> list[Ended]:
        until = time.monotonic() + seconds
        while self._running:
            queued = _squeue(list(self._running))
            for job_id in list(self._running):
                self._missed[job_id] = 0 if job_id in queued else self._missed.get(job_id, 0) + 1
            gone = [job_id for job_id, missed in self._missed.items() if missed >= FOUND_DEAD]
            if gone:
                return [self._ended(job_id) for job_id in gone]
            if time.monotonic() > until:
                break
            time.sleep(POLL)
        return []

    def _ended(self, job_id: str) -> Ended:
        """The exit status that the payload wrote, if it came to its end."""
        del self._missed[job_id]
        job = self._running.pop(job_id)
        status = status_of(job.log)
        code = int(status.read_text()) if status.is_file() else None
        reason = f"exit status {code}" if code is not None else f"job {job_id} left the queue before it ended"
        return Ended(job, code, reason)

    def close(self) -> None:
        if self._running:
            subprocess.run(["scancel", *self._running], check=False, capture_output=True)


class Payload:
    """A command in a job of Slurm: what submitit pickles, with plain types alone."""

    def __init__(self, cores: int, folder: str) -> None:
        self.cores, self.folder = cores, folder

    def __call__(self, argv: list[str], log: str) -> int:
        status = status_of(Path(log))
        status.unlink(missing_ok=True)
        code = call(argv, log, self.cores, self.folder)
        if code >= 0:
            status.write_text(str(code))
        return code


def status_of(log: Path) -> Path:
    """Where the payload leaves its exit status: beside its log."""
    return log.with_suffix(".status")


def _squeue(job_ids: Sequence[str]) -> set[str]:
    """Which of the jobs are queued or run, by their ids as submitit writes them, such as 17_3."""
    found = subprocess.run(
        ["squeue", "--noheader", "--array", "--me", "--format", "%i %t"], capture_output=True, text=True, check=True
    )
    rows = (line.split() for line in found.stdout.splitlines())
    return {row[0] for row in rows if row and row[0] in job_ids}


def start(jobs: int, folder: Path, options: dict[str, str]) -> Slurm:
    """The engine of a Slurm cluster."""
    for name in options:
        if name not in OPTIONS:
            raise ValueError(f"the engine slurm has no option {name!r}; expected one of {', '.join(OPTIONS)}.")
    return Slurm(jobs, folder, OPTIONS | options)
