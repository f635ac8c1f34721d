"""Several processes of one run: they give one result, end together, and may be started by torchrun or srun."""

import contextlib
import dataclasses
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from relatum.core.statuses import LOST
from relatum.recipes.recipe import Recipe, options, to_yaml
from relatum.reports.records import read_record
from relatum.training import checkpoints, processes
from relatum.training import loop as training
from test_training import TINY, assert_equal_weights, changed

TWO = dataclasses.replace(
    changed(TINY, train={"devices": 2, "epochs": 1, "precision": "32-true"}, evaluation={"every": 0}),
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
    assert record.images_passed == 4 * 64
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


def written(recipe: Recipe, folder: Path) -> str:
    file = folder / "recipe.yaml"
    file.write_text(to_yaml(recipe))
    return str(file)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda n: n.name)
def test_no_process_outlives_its_parent(tmp_path, number):
    """Whatever ends the parent ends the others within seconds, and the run goes on from its last checkpoint."""
    run = tmp_path / "run"
    recipe = changed(TWO, train={"epochs": 10_000})
    command = [*COMMAND, written(recipe, tmp_path), "--run", str(run)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as parent:
        deadline = time.monotonic() + 100
        while not checkpoints.found(run):
            assert parent.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.2)
        family = psutil.Process(parent.pid).children(recursive=True)
        assert len(family) >= 2
        parent.send_signal(number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            parent.wait(10)
        _, alive = psutil.wait_procs(family, timeout=10)
        for process in alive:
            process.kill()
        assert not alive
        assert parent.wait(10) != 0
    state = checkpoints.last_good(run)
    assert state is not None
    assert state["epoch"] >= 1


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


@pytest.mark.parametrize("starter", ["torchrun", "srun"])
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
    training.fit(changed(TWO, train={"epochs": 1}), run, resume=True, quiet=True)


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
