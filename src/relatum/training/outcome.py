"""The end of a run: the encoder first, then what is measured of it, the pictures, and last the Record."""

from relatum.evaluation.baselines import not_beaten
from relatum.networks.export import save_encoder
from relatum.recipes.recipe import to_dict
from relatum.reports import figures, pictures, tables
from relatum.reports.records import Record, versions, write_record
from relatum.training.assembly import Assembled
from relatum.training.hardware import machine_facts, peak_memory, precision_of
from relatum.training.logs import Logs
from relatum.training.run_folder import Progress, RunFolder


class MeasurementError(RuntimeError):
    """A trained encoder could not be measured; it is kept."""


def finish(parts: Assembled, run: RunFolder, progress: Progress, started_from: str, logs: Logs) -> None:
    """Save the encoder of the last epoch, measure it, and write the Record, which stands for a whole run.

    Every process calls this and encodes its part of the images; the rest is the first one's.

    Args:
        parts: the run, trained.
        run: its folder.
        progress: all epochs.
        started_from: the commit of the sources when it began.
        logs: of the run.

    Raises:
        MeasurementError: what is measured failed; the encoder is there, and `--resume` measures again.
    """
    if parts.first:
        run.refuse_if_lost()
        save_encoder(parts.method.backbone, run.path, **parts.encoder)
    try:
        _measure_and_record(parts, run, progress, started_from, logs)
    except (ArithmeticError, IndexError, RuntimeError, ValueError, MemoryError) as error:
        raise MeasurementError(
            f"the training is finished and its encoder is in {run.path}, but it could not be measured: {error}\n"
            "Go on with --resume and other --evaluation options (training is not repeated), or use `relatum evaluate`."
        ) from error


def _measure_and_record(parts: Assembled, run: RunFolder, progress: Progress, started_from: str, logs: Logs) -> None:
    recipe, prepared, measurer, device = parts.recipe, parts.prepared, parts.measurer, parts.fabric.device
    source, backbone = prepared.source, parts.method.backbone
    found = measurer.final(parts.method)
    if not parts.first:
        return  # the first measures alone, and nobody waits for it
    online = {} if parts.online is None else {"online": f"{parts.online.probe}; held-out images, between epochs"}
    record = Record(
        recipe=to_dict(recipe),
        seed=recipe.train.seed,
        versions=versions(),
        commit=started_from,
        machine=machine_facts(device, parts.fabric.world_size, precision_of(recipe)),
        data={
            "train": len(prepared.train),
            "held_out": len(prepared.held_out) if prepared.held_out is not None else 0,
            "test": len(source.test) if source.test is not None else 0,
            "classes": len(source.classes),
            "mean": list(source.mean),
            "std": list(source.std),
        },
        history=progress.history,
        metrics=found.metrics,
        protocols=found.protocols | online,
        columns=found.columns,
        notices=[*found.notices, *filter(None, [parts.collapse(progress.history)])],
        correct=found.correct,
        images_passed=progress.images_passed,
        seconds=progress.seconds,
        peak_memory=peak_memory(device),
        teacher=parts.teacher,
        parameters=sum(p.numel() for p in backbone.parameters()),
    )
    figures.curves(record, run.path / "curves.png")
    if recipe.evaluation.figures:
        pictures.draw(run.path, measurer, backbone, found, name=recipe.name, seed=recipe.train.seed)
    run.refuse_if_lost()
    write_record(record, run.path / "record.json")
    logs.final(found.metrics)
    logs.say(tables.measured(found.metrics, found.protocols))
    for notice in not_beaten(found.metrics):
        logs.say(f"note: {notice}")
    logs.say(f"all of it is in {run.path}/")
