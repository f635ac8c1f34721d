"""Training: one loop around any method, from a recipe to a Record.

Lightning Fabric brings devices, processes and precision. The loop is ours: it must not wait for the device at each
step, and every random decision is a function of (seed, epoch, step), so that a run that is killed at any moment and
resumed ends in the same weights, bit for bit, on the same machine.
"""

import logging
import time
from collections.abc import Mapping
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric

from relatum.core import plugins
from relatum.core.distributed import first_does, take_buffers_of_first, wait_for_all
from relatum.data import sources
from relatum.networks.backbones import Backbone
from relatum.networks.memory import agreed_buffers, own_parts
from relatum.recipes.building import Given
from relatum.recipes.recipe import Recipe, from_dict, to_dict
from relatum.reports.records import Record, commit, read_record
from relatum.training import processes, run_folder, tracking
from relatum.training.assembly import Assembled, Learner, assemble
from relatum.training.hardware import freed_memory_kept, precision_of
from relatum.training.logs import Logs
from relatum.training.outcome import finish
from relatum.training.passes import Passes
from relatum.training.profiler import profiler
from relatum.training.run_folder import Progress, RunFolder
from relatum.training.tracking import Tracker

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Wishes:
    """How a run goes that its recipe does not decide.

    Attributes:
        profile: write where the time of the first steps goes: `profile.txt`, and `trace.json` for a trace viewer.
        quiet: no progress bar and no lines.
    """

    profile: bool = False
    quiet: bool = False


def fit(
    recipe: Recipe,
    run: Path | str,
    *,
    data: Any = None,
    backbone: Backbone | None = None,
    resume: bool = False,
    profile: bool = False,
    quiet: bool = False,
) -> Record | None:
    """Train as the recipe says, measure, and leave everything in a run folder.

    The folder holds `recipe.yaml`, `record.json`, `encoder.safetensors` (with the script that loads it),
    `checkpoints/`, `metrics.csv`, `tensorboard/`, and the figures `curves.png`, `neighbors.png` and `tsne.png`
    (a vision transformer's has `attention.png`, too).

    Args:
        recipe: everything that decides the run.
        run: the folder; it must not exist, unless `resume`.
        data: images in the place of those that the recipe names: a torch `Dataset` of pairs (image, class), images as
            uint8 tensors (n, c, h, w), (images, labels), a pair (training, test) of one of these, or a `Source`.
        backbone: what is trained in the place of what the recipe names, such as `Backbone.wrap(module)`. A copy of it
            is: `load_encoder(run, backbone)` then gives it the weights of the run.
        resume: whatever is there, end in a finished run: start one, go on from the last good checkpoint of one, or
            return the Record of one that is finished. What the recipe says of evaluation may have changed.
        profile: write where the time of the first steps goes: `profile.txt`, and `trace.json` for a trace viewer.
        quiet: no progress bar and no lines.

    Returns:
        The Record. None in all processes but the first of those that torchrun or srun has started.

    Raises:
        FileExistsError: for a folder that exists, without `resume`.
        ValueError: for data or settings that cannot be trained on, before any work; for a run of another recipe or
            teacher; for damaged checkpoints.
        NonFiniteLossError: when a loss or a weight is no number any more.
        MeasurementError: when the trained encoder, which is kept, cannot be measured.
        LeaseError: when another process trains in the folder.
        OSError: when the folder cannot be written.
    """
    plugins.load()
    path, wishes = Path(run), Wishes(profile, quiet)
    given = Given(None if data is None else sources.of(data), backbone)
    recipe = given.said_in(recipe)
    tracking.require(recipe.train.tracker)
    if processes.started_from_outside():
        # The others wait for the word of the first: whether there is a run, or it was refused, or is finished.
        processes.launch(recipe, _open_and_train, to_dict(recipe), path, resume, wishes, given)
        return read_record(path) if torch.distributed.get_rank() == 0 else None
    with run_folder.opened(path, recipe, resume) as opened:
        if isinstance(opened, RunFolder):
            # A spawned process gets plain types: the recipe's derived classes cannot be pickled.
            processes.launch(recipe, _train, to_dict(recipe), opened, wishes, given)
        elif not quiet:
            print(f"{path} is finished: its Record stands.")
    return read_record(path)


