"""Training: one Learner around any method, one loop, one Record. The only file that imports Lightning.

Lightning Fabric brings devices, processes and precision. The loop is ours: it must not wait for the device at each
step, and every random decision is a function of (seed, epoch, step), so that a run that is killed at any moment and
resumed ends in the same weights, bit for bit, on the same machine.
"""

import csv
import io
import logging
import os
import platform
import resource
import shutil
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, cast

import torch
from jaxtyping import Float
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.profiler import record_function
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from relatum.core.randomness import seed_of
from relatum.core.schedules import learning_rate
from relatum.core.types import Batch, Embeddings
from relatum.evaluation.retrieval import nearest
from relatum.evaluation.tsne import tsne
from relatum.measurement.measurer import Measurements, Measurer
from relatum.methods import Method
from relatum.networks.backbones import Backbone, share_batch_statistics
from relatum.networks.export import save_encoder
from relatum.networks.memory import Frozen
from relatum.recipes import building
from relatum.recipes.building import Prepared
from relatum.recipes.recipe import Recipe, difference, from_dict, from_yaml, to_dict, to_yaml
from relatum.reports import figures, tables
from relatum.reports.records import Record, commit, read_record, versions, write_atomically, write_record
from relatum.training.optimizers import build_optimizer

log = logging.getLogger(__name__)

KEPT_CHECKPOINTS = 2  # the last, and the one before it in case the last is damaged


class Learner(nn.Module):
    """A method whose `forward` is its losses: what a distributed strategy can wrap."""

    def __init__(self, method: Method) -> None:
        super().__init__()
        self.method = method

    def forward(self, batch: Batch) -> dict[str, Float[Tensor, ""]]:
        return self.method.losses(batch)


class NonFiniteLossError(RuntimeError):
    """A loss term became infinite, or not a number."""


def fit(recipe: Recipe, run: Path | str, *, resume: bool = False, profile: bool = False, quiet: bool = False) -> Record:
    """Train as the recipe says, measure, and leave everything in a run folder.

    The folder holds `recipe.yaml`, `record.json`, `encoder.safetensors` (with the script that loads it),
    `checkpoints/`, `metrics.csv`, `tensorboard/`, and the figures `curves.png`, `neighbors.png` and `tsne.png`.

    Args:
        recipe: everything that decides the run.
        run: the folder; it must not exist, unless `resume`.
        resume: go on from the last checkpoint of the folder.
        profile: write where the time of the first steps goes: `profile.txt`, and `trace.json` for a trace viewer.
        quiet: no progress bar and no lines.

    Raises:
        FileExistsError: for a folder that exists, without `resume`.
        FileNotFoundError: for one that does not, with `resume`.
        ValueError: for data or settings that cannot be trained on, before any work; for a checkpoint of another recipe.
        NonFiniteLossError: when a loss is no number any more.
        OSError: when the folder cannot be written.
    """
    run = Path(run)
    _open_folder(recipe, run, resume)
    devices = recipe.train.devices
    fabric = Fabric(
        accelerator=recipe.train.accelerator,
        devices=devices,
        strategy="auto" if devices == 1 else "ddp_spawn",
        precision=precision_of(recipe),
    )
    try:
        # A spawned process gets plain types: the recipe's derived classes cannot be pickled.
        fabric.launch(cast(Any, _run), to_dict(recipe), str(run), resume, profile, quiet)
    except Exception:
        # Refused before training: nothing is lost, and the name stays free.
        if not resume and not (run / "tensorboard").exists():
            shutil.rmtree(run)
        raise
    return read_record(run)


