"""One clear line for whatever goes wrong, with its remedy; the place where, for those who ask for it."""

import os
import re
import sys
from collections.abc import Callable

from relatum.core.statuses import LOST, REFUSED

TRACEBACK = "RELATUM_TRACEBACK"  # the environment variable that asks for the place of an error
BROKEN_PIPE = 141  # what a shell reports of a program that SIGPIPE ended
INTERRUPTED = 130  # likewise for SIGINT


class Interrupted(KeyboardInterrupt):
    """A user's Ctrl-C, with the command that goes on."""


def explained(work: Callable[[], None]) -> int:
    """Do the work; where it fails, print why to standard error. Returns the exit status."""
    try:
        work()
        sys.stdout.flush()  # a closed pipe is found here, not when Python has no way to say it any more
        return 0
    except BrokenPipeError:
        # Python flushes once more on its way out: let it write to nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except KeyboardInterrupt as stop:
        command = str(stop) if isinstance(stop, Interrupted) else ""
        print(f"stopped; to go on: {command}" if command else "stopped", file=sys.stderr)
        return INTERRUPTED
    except Exception as error:
        if os.environ.get(TRACEBACK):
            raise
        text, known = _text(error)
        blame = "" if known else f"\nThis is a fault of Relatum's: please report it with what {TRACEBACK}=1 shows."
        print(f"relatum: {text}{blame}\n({TRACEBACK}=1 shows where)", file=sys.stderr)
        return _status(error) if known else 1


def _status(error: Exception) -> int:
    """Whether the same command can go better: a process that was lost, or a folder that is held, may be so no more."""
    message, kind = str(error), type(error).__name__
    if _worker_was_killed(message) or kind == "ProcessExitedException" or _PEER_LOST.search(message):
        return LOST
    return int(getattr(error, "exit_status", REFUSED))


_PEER_LOST = re.compile(r"Connection (closed|reset) by peer")
"""What the others say of a process that was killed while they waited for it: gloo's words, and NCCL's."""


def _worker_was_killed(message: str) -> bool:
    return "DataLoader worker" in message and "killed by signal" in message


def _text(error: Exception) -> tuple[str, bool]:
    """What to say of an error, and whether it is one that a user can do something about."""
    message = str(error).strip()
    kind = type(error).__name__
    if _worker_was_killed(message) or "unable to open shared memory" in message:
        return (
            f"a process that decodes images was killed ({message.splitlines()[0]}): mostly the shared memory of the "
            "machine is too small. Decode in the training process with --data.workers 0, or give it more memory.",
            True,
        )
    if "Traceback (most recent call last)" in message:  # what a worker or a rank raised, with its whole story
        return f"{_where(message)}{_last_line(message)}", True
    if kind == "ProcessExitedException":
        return f"{message}: one of the processes that train together was killed. {_KILLED}", True
    if isinstance(error, MemoryError) or kind == "OutOfMemoryError" or "can't allocate memory" in message:
        return f"out of memory{': ' + message.splitlines()[0] if message else ''}. {_SMALLER}", True
    if isinstance(error, ModuleNotFoundError):
        return f"the package {error.name!r} is not installed{_extra(error.name or '', message)}", True
    if isinstance(error, UnicodeError):
        return f"a text that is not UTF-8: {message}", True
    if isinstance(error, ImportError | ValueError | OSError | RuntimeError):
        return message or kind, True
    return f"{kind}: {message}", False


_SMALLER = (
    "Use smaller steps (--data.batch-size, --train.chunk), a smaller view (--data.view.size), or stream the images "
    "(--data.resident no)."
)
_KILLED = (
    "Mostly the machine had no memory left. Add --resume to go on from the last epoch; "
    "--train.devices 1 or a smaller --data.batch-size takes less."
)
EXTRAS = {
    "onnx": "onnx",
    "onnxscript": "onnx",
    "onnxruntime": "onnx",
    "datasets": "hub",
    "pyarrow": "parquet",
    "submitit": "slurm",
    "ray": "ray",
}
"""Which extra of Relatum brings a package."""


def _extra(package: str, message: str) -> str:
    extra = EXTRAS.get(package.partition(".")[0])
    if extra is None or "pip install" in message:
        return f": {message}"
    return f": pip install 'relatum[{extra}]'"


def _where(message: str) -> str:
    found = re.search(r"DataLoader worker process (\d+)|process (\d+) terminated", message, re.I)
    if not found:
        return ""
    return f"in worker {found.group(1)}: " if found.group(1) else f"in process {found.group(2)}: "


def _last_line(message: str) -> str:
    """The error that a traceback ends in, without its class where the message says it all."""
    last = [line for line in message.splitlines() if line and not line.startswith((" ", "\t"))][-1]
    kind, _, text = last.partition(": ")
    plain = kind.rpartition(".")[2] in ("ValueError", "FileNotFoundError", "OSError", "RuntimeError")
    return text if plain and text else last
