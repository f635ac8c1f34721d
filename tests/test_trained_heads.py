"""What is measured of classifiers that are trained beside the backbone's: heads, ensembles, peers."""

import dataclasses

import pytest
import torch

import relatum
from relatum.data.views import ClassifierView
from relatum.measurement.measurer import evaluating
from relatum.recipes import building
from relatum.recipes.options import options
from relatum.recipes.recipe import Data, Evaluation, Model, Optim, Recipe, Train
from relatum.reports.records import read_record
from relatum.reports.tables import comparison
from relatum.training.measuring import measure_run

NAMES = {"sd": ("stage1", "stage2", "ensemble"), "dml": ("peer1", "peer2")}
METHODS = {"sd": options("sd"), "dml": options("dml", peers=2)}


def recipe(name: str, **evaluation) -> Recipe:
    return Recipe(
        name=name,
        method=METHODS[name],
        model=Model(name="resnet8"),
        data=Data(
            source="digits",
            train_images=96,
            validation=0.0,
            batch_size=24,
            view=ClassifierView(size=16, crop="resized", min_scale=0.5, flip=0.0),
        ),
        optim=Optim(name="adam", lr=3e-3, weight_decay=0.0),
        train=Train(epochs=1, accelerator="cpu", threads=1, precision="32-true"),
        evaluation=Evaluation(every=0, **{"figures": False, "run": ("classifier", "heads"), **evaluation}),
    )


@pytest.mark.parametrize("name", NAMES)
def test_each_classifier_is_measured_as_it_predicts(name):
    wanted = recipe(name)
    prepared = building.prepare(wanted)
    method = building.build(wanted, prepared)
    for batch in building.build_loader(wanted, prepared, torch.device("cpu")).epoch(0):
        method.losses(batch)  # batch statistics that have seen the images
    measurer = building.measurer_of(wanted, prepared, torch.device("cpu"))
    found = measurer.final(method)
    assert method.training
    test = measurer.test
    with evaluating(method), torch.no_grad():
        seen = {
            part: measurer.embed(lambda images, part=part: method.predictions(images)[part], test).features
            for part in NAMES[name]
        }
    expected = {
        f"heads_{part}_top1": 100 * (logits.argmax(1) == test.labels).double().mean().item()
        for part, logits in seen.items()
    }
    assert {k: v for k, v in found.metrics.items() if k in expected} == pytest.approx(expected, abs=1e-9)
    assert {k for k in found.metrics if k.startswith("heads_")} == {
        f"heads_{part}_{metric}" for part in NAMES[name] for metric in ("top1", "top5")
    }
    shown = {f"heads_{part}_top1": f"{part} top-1" for part in NAMES[name]}
    assert list(found.columns.items())[-len(shown) :] == list(shown.items())
    assert len(set(expected.values())) > 1  # they are not all one classifier


def test_a_run_records_and_shows_them_and_its_encoder_alone_has_none(tmp_path):
    wanted = recipe("sd")
    relatum.fit(wanted, tmp_path / "sd", quiet=True)
    record = read_record(tmp_path / "sd" / "record.json")
    assert set(record.columns.values()) >= {"top-1", "stage1 top-1", "stage2 top-1", "ensemble top-1"}
    assert "beside the backbone's" in record.protocols["heads"]
    text = comparison([record])
    assert "ensemble top-1" in text
    assert f"{record.metrics['heads_ensemble_top1']:.1f}" in text
    again = measure_run(tmp_path / "sd", wanted, torch.device("cpu"))
    assert set(again.metrics) == {k for k in record.metrics if not k.startswith("heads_")}
    (notice,) = again.notices
    assert notice.startswith("heads left out: there is no classifier that was trained beside the backbone's")


def test_other_methods_have_none_and_are_told_so_only_if_it_was_asked_for():
    plain = dataclasses.replace(recipe("sd"), method=options("supervised"))
    prepared = building.prepare(plain)
    plan = building.measurer_of(plain, prepared, torch.device("cpu")).plan
    assert list(plan.run) == ["classifier"]
    assert plan.notices[0].startswith("heads left out")
    default = dataclasses.replace(plain, evaluation=Evaluation(every=0))
    plan = building.measurer_of(default, prepared, torch.device("cpu")).plan
    assert "heads" not in plan.run
    assert not any("heads" in notice for notice in plan.notices)
