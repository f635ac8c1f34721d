"""What a method costs in training, beside others in the same process."""

import dataclasses
import json
import math

import pytest
import torch
from torch import nn

from relatum import cli, save_encoder
from relatum.data.views import ClassifierView
from relatum.networks.backbones import Backbone
from relatum.recipes import building
from relatum.recipes.recipe import Data, Evaluation, Model, Optim, Recipe, Train, options, to_yaml
from relatum.training.cost import WARM_UP, _Step, measure_cost, saved_bytes

CPU = torch.device("cpu")
TINY = Recipe(
    name="tiny",
    method=options("supervised"),
    model=Model(name="resnet8"),
    data=Data(
        source="digits",
        train_images=300,
        validation=0.2,
        batch_size=24,
        view=ClassifierView(size=16, crop="resized", min_scale=0.5, flip=0.0),
    ),
    optim=Optim(name="adam", lr=3e-3, weight_decay=0.0),
    train=Train(epochs=1, accelerator="cpu", threads=1, precision="32-true"),
    evaluation=Evaluation(every=0, figures=False),
)


@pytest.fixture(scope="module")
def prepared() -> building.Prepared:
    return building.prepare(TINY)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("teacher")
    classes = tuple(str(digit) for digit in range(10))
    network = Backbone("resnet14", stem="cifar", num_classes=10)
    save_encoder(network, folder, mean=[0.5] * 3, std=[0.25] * 3, size=16, classes=classes)
    return str(folder)


def test_the_cost_of_the_baseline_is_measured_in_turns(prepared, monkeypatch):
    steps = []
    step = _Step.__call__
    monkeypatch.setattr(_Step, "__call__", lambda self: steps.append(self) or step(self))
    cost = measure_cost(TINY, prepared, CPU, repeats=5)
    assert len(steps) == 2 * (WARM_UP + 5)  # both sides as often, in turns
    assert steps == steps[:2] * (WARM_UP + 5)
    assert cost.images == 24
    assert cost.side.method == cost.baseline.method == "supervised"
    assert cost.side.parameters == cost.baseline.parameters
    assert cost.side.activation_bytes == cost.baseline.activation_bytes > 24 * 16 * 16 * 16 * 4
    assert cost.baseline.time_range[0] <= cost.baseline.time_ratio <= cost.baseline.time_range[1]
    assert (cost.side.time_ratio, cost.side.time_range) == (1, (1, 1))


