"""A study of a short real training, for the tests of engines that lose it on the way."""

import json
from pathlib import Path

from relatum.studies.catalog import grid_of
from relatum.studies.executor import Executor, Outcome, progress
from relatum.studies.plan import Cell, Plan, command, plan

OVER = (
    "optim.lr=0.001",
    "data.train_images=160",
    "data.batch_size=16",
    "data.validation=0.0",
    "evaluation.every=0",
    "evaluation.run=(knn,)",
    "evaluation.figures=false",
    "train.threads=1",
)


def over(epochs: int) -> list[str]:
    """What `relatum study demo --over` gets for it."""
    return [*OVER, f"train.epochs={epochs}"]


def study(folder: Path, epochs: int = 12) -> Plan:
    return plan(grid_of("demo", scale="cpu", over=over(epochs), seeds=[0]), folder)


def execute(made: Plan, engine, said: list[str], retries: int = 2) -> Outcome:
    executor = Executor(
        made.cells,
        engine,
        done=made.done,
        usable=made.usable,
        argv=command,
        retries=retries,
        say=said.append,
    )
    return executor.run()


def bits(made: Plan) -> dict[str, tuple[bytes, dict[str, object], dict[str, float]]]:
    """What each run ended with: its encoder's weights and header (whose entries come in any order), and its metrics."""
    found = {}
    for cell in made.cells:
        record = made.record(cell)
        assert record is not None
        data = (cell.folder / "encoder.safetensors").read_bytes()
        header = 8 + int.from_bytes(data[:8], "little")
        found[cell.row] = (data[header:], json.loads(data[8:header]), record.metrics)
    return found


def in_the_middle(cell: Cell) -> bool:
    """Whether a run has a checkpoint and is not done."""
    return progress(cell) > 0 and not (cell.folder / "record.json").exists()
