"""How a command is run on the machine that an engine chose: its environment, its log, and its end."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

_NOT_SAID = ("+ ", "(RELATUM_TRACEBACK=")  # the command, and the hint behind an error: neither says what went wrong
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")


def environment(cores: int) -> dict[str, str]:
    """The environment of a run on this machine: its threads are its cores, where nobody has said it otherwise.

    A run is one process of its own on whatever machine: what a cluster says of its job is not meant for it.
    """
    here = {name: value for name, value in os.environ.items() if not name.startswith("SLURM_")}
    return dict.fromkeys(THREADS, str(max(1, cores))) | here


def executable(argv: Sequence[str]) -> list[str]:
    """The command with this Python's `relatum`, which need not be on the path of the machine that runs it."""
    if argv[0] != "relatum":
        return list(argv)
    return [sys.executable, "-c", "from relatum.cli import main; main()", *argv[1:]]


def child(
    argv: Sequence[str], log: Path, env: Mapping[str, str], folder: str | None = None
) -> "subprocess.Popen[bytes]":
    """Start a command in `folder`, or here. It prints to the end of `log`."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as printed:
        printed.write(f"+ {' '.join(argv)}\n".encode())
        printed.flush()
        return subprocess.Popen(
            executable(argv),
            cwd=folder,
            env=dict(env),
            stdin=subprocess.DEVNULL,
            stdout=printed,
            stderr=subprocess.STDOUT,
        )


def call(argv: Sequence[str], log: str, cores: int, folder: str) -> int:
    """Run a command to its end, in the process of a cluster's worker, and let it end where that process does.

    Args:
        argv: the command.
        log: the file that gets what it prints.
        cores: how many it may use.
        folder: in which paths of the command are meant.

    Returns:
        The exit status; negative where a signal ended it.
    """
    process = child(argv, Path(log), environment(cores), folder)
    try:
        return process.wait()
    finally:
        if process.poll() is None:  # the worker was asked to stop
            process.terminate()


def how(code: int) -> str:
    """The exit status of a process in words."""
    return f"exit status {code}" if code >= 0 else f"killed by {signal.Signals(-code).name}"


def last_lines(log: Path, lines: int = 5) -> str:
    """The end of a log, for the error of a run that failed."""
    if not log.is_file():
        return "(it printed nothing)"
    with log.open("rb") as printed:
        printed.seek(max(0, log.stat().st_size - 4000))
        text = printed.read().decode(errors="replace")
    kept = [line for line in text.splitlines() if line.strip() and not line.startswith(_NOT_SAID)][-lines:]
    return "\n".join(kept) or "(it printed nothing)"


def free_space(folder: Path) -> int:
    """Bytes that are free where a folder is, or will be."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free
