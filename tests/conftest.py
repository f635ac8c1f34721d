"""Every test starts from the same seed, on one thread: small tensors are slower on two."""

import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)
