"""Several processes of one run: they give one result, end together, and may be started by torchrun or srun."""

import contextlib
import dataclasses
import os
import signal
import socket
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from lightning_fabric import Fabric
from safetensors.torch import load_file

from relatum.cli.errors import INTERRUPTED
from relatum.core.statuses import LOST
from relatum.data.views import ClassifierView
from relatum.evaluation.knn import KNN
from relatum.recipes.building import build, measurer_of, prepare
from relatum.recipes.recipe import Optim, Recipe, options, to_yaml
from relatum.reports.records import read_record
from relatum.training import checkpoints, processes, run_folder
from relatum.training import loop as training
from relatum.training.loop import _train as train  # before a test replaces it
from relatum.training.measuring import measure_run
from relatum.training.run_folder import RunFolder
from test_training import TINY, assert_equal_weights, changed

EPOCHS = 6
TWO = dataclasses.replace(
    # Batches of 40 images to measure: each process has some of them.
    changed(TINY, train={"devices": 2, "epochs": EPOCHS, "precision": "32-true"}, evaluation={"batch_size": 40}),
    method=options("simclr"),
)
COMMAND = [sys.executable, "-W", "ignore", "-c", "from relatum.cli import main; main()", "train"]


@pytest.fixture(scope="module")
def together(tmp_path_factory) -> Path:
    """A run of two processes that were spawned here."""
    run = tmp_path_factory.mktemp("runs") / "together"
    training.fit(TWO, run, quiet=True)
    return run


def test_two_processes_train_together(together):
    """DistributedDataParallel on two processes: it ends, and both saw half of each batch."""
    record = read_record(together)
    assert record.machine["devices"] == 2
    assert record.images_passed == EPOCHS * 4 * 64
    assert record.history[0]["cosine"] > 0


def test_two_processes_train_in_phases(tmp_path):
    """FitNet's hint comes first, alone, and its task afterwards: what waits has no gradient in either process."""
    recipe = changed(TWO, train={"epochs": 2})
    teacher, run = tmp_path / "teacher", tmp_path / "run"
    supervised = changed(recipe, train={"devices": 1, "epochs": 1})
    training.fit(dataclasses.replace(supervised, method=options("supervised")), teacher, quiet=True)
    phased = options("fitnet", teacher=str(teacher), hint_share=0.5)
    record = training.fit(dataclasses.replace(recipe, method=phased), run, quiet=True)
    hint, task = record.history
    assert hint["hint"] > 0 == hint["task"]
    assert task["task"] > 0 == task["hint"]


def test_each_process_saves_its_part_of_a_bank(tmp_path):
    """Of the last checkpoints, and of one more; how a run goes on from them is tested beside the two ranks' law."""
    run, method = tmp_path / "run", options("ps-kd", sharded=True, bank="float16")
    recipe = dataclasses.replace(changed(TWO, train={"epochs": 2}, evaluation={"run": ("classifier",)}), method=method)
    training.fit(recipe, run, quiet=True)
    names = {path.name for path in (run / "checkpoints").iterdir()}
    assert names == {f"epoch-0000{i}{part}.pt" for i in (1, 2) for part in ("", ".part-1")}
    first = checkpoints.read(checkpoints.found(run)[-1])["method"]["bank.rows"]
    second = checkpoints.read(checkpoints.part_of(run, 2, 1))["bank.rows"]
    assert first.shape == second.shape == (65, 10)  # of 128 images, and a row for what is written of the other's
    assert not torch.equal(first, second)
    sums = torch.cat([first[:-1], second[:-1]]).float().sum(1)
    torch.testing.assert_close(sums, torch.ones(128), rtol=0, atol=5e-3)


def test_two_processes_measure_what_one_measures(together):
    """The same weights: every number of the Record, and what was measured after the last epoch."""
    record, alone = read_record(together), measure_run(together, TWO, torch.device("cpu"))
    assert record.metrics == alone.metrics
    assert record.correct == alone.correct
    assert record.protocols == alone.protocols
    prepared = prepare(TWO)
    method = build(TWO, prepared)
    method.load_state_dict(checkpoints.read(checkpoints.found(together)[-1])["method"])
    between = measurer_of(TWO, prepared, torch.device("cpu")).between_epochs(method)
    assert between.keys() == {"validation_knn_top1", "validation_knn_top5", "effective_rank"}
    assert between == {name: record.history[-1][name] for name in between}