@pytest.mark.parametrize(
    ("method", "chosen", "images", "baseline"),
    [
        ("corsd", {}, 24, "supervised"),
        ("corsd", {"checkpoint": True}, 24, "supervised"),
        ("cs-kd", {}, 48, "supervised"),
        ("ps-kd", {}, 24, "supervised"),
        ("dml", {}, 24, "supervised"),
        ("simclr", {"relation": "jaccard"}, 48, "simclr"),
        ("moco", {"queue_size": 64, "key_splits": 2}, 48, "simclr"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_cost_is_relative_to_the_baseline_on_the_same_images(prepared, method, chosen, images, baseline):
    recipe = dataclasses.replace(TINY, method=options(method, **chosen))
    cost = measure_cost(recipe, prepared, CPU, repeats=1)
    assert (cost.images, cost.baseline.method) == (images, baseline)
    count = lambda recipe: sum(  # noqa: E731
        p.numel() for p in building.build(recipe, prepared).parameters() if p.requires_grad
    )
    assert cost.side.parameters == count(recipe)
    assert cost.baseline.parameters == count(dataclasses.replace(recipe, method=options(baseline)))
    assert all(side.seconds > 0 and side.activation_bytes > 0 for side in (cost.side, cost.baseline))
    assert math.isfinite(cost.baseline.time_ratio)


def test_corsd_keeps_more_and_checkpointed_less(prepared):
    plain, checkpointed = (
        measure_cost(
            dataclasses.replace(TINY, method=options("corsd", checkpoint=checkpoint)), prepared, CPU, repeats=1
        )
        for checkpoint in (False, True)
    )
    assert plain.baseline.activation_bytes == checkpointed.baseline.activation_bytes
    assert plain.side.activation_bytes > checkpointed.side.activation_bytes > plain.baseline.activation_bytes
    assert plain.side.parameters == checkpointed.side.parameters > plain.baseline.parameters


def test_a_partner_without_gradient_keeps_nothing(prepared):
    """CS-KD's partners pass without a gradient: the baseline, which trains on them too, keeps twice as much."""
    cost = measure_cost(dataclasses.replace(TINY, method=options("cs-kd")), prepared, CPU, repeats=1)
    assert cost.side.activation_bytes == pytest.approx(cost.baseline.activation_bytes / 2, rel=0.02)


def test_saved_bytes_of_a_product_by_hand():
    x = torch.randn(7, 5)
    first, second = nn.Linear(5, 3, bias=False), nn.Linear(3, 2, bias=False)
    own = {p.untyped_storage().data_ptr() for p in (first.weight, second.weight)}
    kept = saved_bytes(lambda: second(first(x).sin()), own)
    # x for the weight of the first, its output for the sine, the sine for the weight of the second
    assert kept == 4 * (7 * 5 + 7 * 3 + 7 * 3)
    assert saved_bytes(lambda: second(first(x).sin())) == kept + 4 * (3 * 2)  # the second weight, for its input
    assert saved_bytes(lambda: x.sin()) == 0


def test_no_repeats_are_refused(prepared):
    with pytest.raises(ValueError, match="repeats is 0; expected at least 1"):
        measure_cost(TINY, prepared, CPU, repeats=0)


def test_a_method_with_a_teacher_stands_beside_kd_with_the_same(prepared, teacher):
    cost = measure_cost(dataclasses.replace(TINY, method=options("sp", teacher=teacher)), prepared, CPU, repeats=1)
    assert [side.method for side in cost.beside] == ["supervised", "kd"]
    # Nothing of the teacher's pass is kept: KD's step has what the baseline's has, and a few logits.
    assert cost.beside[0].parameters == cost.beside[1].parameters
    kept = [side.activation_bytes for side in (*cost.beside, cost.side)]
    assert kept[0] < kept[1] < 1.02 * kept[0]
    alone = measure_cost(dataclasses.replace(TINY, method=options("kd", teacher=teacher)), prepared, CPU, repeats=1)
    assert [side.method for side in alone.beside] == ["supervised"]
    assert alone.side.activation_bytes == kept[1]


def test_others_are_measured_by_name_each_once(prepared):
    names = ("label-smoothing", "supervised", "label-smoothing")
    cost = measure_cost(TINY, prepared, CPU, beside=names, repeats=1)
    assert [side.method for side in cost.beside] == ["supervised", "label-smoothing"]


@pytest.mark.parametrize(
    ("beside", "message"),
    [
        ("simclr", "simclr cannot stand beside supervised: it needs batches of two-views, and these are of single"),
        ("corsd", "corsd cannot stand beside supervised: it needs batches of triples, and these are of single"),
        ("simclt", "there is no method 'simclt'; did you mean simclr"),
        ("kd", "needs a teacher"),
    ],
)
def test_others_that_cannot_be_measured_are_refused(prepared, beside, message):
    with pytest.raises(ValueError, match=message):
        measure_cost(TINY, prepared, CPU, beside=(beside,), repeats=1)


def test_the_verb_prints_a_table_and_writes_it(monkeypatch, capsys, tmp_path):
    file, out = tmp_path / "tiny.yaml", tmp_path / "cost.json"
    file.write_text(to_yaml(TINY))
    command = ["relatum", "cost", str(file), "--repeats", "2", "--out", str(out), "--beside", "label-smoothing"]
    monkeypatch.setattr("sys.argv", [*command, "--data.batch-size", "12"])
    cli.main()
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:4]] == ["supervised", "supervised", "label-smoothing"]
    assert lines[0].endswith("time of supervised")
    assert lines[4].startswith("12 images a step, 2 repeats")
    found = json.loads(out.read_text())
    assert found["images"] == 12
    assert found["side"]["parameters"] == found["beside"][0]["parameters"]
