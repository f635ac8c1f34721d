"""Training from end to end, on digits and a network of two minutes' worth of arithmetic less."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from relatum.data.views import ContrastiveView
from relatum.evaluation.knn import KNN
from relatum.evaluation.linear import LinearProbe
from relatum.methods import SimCLR
from relatum.networks.backbones import Backbone
from relatum.recipes.building import build, build_loader, prepare
from relatum.recipes.recipe import Data, Evaluation, Model, Optim, Recipe, Train, from_yaml, options, to_yaml
from relatum.recipes.trained import load_teacher
from relatum.reports.records import read_record
from relatum.training import checkpoints
from relatum.training import loop as training
from relatum.training.logs import Logs
from relatum.training.optimizers import build_optimizer
from relatum.training.passes import NonFiniteLossError, Passes

TINY = Recipe(
    name="tiny",
    method=options("moco", queue_size=64, key_splits=2, relation="jaccard", alphas=(0.3, 0.3)),
    model=Model(name="resnet8"),
    data=Data(source="digits", train_images=160, validation=0.2, batch_size=32, view=ContrastiveView(size=16)),
    optim=Optim(name="adam", lr=1e-3, weight_decay=0.0),
    train=Train(epochs=3, accelerator="cpu", threads=1, log_every=2),
    evaluation=Evaluation(knn=KNN(k=10), linear=LinearProbe(epochs=5), figures=False),
)


def changed(recipe: Recipe, **parts) -> Recipe:
    """`recipe` with fields of its parts changed: changed(TINY, train={"epochs": 1})."""
    return dataclasses.replace(recipe, **{k: dataclasses.replace(getattr(recipe, k), **v) for k, v in parts.items()})


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "whole"
    training.fit(dataclasses.replace(TINY, evaluation=dataclasses.replace(TINY.evaluation, figures=True)), run)
    return run


def test_a_run_leaves_one_folder(whole):
    expected = {
        "record.json",
        "recipe.yaml",
        "encoder.safetensors",
        "encoder.py",
        "small_resnets.py",
        "checkpoints",
        "tensorboard",
        "metrics.csv",
        "curves.png",
        "neighbors.png",
        "tsne.png",
    }
    assert {path.name for path in whole.iterdir()} == expected
    for figure in whole.glob("*.png"):
        assert figure.read_bytes().startswith(b"\x89PNG")
        assert figure.stat().st_size > 5000
    assert [path.name for path in sorted((whole / "checkpoints").iterdir())] == ["epoch-00002.pt", "epoch-00003.pt"]


def test_the_record_says_what_happened(whole):
    record = read_record(whole)
    assert record.recipe["method"]["relation"] == "jaccard"
    assert [entry["epoch"] for entry in record.history] == [1, 2, 3]
    assert {"cosine1", "cosine2", "jaccard", "validation_knn_top1", "learning_rate", "seconds"} <= set(
        record.history[0]
    )
    assert record.images_passed == 3 * 4 * 64  # epochs, steps, views of a batch
    assert {"knn_top1", "linear_top1", "effective_rank", "uniformity"} <= set(record.metrics)
    assert "k=10, T=0.1" in record.protocols["knn"]
    assert "128 training against 500 test images" in record.protocols["knn"]
    assert record.data == record.data | {"train": 128, "held_out": 32, "test": 500, "classes": 10}
    assert record.machine["precision"] in ("32-true", "bf16-mixed")
    assert record.versions["torch"] == torch.__version__.partition("+")[0] or record.versions["torch"]
    assert record.peak_memory > 100
    assert (whole / "metrics.csv").read_text().count("\n") == 4


def test_the_same_recipe_gives_the_same_weights(whole, tmp_path):
    training.fit(TINY, tmp_path / "again", quiet=True)
    assert_equal_weights(whole, tmp_path / "again")


def assert_equal_weights(one: Path, other: Path) -> None:
    a, b = (load_file(run / "encoder.safetensors") for run in (one, other))
    assert a.keys() == b.keys()
    assert all(torch.equal(a[k], b[k]) for k in a)


def test_another_seed_gives_other_weights(whole, tmp_path):
    training.fit(changed(TINY, train={"seed": 1, "epochs": 1}, evaluation={"every": 0}), tmp_path / "other", quiet=True)
    a, b = (load_file(run / "encoder.safetensors") for run in (whole, tmp_path / "other"))
    assert not torch.equal(a["conv1.weight"], b["conv1.weight"])


def test_killed_at_any_moment_and_resumed_it_ends_in_the_same_bits(whole, tmp_path):
    """A child process is killed (SIGKILL) in the middle of the second epoch, then the run is resumed here."""
    run, recipe = tmp_path / "killed", tmp_path / "recipe.yaml"
    recipe.write_text(to_yaml(dataclasses.replace(TINY, evaluation=dataclasses.replace(TINY.evaluation, figures=True))))
    script = (
        "import sys\n"
        "from pathlib import Path\n"
        "from relatum.recipes import recipe\n"
        "from relatum.training import loop as training\n"
        "from relatum.methods import MoCo\n"
        "step = MoCo.after_step\n"
        "def slow(self, progress):\n"  # six of twelve steps: the second of the second epoch
        "    if progress > 0.49:\n"
        "        print('now', flush=True)\n"
        "        import time; time.sleep(600)\n"
        "    step(self, progress)\n"
        "MoCo.after_step = slow\n"
        "training.fit(recipe.read(Path(sys.argv[1])), sys.argv[2], quiet=True)\n"
    )
    command = [sys.executable, "-W", "ignore", "-c", script, str(recipe), str(run)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout.readline() == "now\n"
        child.send_signal(signal.SIGKILL)
    assert [path.name for path in (run / "checkpoints").glob("*.pt")] == ["epoch-00001.pt"]
    assert not (run / "record.json").exists()
    training.fit(from_yaml(recipe.read_text()), run, resume=True, quiet=True)
    assert_equal_weights(whole, run)
    ours, theirs = read_record(run), read_record(whole)
    assert [e["jaccard"] for e in ours.history] == [e["jaccard"] for e in theirs.history]
    assert ours.metrics == theirs.metrics
    assert ours.images_passed == theirs.images_passed


def test_a_run_folder_is_never_overwritten(whole):
    before = (whole / "record.json").read_bytes()
    with pytest.raises(FileExistsError, match=r"never overwritten.*--resume"):
        training.fit(TINY, whole)
    assert (whole / "record.json").read_bytes() == before


def test_a_non_finite_loss_stops_with_term_step_and_checkpoint(tmp_path, monkeypatch):
    losses = SimCLR.losses
    calls = []

    def poisoned(self, batch):
        calls.append(None)
        terms = losses(self, batch)
        return {k: v * (float("nan") if len(calls) == 7 and k == "cosine2" else 1) for k, v in terms.items()}

    monkeypatch.setattr(SimCLR, "losses", poisoned)
    recipe = dataclasses.replace(TINY, method=options("simclr", relation="jaccard", alphas=(0.3, 0.3)))
    with pytest.raises(NonFiniteLossError, match=r"'cosine2' is nan at step 7.*epoch-00001\.pt"):
        training.fit(recipe, tmp_path / "run", quiet=True)
    assert not (tmp_path / "run" / "record.json").exists()


def test_a_full_disk_is_told_and_leaves_the_checkpoints_before(tmp_path, monkeypatch):
    durably = checkpoints.write_durably

    def full(path, write):
        def half(file):
            write(file)
            file.truncate(1000)
            raise OSError(28, "No space left on device")

        durably(path, half if path.name == "epoch-00002.pt" else write)

    monkeypatch.setattr(checkpoints, "write_durably", full)
    with pytest.raises(OSError, match=r"epoch-00002\.pt cannot be written.*No space left.*--resume"):
        training.fit(TINY, tmp_path / "run", quiet=True)
    assert [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()] == ["epoch-00001.pt"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_read_only_output_is_refused_before_training(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(OSError, match="cannot be written"):
        training.fit(TINY, tmp_path / "run")


def test_output_below_a_file_is_refused_before_training(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="cannot be written"):
        training.fit(TINY, tmp_path / "file" / "run")


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        (changed(TINY, data={"source": "digitz"}), "did you mean digits"),
        (changed(TINY, model={"name": "resnet21"}), "did you mean"),
        (changed(TINY, train={"sync_batchnorm": True}), "sync_batchnorm was asked for on the CPU"),
        (dataclasses.replace(TINY, method=options("kd")), r"'kd' needs a teacher.*--method\.teacher RUN"),
    ],
    ids=["source", "backbone", "shared-statistics", "teacher"],
)
def test_bad_settings_are_refused_before_training(recipe, message, tmp_path, monkeypatch):
    monkeypatch.setattr(Passes, "run", lambda *args: pytest.fail("training began"))
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        training.fit(recipe, tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists(), "the name of the folder stays free"


@pytest.mark.parametrize("name", ["adam", "adamw", "sgd", "lars"])
def test_optimizers_take_all_parameters_and_let_small_ones_not_decay(name):
    prepared = prepare(TINY)
    method = build(TINY, prepared)
    optimizer = build_optimizer(method, Optim(name=name, weight_decay=0.1, decay_all=False))
    given = [p for group in optimizer.param_groups for p in group["params"]]
    assert {id(p) for p in given} == {id(p) for p in method.parameters() if p.requires_grad}
    for group in optimizer.param_groups:
        assert all((p.ndim > 1) == (group["weight_decay"] == 0.1) for p in group["params"])
    everything = build_optimizer(method, Optim(name=name, weight_decay=0.1, decay_all=True))
    assert [g["weight_decay"] for g in everything.param_groups] == ([0.0, 0.1] if name == "lars" else [0.1])
    assert {type(o).__name__.lower() for o in (optimizer, everything)} == {name}


@pytest.mark.parametrize("name", ["sgd", "lars"])
def test_momentum_is_plain_or_nesterovs(name):
    for nesterov in (False, True):
        optimizer = build_optimizer(torch.nn.Linear(2, 2), Optim(name=name, nesterov=nesterov, momentum=0.7))
        assert [(g["nesterov"], g["momentum"]) for g in optimizer.param_groups] == [(nesterov, 0.7)] * len(
            optimizer.param_groups
        )


def test_supervised_then_distilled_from_the_run(tmp_path):
    """A classifier's run folder is a teacher, as it is for the data that it knows."""
    short = {"train": {"epochs": 1}, "evaluation": {"every": 0}}
    training.fit(
        changed(dataclasses.replace(TINY, method=options("supervised")), **short), tmp_path / "teacher", quiet=True
    )
    kd = dataclasses.replace(TINY, method=options("kd", teacher=str(tmp_path / "teacher")))
    record = training.fit(changed(kd, **short), tmp_path / "student", quiet=True)
    assert {"top1", "calibration_error"} <= set(record.metrics)
    assert type(load_teacher(str(tmp_path / "teacher"), prepare(TINY).source, 16)) is Backbone


