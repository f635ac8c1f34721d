"""Every test starts from the same seed, on one thread: small tensors are slower on two."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """The tests, and the processes that they start, leave the user's cache of data sets alone."""
    os.environ["RELATUM_CACHE"] = str(tmp_path_factory.mktemp("cache") / "relatum")


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def no_plugin_stays() -> Iterator[None]:
    """What a test registers, or names by `--plugin`, is gone after it: in this process and in those that it starts."""
    from plugging import Registered  # not above: the package is to be imported after jaxtyping's hook

    before = Registered()
    yield
    before.restore()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("campaign", "the campaign of attacks: pytest -m campaign -n 0")
    group.addoption("--campaign-seed", type=int, default=0, help="seed of the random attacks")
    group.addoption("--campaign-scale", type=float, default=0.2, help="share of all attempts that are made")
    group.addoption("--campaign-out", type=Path, default=None, help="write the table of what survived there")
