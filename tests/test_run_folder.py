"""Nothing that was trained is lost, and nothing foreign is let in: checkpoints, the lease, what may be resumed."""

import dataclasses
import io
import json
import logging
import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from relatum.evaluation.knn import KNN
from relatum.measurement.measurer import Measurer
from relatum.methods import METHODS, MoCo
from relatum.networks.backbones import Backbone
from relatum.networks.export import load_encoder
from relatum.recipes.building import prepare
from relatum.recipes.recipe import Recipe, options, to_yaml
from relatum.recipes.trained import load_teacher
from relatum.reports.records import read_record
from relatum.training import checkpoints, lease, outcome
from relatum.training import loop as training
from relatum.training.checkpoints import DamagedError
from relatum.training.lease import Lease, LeaseError
from relatum.training.outcome import MeasurementError
from relatum.training.passes import NonFiniteLossError, Passes
from relatum.training.run_folder import encoder_of
from test_training import TINY, assert_equal_weights, changed


def fit(recipe: Recipe, run: Path, **how):
    return training.fit(recipe, run, quiet=True, **how)


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "whole"
    fit(TINY, run)
    return run


@pytest.fixture
def run(whole, tmp_path) -> Path:
    """A copy of a finished run."""
    return shutil.copytree(whole, tmp_path / "run")


@pytest.fixture
def unfinished(run) -> Path:
    """As a run is that was killed before it was measured: three epochs, no encoder, no Record."""
    for name in ("record.json", "encoder.safetensors"):
        (run / name).unlink()
    return run


def no_training(monkeypatch) -> None:
    monkeypatch.setattr(Passes, "run", lambda *args: pytest.fail("training began"))


# Resume


def test_resume_starts_where_there_is_nothing(whole, tmp_path):
    fit(TINY, tmp_path / "run", resume=True)
    assert_equal_weights(whole, tmp_path / "run")


