"""The machine: what training asks of it."""

import subprocess
import sys

import pytest
import torch

from relatum.training.hardware import freed_memory_kept

PAGES_OF_A_TENSOR = 40 * 2**20 // 4096
FAULTS = """
import resource, torch
from relatum.training.hardware import freed_memory_kept

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        torch.zeros(10 * 2**20)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

with freed_memory_kept(torch.device("cpu")):
    faults()  # the allocator needs a few places before it returns to them
    print(min(faults() for _ in range(3)))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's")
@pytest.mark.parametrize(("environment", "kept"), [({}, True), ({"MALLOC_TOP_PAD_": "0"}, False)])
def test_a_freed_tensors_pages_are_used_again_while_training(environment, kept, monkeypatch):
    for name in ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "MALLOC_TOP_PAD_", "GLIBC_TUNABLES"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    faults = int(subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True).stdout)
    if kept:
        assert faults < 10 * PAGES_OF_A_TENSOR
    else:
        assert faults > 19 * PAGES_OF_A_TENSOR  # each page is handed out anew, each time


def test_the_memory_of_a_gpu_is_torchs_own():
    with freed_memory_kept(torch.device("cuda")):
        pass