def _run(fabric: Fabric, tree: Mapping[str, Any], folder: str, resume: bool, profile: bool, quiet: bool) -> None:
    recipe, run = from_dict(tree), Path(folder)
    quiet = quiet or fabric.global_rank > 0
    started_from = commit()  # before the sources can change under a long run
    if recipe.train.threads:
        torch.set_num_threads(recipe.train.threads)
    with fabric.rank_zero_first():  # one process downloads, the others find
        prepared = building.prepare(recipe)
    device = fabric.device
    loader = building.build_loader(recipe, prepared, device, rank=fabric.global_rank, world_size=fabric.world_size)
    method = building.build(recipe, prepared)
    measurer = building.measurer_of(recipe, prepared, device, fabric.autocast)
    if recipe.train.sync_batchnorm:
        _refuse_shared_statistics_without_gpu(device)
        method = share_batch_statistics(method)
    method = method.to(device).to(memory_format=torch.channels_last)
    if recipe.train.chunk:
        _encode_in_chunks(method, recipe)
    if recipe.train.compile:
        _compile(method)
    optimizer = build_optimizer(method, recipe.optim)
    state: dict[str, Any] = {"epoch": 0, "history": [], "seconds": 0.0, "images_passed": 0}
    if resume:
        state = _restore(run, recipe, method, optimizer, device) or state
    learner, optimizer = fabric.setup(Learner(method), optimizer)
    method.train()
    if not quiet:
        print(_headline(recipe, prepared, loader.steps_per_epoch, fabric))
    writer = SummaryWriter(run / "tensorboard") if fabric.global_rank == 0 else None
    for epoch in range(state["epoch"], recipe.train.epochs):
        start = time.perf_counter()
        with _profiler(run) if profile and epoch == state["epoch"] else nullcontext() as profiler:
            entry = _train_epoch(
                epoch, fabric, recipe, learner, method, optimizer, loader, run, writer, profiler, quiet
            )
        seconds = time.perf_counter() - start
        state["seconds"] += seconds
        state["images_passed"] += entry.pop("images")
        every = recipe.evaluation.every
        if every and ((epoch + 1) % every == 0 or epoch + 1 == recipe.train.epochs):
            entry |= measurer.between_epochs(method)  # on all ranks: each encodes its part of the images
        if fabric.global_rank == 0:
            state["history"].append({"epoch": epoch + 1, "seconds": seconds} | entry)
            state["epoch"] = epoch + 1
            _save(run, state, recipe, method, optimizer)
            _log_epoch(run, state["history"], writer, quiet)
        fabric.barrier()
    found = measurer.final(method)
    if fabric.global_rank == 0:
        _finish(run, state, started_from, fabric, recipe, prepared, method, measurer, found, quiet)
    fabric.barrier()


def _train_epoch(
    epoch: int,
    fabric: Fabric,
    recipe: Recipe,
    learner: Any,
    method: Method,
    optimizer: Any,
    loader: Any,
    run: Path,
    writer: SummaryWriter | None,
    profiler: Any,
    quiet: bool,
) -> dict[str, float]:
    """One pass. Returns the mean of each loss term, the learning rate, and the images that passed the backbone."""
    optim, steps = recipe.optim, loader.steps_per_epoch
    total_steps = steps * recipe.train.epochs
    sums: dict[str, float] = {}
    window: list[Tensor] = []  # the loss terms since the last look: a look waits for the device
    images, rate, names = 0, 0.0, []
    bar = tqdm(
        _labeled(loader.epoch(epoch)),
        total=steps,
        desc=f"epoch {epoch + 1}",
        leave=False,
        disable=True if quiet else None,  # None: a terminal gets the bar, a log file does not
        unit="step",
    )
    for step, batch in enumerate(bar):
        at = epoch * steps + step
        rate = optim.lr * learning_rate(
            at / total_steps,
            optim.schedule,
            warmup=optim.warmup_epochs / recipe.train.epochs,
            milestones=tuple(m / recipe.train.epochs for m in optim.milestones),
            gamma=optim.gamma,
        )
        for group in optimizer.param_groups:
            group["lr"] = rate
        torch.manual_seed(seed_of(recipe.train.seed, epoch, step, fabric.global_rank))
        with record_function("relatum: forward and losses"):
            terms = learner(batch)
        with record_function("relatum: backward"):
            fabric.backward(sum(terms.values()))
        with record_function("relatum: optimizer"):
            if optim.clip:
                fabric.clip_gradients(learner, optimizer, max_norm=optim.clip, error_if_nonfinite=False)
            optimizer.step()
            optimizer.zero_grad()
        with record_function("relatum: after the step"):
            method.after_step((at + 1) / total_steps)
        if profiler is not None:
            profiler.step()
        images += sum(len(view) for view in batch.views) * fabric.world_size
        names = list(terms)
        window.append(torch.stack([term.detach().float() for term in terms.values()]))
        if (step + 1) % recipe.train.log_every == 0 or step + 1 == steps:
            losses = torch.stack(window).cpu()
            _refuse_non_finite(losses, names, at + 1 - len(window), run)
            for name, mean in zip(names, losses.mean(0).tolist()):
                sums[name] = sums.get(name, 0.0) + mean * len(window)
                if writer is not None:
                    writer.add_scalar(f"loss/{name}", mean, at + 1)
            if writer is not None:
                writer.add_scalar("learning_rate", rate, at + 1)
            bar.set_postfix({name: f"{mean:.3f}" for name, mean in zip(names, losses.mean(0).tolist())})
            window = []
    return {name: value / steps for name, value in sums.items()} | {"learning_rate": rate, "images": images}