def test_two_processes_train_what_one_trains(tmp_path):
    """One global batch, views without chance, a network without batch norm: losses and weights agree but for rounding,
    and the accuracies to the last image. (With chance or batch norm the number of processes matters.)"""
    view = ClassifierView(size=32, padding=0, flip=0.0)
    method = options("supervised")
    recipe = dataclasses.replace(
        changed(TWO, data={"view": view}, model={"name": "test_convnext", "stem": "imagenet"}, train={"epochs": 2}),
        method=method,
        optim=Optim(name="sgd", lr=0.05),
    )
    records = []
    for devices in (1, 2):
        run = tmp_path / str(devices)
        records.append(training.fit(changed(recipe, train={"devices": devices}), run, quiet=True))
    one, two = records
    terms = [[entry["task"] for entry in record.history] for record in records]
    assert terms[0] == pytest.approx(terms[1], rel=1e-5)
    assert terms[0][0] != terms[0][1]
    assert one.metrics["top1"] == two.metrics["top1"]
    assert one.correct == two.correct
    a, b = (load_file(tmp_path / devices / "encoder.safetensors") for devices in ("1", "2"))
    torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


PATIENCE, LONGER = 4, 6  # seconds


def measured_for_long(fabric: Fabric, *args: Any) -> None:
    """A run whose processes wait `PATIENCE` for each other in a step, while the first measures for `LONGER`."""
    group = torch.distributed.group.WORLD
    group._get_backend(torch.device("cpu"))._set_default_timeout(timedelta(seconds=PATIENCE))
    measure, calls = KNN.__call__, []

    def slowly(self, bank, seen):
        calls.append(None)
        time.sleep(LONGER if len(calls) in (1, 3) else 0)  # after the first of two epochs, and at the end
        return measure(self, bank, seen)

    KNN.__call__ = slowly
    train(fabric, *args)


def test_a_measurement_that_outlasts_torchs_patience_harms_nobody(tmp_path, monkeypatch):
    """The first process measures alone; the next epoch's steps, in which torch waits half an hour, are both's."""
    monkeypatch.setattr(training, "_train", measured_for_long)
    recipe = changed(TWO, train={"epochs": 2}, evaluation={"run": ("knn",)})
    start = time.monotonic()
    record = training.fit(recipe, tmp_path / "run", quiet=True)
    assert time.monotonic() - start > 2 * LONGER
    assert [entry["epoch"] for entry in record.history] == [1, 2]


def written(recipe: Recipe, folder: Path) -> str:
    file = folder / "recipe.yaml"
    file.write_text(to_yaml(recipe))
    return str(file)


SECONDS = 20  # a loaded machine takes some to free the memory of a process that was killed


def alive(processes: list[psutil.Process]) -> list[psutil.Process]:
    """Those that still run; one whose new parent has not yet asked how it ended does not."""
    found = []
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            if process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


