"""The campaign against Relatum: `pytest -m campaign -n 0`. It is not part of the default run.

By default a fifth of all attempts, some minutes; `--campaign-scale 1` makes all of them, and
`--campaign-out results/reliability.md` writes the table that is quoted.
"""

import platform
import time
from collections.abc import Iterator

import pytest

from campaign.ledger import Ledger


@pytest.fixture(scope="session")
def ledger(pytestconfig: pytest.Config) -> Iterator[Ledger]:
    made = Ledger(pytestconfig.getoption("--campaign-seed"), pytestconfig.getoption("--campaign-scale"))
    start = time.monotonic()
    yield made
    if out := pytestconfig.getoption("--campaign-out"):
        out.write_text(page(made, time.monotonic() - start), encoding="utf-8")


def page(ledger: Ledger, seconds: float) -> str:
    """The results page."""
    import torch

    from relatum.reports.records import commit

    lines = [
        "# Reliability: what a campaign of attacks leaves standing",
        "",
        "Written by `pytest -m campaign -n 0 --campaign-scale 1 --campaign-out results/reliability.md`; every attempt",
        "is a function of the seed. An attempt survives when what its row promises holds; anything else is a defect.",
        "",
        ledger.table(),
        f"Seed {ledger.seed}, scale {ledger.scale:g}, {seconds / 60:.0f} minutes, commit {commit() or 'unknown'}, "
        f"Python {platform.python_version()}, torch {torch.__version__}, {platform.system()}.",
    ]
    if ledger.failures:
        lines += ["", "## What did not survive", "", *(f"- `{text[:300]}`" for text in ledger.failures)]
    return "\n".join(lines) + "\n"
