"""The folder of a run: whose it is, what may be started or resumed in it, and what a checkpoint there holds."""

import logging
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from relatum.core.distributed import rank
from relatum.core.files import write_durably
from relatum.data.sources import GIVEN
from relatum.methods import Method
from relatum.networks.backbones import Backbone
from relatum.networks.export import EncoderInfo, load_encoder, rebuilt
from relatum.networks.memory import own_parts
from relatum.recipes.recipe import Recipe, difference, from_dict, from_yaml, to_yaml
from relatum.reports.records import Record, read_record
from relatum.training import checkpoints
from relatum.training.lease import FILE, Lease, refuse_if_lost
from relatum.training.online import Online

log = logging.getLogger(__name__)

PLACES = ("data.root:", "data.workers:", "train.log_every:", "train.tracker:")
"""Where a run finds its images, and what reads or tells it."""
BACKBONE = "backbone.model."  # what the names of the encoder's weights begin with in the state of a method


@dataclass
class Progress:
    """How far a run has come.

    Attributes:
        epoch: epochs that are done.
        history: an entry for each.
        seconds: of training, without evaluation.
        images_passed: images that went through the backbone, each view counted.
    """

    epoch: int = 0
    history: list[dict[str, int | float]] = field(default_factory=list)
    seconds: float = 0.0
    images_passed: int = 0


@dataclass(frozen=True)
class RunFolder:
    """A run folder that is ours to write into.

    Attributes:
        path: the folder.
        token: of the lease that says so.
    """

    path: Path
    token: str

    def refuse_if_lost(self) -> None:
        """Called before each write. See `lease.refuse_if_lost`."""
        refuse_if_lost(self.path, self.token)

    def save(
        self,
        progress: Progress,
        recipe: Recipe,
        method: Method,
        optimizer: Any,
        facts: Mapping[str, Any],
        online: Online | None = None,
    ) -> None:
        """Write a checkpoint.

        Args:
            progress: the epoch that is done, and those before it.
            recipe: of the run.
            method, optimizer: their state is kept.
            facts: what must be the same when the run goes on, or is needed to use the encoder without it.
            online: its state is kept, too, where there is a probe.

        Raises:
            NonFiniteWeightsError, OSError, LeaseError: nothing was written.
        """
        self.refuse_if_lost()
        state = {"method": method.state_dict(), "optimizer": optimizer.state_dict()}
        state |= {} if online is None else {"online": online.probe.state_dict()}
        content = {**asdict(progress), **facts, "recipe": to_yaml(recipe), **state}
        checkpoints.write(self.path, progress.epoch, content)

    def save_part(self, epoch: int, method: Method) -> None:
        """Write what this process alone has of the state of a method, before the first one writes the checkpoint.

        Args:
            epoch: its number, counted from 1.
            method: some of its buffers are parts of a whole.

        Raises:
            NonFiniteWeightsError, OSError, LeaseError: nothing was written.
        """
        self.refuse_if_lost()
        if rank():  # the first one's part is in the checkpoint itself
            checkpoints.write_part(self.path, epoch, rank(), own_parts(method))

    def load(self, state: dict[str, Any], method: Method, optimizer: torch.optim.Optimizer) -> Progress:
        """Give `method` and `optimizer` the state of a checkpoint. Returns how far the run had come.

        Raises:
            ValueError: it does not fit, or the part of this process is not there, or damaged.
        """
        weights = dict(state["method"])
        if rank() and own_parts(method):
            part = checkpoints.part_of(self.path, state["epoch"], rank())
            if not part.is_file():
                raise ValueError(
                    f"process {rank()} does not find its part of the checkpoint, {part}: all processes must see the "
                    "run folder, or train with --method.no-sharded in a new one."
                )
            weights |= checkpoints.read(part)
        try:
            method.load_state_dict(weights)
            optimizer.load_state_dict(state["optimizer"])
            return Progress(*(state[name] for name in ("epoch", "history", "seconds", "images_passed")))
        except (KeyError, RuntimeError, ValueError) as error:
            raise ValueError(f"the checkpoint does not fit this version of Relatum ({error}): start anew.") from None

    def restore(self, recipe: Recipe, facts: Mapping[str, Any]) -> dict[str, Any] | None:
        """The content of the last good checkpoint; None where no epoch was finished.

        Raises:
            ValueError: it is of another recipe or teacher, or all are damaged; or the checkpoints of a run that had
                some are gone.
        """
        state = checkpoints.last_good(self.path)
        if state is None:
            if any((self.path / name).exists() for name in ("metrics.csv", "encoder.safetensors", "record.json")):
                raise ValueError(
                    f"{self.path} has finished epochs, but its checkpoints are gone: going on would train anew. "
                    "Start a new run folder; if there is an encoder, `relatum evaluate` measures it."
                )
            return None
        _refuse_another(f"a checkpoint in {self.path}", from_yaml(state["recipe"]), recipe)
        _refuse_another_teacher(state.get("teacher"), facts.get("teacher"))
        if recipe.data.source.startswith(GIVEN):
            _refuse_other_images(state["encoder"], facts["encoder"])
        return state


