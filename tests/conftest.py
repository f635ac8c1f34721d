"""Every test starts from the same seed, on one thread: small tensors are slower on two."""

import os

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
