"""A tracker beside TensorBoard: Trackio's local store holds what the run says, a resumed run goes on in it, and a
tracker that fails ends nothing."""

import json
import os
import subprocess
import sys
import types
from dataclasses import replace

import pytest

from relatum.recipes.recipe import to_yaml
from relatum.reports.records import read_record
from relatum.training import loop as training
from relatum.training import tracking
from test_training import TINY, changed

SHORT = changed(TINY, train={"epochs": 2, "log_every": 1000}, evaluation={"every": 0, "run": ("geometry",)})

PROGRAM = """
import json, sys
from pathlib import Path
from trackio.sqlite_storage import SQLiteStorage
from relatum.recipes.recipe import read
from relatum.training.loop import fit

run, recipe = Path(sys.argv[1]), read(Path(sys.argv[2]))
fit(recipe, run, quiet=True)
for file in (run / "record.json", run / "encoder.safetensors", sorted((run / "checkpoints").glob("*.pt"))[-1]):
    file.unlink()
fit(recipe, run, quiet=True, resume=True)
runs = SQLiteStorage.get_runs("relatum")
print(json.dumps({"runs": runs, "logs": SQLiteStorage.get_logs("relatum", runs[0])}))
"""


def test_trackio_holds_the_run_and_a_resumed_run_goes_on_in_it(tmp_path):
    """In a process of its own: Trackio takes its folder from the environment when it is imported."""
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(to_yaml(changed(SHORT, train={"tracker": "trackio"})))
    words = [sys.executable, "-c", PROGRAM, str(tmp_path / "run"), str(recipe)]
    env = {**os.environ, "TRACKIO_DIR": str(tmp_path / "trackio"), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(words, capture_output=True, text=True, check=False, env=env)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout)  # and nothing else is printed
    name = json.loads((tmp_path / "run" / tracking.FILE).read_text())["name"]
    assert found["runs"] == [name]
    assert name.startswith("run-")
    record = read_record(tmp_path / "run")
    steps = {entry["step"] for entry in found["logs"]}
    each = max(steps) // 2
    assert steps == {each, 2 * each}
    said = [
        entry for entry in found["logs"] if "epoch/contrast" in entry or "epoch/loss" in entry or "epoch/epoch" in entry
    ]
    assert [entry["epoch/epoch"] for entry in said] == [1, 2, 2]  # the last checkpoint was lost, and made again
    for entry in said:
        told = record.history[entry["epoch/epoch"] - 1]
        losses = {k: v for k, v in told.items() if k not in ("seconds",)}
        assert {k: entry[f"epoch/{k}"] for k in losses} == losses
    final = [entry for entry in found["logs"] if "test/effective_rank" in entry]
    assert final[-1]["test/effective_rank"] == record.metrics["effective_rank"]


class Run:
    """What `init` of both packages gives."""

    def __init__(self, fails_at: str) -> None:
        self.fails_at, self.told, self.closed = fails_at, [], 0

    def log(self, values, step):
        self.told.append((step, values))
        if self.fails_at == "log":
            raise ConnectionError("server gone")

    def finish(self):
        self.closed += 1
        if self.fails_at == "finish":
            raise ConnectionError("server gone")


@pytest.fixture
def wandb(monkeypatch):
    """A module in the place of wandb, which fails where it is told to."""

    def made(fails_at=""):
        run, asked = Run(fails_at), []

        def init(**options):
            asked.append(options)
            if fails_at == "init":
                raise ConnectionError("no server")
            return run

        module = types.ModuleType("wandb")
        module.init, module.finish = init, run.finish
        module.__spec__ = types.SimpleNamespace(name="wandb")
        monkeypatch.setitem(sys.modules, "wandb", module)
        return run, asked

    return made


def test_weights_and_biases_gets_the_same_by_the_same_interface(wandb, tmp_path):
    run, asked = wandb()
    recipe = changed(SHORT, train={"tracker": "wandb", "epochs": 1})
    record = training.fit(recipe, tmp_path / "run", quiet=True)
    (options,) = asked
    assert (options["project"], options["resume"], options["id"]) == ("relatum", "allow", options["name"])
    assert options["config"]["method"] == record.recipe["method"]
    assert options["dir"] == str(tmp_path / "run")
    assert run.closed == 1
    steps = [step for step, _ in run.told]
    assert steps == sorted(steps)
    assert {f"test/{name}" for name in record.metrics} == set(run.told[-1][1])


@pytest.mark.parametrize("fails_at", ["init", "log", "finish"])
def test_a_tracker_that_fails_ends_nothing_and_is_told_once(wandb, tmp_path, caplog, fails_at):
    run, _ = wandb(fails_at)
    recipe = changed(SHORT, train={"tracker": "wandb", "epochs": 1})
    assert training.fit(recipe, tmp_path / "run", quiet=True).metrics
    said = [entry.getMessage() for entry in caplog.records if "training goes on without it" in entry.getMessage()]
    assert len(said) == 1
    assert "ConnectionError" in said[0]
    if fails_at == "log":
        assert len(run.told) == 1


def test_a_tracker_that_is_not_installed_is_refused_before_anything(monkeypatch, tmp_path):
    monkeypatch.setattr(tracking, "find_spec", lambda name: None)
    recipe = changed(SHORT, train={"tracker": "trackio"})
    with pytest.raises(ValueError, match=r"'trackio' is not installed: pip install 'relatum\[trackio\]'"):
        training.fit(recipe, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_another_run_has_another_name_and_numbers_that_are_none_are_left_out(wandb, tmp_path):
    run, asked = wandb()
    for folder in ("a", "b", "a"):
        (tmp_path / folder).mkdir(exist_ok=True)
        tracking.Tracker("wandb", tmp_path / folder, {}).log({"x": float("nan"), "y": 1.0}, 3)
    names = [options["id"] for options in asked]
    assert names[0] == names[2] != names[1]
    assert run.told == [(3, {"y": 1.0})] * 3
    assert replace(SHORT, name="x").train.tracker == "none"