def _labeled(batches: Iterator[Batch]) -> Iterator[Batch]:
    """The same batches; a profile shows what they cost."""
    while True:
        with record_function("relatum: loading and views"):
            batch = next(batches, None)
        if batch is None:
            return
        yield batch


def _profiler(run: Path) -> torch.profiler.profile:
    """Of five steps, after three that warm up; it writes its files when the fifth is done."""

    def write(profile: torch.profiler.profile) -> None:
        parts = profile.key_averages()
        key = "self_device_time_total" if torch.cuda.is_available() else "self_cpu_time_total"
        ours = [part for part in parts if part.key.startswith("relatum: ")]
        total = sum(part.cpu_time_total for part in ours)
        lines = [f"{part.cpu_time_total / total:6.1%}  {part.key}" for part in ours]
        text = "\n".join(["parts of a step, by processor time:", *sorted(lines, reverse=True), ""])
        write_atomically(run / "profile.txt", text + parts.table(sort_by=key, row_limit=30))
        profile.export_chrome_trace(str(run / "trace.json"))

    return torch.profiler.profile(
        schedule=torch.profiler.schedule(wait=1, warmup=2, active=5, repeat=1), on_trace_ready=write
    )


def _refuse_non_finite(losses: Float[Tensor, "steps terms"], names: list[str], first_step: int, run: Path) -> None:
    bad = (~losses.isfinite()).nonzero()
    if len(bad):
        step, term = bad[0].tolist()
        last = _checkpoints(run)
        raise NonFiniteLossError(
            f"the loss term {names[term]!r} is {losses[step, term].item()} at step {first_step + step + 1}. Lower "
            "--optim.lr, set --optim.clip 1, or raise the temperature. The last good checkpoint is "
            f"{last[-1] if last else 'none: no epoch was finished'}."
        )


def _refuse_shared_statistics_without_gpu(device: torch.device) -> None:
    if device.type == "cpu":
        raise ValueError(
            "sync_batchnorm was asked for on the CPU, and torch shares batch statistics among GPUs only. "
            "Leave --train.sync-batchnorm out, or train with --train.accelerator cuda."
        )


def _encode_in_chunks(method: Method, recipe: Recipe) -> None:
    """Let the backbone encode in chunks, if the user knows what that changes."""
    size, allowed = recipe.train.chunk, recipe.train.chunk_batchnorm
    if any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in method.backbone.modules()):
        changes = (
            f"{recipe.model.name} has batch normalization: in chunks of {size} its statistics are those of each chunk, "
            "and its running statistics move twice a step. This is another computation than that of the whole batch"
        )
        if not allowed:
            raise ValueError(f"{changes}. Ask for it with --train.chunk-batchnorm, or leave --train.chunk out.")
        log.warning("%s.", changes)
    method.backbone.chunk = size


def _compile(method: Method) -> None:
    """Compile every backbone when it is first called: the student's, its momentum copy's, a peer's, a teacher's."""
    for module in method.modules():
        network = module.network if isinstance(module, Frozen) else module
        if isinstance(network, Backbone):
            network.compile()


def precision_of(recipe: Recipe) -> Any:
    """The precision that the recipe asks for; "auto" is bf16-mixed where the processor computes it, else float32."""
    if recipe.train.precision != "auto":
        return recipe.train.precision
    gpu = recipe.train.accelerator != "cpu" and torch.cuda.is_available()
    return "bf16-mixed" if (torch.cuda.is_bf16_supported() if gpu else _processor_has_bf16()) else "32-true"


