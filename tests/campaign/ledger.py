"""What every attack of the campaign needs: a child process that may die, and a ledger of what survived.

An attack is tried in a forked child: it inherits the loaded libraries, so that it starts at once, and whatever it does
to itself (a kill, a limit, a crash of a decoder) leaves the campaign running. The parent itself never trains: a process
that has used autograd's threads must not fork.
"""

import contextlib
import os
import random
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Ended:
    """How a child ended.

    Attributes:
        code: its exit status; minus the signal's number where a signal ended it.
        text: what it wrote to standard output and standard error.
        seconds: how long it took.
        timed_out: whether it had to be killed since it would not end.
    """

    code: int
    text: str
    seconds: float
    timed_out: bool

    @property
    def refused(self) -> bool:
        """Whether it ended with one clear error, as the command line does: status 2 and no traceback."""
        return self.code == 2 and "Traceback" not in self.text and not self.timed_out

    @property
    def done(self) -> bool:
        return self.code == 0 and not self.timed_out

    def __str__(self) -> str:
        late = ", timed out" if self.timed_out else ""
        return f"exit {self.code} after {self.seconds:.1f} s{late}: ...{self.text[-600:]}"


def child(
    action: Callable[[], Any],
    folder: Path,
    *,
    seconds: float = 60.0,
    kill_after: float | None = None,
    megabytes: int | None = None,
    file_bytes: int | None = None,
) -> Ended:
    """Run `action` in a forked process.

    Args:
        action: what it does; an exception ends it as the command line ends: the two kinds of errors that users can
            mend with status 2 and one line, any other with a traceback and status 70.
        folder: where it writes what it says; its working directory.
        seconds: after which it is killed, and has failed.
        kill_after: seconds after which it is killed on purpose (SIGKILL).
        megabytes: the limit of its address space above what it has.
        file_bytes: the limit of a file's size.
    """
    log, start = folder / f"said-{random.getrandbits(48):012x}.txt", time.monotonic()
    pid = os.fork()
    if pid == 0:
        _run(action, folder, log, megabytes, file_bytes)
    with contextlib.suppress(ProcessLookupError, PermissionError):  # here too: it may be killed before it did so itself
        os.setpgid(pid, pid)
    limit = min(seconds, kill_after) if kill_after is not None else seconds
    status = _wait(pid, start + limit)
    timed_out = False
    if status is None:
        os.killpg(pid, signal.SIGKILL)
        timed_out = kill_after is None
        status = os.waitpid(pid, 0)[1]
    text = log.read_text(errors="replace") if log.exists() else ""
    log.unlink(missing_ok=True)
    return Ended(os.waitstatus_to_exitcode(status), text, time.monotonic() - start, timed_out)


def _wait(pid: int, until: float) -> int | None:
    while time.monotonic() < until:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return status
        time.sleep(0.005)
    return None


def _run(action: Callable[[], Any], folder: Path, log: Path, megabytes: int | None, file_bytes: int | None) -> None:
    os.setpgid(0, 0)
    code = 70
    try:
        out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(out, 1)
        os.dup2(out, 2)
        sys.stdout = os.fdopen(1, "w", buffering=1, encoding="utf-8", errors="replace", closefd=False)
        sys.stderr = os.fdopen(2, "w", buffering=1, encoding="utf-8", errors="replace", closefd=False)
        os.chdir(folder)
        if megabytes is not None:
            used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (used + megabytes * 2**20,) * 2)
        if file_bytes is not None:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # an error of the write, as on a full disk
            resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes, resource.RLIM_INFINITY))
        action()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    except (ValueError, OSError, RuntimeError) as error:
        _without_limit()
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        code = 2
    except BaseException:
        _without_limit()
        traceback.print_exc()
    finally:
        with contextlib.suppress(BaseException):  # nothing may keep a child from ending here
            _without_limit()
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _without_limit() -> None:
    """What a child says is a file too."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)


@dataclass
class Ledger:
    """What was tried and what survived, by area, in the order in which the areas were first attacked.

    Args:
        seed: of all random choices.
        scale: of the number of attempts; 1 is the whole campaign.
    """

    seed: int
    scale: float
    rows: dict[str, list[bool]] = field(default_factory=dict)
    what: dict[str, str] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)

    def attempts(self, count: int) -> int:
        """The attempts of an area, of which the whole campaign has `count`."""
        return max(1, round(count * self.scale))

    def rng(self, area: str) -> random.Random:
        """The randomness of an area, which does not depend on what other areas draw."""
        return random.Random(f"{self.seed} {area}")

    def expects(self, area: str, survival: str) -> None:
        """What it means to survive in an area, in a sentence."""
        self.rows.setdefault(area, [])
        self.what[area] = survival

    def count(self, area: str, survived: bool, detail: str) -> None:
        """Count an attempt; `detail` tells how to repeat one that did not survive."""
        self.rows[area].append(survived)
        if not survived:
            self.failures.append(f"{area}: {detail}")

    def check(self, area: str) -> None:
        """Fail the test where an attempt of the area did not survive."""
        bad = [text for text in self.failures if text.startswith(f"{area}: ")]
        tried = len(self.rows[area])
        assert tried, f"nothing was tried in {area!r}"
        assert not bad, f"{len(bad)} of {tried} did not survive (seed {self.seed}):\n" + "\n---\n".join(bad[:5])

    def table(self) -> str:
        """The campaign as Markdown."""
        total, survived = (sum(f(row) for row in self.rows.values()) for f in (len, sum))
        lines = ["| area | survival means | tried | survived |", "| --- | --- | ---: | ---: |"]
        lines += [f"| {area} | {self.what[area]} | {len(row)} | {sum(row)} |" for area, row in self.rows.items()]
        return "\n".join([*lines, f"| **all** | | **{total}** | **{survived}** |"]) + "\n"


def flipped(data: bytes, rng: random.Random) -> tuple[bytes, str]:
    """The bytes after one random damage, and its name: flipped bits, a cut, zeros, a repeated or a foreign part."""
    if not data:
        return b"\0", "one zero byte"
    kind = rng.choice(("bit", "bits", "cut", "zeros", "noise", "empty", "double", "swap"))
    at = rng.randrange(len(data))
    length = min(rng.choice((1, 4, 64, 512)), len(data) - at)
    out = bytearray(data)
    match kind:
        case "bit":
            out[at] ^= 1 << rng.randrange(8)
        case "bits":
            for _ in range(8):
                out[rng.randrange(len(out))] ^= 1 << rng.randrange(8)
        case "cut":
            del out[at:]
        case "zeros":
            out[at : at + length] = bytes(length)
        case "noise":
            out[at : at + length] = rng.randbytes(length)
        case "empty":
            out.clear()
        case "double":
            out += out[at:]
        case "swap":
            other = rng.randrange(len(out))
            out[at], out[other] = out[other], out[at]
    return bytes(out), f"{kind} at {at} of {len(data)}"