@pytest.mark.parametrize(
    "number",
    [pytest.param(signal.SIGINT, marks=pytest.mark.campaign), signal.SIGTERM, signal.SIGKILL],
    ids=lambda n: n.name,
)
def test_no_process_outlives_its_parent(together, tmp_path, number):
    """Whatever ends the parent ends the others within seconds, and the run goes on from its last checkpoint."""
    run = tmp_path / "run"
    command = [*COMMAND, written(TWO, tmp_path), "--run", str(run)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as parent:
        deadline = time.monotonic() + 100
        while not checkpoints.found(run):
            assert parent.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
        family = psutil.Process(parent.pid).children(recursive=True)
        assert len(family) >= 2
        parent.send_signal(number)
        deadline = time.monotonic() + SECONDS
        while (parent.poll() is None or alive(family)) and time.monotonic() < deadline:
            time.sleep(0.1)
        left = alive(family)
        for process in [*left, parent]:
            process.kill()
        assert not left
        assert parent.wait() == (-number if number == signal.SIGKILL else INTERRUPTED)
    assert not (run / "record.json").exists()
    with run_folder.opened(run, TWO, resume=True) as opened:  # the lease of the dead is ours at once
        assert isinstance(opened, RunFolder)
        assert opened.restore(TWO, {})["epoch"] < EPOCHS
    if number == signal.SIGTERM:
        training.fit(TWO, run, resume=True, quiet=True)
        assert_equal_weights(together, run)


def test_a_run_whose_other_process_is_killed_ends_with_a_status_of_its_own(tmp_path):
    """Status 71: a study goes on with such a run, and does not with one that was refused."""
    run = tmp_path / "run"
    command = [*COMMAND, written(changed(TWO, train={"epochs": 10_000}), tmp_path), "--run", str(run)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as parent:
        deadline = time.monotonic() + 100
        while not checkpoints.found(run):
            assert parent.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.2)
        ranks = [p for p in psutil.Process(parent.pid).children() if "spawn_main" in " ".join(p.cmdline())]
        assert len(ranks) == 2
        ranks[1].kill()
        said = parent.communicate(timeout=60)[1]
    assert parent.returncode == LOST, said


def test_an_error_in_a_child_is_raised_as_itself(tmp_path):
    with pytest.raises(ValueError, match=r"sync_batchnorm was asked for on the CPU.*Leave"):
        training.fit(changed(TWO, train={"sync_batchnorm": True}), tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def finish_all(commands: list[list[str]], environments: list[dict[str, str]]) -> None:
    started = [
        subprocess.Popen(command, env=os.environ | environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        for command, environment in zip(commands, environments)
    ]
    try:
        for process in started:
            text, _ = process.communicate(timeout=150)
            assert process.returncode == 0, text.decode()[-2000:]
    finally:
        for process in started:
            process.kill()


@pytest.mark.parametrize("starter", ["torchrun", pytest.param("srun", marks=pytest.mark.campaign)])
def test_two_machines_train_as_one_with_two_processes(together, tmp_path, starter):
    """Two groups of one process by way of the loopback give the bits of two spawned processes."""
    run = tmp_path / "run"
    recipe = changed(TWO, train={"devices": 1, "nodes": 2})
    train = ["train", written(recipe, tmp_path), "--run", str(run), "--resume"]
    if starter == "torchrun":
        group = ["--nnodes", "2", "--nproc-per-node", "1", "--master-addr", "127.0.0.1", "--master-port"]
        torchrun = [sys.executable, "-W", "ignore", "-m", "torch.distributed.run", *group, str(free_port())]
        script = tmp_path / "start.py"
        script.write_text("from relatum.cli import main\nmain()\n")
        commands = [[*torchrun, "--node-rank", str(rank), "--", str(script), *train] for rank in range(2)]
        environments: list[dict[str, str]] = [{}, {}]
    else:  # what srun tells its tasks
        shared = {"SLURM_NTASKS": "2", "SLURM_STEP_NUM_TASKS": "2", "SLURM_NTASKS_PER_NODE": "1", "SLURM_NNODES": "2"}
        shared |= {"SLURM_JOB_ID": "7", "SLURM_JOB_NAME": "relatum", "SLURM_NODELIST": "127.0.0.1"}
        shared |= {"MASTER_PORT": str(free_port()), "SLURM_LOCALID": "0"}
        commands = [[*COMMAND[:-1], *train]] * 2
        environments = [shared | {"SLURM_PROCID": str(rank), "SLURM_NODEID": str(rank)} for rank in range(2)]
    finish_all(commands, environments)
    assert_equal_weights(together, run)
    record = read_record(run)
    assert record.machine["devices"] == 2
    assert record.metrics == read_record(together).metrics
    # The number of processes is what counts, not how they lie on machines.
    training.fit(TWO, run, resume=True, quiet=True)


def test_a_recipe_of_another_number_than_was_started_is_refused(monkeypatch):
    for name, value in {"SLURM_NTASKS": 4, "SLURM_STEP_NUM_TASKS": 4, "SLURM_NTASKS_PER_NODE": 2}.items():
        monkeypatch.setenv(name, str(value))
    with pytest.raises(ValueError, match=r"4 processes were started.*--train\.nodes 1 times --train\.devices 2"):
        processes.launch(TWO, print)


def test_several_machines_need_a_starter(tmp_path):
    with pytest.raises(ValueError, match=r"train\.nodes is 2.*torchrun --nnodes 2 --nproc-per-node 1"):
        training.fit(changed(TWO, train={"devices": 1, "nodes": 2}), tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("job", [{}, {"SLURM_NTASKS": "2", "SLURM_JOB_ID": "7", "SLURM_PROCID": "0"}])
def test_a_machine_that_merely_has_srun_trains(tmp_path, monkeypatch, job):
    """Lightning warns there, and a warning is an error here; and a script of sbatch is no task of srun."""
    (tmp_path / "srun").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "srun").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    for name, value in job.items():
        monkeypatch.setenv(name, value)
    one = changed(TWO, train={"devices": 1})
    assert training.fit(one, tmp_path / "run", quiet=True).machine["devices"] == 1


def test_cost_and_evaluation_need_no_lightning(tmp_path):
    """`relatum cost` imported Lightning for one function."""
    small = changed(TWO, train={"devices": 1})
    script = (
        "import sys\nfrom relatum.cli import main\nmain()\n"
        "assert 'torch' in sys.modules\nassert 'lightning_fabric' not in sys.modules, 'Lightning was imported'\n"
    )
    command = [sys.executable, "-W", "ignore", "-c", script, "cost", written(small, tmp_path), "--repeats", "1"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "ratio" in done.stdout
    measuring = (
        "import sys, relatum.cli.evaluate, relatum.training.measuring; assert 'lightning_fabric' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", measuring], check=True)
