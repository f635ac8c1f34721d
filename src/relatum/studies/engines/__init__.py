"""Where the runs of a study run: three engines of equal rank, each for commands that other machines could run too.

An engine starts commands and says which have ended. Whether a run is done is not its business: the run folder
says that. It retries nothing, it keeps no state that matters, and it may lose a command: the executor starts it again.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from relatum.recipes.index import did_you_mean


@dataclass(frozen=True)
class Job:
    """A command to run once.

    Attributes:
        name: how people call it.
        argv: the command and its arguments.
        log: the file that gets what it prints, behind what is there.
    """

    name: str
    argv: tuple[str, ...]
    log: Path


@dataclass(frozen=True)
class Ended:
    """A command that runs no more.

    Attributes:
        job: which.
        code: its exit status; None where it was killed or lost.
        reason: how the engine saw it end, in words.
    """

    job: Job
    code: int | None
    reason: str


class Engine(ABC):
    """What runs commands.

    Attributes:
        slots: how many commands it takes at once; the executor gives it no more.
    """

    slots: int

    @abstractmethod
    def start(self, jobs: Sequence[Job]) -> None:
        """Take commands, and return at once."""

    @abstractmethod
    def wait(self, seconds: float) -> list[Ended]:
        """The commands that have ended since the last call: at least one, unless the time is over before."""

    @abstractmethod
    def close(self) -> None:
        """Stop what still runs."""


ENGINES = {"local": "processes of this machine", "slurm": "a Slurm cluster", "ray": "a Ray cluster"}
"""Every engine by the name that the command line uses."""


def engine(name: str, *, jobs: int, folder: Path, options: dict[str, str]) -> Engine:
    """An engine that is ready to start commands.

    Args:
        name: of `ENGINES`.
        jobs: how many commands at once.
        folder: for what the engine itself writes.
        options: what the engine takes, such as the address of a Ray cluster or the partition of a Slurm cluster.

    Raises:
        ValueError: for an engine that does not exist, or options that it does not have.
        RuntimeError: for a cluster that is not there, or a package that is not installed.
    """
    if name not in ENGINES:
        raise ValueError(f"there is no engine {name!r}; {did_you_mean(name, ENGINES)}")
    made: Engine = import_module(f"relatum.studies.engines.{name}").start(jobs, folder, options)
    return made
