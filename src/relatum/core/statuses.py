"""The exit statuses of `relatum`, by which whoever runs its commands knows whether to run one again."""

REFUSED = 2
"""The same command would be refused again: its input must be mended first."""

LOST = 71
"""A process that the run needs was killed from outside: going on with the run can help (EX_OSERR of sysexits.h)."""

HELD = 75
"""A living process holds the run folder: later it may be free (EX_TEMPFAIL of sysexits.h)."""


class ProcessLostError(RuntimeError):
    """A process that the run needs was killed from outside."""

    exit_status = LOST