def test_resume_of_a_finished_run_changes_nothing_and_says_so(run, monkeypatch, capsys):
    no_training(monkeypatch)
    monkeypatch.setattr(outcome, "save_encoder", lambda *args, **kwargs: pytest.fail("written"))
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in run.rglob("*") if path.is_file()}
    record = training.fit(TINY, run, resume=True)
    assert record == read_record(run)
    assert "is finished" in capsys.readouterr().out
    assert {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in run.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("finished", [True, False])
def test_resume_refuses_another_recipe(run, finished):
    if not finished:
        (run / "record.json").unlink()
    with pytest.raises(ValueError, match=r"another recipe.*\n.*optim\.lr: 0\.001 -> 0\.5"):
        fit(changed(TINY, optim={"lr": 0.5}), run, resume=True)
    assert "lr: 0.001" in (run / "recipe.yaml").read_text()


def test_a_checkpoint_of_another_recipe_is_refused(unfinished):
    other = changed(TINY, optim={"lr": 0.5})
    (unfinished / "recipe.yaml").write_text(to_yaml(other))
    with pytest.raises(ValueError, match=r"checkpoint .*another recipe"):
        fit(other, unfinished, resume=True)


def test_resume_with_another_evaluation_measures_again_and_trains_no_step(run, monkeypatch):
    no_training(monkeypatch)
    weights, before = load_file(run / "encoder.safetensors"), read_record(run)
    record = fit(changed(TINY, evaluation={"knn": KNN(k=5), "figures": True}), run, resume=True)
    assert "k=5" in record.protocols["knn"]
    assert record.recipe["evaluation"]["knn"]["k"] == 5
    assert (record.history, record.seconds) == (before.history, before.seconds)
    assert (run / "tsne.png").exists()
    assert all(torch.equal(v, weights[k]) for k, v in load_file(run / "encoder.safetensors").items())


def test_where_the_images_are_may_change_and_weights_do_not(whole, unfinished, run, monkeypatch):
    """A run goes on where its images were moved to, and a finished one is not measured again for it."""
    moved = changed(TINY, data={"root": "elsewhere", "workers": 5}, train={"log_every": 3})
    fit(moved, unfinished, resume=True)
    assert_equal_weights(whole, unfinished)
    no_training(monkeypatch)
    before = (run / "record.json").read_bytes()
    fit(moved, run, resume=True)
    assert (run / "record.json").read_bytes() == before


@pytest.mark.parametrize("left", ["record.json", "encoder.safetensors", "metrics.csv"])
def test_a_run_whose_checkpoints_are_gone_is_not_trained_anew_in_silence(run, left, monkeypatch):
    no_training(monkeypatch)
    for path in [*run.glob("checkpoints/*"), *(run / name for name in ("record.json", "encoder.safetensors"))]:
        if path.name != left:
            path.unlink()
    if left != "metrics.csv":
        (run / "metrics.csv").unlink()
    with pytest.raises(ValueError, match=r"its checkpoints are gone.*train anew"):
        fit(changed(TINY, evaluation={"every": 2}), run, resume=True)


@pytest.mark.parametrize(
    ("devices", "nodes", "message"), [(2, 1, "trained by 1 processes, and this would be 2"), (1, 4, "would be 4")]
)
def test_another_number_of_processes_is_refused(run, devices, nodes, message):
    with pytest.raises(ValueError, match=message):
        fit(changed(TINY, train={"devices": devices, "nodes": nodes}), run, resume=True)


def test_metrics_csv_is_derived_from_the_history(unfinished, monkeypatch):
    """A kill between checkpoint and table: no epoch is left to write the table again."""
    whole = (unfinished / "metrics.csv").read_text()
    (unfinished / "metrics.csv").write_text("\n".join(whole.splitlines()[:-1]) + "\n")
    fit(TINY, unfinished, resume=True)
    assert (unfinished / "metrics.csv").read_text() == whole


# The encoder first


def failing_measurement(monkeypatch) -> None:
    def fails(*args):
        raise ValueError("1 of 2 classes has a single image")

    monkeypatch.setattr(Measurer, "final", fails)


def test_a_failed_measurement_loses_nothing(whole, tmp_path, monkeypatch):
    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        failing_measurement(patch)
        with pytest.raises(MeasurementError, match=r"encoder is in .*run.*single image\n.*--resume"):
            fit(TINY, run)
    assert not (run / "record.json").exists()
    assert_equal_weights(whole, run)
    with monkeypatch.context() as patch:
        no_training(patch)
        record = fit(changed(TINY, evaluation={"knn": KNN(k=3)}), run, resume=True)
    assert record.metrics["linear_top1"] == read_record(whole).metrics["linear_top1"]


def test_the_encoder_of_an_unfinished_run_is_that_of_its_last_checkpoint(whole, unfinished, caplog):
    backbone, info = encoder_of(unfinished)
    finished, expected = load_encoder(whole)
    assert info == expected
    assert not backbone.training
    assert all(torch.equal(v, finished.state_dict()[k]) for k, v in backbone.state_dict().items())
    assert "was not finished: this is its encoder after epoch 3" in caplog.text
    (unfinished / "checkpoints" / "epoch-00003.pt").unlink()
    earlier, _ = encoder_of(unfinished)
    assert any(not torch.equal(v, finished.state_dict()[k]) for k, v in earlier.state_dict().items())
    assert encoder_of(whole)[1] == expected


def test_a_folder_without_encoder_and_checkpoint_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="no encoder and no checkpoint"):
        encoder_of(tmp_path)


# Damage


def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(whole, unfinished, caplog):
    last = unfinished / "checkpoints" / "epoch-00003.pt"
    last.write_bytes(last.read_bytes()[:1000])
    with caplog.at_level(logging.WARNING):
        fit(TINY, unfinished, resume=True)
    assert "epoch-00003.pt is damaged" in caplog.text
    assert "Going on from the one before it, epoch-00002.pt" in caplog.text
    assert_equal_weights(whole, unfinished)
    assert [e["epoch"] for e in read_record(unfinished).history] == [1, 2, 3]


