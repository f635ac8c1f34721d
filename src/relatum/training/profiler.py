"""Where the time of a training step goes: a table and a trace of five steps."""

from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

import torch
from torch.profiler import record_function

from relatum.reports.records import write_atomically

PART = "relatum: "  # what the parts of a step are called in a profile begins with this
T = TypeVar("T")


def part(name: str) -> record_function:
    """A context whose time a profile shows under `name`."""
    return record_function(PART + name)


def labeled(items: Iterator[T], name: str) -> Iterator[T]:
    """The same items; a profile shows under `name` what it costs to make them."""
    while True:
        with part(name):
            try:
                item = next(items)
            except StopIteration:
                return
        yield item


def profiler(folder: Path) -> torch.profiler.profile:
    """A profile of five steps, after three that warm up; it writes profile.txt and trace.json at the end."""

    def write(profile: torch.profiler.profile) -> None:
        parts = profile.key_averages()
        key = "self_device_time_total" if torch.cuda.is_available() else "self_cpu_time_total"
        ours = [part for part in parts if part.key.startswith(PART)]
        total = sum(part.cpu_time_total for part in ours)
        lines = [f"{part.cpu_time_total / total:6.1%}  {part.key}" for part in ours]
        text = "\n".join(["parts of a step, by processor time:", *sorted(lines, reverse=True), ""])
        write_atomically(folder / "profile.txt", text + parts.table(sort_by=key, row_limit=30))
        profile.export_chrome_trace(str(folder / "trace.json"))

    return torch.profiler.profile(
        schedule=torch.profiler.schedule(wait=1, warmup=2, active=5, repeat=1), on_trace_ready=write
    )
