"""Records: what happened, as JSON. Every table and figure is a function of Records alone."""

import json
import logging
import platform
import subprocess
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from relatum.core import plugins
from relatum.core.files import write_durably

log = logging.getLogger(__name__)

PACKAGES = ("relatum", "torch", "torchvision", "timm", "lightning-fabric", "numpy", "scikit-learn", "pillow")

BESIDE_LOSSES = ("epoch", "seconds", "learning_rate")  # what else an epoch's entry holds, measurements apart


def is_measurement(name: str) -> bool:
    """Whether a number of an epoch's entry was measured after it: all others are loss terms, or `BESIDE_LOSSES`."""
    return name.startswith(("validation_", "training_")) or name == "effective_rank"


@dataclass(frozen=True)
class Record:
    """One run.

    Attributes:
        recipe: the whole recipe, in plain types.
        seed: what everything random in the run depended on.
        versions: those of Relatum, of Python and of the packages that numbers depend on.
        commit: that of the sources, "+" behind it where they had changed since; empty outside a checkout.
        machine: device (its name), devices, cores, threads, precision, host (a short hash).
        data: what was found: images, classes, normalization, and how they were split.
        history: one entry for each epoch: epoch, learning rate, seconds, each loss term, each measurement.
        metrics: the measurements of the last epoch on the test set, each in its own unit (accuracies in percent).
        protocols: for each group of metrics, how they were measured, in words.
        images_passed: images that went through the backbone in training, each view counted.
        seconds: time of training, without evaluation.
        peak_memory: the largest memory of the process, in MiB; of the GPU where one was used.
        columns: for metrics that tables show, in their order, the headings.
        notices: what was adapted or skipped, in words.
        teacher: for a run with one, its path, the sha256 of its weights, its classes and its accuracy.
        correct: evaluator -> one bit an image of the test set, in its order: whether the first guess was right; the
            bits are packed as `numpy.packbits` does, and written in base64.
        parameters: how many the trained backbone has.
    """

    __pydantic_config__ = {"extra": "forbid", "strict": True}  # noqa: RUF012 - read by pydantic, where files enter

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
    columns: dict[str, str] = field(default_factory=dict)
    notices: list[str] = field(default_factory=list)
    teacher: dict[str, Any] | None = None
    correct: dict[str, str] = field(default_factory=dict)
    parameters: int = 0


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
    record, why = _parsed(path)
    if record is None:
        raise ValueError(f"{path} is no Record of this Relatum: {why}. Measure the run anew, or leave the file out.")
    return record


def find_records(paths: Iterable[Path]) -> list[Record]:
    """The Records that `paths` name; see `record_files`."""
    return list(record_files(paths).values())


def record_files(paths: Iterable[Path]) -> dict[Path, Record]:
    """The files of Records that `paths` name: records, run folders, or folders with those in them, at any depth.

    Other JSON in a folder is left out, and named in the log where it looks like a Record.

    Raises:
        FileNotFoundError: for a path under which there is none.
        ValueError: for a file named by itself that is none.
    """
    found: dict[Path, Record] = {}
    for path in paths:
        records = {path: read_record(path)} if path.is_file() else dict(_records_below(path))
        if not records:
            raise FileNotFoundError(
                f"there is no record in {path}; expected a run folder that `relatum train` finished."
            )
        found |= {p.resolve(): record for p, record in records.items()}
    return found


def _records_below(folder: Path) -> Iterable[tuple[Path, Record]]:
    for path in sorted(folder.rglob("*.json")):
        record, why = _parsed(path) if path.is_file() else (None, "it is a folder")
        if record is not None:
            yield path, record
        elif path.is_file() and '"recipe"' not in path.read_text(encoding="utf-8", errors="replace")[:2000]:
            log.info("%s is left out: it is no Record.", path)
        else:
            log.warning("%s is left out: it is no Record of this Relatum: %s.", path, why)


@cache
def _schema() -> Any:
    import pydantic  # a tenth of a second, which `relatum --help` does not pay

    return pydantic.TypeAdapter(Record)


def _parsed(path: Path) -> tuple[Record | None, str]:
    """The Record of a file; or none, and in one line why."""
    import pydantic

    try:
        record: Record = _schema().validate_json(path.read_bytes())
    except pydantic.ValidationError as error:
        first, more = error.errors()[0], error.error_count() - 1
        where = ".".join(map(str, first["loc"]))
        said = f"{where}: {first['msg']}" if where else first["msg"]
        return None, said + (f" (and {more} more)" if more else "")
    return record, ""


def write_atomically(path: Path, text: str) -> None:
    """Write a text in UTF-8 so that no reader ever sees half of it."""
    write_durably(path, lambda file: file.write(text.encode()))


def versions() -> dict[str, str]:
    """The versions of what a number depends on, plugins too."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = ""
    return found | plugins.versions()


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