def test_if_all_are_damaged_nothing_is_trained(unfinished, monkeypatch):
    no_training(monkeypatch)
    for path in (unfinished / "checkpoints").iterdir():
        path.write_bytes(b"")
    with pytest.raises(DamagedError, match=r"epoch-00002\.pt is damaged.*no other to go on from"):
        fit(TINY, unfinished, resume=True)


def damages(raw: bytes, seed: int) -> bytes:
    """Bits flipped, a stretch of zeros, a cut, two blocks exchanged, bytes added."""
    random.seed(seed)
    at, data = random.randrange(len(raw)), bytearray(raw)
    match seed % 5:
        case 0:
            data[at] ^= 1 << random.randrange(8)
        case 1:
            data[at : at + 512] = bytes(len(data[at : at + 512]))
        case 2:
            del data[at:]
        case 3:
            data[1000:1512], data[2000:2512] = data[2000:2512], data[1000:1512]
        case 4:
            data[at:at] = b"x"
    return bytes(data)


def test_no_damage_is_read(whole, tmp_path):
    raw = (whole / "checkpoints" / "epoch-00003.pt").read_bytes()
    file, tried = tmp_path / "epoch-00001.pt", 0
    for seed in range(100):
        damaged = damages(raw, seed)
        if damaged != raw:  # zeros where there were zeros
            tried += 1
            file.write_bytes(damaged)
            with pytest.raises(DamagedError, match="damaged"):
                checkpoints.read(file)
    assert tried > 80
    file.write_bytes(raw)
    assert checkpoints.read(file)["epoch"] == 3


def test_no_code_of_a_checkpoint_is_run(whole, tmp_path):
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "owned"),)

    buffer = io.BytesIO()
    torch.save({"recipe": Evil()}, buffer)
    import hashlib

    file = tmp_path / "epoch-00001.pt"
    seal = checkpoints.SEAL + hashlib.sha256(buffer.getvalue()).hexdigest().encode()
    file.write_bytes(buffer.getvalue() + seal)
    with pytest.raises(DamagedError, match="no checkpoint of Relatum"):
        checkpoints.read(file)
    assert not (tmp_path / "owned").exists()


def test_checkpoints_are_in_the_order_of_their_numbers(tmp_path):
    for epoch in (99_998, 99_999, 100_000, 100_001):
        (tmp_path / "checkpoints").mkdir(exist_ok=True)
        checkpoints.write(tmp_path, epoch, {"epoch": epoch})
    (tmp_path / "checkpoints" / "epoch-best.pt").write_bytes(b"the user's own")
    assert [path.name for path in checkpoints.found(tmp_path)] == ["epoch-100000.pt", "epoch-100001.pt"]
    assert checkpoints.last_good(tmp_path) == {"epoch": 100_001}


def test_file_and_folder_are_on_the_disk_before_the_older_checkpoint_goes(tmp_path, monkeypatch):
    done = []
    for name in ("fsync", "replace"):
        original = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *a, name=name, do=original: done.append((name, *a)) or do(*a))
    unlink = Path.unlink
    monkeypatch.setattr(Path, "unlink", lambda self, *a, **k: done.append(("unlink", self)) or unlink(self, *a, **k))
    (tmp_path / "checkpoints").mkdir()
    for epoch in (1, 2, 3):
        checkpoints.write(tmp_path, epoch, {"epoch": epoch})
    assert [name for name, *_ in done] == ["fsync", "replace", "fsync"] * 3 + ["unlink"]


def test_weights_that_are_not_finite_become_no_checkpoint(tmp_path, monkeypatch):
    after = MoCo.after_step

    def poisoned(self, progress):
        after(self, progress)
        if progress == 1:
            next(self.projector.parameters()).data[0] = float("inf")

    monkeypatch.setattr(MoCo, "after_step", poisoned)
    with pytest.raises(NonFiniteLossError, match=r"after epoch 3, .* of method\.projector.*epoch-00002\.pt"):
        fit(TINY, tmp_path / "run")
    assert [path.name for path in checkpoints.found(tmp_path / "run")] == ["epoch-00001.pt", "epoch-00002.pt"]
    with pytest.raises(checkpoints.NonFiniteWeightsError, match=r"1 of 3 numbers of a\.1"):
        checkpoints.write(tmp_path / "run", 4, {"a": [torch.ones(2), torch.tensor([1.0, float("nan"), 2.0])]})


