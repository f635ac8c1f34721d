"""How a command is run on the machine that an engine chose: its environment, its log, and its end with its parent's."""

import ctypes
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
_PR_SET_PDEATHSIG = 1  # of linux/prctl.h


def environment(slots: int) -> dict[str, str]:
    """The environment of a run: its share of the cores, where the user has not said how many threads it takes."""
    share = str(max(1, (os.cpu_count() or 1) // slots))
    return dict.fromkeys(THREADS, share) | dict(os.environ)


def executable(argv: Sequence[str]) -> list[str]:
    """The command with this Python's `relatum`, which need not be on the path of the machine that runs it."""
    if argv[0] != "relatum":
        return list(argv)
    return [sys.executable, "-c", "from relatum.cli import main; main()", *argv[1:]]


def child(argv: Sequence[str], log: Path, env: Mapping[str, str]) -> "subprocess.Popen[bytes]":
    """Start a command. It prints to the end of `log`, and is killed where the process that started it is killed."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as printed:
        printed.write(f"+ {' '.join(argv)}\n".encode())
        printed.flush()
        return subprocess.Popen(
            executable(argv), stdin=subprocess.DEVNULL, stdout=printed, stderr=subprocess.STDOUT, env=env
        )


def call(argv: Sequence[str], log: str, env: Mapping[str, str]) -> int:
    """Run a command to its end, in the process of a cluster's worker; gives its exit status."""
    die_with_parent()
    return child(argv, Path(log), env).wait()


def die_with_parent() -> None:
    """Let the kernel stop this process where its parent ends (Linux): a lost worker leaves no run behind."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def last_lines(log: Path, lines: int = 5) -> str:
    """The end of a log, for the error of a run that failed."""
    if not log.is_file():
        return "(it printed nothing)"
    with log.open("rb") as printed:
        printed.seek(max(0, log.stat().st_size - 4000))
        text = printed.read().decode(errors="replace")
    kept = [line for line in text.splitlines() if line.strip() and not line.startswith("+ ")][-lines:]
    return "\n".join(kept) or "(it printed nothing)"


def free_space(folder: Path) -> int:
    """Bytes that are free where a folder is, or will be."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free
