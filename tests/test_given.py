"""Objects in the place of what a recipe names: a backbone, a Dataset or tensors for `fit`; tensors for `losses`."""

from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.utils.data import Dataset

import relatum
from relatum import Backbone, Batch, load_encoder
from relatum.data import sources
from relatum.evaluation.knn import KNN
from relatum.methods import METHODS
from relatum.recipes.recipe import Data, Evaluation, Optim, Recipe, Train, options
from relatum.reports.records import read_record
from relatum.training.run_folder import encoder_of
from test_before_decoding import photos


class Bars(Dataset):
    """Bars that stand or lie, as pairs (image, class)."""

    classes = ("lies", "stands")

    def __init__(self, count: int, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        rows = torch.randint(0, 256, (count, 3, 16, 1), generator=generator, dtype=torch.uint8).expand(-1, -1, -1, 16)
        self.labels = torch.arange(count) % 2
        self.images = torch.where(self.labels[:, None, None, None] == 1, rows.transpose(2, 3), rows).contiguous()

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i: int):
        return self.images[i], int(self.labels[i])


def module() -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 12, 3, 2, 1), nn.ReLU())


RECIPE = Recipe(
    name="given",
    method=options("simclr"),
    data=Data(source="cifar10", validation=0.0, batch_size=16, view=relatum.ContrastiveView(size=16)),
    optim=Optim(lr=0.01),
    train=Train(epochs=2, accelerator="cpu", precision="32-true", threads=1),
    evaluation=Evaluation(run=("knn", "stages"), knn=KNN(k=3), figures=False),
)


def wrapped(**chosen) -> Backbone:
    return Backbone.wrap(module(), size=16, **chosen)


def test_a_dataset_and_a_module_are_trained_resumed_and_given_back(tmp_path):
    backbone, run = wrapped(), tmp_path / "run"
    start = {name: tensor.clone() for name, tensor in backbone.state_dict().items()}
    data = (Bars(48, 0), Bars(24, 1))
    record = relatum.fit(RECIPE, run, data=data, backbone=backbone, quiet=True)
    assert (record.recipe["data"]["source"], record.recipe["model"]["name"]) == ("python:dataset", "wrapped:Sequential")
    assert record.recipe["model"]["stem"] == "imagenet"
    assert (record.data["train"], record.data["test"], record.data["classes"]) == (48, 24, 2)
    assert "stages left out: the encoder has no stages." in record.notices
    assert set(record.metrics) >= {"knn_top1"}
    assert all(torch.equal(start[name], tensor) for name, tensor in backbone.state_dict().items())

    trained, info = load_encoder(run, wrapped())
    weights = load_file(run / "encoder.safetensors")
    assert all(torch.equal(weights[name], tensor) for name, tensor in trained.model.state_dict().items())
    assert not all(torch.equal(start[f"model.{name}"], tensor) for name, tensor in weights.items())
    assert info.classes is None
    with pytest.raises(ValueError, match="wrapped:Sequential is a module that was wrapped in Python"):
        encoder_of(run)
    with pytest.raises(FileNotFoundError, match=r"python:dataset is data that was given in Python.*register_data"):
        sources.load("python:dataset")

    for file in (run / "record.json", run / "encoder.safetensors", sorted((run / "checkpoints").glob("*.pt"))[-1]):
        file.unlink()
    with pytest.raises(ValueError, match=r"the images that are given have mean .* started with images of mean"):
        relatum.fit(RECIPE, run, data=(Bars(48, 2), Bars(24, 1)), backbone=backbone, resume=True, quiet=True)
    relatum.fit(RECIPE, run, data=data, backbone=backbone, resume=True, quiet=True)
    assert all(torch.equal(weights[name], found) for name, found in load_file(run / "encoder.safetensors").items())
    assert read_record(run).metrics == record.metrics


def test_tensors_are_data_too_and_the_classifier_is_checked(tmp_path):
    bars = Bars(48, 0)
    recipe = replace(RECIPE, method=options("supervised"), train=replace(RECIPE.train, epochs=1))
    recipe = replace(recipe, data=replace(recipe.data, view=relatum.ClassifierView(size=16, crop="resized")))
    recipe = replace(recipe, evaluation=replace(recipe.evaluation, run=("classifier",)))
    given = {"data": (bars.images, bars.labels), "quiet": True}
    with pytest.raises(ValueError, match=r"wrapped:Sequential has num_classes=0; expected 2, since the data has them"):
        relatum.fit(recipe, tmp_path / "a", backbone=wrapped(), **given)
    with pytest.raises(ValueError, match=r"num_classes=2; expected 0, since the method trains no classifier"):
        relatum.fit(RECIPE, tmp_path / "b", backbone=wrapped(num_classes=2), **given)
    with pytest.raises(ValueError, match=r"model.initial is 'x', and the backbone was given with its weights"):
        relatum.fit(
            replace(RECIPE, model=replace(RECIPE.model, initial="x")), tmp_path / "c", backbone=wrapped(), **given
        )
    record = relatum.fit(recipe, tmp_path / "run", backbone=wrapped(num_classes=2), **given)
    assert record.recipe["data"]["source"] == "python:tensors"
    assert "top1" in record.metrics
    assert load_encoder(tmp_path / "run", wrapped(num_classes=2))[1].classes == ("0", "1")


