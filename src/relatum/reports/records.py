"""Records: what happened, as JSON. Every table and figure is a function of Records alone."""

import json
import os
import platform
import subprocess
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = ("relatum", "torch", "torchvision", "timm", "lightning-fabric", "numpy", "scikit-learn", "pillow")


@dataclass(frozen=True)
class Record:
    """One run.

    Attributes:
        recipe: the whole recipe, in plain types.
        seed: of the run.
        versions: of Relatum, of Python and of the packages that numbers depend on.
        commit: of the sources, "+" behind it where they had changed since; empty outside a checkout.
        machine: processor or GPU, cores, precision, number of processes.
        data: what was found: images, classes, normalization, and how they were split.
        history: one entry for each epoch: epoch, learning rate, seconds, each loss term, each measurement.
        metrics: the measurements of the last epoch on the test set, each in its own unit (accuracies in percent).
        protocols: for each group of metrics, how they were measured, in words.
        images_passed: images that went through the backbone in training, each view counted.
        seconds: of training, without evaluation.
        peak_memory: the largest memory of the process, in MiB; of the GPU where one was used.
    """

    recipe: dict[str, Any]
    seed: int
    versions: dict[str, str]
    commit: str
    machine: dict[str, Any]
    data: dict[str, Any]
    history: list[dict[str, int | float]] = field(default_factory=list)
    metrics: dict[str, float] = field(default_factory=dict)
    protocols: dict[str, str] = field(default_factory=dict)
    images_passed: int = 0
    seconds: float = 0.0
    peak_memory: float = 0.0


def write_record(record: Record, path: Path) -> None:
    """Write a Record, whole or not at all."""
    write_atomically(path, json.dumps(asdict(record), indent=1) + "\n")


def read_record(path: Path) -> Record:
    """Read a Record.

    Args:
        path: a record, or the run folder that holds one.

    Raises:
        FileNotFoundError, ValueError: where there is none, or not a whole one.
    """
    path = path / "record.json" if path.is_dir() else path
    if not path.is_file():
        raise FileNotFoundError(f"there is no record {path}; expected a run folder that `relatum train` finished.")
    try:
        return Record(**json.loads(path.read_text()))
    except (json.JSONDecodeError, TypeError) as error:
        raise ValueError(f"{path} is no record of Relatum: {error}.") from None


def find_records(paths: Iterable[Path]) -> list[Record]:
    """The Records that `paths` name: records, run folders, or folders with those in them, at any depth.

    Raises:
        FileNotFoundError: for a path under which there is none.
    """
    found: dict[Path, Record] = {}
    for path in paths:
        inside = sorted(path.rglob("*.json")) if path.is_dir() else []
        records = [path] if path.is_file() else [p for p in inside if _holds_record(p)]
        if not records:
            raise FileNotFoundError(
                f"there is no record in {path}; expected a run folder that `relatum train` finished."
            )
        found |= {p.resolve(): read_record(p) for p in records}
    return list(found.values())


def _holds_record(path: Path) -> bool:
    return "recipe" in json.loads(path.read_text())


def write_atomically(path: Path, text: str) -> None:
    """Write a text so that no reader ever sees half of it."""
    part = path.with_name(path.name + ".part")
    part.write_text(text)
    os.replace(part, path)


def versions() -> dict[str, str]:
    """The versions of what a number depends on."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = ""
    return found


def commit() -> str:
    """The commit of the checkout that this package runs from, `+` behind it where files have changed since."""
    here = Path(__file__).resolve().parent

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=here, capture_output=True, text=True, check=True).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", Path(__file__).name)  # an installed copy may lie inside another checkout
        return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain", "--", "..") else "")
    except (OSError, subprocess.CalledProcessError):
        return ""


def flat(tree: Any, path: str = "") -> dict[str, Any]:
    """The leaves of nested mappings by their dotted paths, such as `method.alpha`."""
    if not isinstance(tree, dict):
        return {path: tree}
    return {k: v for name, leaf in tree.items() for k, v in flat(leaf, f"{path}.{name}" if path else name).items()}
