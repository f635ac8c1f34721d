"""The right to write into a run folder: one process has it at a time, and a dead one loses it."""

import platform
from pathlib import Path

from filelock import SoftFileLease, Timeout

from relatum.core.statuses import HELD

FILE = "lease"
SECONDS = 15.0  # without a heartbeat after which a holder on another machine counts as dead


class LeaseError(RuntimeError):
    """Another process writes into the run folder."""

    exit_status = HELD


class Lease:
    """The lease of a run folder: a file with process, machine and token, and a heartbeat while it is held.

    A holder that died on this machine is noticed at once, one on another machine when its heartbeat has stood still
    for `SECONDS` by our own clock. A holder that only slept finds on its next write that it is one no more.

    Args:
        folder: the run folder, which exists.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._file = SoftFileLease(folder / FILE, lease_duration=SECONDS)

    def take(self) -> str:
        """Take the lease, from a dead holder too. Returns its token.

        Raises:
            LeaseError: it is held by a living process.
        """
        try:
            self._file.acquire(timeout=0.2)
        except Timeout:
            try:
                # A process of this machine that is dead would have been found out; elsewhere only silence tells.
                self._file.acquire(timeout=0 if _holder(self.folder).get("host") == platform.node() else SECONDS + 2)
            except Timeout:
                holder = _holder(self.folder)
                raise LeaseError(
                    f"process {holder.get('pid', '?')} on {holder.get('host', '?')} is training in {self.folder}: wait "
                    "for it, or end it and start again."
                ) from None
        token = self._file.token
        assert token is not None
        return token

    def release(self) -> None:
        """Give it back. One that was lost meanwhile stays with its new holder."""
        self._file.release()


def refuse_if_lost(folder: Path, token: str) -> None:
    """Called before each write: that the lease with this token is still held.

    Raises:
        LeaseError: another process has taken it, so the run is no longer ours.
    """
    if _holder(folder).get("token") != token:
        raise LeaseError(
            f"the lease of {folder} was lost to another process, because this one stood still for more than "
            f"{SECONDS:.0f} seconds or {folder / FILE} was removed: it stops, so that never two write into one run."
        )


def _holder(folder: Path) -> dict[str, str]:
    """What the lease says of its holder: pid, host, token."""
    try:
        lines = (folder / FILE).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return {}
    return dict(line.split("=", 1) for line in lines if "=" in line)
