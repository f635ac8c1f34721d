"""A folder of labeled photos is measured, whatever the recipe holds out; training accuracy where nothing is."""

import json
from pathlib import Path

import pytest
import torch

from relatum import cli
from relatum.cli.arguments import precision_of, recipe_of
from relatum.core.types import Embeddings
from relatum.data import sources
from relatum.data.loading import evaluation_batches
from relatum.data.views import EvaluationView
from relatum.evaluation.classification import accuracy
from relatum.evaluation.extract import extract
from relatum.evaluation.geometry import effective_rank
from relatum.networks.export import load_encoder
from relatum.recipes.building import cut
from relatum.recipes.recipe import from_dict
from relatum.reports.figures import _panel_of
from relatum.reports.records import read_record
from relatum.training.loop import fit
from test_before_decoding import SUPERVISED, merged, photos

ALL = merged(SUPERVISED, {"data": {"validation": 0.0}, "evaluation": {"every": 1, "run": ["classifier"]}})


def tree(source: Path, **changes) -> dict:
    return merged(merged(ALL, {"data": {"source": str(source), "workers": 0}}), changes)


def test_a_labeled_folder_without_a_test_part_holds_a_fifth_out_and_says_so(tmp_path):
    folder = photos(tmp_path / "photos", a=10, b=20)
    record = fit(from_dict(tree(folder)), tmp_path / "run", quiet=True)
    assert record is not None
    assert (record.data["train"], record.data["held_out"], record.data["test"]) == (24, 6, 0)
    assert record.notices == [
        f"{folder} has no test images: 6 of its 30 are held out to measure by (--data.test-share 0 trains on all of "
        "them, and measures nothing that needs others)."
    ]
    assert set(record.metrics) >= {"top1"}
    assert "validation_top1" in record.history[0]
    assert read_record(tmp_path / "run" / "record.json").notices == record.notices


@pytest.mark.parametrize(
    ("counts", "changes", "expected"),
    [
        ({"a": 10, "b": 20}, {"validation": 0.5}, 15),  # what is asked for
        ({"a": 10, "b": 20}, {"test_share": 0.1}, 3),
        ({"a": 10, "b": 20}, {"test_share": 0.0}, None),
        ({"a": 10, "b": 20}, {"labels": "none"}, None),  # nothing to measure by
        ({"a": 10}, {}, None),  # nor with one class
        ({"a": 1, "b": 1}, {}, None),  # a fifth of two images is none
        ({"train/a": 10, "train/b": 20, "test/a": 2}, {}, None),  # there are test images
    ],
)
def test_what_is_held_out(tmp_path, counts, changes, expected):
    folder = photos(tmp_path / "photos", **counts)
    view = {"kind": "contrastive", "crop": None}
    recipe = from_dict(tree(folder, method={"name": "simclr"}, data={**changes, "view": view}))
    listing = sources.find(str(folder), labels=recipe.data.labels)
    train, held_out = cut(recipe, listing)
    assert (None if held_out is None else len(held_out)) == expected
    assert len(train) == len(listing.train) - (expected or 0)


def test_named_sets_with_test_images_train_on_all():
    recipe = from_dict(merged(ALL, {"data": {"source": "digits"}}))
    assert cut(recipe, sources.find("digits"))[1] is None


def test_without_held_out_images_each_epoch_tells_the_training_accuracy(tmp_path):
    folder = photos(tmp_path / "photos", a=10, b=20)
    recipe = from_dict(tree(folder, data={"test_share": 0.0}, train={"epochs": 2}))
    record = fit(recipe, tmp_path / "run", quiet=True)
    assert record is not None
    assert all({"training_top1", "effective_rank"} <= set(entry) for entry in record.history)
    source = sources.load(str(folder))
    network, info = load_encoder(tmp_path / "run" / "encoder.safetensors")
    network.eval()

    def read(encode) -> Embeddings:
        views = evaluation_batches(
            source.train, EvaluationView(size=24), mean=info.mean, std=info.std, batch_size=500, device="cpu"
        )
        return extract(encode, views)

    logits, features = read(lambda images: network(images).logits), read(network.embed)
    assert record.history[-1]["training_top1"] == accuracy(*logits)["top1"]
    assert record.history[-1]["effective_rank"] == pytest.approx(effective_rank(features.features), rel=1e-5)
    assert _panel_of("training_top1") == _panel_of("validation_top1") == "top1"


def share_of_training_images_that_are_recognized(run: Path) -> float:
    """In percent, of the images of a run that are not held out."""
    images, held_out = cut(recipe_of(run), sources.load("photos"))
    assert held_out is not None
    network, info = load_encoder(run / "encoder.safetensors")
    views = evaluation_batches(
        images, EvaluationView(size=24), mean=info.mean, std=info.std, batch_size=500, device="cpu"
    )
    with precision_of(recipe_of(run), torch.device("cpu"))():
        logits = extract(lambda views: network.eval()(views).logits, views)
    return accuracy(*logits)["top1"]


def test_fine_tuning_from_a_run_reports_accuracy(tmp_path, monkeypatch, capsys):
    """As one types it: an encoder without labels, then `train supervised --model.initial RUN` on the same folder."""
    monkeypatch.chdir(tmp_path)
    photos(Path("photos"), a=10, b=20)
    small = ["--data.source", "photos", "--data.view.size", "24", "--data.workers", "0", "--model.name", "resnet8"]
    small += ["--train.epochs", "1", "--train.threads", "1", "--train.accelerator", "cpu", "--evaluation.no-figures"]

    def relatum(*words: str) -> None:
        monkeypatch.setattr("sys.argv", ["relatum", *words, *small])
        cli.main()

    relatum("train", "simclr", "--run", "start", "--evaluation.run", "knn")
    relatum("train", "supervised", "--run", "tuned", "--model.initial", "start", "--data.view.crop", "resized")
    said = capsys.readouterr()
    record = json.loads(Path("tuned/record.json").read_text())
    assert record["data"]["held_out"] == 6
    assert f"{record['metrics']['top1']:.2f}" in said.out
    assert f"training_top1 {record['history'][-1]['training_top1']:.4g}" in said.out
    assert record["history"][-1]["validation_top1"] == record["metrics"]["top1"]
    assert record["history"][-1]["training_top1"] == share_of_training_images_that_are_recognized(Path("tuned"))
    start, _ = load_encoder(Path("start/encoder.safetensors"))
    assert torch.isfinite(next(start.parameters())).all()


def test_a_start_of_another_architecture_names_the_options_that_fit(tmp_path):
    folder = photos(tmp_path / "photos", a=10, b=20)
    fit(from_dict(tree(folder)), tmp_path / "run", quiet=True)
    other = tree(folder, model={"name": "resnet20", "initial": str(tmp_path / "run")})
    with pytest.raises(ValueError, match=r"choose --model\.name resnet8 --model\.stem cifar"):
        fit(from_dict(other), tmp_path / "other", quiet=True)