@contextmanager
def opened(path: Path, recipe: Recipe, resume: bool) -> Iterator[RunFolder | Record]:
    """The folder of a run, made or taken over, with its lease; or the Record of a run that is finished.

    Whoever is refused before training has begun finds the name as it was.

    Args:
        path: the folder.
        recipe: of the run.
        resume: start if there is no run, go on with one that was interrupted, and do nothing for a finished one.

    Raises:
        FileExistsError: there is something that would be overwritten.
        ValueError: there is a run of another recipe.
        LeaseError: another process trains in it.
        OSError: it cannot be written.
    """
    record = _finished(path, recipe, resume)
    if record is not None:
        yield record
        return
    fresh = _refuse_foreign(path, recipe, resume)
    made = not path.exists()
    lease = Lease(path)
    try:
        (path / "checkpoints").mkdir(parents=True, exist_ok=True)
        token = lease.take()
    except OSError as error:
        if made and path.is_dir():
            _remove_start(path, made)
        raise OSError(f"{path} cannot be written ({error}); choose a folder with --run that can.") from None
    begun = False
    try:
        record = _finished(path, recipe, resume)  # by whoever held the lease before
        if record is not None:
            yield record
            return
        for part in [*path.glob("*.part"), *path.glob("checkpoints/*.part")]:
            part.unlink()  # of a process that was killed as it wrote
        text = to_yaml(recipe).encode()
        write_durably(path / "recipe.yaml", lambda file: file.write(text))
        yield RunFolder(path, token)
        begun = True
    finally:
        lease.release()
        if fresh and not begun and not (path / "tensorboard").exists():
            _remove_start(path, made)


def encoder_of(run: Path) -> tuple[Backbone, EncoderInfo]:
    """The encoder of a run: that of its end, or of the last good checkpoint of one that did not come there.

    Args:
        run: the run folder.

    Raises:
        FileNotFoundError: it has neither.
        ValueError: it is damaged.
    """
    if (run / "encoder.safetensors").is_file():
        return load_encoder(run)
    state = checkpoints.last_good(run)
    if state is None:
        raise FileNotFoundError(
            f"{run} holds no encoder and no checkpoint; expected a run folder of `relatum train` with a finished epoch."
        )
    log.warning("%s was not finished: this is its encoder after epoch %d.", run, state["epoch"])
    weights = {k.removeprefix(BACKBONE): v for k, v in state["method"].items() if k.startswith(BACKBONE)}
    return rebuilt(state["encoder"], weights)