COMPILED = """
import dataclasses, json, sys
from collections import defaultdict
from pathlib import Path
import torch
from safetensors.torch import load_file
from test_training import TINY, changed
from relatum.training import loop as training
from relatum.recipes.recipe import options

compiler, called = torch.compile, defaultdict(set)

def compile(function):
    "torch.compile without the code generator, for its time; it notes whose functions are called."
    compiled = compiler(function, backend="eager")
    def noted(*args):
        called[function.__qualname__].add(id(function.__self__))
        return compiled(*args)
    return noted

torch.compile = compile
short = dict(train=dict(epochs=1), evaluation=dict(every=0))
kd = dataclasses.replace(TINY, method=options("kd", teacher=sys.argv[1]))
for recipe in changed(TINY, **short), changed(kd, **short):
    weights = []
    for choice in False, True:
        run = Path(sys.argv[2]) / f"{recipe.method.name}-{choice}"
        training.fit(changed(recipe, train=dict(compile=choice)), run, quiet=True)
        weights.append(load_file(run / "encoder.safetensors"))
    torch.testing.assert_close(weights[1], weights[0], rtol=1e-3, atol=1e-4)
    print(json.dumps({name: len(owners) for name, owners in called.items()}))
    called.clear()
"""


def test_compiled_training_compiles_every_network_and_the_views(tmp_path):
    """In a process of its own: the compiler cannot read the shape checks that pytest puts around functions."""
    short = {"train": {"epochs": 1}, "evaluation": {"every": 0}}
    supervised = changed(dataclasses.replace(TINY, method=options("supervised")), **short)
    training.fit(supervised, tmp_path / "teacher", quiet=True)
    command = [sys.executable, "-c", COMPILED, str(tmp_path / "teacher"), str(tmp_path)]
    done = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True)  # to import this file
    assert done.returncode == 0, done.stderr
    moco, kd = map(json.loads, done.stdout.splitlines())
    assert moco == {"View.transform": 1, "Backbone._embed": 2}  # the encoder's and its momentum copy's
    assert kd == {"View.transform": 1, "Module._call_impl": 2, "Backbone._embed": 1}  # student and teacher; evaluation