def _open_and_train(
    fabric: Fabric, tree: Mapping[str, Any], path: Path, resume: bool, wishes: Wishes, given: Given
) -> None:
    """What each of the processes does that were started from outside: the folder is the first one's."""
    with ExitStack() as stack:
        opened = first_does(lambda: stack.enter_context(run_folder.opened(path, from_dict(tree), resume)))
        if isinstance(opened, RunFolder):
            _train(fabric, tree, opened, wishes, given)
        elif fabric.global_rank == 0 and not wishes.quiet:
            print(f"{path} is finished: its Record stands.")


def _train(fabric: Fabric, tree: Mapping[str, Any], run: RunFolder, wishes: Wishes, given: Given) -> None:
    """A run from its start, or its last checkpoint, to its Record: in each of its processes."""
    recipe = from_dict(tree)
    started_from = commit()  # before the sources can change under a long run
    if recipe.train.threads:
        torch.set_num_threads(recipe.train.threads)
    parts = assemble(fabric, recipe, given)
    state = first_does(lambda: run.restore(recipe, parts.facts))
    progress = Progress() if state is None else run.load(state, parts.method, parts.optimizer)
    if parts.online is not None and state is not None:
        parts.online.load(state.get("online"))
    del state  # as large as the weights
    learner, optimizer = fabric.setup(Learner(parts.method), parts.optimizer)
    parts.method.train()
    expected = {"epochs": recipe.train.epochs, "steps": parts.loader.steps_per_epoch, "done": progress.epoch}
    tracker = Tracker(recipe.train.tracker, run.path, tree) if parts.first else None
    logs = Logs(run.path if parts.first else None, wishes.quiet, tracker=tracker, **expected)
    with logs, freed_memory_kept(fabric.device):
        logs.table(progress.history)
        logs.say(_headline(parts))
        passes = Passes(parts, learner, optimizer, run.path, logs)
        for epoch in range(progress.epoch, recipe.train.epochs):
            start = time.perf_counter()
            profiled = wishes.profile and parts.first and epoch == progress.epoch
            with profiler(run.path) if profiled else nullcontext() as profile:
                entry, images = passes.run(epoch, profile)
            # What all measure is what the first one saves.
            take_buffers_of_first(parts.method, but=agreed_buffers(parts.method))
            seconds = time.perf_counter() - start
            entry |= _measured_between(parts, epoch)
            progress.epoch = epoch + 1
            progress.seconds += seconds
            progress.images_passed += images
            progress.history.append({"epoch": epoch + 1, "seconds": seconds} | entry)
            if own_parts(parts.method):
                run.save_part(epoch + 1, parts.method)
                wait_for_all()  # a checkpoint is there when all of its parts are
            if parts.first:
                run.save(progress, recipe, parts.method, parts.optimizer, parts.facts, parts.online)
                logs.epoch(progress.history)
                _tell_collapse(parts, progress)
            wait_for_all()  # here, and not in a step of the next epoch, where torch's patience is half an hour
        finish(parts, run, progress, started_from, logs)


def _measured_between(parts: Assembled, epoch: int) -> dict[str, float]:
    """What is measured after an epoch, where the recipe wants it: every process encodes its part of the images."""
    every = parts.recipe.evaluation.every
    wanted = every and ((epoch + 1) % every == 0 or epoch + 1 == parts.recipe.train.epochs)
    if not wanted:
        return {}
    return parts.measurer.between_epochs(parts.method, None if parts.online is None else parts.online.probe)


def _tell_collapse(parts: Assembled, progress: Progress) -> None:
    """Warn of a collapse, once: after the epoch that is the first to show it."""
    said = parts.collapse(progress.history)
    if said and not parts.collapse(progress.history[:-1]):
        log.warning("%s", said)


def _headline(parts: Assembled) -> str:
    recipe, prepared, fabric = parts.recipe, parts.prepared, parts.fabric
    source = prepared.source
    kind = type(prepared.train).__name__.removesuffix("Images").lower()
    held = len(prepared.held_out) if prepared.held_out is not None else 0
    test = len(source.test) if source.test is not None else 0
    return (
        f"{recipe.method.name} on {source.name} with {recipe.model.name}, "
        f"{len(prepared.train)} images to train on ({kind}), {held} held out, {test} to test on; "
        f"{recipe.train.epochs} epochs of {parts.loader.steps_per_epoch} steps on {fabric.world_size} x "
        f"{fabric.device.type} in {precision_of(recipe)}"
    )