def _processor_has_bf16() -> bool:
    """Whether bfloat16 is computed, not emulated: with emulation it is several times slower than float32."""
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    names = ("amx_bf16", "avx512_bf16", "bf16")
    if capabilities:
        return any(bool(capabilities.get(name)) for name in names)
    cpuinfo = Path("/proc/cpuinfo")
    flags = cpuinfo.read_text() if cpuinfo.exists() else ""
    return "amx_bf16" in flags or "avx512_bf16" in flags


def _open_folder(recipe: Recipe, run: Path, resume: bool) -> None:
    """Make the folder, or refuse one that is not ours to write into."""
    written = run / "recipe.yaml"
    if resume:
        if not written.is_file():
            raise FileNotFoundError(f"{run} holds no run to resume; leave --resume out to start one there.")
        changed = difference(from_yaml(written.read_text()), recipe)
        if changed:
            raise ValueError(
                f"{run} was started with another recipe, and going on would give the numbers of neither:\n  "
                + "\n  ".join(changed)
                + "\nResume with the same recipe, or start a new run folder."
            )
        return
    if run.exists() and (not run.is_dir() or any(run.iterdir())):
        raise FileExistsError(
            f"{run} exists, and a run is never overwritten: choose another folder with --run, or add --resume to go on."
        )
    try:
        (run / "checkpoints").mkdir(parents=True)
        write_atomically(written, to_yaml(recipe))
    except OSError as error:
        raise OSError(f"{run} cannot be written ({error}); choose a folder with --run that can.") from None


def _checkpoints(run: Path) -> list[Path]:
    """From the oldest to the last."""
    return sorted((run / "checkpoints").glob("epoch-*.pt"))


def _save(run: Path, state: Mapping[str, Any], recipe: Recipe, method: Method, optimizer: Any) -> None:
    """A checkpoint, whole or not at all; older ones go once it is there."""
    path = run / "checkpoints" / f"epoch-{state['epoch']:05d}.pt"
    part = path.with_suffix(".part")
    content = {**state, "recipe": to_yaml(recipe), "method": method.state_dict(), "optimizer": optimizer.state_dict()}
    try:
        torch.save(content, part)
    except (OSError, RuntimeError) as error:
        part.unlink(missing_ok=True)
        free = shutil.disk_usage(run).free // 2**20
        raise OSError(
            f"{path} cannot be written ({error}; {free} MiB free). The checkpoints before it are whole: make room and "
            "go on with --resume."
        ) from None
    os.replace(part, path)
    for old in _checkpoints(run)[:-KEPT_CHECKPOINTS]:
        old.unlink()


def _restore(
    run: Path, recipe: Recipe, method: Method, optimizer: torch.optim.Optimizer, device: torch.device
) -> dict[str, Any] | None:
    """The state of the last checkpoint, its weights loaded; None where no epoch was finished."""
    found = _checkpoints(run)
    if not found:
        return None
    path = found[-1]
    try:
        state = torch.load(path, map_location=device, weights_only=True)
        changed = difference(from_yaml(state.pop("recipe")), recipe)
        if not changed:
            method.load_state_dict(state.pop("method"))
            optimizer.load_state_dict(state.pop("optimizer"))
    except Exception as error:
        before = f"; or delete it, and {found[-2].name} is the one to go on from" if len(found) > 1 else ""
        raise ValueError(f"{path} is damaged, or no checkpoint of Relatum: {error}. Start anew{before}.") from None
    if changed:
        raise ValueError(f"{path} is of another recipe:\n  " + "\n  ".join(changed))
    return state


def _headline(recipe: Recipe, prepared: Prepared, steps: int, fabric: Fabric) -> str:
    source = prepared.source
    kind = type(prepared.train).__name__.removesuffix("Images").lower()
    held = len(prepared.held_out) if prepared.held_out is not None else 0
    test = len(source.test) if source.test is not None else 0
    return (
        f"{recipe.method.name} on {source.name} with {recipe.model.name}, "
        f"{len(prepared.train)} images to train on ({kind}), {held} held out, {test} to test on; "
        f"{recipe.train.epochs} epochs of {steps} steps on {fabric.world_size} x {fabric.device.type} in "
        f"{precision_of(recipe)}"
    )