def test_starting_from_another_runs_encoder(whole):
    recipe = changed(TINY, model={"initial": str(whole)}, train={"seed": 5})
    method = build(recipe, prepare(recipe))
    trained = load_file(whole / "encoder.safetensors")
    assert all(torch.equal(v, trained[k]) for k, v in method.backbone.model.state_dict().items())
    with pytest.raises(ValueError, match=r"holds resnet8.*expected resnet14"):
        build(changed(recipe, model={"name": "resnet14"}), prepare(recipe))


def test_the_loader_gives_what_the_method_eats():
    for name, views in (("simclr", 2), ("supervised", 1), ("cs-kd", 2)):
        recipe = dataclasses.replace(TINY, method=options(name))
        prepared = prepare(recipe)
        batch = next(iter(build_loader(recipe, prepared, torch.device("cpu")).epoch(0)))
        assert len(batch.views) == views
        assert batch.labels.shape == (views, 32)


def test_a_record_that_is_none_is_refused(tmp_path):
    (tmp_path / "record.json").write_text(json.dumps({"speed": 3}))
    with pytest.raises(ValueError, match="no Record of this Relatum"):
        read_record(tmp_path)
    with pytest.raises(FileNotFoundError, match="relatum train"):
        read_record(tmp_path / "nowhere")


def test_the_time_left_of_the_whole_run_is_told_beside_the_epochs(capsys, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    logs = Logs(None, quiet=False, epochs=10, steps=4, done=2)  # resumed after two epochs: 32 steps are left
    logs.quiet = False
    assert logs.title(2, 0) == "epoch 3/10"
    now[0] += 6
    assert logs.title(2, 2) == "epoch 3/10, 01:30 left in all"  # 3 seconds for each of 30 steps
    logs.epoch([{"epoch": 4, "seconds": 4.0, "task": 0.5}])  # 8 steps in these 6 seconds, 24 to come
    assert capsys.readouterr().out == "epoch    4     4.0 s  task 0.5  00:18 left in all\n"
    logs.epoch([{"epoch": 10, "seconds": 4.0, "task": 0.5}])
    assert "left" not in capsys.readouterr().out


def test_the_log_is_written_as_training_goes(whole):
    events = list((whole / "tensorboard").glob("events*"))
    assert len(events) == 1
    assert events[0].stat().st_size > 500
    assert time.time() - (whole / "metrics.csv").stat().st_mtime < 3600
