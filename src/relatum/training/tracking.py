"""A tracker beside TensorBoard: Trackio or Weights & Biases, which share an interface.

A tracker tells others of a run, and nothing depends on it: whatever it raises is told once, and training goes on. The
run has one identity there for all its life, which `tracker.json` in the run folder holds, so that a run that is resumed
goes on in the tracked one.
"""

import contextlib
import importlib
import io
import json
import logging
import math
import secrets
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from relatum.reports.records import write_atomically

log = logging.getLogger(__name__)

TrackerName = Literal["none", "trackio", "wandb"]
PROJECT = "relatum"
FILE = "tracker.json"


def require(tracker: TrackerName) -> None:
    """Raise if the package of a tracker is not installed.

    Raises:
        ValueError: as said.
    """
    if tracker != "none" and find_spec(tracker) is None:
        raise ValueError(
            f"train.tracker is {tracker}, and the package {tracker!r} is not installed: pip install "
            f"'relatum[{tracker}]', or leave --train.tracker out."
        )


class Tracker:
    """The tracked run of a run folder.

    Args:
        tracker: which; "none" tracks nothing.
        folder: of the run.
        config: the recipe in plain types, which the tracker shows beside the numbers.
    """

    def __init__(self, tracker: TrackerName, folder: Path, config: Mapping[str, Any]) -> None:
        self._run: Any = None
        self.tracker = tracker
        if tracker == "none":
            return
        with self._forgiven("cannot be started"):
            identity = _identity(folder, tracker)
            module = importlib.import_module(tracker)
            own = {"id": identity, "dir": str(folder)} if tracker == "wandb" else {"embed": False}
            # Both greet at length on standard output, which is the run's own.
            with contextlib.redirect_stdout(io.StringIO()):
                # The package's own `finish`, without which Trackio closes the run once more when the process ends.
                self._finish = module.finish
                self._run = module.init(project=PROJECT, name=identity, config=dict(config), resume="allow", **own)

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Numbers after `step` steps of the run; what is no finite number is left out."""
        finite = {name: value for name, value in values.items() if math.isfinite(value)}
        if self._run is not None and finite:
            with self._forgiven("takes no more numbers"):
                self._run.log(finite, step=step)

    def close(self) -> None:
        """Hand over what is still to be written."""
        if self._run is not None:
            with self._forgiven("could not be closed"), contextlib.redirect_stdout(io.StringIO()):
                self._finish()
            self._run = None

    @contextlib.contextmanager
    def _forgiven(self, what: str) -> Any:
        try:
            yield
        except Exception as error:  # whatever the package raises, or its server
            self._run = None
            log.warning(
                "%s %s (%s: %s); training goes on without it.",
                *(self.tracker, what, type(error).__name__, " ".join(str(error).split())[:300]),
            )


def _identity(folder: Path, tracker: TrackerName) -> str:
    """What the run is called there: the name of its folder, and some letters of chance."""
    file = folder / FILE
    if file.is_file():
        known = json.loads(file.read_text(encoding="utf-8"))
        if known["tracker"] == tracker:
            return str(known["name"])
    name = f"{folder.name}-{secrets.token_hex(3)}"
    write_atomically(file, json.dumps({"tracker": tracker, "project": PROJECT, "name": name}) + "\n")
    return name