# The teacher


@pytest.fixture(scope="module")
def teachers(tmp_path_factory) -> tuple[Path, Path]:
    runs = tmp_path_factory.mktemp("teachers")
    supervised = changed(
        dataclasses.replace(TINY, method=options("supervised")), train={"epochs": 1}, evaluation={"every": 0}
    )
    for seed in (0, 1):
        fit(changed(supervised, train={"seed": seed}), runs / str(seed))
    return runs / "0", runs / "1"


def test_another_teacher_is_refused_on_resume(teachers, tmp_path):
    teacher, run = shutil.copytree(teachers[0], tmp_path / "teacher"), tmp_path / "run"
    recipe = dataclasses.replace(changed(TINY, train={"epochs": 1}), method=options("kd", teacher=str(teacher)))
    record = fit(recipe, run)
    assert record.teacher == {
        "path": str(teacher),
        "sha256": __import__("hashlib").sha256((teacher / "encoder.safetensors").read_bytes()).hexdigest(),
        "classes": [str(digit) for digit in range(10)],
        "accuracy": read_record(teacher).metrics["top1"],
    }
    (run / "record.json").unlink()
    fit(recipe, run, resume=True)
    (run / "record.json").unlink()
    shutil.copyfile(teachers[1] / "encoder.safetensors", teacher / "encoder.safetensors")
    with pytest.raises(ValueError, match=r"the teacher was replaced: training began with .* SHA-256"):
        fit(recipe, run, resume=True)


def test_a_teacher_of_other_classes_is_refused_by_name(teachers):
    source = prepare(TINY).source
    assert load_teacher(str(teachers[0]), source, 16).num_classes == 10
    swapped = dataclasses.replace(source, classes=("1", "0", *source.classes[2:]))
    teacher = load_teacher(str(teachers[0]), swapped, 16)
    assert "class 0 is '0' to the teacher" in teacher.why_no_logits
    with pytest.raises(ValueError, match=r"class 0 is '0' to the teacher .* and '1' in the data"):
        METHODS["kd"](Backbone("resnet8", stem="cifar", num_classes=10), teacher=teacher)


def test_a_run_without_a_teacher_says_so(whole):
    assert read_record(whole).teacher is None
    assert read_record(whole).parameters == sum(
        v.numel()
        for k, v in load_file(whole / "encoder.safetensors").items()
        if "running" not in k and "num_b" not in k
    )


# What a refusal leaves


BAD = changed(TINY, model={"name": "resnet21"})