@pytest.mark.parametrize(
    ("data", "train", "test", "labeled"),
    [
        (lambda a, b: a, 6, None, True),
        (lambda a, b: (a, b), 6, 4, True),
        (lambda a, b: a.images, 6, None, False),
        (lambda a, b: (a.images, a.labels), 6, None, True),
        (lambda a, b: (a.images, b.images), 6, 4, False),
        (lambda a, b: ((a.images, a.labels), (b.images, b.labels)), 6, 4, True),
        (lambda a, b: sources.from_dataset(a, b), 6, 4, True),
    ],
    ids=["dataset", "datasets", "images", "labeled", "two-images", "two-labeled", "source"],
)
def test_what_data_may_be(data, train, test, labeled):
    source = sources.of(data(Bars(6, 0), Bars(4, 1)))
    assert (len(source.train), source.test and len(source.test)) == (train, test)
    assert bool((source.train.labels >= 0).all()) == labeled


def test_other_data_is_refused():
    with pytest.raises(ValueError, match=r"the data is a str; expected a torch Dataset, images as a uint8 tensor"):
        sources.of("cifar10")


def small(name: str):
    kind = METHODS[name]
    return kind(Backbone("resnet8", stem="cifar", num_classes=3 if kind.classifies else 0))


def test_the_loss_is_the_sum_of_the_terms_of_a_batch_or_of_two_views():
    method = METHODS["barlow-twins"](Backbone("resnet8", stem="cifar")).eval()
    x1, x2 = torch.randn(2, 8, 3, 32, 32)
    terms = method.losses(Batch.unlabeled(x1, x2))
    assert len(terms) == 2
    for given in (Batch.unlabeled(x1, x2), (x1, x2)):
        torch.testing.assert_close(method.loss(given), terms["invariance"] + terms["redundancy"])
    with pytest.raises(TypeError, match="takes a Batch, and was given 1 things"):
        method.loss((x1,))


def test_a_source_gives_its_parts_as_tensors(tmp_path):
    digits = sources.load("digits")
    assert digits.test is not None
    pixels, labels = digits.tensors("test")
    assert torch.equal(pixels, digits.test.images)
    assert torch.equal(labels, digits.test.labels)
    photos(tmp_path / "one", a=1, b=1)
    streamed = sources.load(str(tmp_path / "one"), resident="no")
    images, classes = streamed.tensors()
    assert torch.equal(images[1], streamed.train.read(1))
    assert classes.tolist() == [0, 1]
    with pytest.raises(ValueError, match="has no images of the part 'test'; expected train alone"):
        streamed.tensors("test")
    photos(tmp_path / "one", c=2)
    with pytest.raises(ValueError, match=r"several sizes, which are no one tensor; load\('.*', size=64\)"):
        sources.load(str(tmp_path / "one"), resident="no").tensors()


def test_two_views_as_plain_tensors_are_a_batch():
    method = small("simclr").eval()
    views = torch.rand(4, 3, 16, 16), torch.rand(4, 3, 16, 16)
    expected = method.losses(Batch.unlabeled(*views))
    for given in (views, list(views)):
        found = method.losses(given)
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[name], value) for name, value in expected.items())


@pytest.mark.parametrize(
    ("name", "given", "said"),
    [
        (
            "supervised",
            "x1",
            r"of Supervised takes a Batch, and was given a Tensor.*relatum.Batch\(\(x1,\), labels",
        ),
        ("supcon", "pair", r"given 2 things\. A Batch has views, 2 tensor\(s\)"),
        ("simclr", "three", r"given 3 things.*Batch.unlabeled\(x1, x2\)"),
        ("corsd", "three", r"relatum.Batch\(\(x1, x2, x3\), labels.expand\(3, -1\)"),
    ],
)
def test_what_is_no_batch_is_refused_with_what_a_batch_is(name, given, said):
    x = torch.rand(3, 3, 16, 16)
    with pytest.raises(TypeError, match=said):
        small(name).losses({"x1": x, "pair": (x, x), "three": (x, x, x)}[given])