def _finished(path: Path, recipe: Recipe, resume: bool) -> Record | None:
    """The Record of a finished run of this recipe; None where there is more to do, be it another evaluation."""
    if not resume or not (path / "record.json").is_file():
        return None
    record = read_record(path)
    before = from_dict(record.recipe)
    _refuse_another(str(path), before, recipe)
    return None if _changed(before, recipe, PLACES) else record


def _refuse_foreign(path: Path, recipe: Recipe, resume: bool) -> bool:
    """Refuse a folder that is not this run's to write into. Returns whether a run starts in it."""
    if not path.exists():
        return True
    if not path.is_dir():
        raise FileExistsError(f"{path} is a file; choose a folder with --run.")
    written = path / "recipe.yaml"
    if written.is_file():
        if resume:
            _refuse_another(str(path), from_yaml(written.read_text(encoding="utf-8")), recipe)
            return False
        raise FileExistsError(
            f"{path} exists, and a run is never overwritten: choose another folder with --run, or go on with --resume."
        )
    if not all(_is_leftover(entry) for entry in path.iterdir()):
        raise FileExistsError(
            f"{path} exists and holds no run, and nothing is ever overwritten: choose another folder with --run."
        )
    return True


def _is_leftover(entry: Path) -> bool:
    """Whether an entry of a folder is what a process leaves that was killed before it wrote the recipe."""
    empty = entry.name == "checkpoints" and entry.is_dir() and not any(entry.iterdir())
    return empty or entry.name.startswith(FILE) or entry.name.endswith(".part")


def _remove_start(path: Path, made: bool) -> None:
    """Undo a start: what was put into the folder, and the folder itself if it was not there before."""
    (path / "recipe.yaml").unlink(missing_ok=True)
    shutil.rmtree(path / "checkpoints", ignore_errors=True)
    if made and not any(path.iterdir()):
        path.rmdir()


def _refuse_another(what: str, before: Recipe, now: Recipe) -> None:
    """A run goes on with its own recipe; how it is measured may change, where its images are, and on what machines."""
    counts = [recipe.train.devices * recipe.train.nodes for recipe in (before, now)]
    if counts[0] != counts[1]:
        raise ValueError(
            f"{what} was trained by {counts[0]} processes, and this would be {counts[1]}. Views, batch statistics and "
            "what is gathered depend on the number, so it would end in other weights: keep the product of "
            "--train.devices and --train.nodes, or start a new run folder."
        )
    changed = _changed(before, now, (*PLACES, "evaluation.", "train.devices:", "train.nodes:"))
    if changed:
        raise ValueError(
            f"{what} was started with another recipe, and going on would give the numbers of neither:\n  "
            + "\n  ".join(changed)
            + "\nResume with the same recipe (evaluation.*, data.root and data.workers may change), or start a new run "
            "folder."
        )


def _changed(before: Recipe, now: Recipe, free: tuple[str, ...]) -> list[str]:
    """The lines of `difference` that do not begin with one of `free`."""
    return [line for line in difference(before, now) if not line.startswith(free)]


def _refuse_another_teacher(before: Mapping[str, Any] | None, now: Mapping[str, Any] | None) -> None:
    if (before or {}).get("sha256") != (now or {}).get("sha256"):
        raise ValueError(
            f"the teacher was replaced: training began with {_named(before)}, and there is {_named(now)} now. Put the "
            "file of the first teacher back, or start a new run folder."
        )


def _refuse_other_images(before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Images that were given as objects have no name to know them by; their mean and deviation tell them apart."""
    for what in ("mean", "std", "classes"):
        if before[what] != now[what]:
            raise ValueError(
                f"the images that are given have {what} {now[what]}, and the run was started with images of {what} "
                f"{before[what]}: give the same images, or start a new run folder."
            )


def _named(teacher: Mapping[str, Any] | None) -> str:
    if not teacher:
        return "none"
    return f"{teacher['path']} of SHA-256 {teacher['sha256'][:12]}..., top-1 {teacher['accuracy'] or 'unknown'}"