def test_a_refusal_leaves_an_existing_empty_folder(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    with pytest.raises(ValueError, match="did you mean"):
        fit(BAD, run)
    assert list(tmp_path.iterdir()) == [run]
    assert list(run.iterdir()) == []


def test_a_refusal_in_a_linked_folder_is_told(tmp_path):
    """`shutil.rmtree` refuses links: its error hid the real one."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "run").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match="did you mean"):
        fit(BAD, tmp_path / "run")
    assert (tmp_path / "run").is_symlink()
    assert list((tmp_path / "elsewhere").iterdir()) == []


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_no_gpu_is_told_and_leaves_the_name_free(tmp_path):
    with pytest.raises(ValueError, match=r"accelerator is cuda, and torch finds no GPU.*--train\.accelerator auto"):
        fit(changed(TINY, train={"accelerator": "cuda"}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("resume", [True, False])
def test_what_a_kill_before_the_recipe_leaves_is_no_run(whole, tmp_path, resume):
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    (run / "recipe.yaml.part").write_text("name: ti")
    fit(TINY, run, resume=resume)
    assert_equal_weights(whole, run)
    assert not list(run.glob("*.part"))


@pytest.mark.parametrize("resume", [True, False])
def test_a_folder_of_something_else_is_refused(tmp_path, resume):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(FileExistsError, match="holds no run"):
        fit(TINY, tmp_path, resume=resume)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


# The lease


HOLDER = """
import sys, time
from pathlib import Path
from relatum.training.lease import Lease
held = Lease(Path(sys.argv[1]))
print(held.take(), flush=True)
time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    """Another process, which holds the lease of a folder."""
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout.readline()
        yield child
        child.kill()


def test_a_living_holder_is_named_and_a_dead_one_replaced_at_once(holder, tmp_path):
    with pytest.raises(LeaseError, match=rf"process {holder.pid} on .* is training in"):
        Lease(tmp_path).take()
    holder.kill()
    holder.wait()
    start = time.monotonic()
    ours = Lease(tmp_path)
    token = ours.take()
    assert time.monotonic() - start < 0.5 * lease.SECONDS
    lease.refuse_if_lost(tmp_path, token)
    ours.release()
    assert list(tmp_path.iterdir()) == []


def test_a_holder_elsewhere_is_dead_when_its_heart_stands_still(holder, tmp_path, monkeypatch):
    holder.kill()
    holder.wait()
    file = tmp_path / lease.FILE
    monkeypatch.setattr(lease, "SECONDS", 1.0)
    text = file.read_text().replace("duration=15.0", "duration=1.0")
    file.write_text("\n".join("host=elsewhere" if line.startswith("host=") else line for line in text.split("\n")))
    start = time.monotonic()
    Lease(tmp_path).take()
    assert time.monotonic() - start >= 1.0


def test_two_never_write_into_one_run(tmp_path, monkeypatch):
    """A process that slept while another took its lease stops at its next checkpoint, and leaves the lease there."""
    run, file = tmp_path / "run", tmp_path / "run" / lease.FILE
    after = MoCo.after_step

    def sleepy(self, progress):
        after(self, progress)
        if progress == 0.5:  # in the second epoch
            another = file.with_name("another")
            another.write_text(file.read_text().replace("token=", "token=0").replace("host=", "host=else"))
            os.replace(another, file)

    monkeypatch.setattr(MoCo, "after_step", sleepy)
    with pytest.raises(LeaseError, match="was lost to another process"):
        fit(TINY, run)
    assert [path.name for path in checkpoints.found(run)] == ["epoch-00001.pt"]
    assert file.exists()


def test_a_held_run_is_refused(whole, run, monkeypatch):
    (run / "record.json").unlink()
    other = Lease(run)
    other.take()
    with pytest.raises(LeaseError, match=rf"process {os.getpid()} on"):
        fit(TINY, run, resume=True)
    other.release()
    assert fit(TINY, run, resume=True).metrics == read_record(whole).metrics
    assert not (run / lease.FILE).exists()


# Logs


def test_the_log_is_closed_even_when_training_fails(tmp_path, monkeypatch):
    from torch.utils.tensorboard import SummaryWriter

    closed = []
    close = SummaryWriter.close
    monkeypatch.setattr(SummaryWriter, "close", lambda self: closed.append(self) or close(self))
    fit(changed(TINY, train={"epochs": 1}, evaluation={"every": 0}), tmp_path / "run")
    assert len(closed) == 1

    def fails(*args):
        raise OSError("gone")

    monkeypatch.setattr(Passes, "run", fails)
    with pytest.raises(OSError, match="gone"):
        fit(TINY, tmp_path / "other")
    assert len(closed) == 2


def test_the_machine_is_in_the_record_without_its_name(whole):
    import platform

    machine = json.loads((whole / "record.json").read_text())["machine"]
    assert set(machine) == {"device", "devices", "cores", "threads", "precision", "host"}
    assert platform.node() not in machine["host"]
    assert len(machine["host"]) == 8
