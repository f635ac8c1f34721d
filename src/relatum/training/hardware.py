"""The machine: its name, the precision that it computes, the memory that was needed. Nothing here needs Lightning.

psutil knows no processor's name, and the most memory that a process has held on Windows only. py-cpuinfo knows the
name, after 1.5 seconds with processes of its own (measured), and had its last release in 2022; Linux keeps name and
abilities in a file.
"""

import ctypes
import hashlib
import os
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import psutil
import torch

from relatum.recipes.recipe import Recipe

PrecisionName = Literal["32-true", "bf16-mixed"]


def precision_of(recipe: Recipe) -> PrecisionName:
    """The precision that the recipe asks for; "auto" is bf16-mixed where the processor computes it, else float32."""
    if recipe.train.precision != "auto":
        return recipe.train.precision
    gpu = recipe.train.accelerator != "cpu" and torch.cuda.is_available()
    return "bf16-mixed" if (torch.cuda.is_bf16_supported() if gpu else _processor_has_bf16()) else "32-true"


def processor() -> str:
    """What the maker calls the processor, such as "Intel(R) Xeon(R) Platinum 8481C CPU"."""
    names = [line.split(":", 1)[1].strip() for line in _cpuinfo() if line.startswith("model name")]
    return names[0] if names else platform.processor()


def device_name(device: torch.device) -> str:
    """What the maker calls the GPU, or the processor where there is none."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else processor()


def peak_memory(device: torch.device) -> float:
    """The largest memory so far, in MiB: what torch took of the GPU, or what this process held of the machine's."""
    peak = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else _peak_resident_bytes()
    return peak / 2**20


def machine_facts(device: torch.device, processes: int, precision: str) -> dict[str, Any]:
    """What a Record says of the machine; its name stays private, and only tells runs of one machine from others'.

    Args:
        device: of this process.
        processes: that train together.
        precision: as `precision_of` names it.
    """
    return {
        "device": device_name(device),
        "devices": processes,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "precision": precision,
        "host": hashlib.sha256(platform.node().encode()).hexdigest()[:8],
    }


# mallopt(3), malloc.h: the parameters that are set below, and what glibc starts with.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4
_KEEP = {_MMAP_MAX: 0, _TRIM_THRESHOLD: 2**31 - 1, _TOP_PAD: 2**26}
_STANDARD = {_MMAP_MAX: 65_536, _TRIM_THRESHOLD: 2**17, _TOP_PAD: 2**17}


@contextmanager
def freed_memory_kept(device: torch.device) -> Iterator[None]:
    """Within it, a processor's training step uses the memory of the last step again; outside it, nothing is changed.

    glibc gives every large tensor that is freed back to the system, and the next one is handed out page by page, each
    of them zeroed: some ten thousand page faults a step of a small network, an eighth of its time (measured). Results
    are the same to the bit. Nothing happens on a GPU, whose memory torch keeps anyway, without glibc, and where the
    environment says how memory is to be managed.
    """
    decided = any(name.startswith("MALLOC_") or name == "GLIBC_TUNABLES" for name in os.environ)
    if device.type != "cpu" or platform.libc_ver()[0] != "glibc" or decided:
        yield
        return
    libc = ctypes.CDLL(None)
    try:
        for parameter, value in _KEEP.items():
            libc.mallopt(parameter, value)
        yield
    finally:
        for parameter, value in _STANDARD.items():
            libc.mallopt(parameter, value)
        libc.malloc_trim(0)


def _processor_has_bf16() -> bool:
    """Whether bfloat16 is computed, not emulated: with emulation it is several times slower than float32."""
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    names = ("amx_bf16", "avx512_bf16", "bf16")
    if capabilities:
        return any(bool(capabilities.get(name)) for name in names)
    flags = "\n".join(_cpuinfo())
    return "amx_bf16" in flags or "avx512_bf16" in flags


def _cpuinfo() -> list[str]:
    """The lines in which Linux describes its processors; none elsewhere."""
    file = Path("/proc/cpuinfo")
    return file.read_text(encoding="utf-8").splitlines() if file.exists() else []


def _peak_resident_bytes() -> int:
    if sys.platform != "win32":
        try:
            import resource
        except ModuleNotFoundError:  # a Python that was built without it
            pass
        else:
            unit = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    held = psutil.Process().memory_info()  # on Windows, and only there, it knows the peak
    return getattr(held, "peak_wset", held.rss)
