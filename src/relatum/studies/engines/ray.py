"""The runs of a study on a Ray cluster that is there: `--engine ray --option address=HOST:PORT`.

Ray only carries commands. Its own retries are off, so that there is one counter of attempts, ours; a run that is lost
with its node is started again elsewhere, and the lease in its folder stands against one that outlived its node. The
cluster's machines see the same run folders, and have the same Python.
"""

import logging
import os
import socket
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from relatum.studies.engines import Ended, Engine, Job
from relatum.studies.engines.payload import call

OPTIONS = {"address": "auto", "cpus": "1", "gpus": "0"}
PATIENCE = 5.0  # seconds in which a cluster that is there answers


class Ray(Engine):
    """A task for each command.

    Args:
        jobs: how many at once.
        options: `address` of the cluster, and the `cpus` and `gpus` of a run.

    Raises:
        RuntimeError: where no cluster answers.
    """

    def __init__(self, jobs: int, options: dict[str, str]) -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        import ray

        self.ray, self.slots = ray, jobs
        try:
            if not ray.is_initialized():
                _knock(options["address"])
                ray.init(address=options["address"], log_to_driver=False, logging_level=logging.ERROR)
        except (OSError, RuntimeError, ValueError) as error:
            raise RuntimeError(
                f"no Ray cluster answers at {options['address']} ({str(error).splitlines()[0]}); start one with `ray "
                "start --head`, and name it with --option address=HOST:PORT."
            ) from None
        needs: dict[str, Any] = {"num_cpus": float(options["cpus"]), "num_gpus": float(options["gpus"])}
        self._cores = max(1, int(float(options["cpus"])))
        self._call = ray.remote(max_retries=0, **needs)(call)
        self._running: dict[Any, Job] = {}

    def start(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            task = self._call.remote(list(job.argv), str(job.log.resolve()), self._cores, os.getcwd())
            self._running[task] = job

    def wait(self, seconds: float) -> list[Ended]:
        if not self._running:
            time.sleep(seconds)
            return []
        done, _ = self.ray.wait(list(self._running), num_returns=1, timeout=seconds)
        return [self._ended(task) for task in done]

    def _ended(self, task: Any) -> Ended:
        job = self._running.pop(task)
        try:
            code = self.ray.get(task)
        except self.ray.exceptions.RayError as error:
            return Ended(job, None, f"lost by Ray: {type(error).__name__}")
        return Ended(
            job, code if code >= 0 else None, f"exit status {code}" if code >= 0 else f"killed by signal {-code}"
        )

    def close(self) -> None:
        for task in self._running:
            self.ray.cancel(task)  # an interrupt, which the worker hands on to the command


def _knock(address: str) -> None:
    """Refuse an address at which nobody listens: Ray's own core ends the whole process there, after half a minute.

    Raises:
        OSError: nobody listens.
        ValueError: it has no port that is a number.
    """
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if colon:
        socket.create_connection((host, int(port)), PATIENCE).close()


def start(jobs: int, folder: Path, options: dict[str, str]) -> Ray:
    """The engine of a Ray cluster."""
    for name in options:
        if name not in OPTIONS:
            raise ValueError(f"the engine ray has no option {name!r}; expected one of {', '.join(OPTIONS)}.")
    return Ray(jobs, OPTIONS | options)