def _log_epoch(run: Path, history: list[dict[str, int | float]], writer: SummaryWriter | None, quiet: bool) -> None:
    entry = history[-1]
    columns = list(dict.fromkeys(name for row in history for name in row))
    text = io.StringIO()
    table = csv.DictWriter(text, columns)
    table.writeheader()
    table.writerows(history)
    write_atomically(run / "metrics.csv", text.getvalue())
    if writer is not None:
        for name, value in entry.items():
            writer.add_scalar(f"epoch/{name}", value, int(entry["epoch"]))
        writer.flush()
    if not quiet:
        skipped = ("epoch", "seconds", "learning_rate")
        words = "  ".join(f"{name} {value:.4g}" for name, value in entry.items() if name not in skipped)
        print(f"epoch {int(entry['epoch']):4d}  {entry['seconds']:6.1f} s  {words}", flush=True)


def _finish(
    run: Path,
    state: Mapping[str, Any],
    started_from: str,
    fabric: Fabric,
    recipe: Recipe,
    prepared: Prepared,
    method: Method,
    measurer: Measurer,
    found: Measurements,
    quiet: bool,
) -> None:
    """The last epoch's encoder, measured and written; the Record last, so that it stands for a whole run."""
    source, backbone, device = prepared.source, method.backbone, fabric.device
    save_encoder(
        backbone,
        run,
        mean=source.mean,
        std=source.std,
        size=recipe.data.view.size,
        classes=source.classes if backbone.num_classes else None,
    )
    gpu = device.type == "cuda"
    peak = torch.cuda.max_memory_allocated(device) if gpu else _peak_resident_bytes()
    record = Record(
        recipe=to_dict(recipe),
        seed=recipe.train.seed,
        versions=versions(),
        commit=started_from,
        machine={
            "device": torch.cuda.get_device_name(device) if gpu else _processor(),
            "devices": fabric.world_size,
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "precision": precision_of(recipe),
        },
        data={
            "train": len(prepared.train),
            "held_out": len(prepared.held_out) if prepared.held_out is not None else 0,
            "test": len(source.test) if source.test is not None else 0,
            "classes": len(source.classes),
            "mean": list(source.mean),
            "std": list(source.std),
        },
        history=state["history"],
        metrics=found.metrics,
        protocols=found.protocols,
        columns=found.columns,
        notices=list(found.notices),
        correct=found.correct,
        images_passed=state["images_passed"],
        seconds=state["seconds"],
        peak_memory=peak / 2**20,
    )
    figures.curves(record, run / "curves.png")
    if recipe.evaluation.figures and found.embeddings is not None:
        _look(run, recipe, measurer, found.embeddings, found.stages)
    write_record(record, run / "record.json")
    if not quiet:
        print(tables.measured(found.metrics, found.protocols))
        print(f"all of it is in {run}/")


def _look(run: Path, recipe: Recipe, measurer: Measurer, test: Embeddings, stages: Sequence[Embeddings]) -> None:
    """Pictures of the test set: what the encoder holds to be alike, and the map of its features."""
    source, images = measurer.source, measurer.test
    assert images is not None  # there are embeddings of them
    shown = min(len(images) - 1, figures.NEIGHBORS)
    if shown >= 1:
        queries = torch.linspace(0, len(images) - 1, min(figures.QUERIES, len(images))).long()
        found = nearest(test.features[queries], test.features, shown + 1).indices[:, 1:]
        figures.neighbors(
            [[measurer.thumbnail(images, int(i)) for i in (q, *row)] for q, row in zip(queries, found)],
            [[int(test.labels[i]) for i in (q, *row)] for q, row in zip(queries, found)],
            source.classes,
            run / "neighbors.png",
        )
    if len(images) < figures.LEAST_MAPPED:
        return

    def mapped(features: Embeddings) -> Embeddings:
        return tsne(features, seed=recipe.train.seed, perplexity=min(30.0, (len(images) - 1) / 3))

    figures.feature_map(mapped(test), source.classes, run / "tsne.png")
    if stages:
        figures.stage_maps([mapped(stage) for stage in stages], source.classes, run / "stages.png")


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())


def _peak_resident_bytes() -> int:
    unit = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
