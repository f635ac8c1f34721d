"""The online probe: what it learns, from which features, and that the encoder never feels it."""

import dataclasses
import logging
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from cases import CLASSES, IMAGES, batch_for, build
from relatum.data import sources
from relatum.data.views import ClassifierView
from relatum.evaluation.linear import LinearProbe
from relatum.evaluation.online import OnlineProbe
from relatum.methods import METHODS
from relatum.recipes.recipe import options
from relatum.reports.records import is_measurement, read_record
from relatum.training import checkpoints
from relatum.training import loop as training
from relatum.training.online import Online
from relatum.training.passes import Passes
from test_training import TINY, assert_equal_weights, changed

RATES, STEPS = (0.01, 0.1, 1.0), 12
SHORT = changed(TINY, train={"epochs": 2}, evaluation={"run": ("knn",), "linear": LinearProbe(learning_rates=RATES)})
WATCHED = changed(SHORT, evaluation={"online": True})


def stream(steps: int = STEPS) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Batches whose features drift, as those of an encoder that learns."""
    generator = torch.Generator().manual_seed(3)
    batches = []
    for step in range(steps):
        labels = torch.randint(CLASSES, (20,), generator=generator)
        middles = torch.eye(6)[:CLASSES] * (1 + step / 4) + 3
        batches.append((middles[labels] + 2.0 * torch.randn(20, 6, generator=generator), labels))
    return batches


def test_each_rate_is_a_classifier_of_torch_trained_on_standardized_features():
    """Torch's linear layer, cross-entropy and SGD, in float64; the rate with the least loss before its steps."""
    probe = OnlineProbe(6, CLASSES, LinearProbe(learning_rates=RATES, weight_decay=0.01))
    heads = [nn.Linear(6, CLASSES).double() for _ in RATES]
    for head in heads:
        nn.init.zeros_(head.weight), nn.init.zeros_(head.bias)
    optimizers = [
        torch.optim.SGD(head.parameters(), rate, momentum=0.9, weight_decay=0.01) for head, rate in zip(heads, RATES)
    ]
    losses = torch.zeros(len(RATES), dtype=torch.double)
    mean, variance = torch.zeros(6).double(), torch.zeros(6).double()
    for step, (features, labels) in enumerate(stream()):
        if step == STEPS // 2:
            probe.start_epoch()
            losses.zero_()
        probe.step(features, labels, step / STEPS)
        x = features.double()
        share = 0.1 if step else 1.0
        mean += share * (x.mean(0) - mean)
        variance += share * (x.var(0, correction=0) - variance)
        x = (x - mean) / (variance + 1e-6 * variance.mean()).sqrt()
        for i, (head, optimizer, rate) in enumerate(zip(heads, optimizers, RATES)):
            optimizer.param_groups[0]["lr"] = rate * (1 + torch.tensor(torch.pi * step / STEPS).cos().item()) / 2
            loss = F.cross_entropy(head(x), labels)
            losses[i] += loss.detach()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    torch.testing.assert_close(probe.loss, losses, rtol=1e-5, atol=1e-5)
    assert len({round(loss, 3) for loss in losses.tolist()}) == len(RATES)
    for i, head in enumerate(heads):
        own = probe.weight[:, i * CLASSES : (i + 1) * CLASSES].double()
        torch.testing.assert_close(own, torch.cat([head.weight.T, head.bias[None]]), rtol=1e-4, atol=1e-5)
    features, labels = stream(STEPS + 1)[-1]
    x = (features.double() - mean) / (variance + 1e-6 * variance.mean()).sqrt()
    guesses = [head(x).argmax(1) for head in heads]
    expected = 100 * (guesses[int(losses.argmin())] == labels).double().mean().item()
    assert probe.measure(features, labels) == {"top1": pytest.approx(expected)}
    assert len({(guess == labels).double().mean().item() for guess in guesses}) > 1, "the choice matters"


VIEWED = ("simclr", "moco", "moco-symmetric", "byol", "debiased", "supcon", "supervised", "cs-kd", "corsd", "kd", "sd")


@pytest.mark.parametrize("variant", [*VIEWED, "swav-multi-crop", "simclr-multi-crop"])
def test_it_learns_from_the_features_of_large_views_with_their_own_classes(variant, monkeypatch):
    method = build(variant).eval()  # the features of an image are those alone
    batch = batch_for(method)
    online = Online(OnlineProbe(method.backbone.embedding_dim, CLASSES, LinearProbe()), method.backbone)
    given = []
    monkeypatch.setattr(online.probe, "step", lambda *args: given.append(args))
    with online.listening():
        method.losses(batch)
    online.step(batch, 0.25)
    assert method.backbone.listener is None
    ((features, labels, progress),) = given
    assert (progress, features.requires_grad) == (0.25, False)
    with torch.no_grad():
        expected = torch.cat([method.backbone.embed(view) for view in batch.views[: batch.large]])
    classes = batch.labels[: batch.large].flatten()
    found = torch.cdist(features, expected).argmin(1)
    torch.testing.assert_close(features, expected[found], rtol=1e-4, atol=1e-5)
    assert torch.equal(labels, classes[found])
    views = found.div(IMAGES, rounding_mode="floor").unique()
    assert len(views) == (1 if variant == "moco" else batch.large), "MoCo encodes the other view by its copy"
    assert len(found.unique()) == len(found)


def test_a_method_that_shows_its_backbone_other_images_is_refused():
    method = build("simclr")
    batch = batch_for(method)
    online = Online(OnlineProbe(method.backbone.embedding_dim, CLASSES, LinearProbe()), method.backbone)
    with online.listening():
        method.losses(batch._replace(views=tuple(view.flip(0) for view in batch.views)))
    with pytest.raises(ValueError, match=r"finds no view of the batch.*leave --evaluation\.online out"):
        online.step(batch, 0.0)


@pytest.fixture(scope="module")
def watched(tmp_path_factory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "watched"
    with redirect_stdout(StringIO()) as said:
        training.fit(WATCHED, run)
    (run / "said.txt").write_text(said.getvalue())
    return run


def test_the_encoder_is_the_same_to_the_last_bit_with_and_without(watched, tmp_path):
    training.fit(SHORT, tmp_path / "alone", quiet=True)
    assert_equal_weights(watched, tmp_path / "alone")
    one, other = (checkpoints.read(checkpoints.found(run)[-1]) for run in (watched, tmp_path / "alone"))
    assert one.pop("online").keys() == {"weight", "momentum", "mean", "variance", "batches", "loss"}
    for part in ("method", "optimizer"):
        torch.testing.assert_close(one[part], other[part], rtol=0, atol=0)
    for mine, theirs in zip(one["history"], other["history"]):
        extra = {"seconds", "validation_online_top1", "validation_online_top5"}
        assert {k: v for k, v in mine.items() if k not in extra} == {k: v for k, v in theirs.items() if k != "seconds"}


def test_it_stands_in_history_line_table_and_record(watched):
    record = read_record(watched)
    last = record.history[-1]
    assert f"validation_online_top1 {last['validation_online_top1']:.4g}" in (watched / "said.txt").read_text()
    assert "validation_online_top1" in (watched / "metrics.csv").read_text().splitlines()[0]
    assert "lr 0.01, 0.1, 1, the one with the smallest cross-entropy" in record.protocols["online"]
    assert is_measurement("validation_online_top1")


class Stop(Exception):
    """Ends a run between two epochs."""


def test_a_resumed_run_goes_on_with_the_same_probe(watched, tmp_path, monkeypatch, caplog):
    run = Passes.run

    def once(self, epoch, profile=None):
        if epoch:
            raise Stop
        return run(self, epoch, profile)

    monkeypatch.setattr(Passes, "run", once)
    for name in ("same", "other"):
        with pytest.raises(Stop):
            training.fit(WATCHED, tmp_path / name, quiet=True)
    monkeypatch.undo()
    resumed = training.fit(WATCHED, tmp_path / "same", resume=True, quiet=True)
    one, other = (checkpoints.read(checkpoints.found(run)[-1]) for run in (watched, tmp_path / "same"))
    torch.testing.assert_close(one["online"], other["online"], rtol=0, atol=0)
    assert resumed.history[-1]["validation_online_top1"] == one["history"][-1]["validation_online_top1"]
    rates = changed(WATCHED, evaluation={"linear": LinearProbe(learning_rates=(0.1,))})
    with caplog.at_level(logging.WARNING):
        training.fit(rates, tmp_path / "other", resume=True, quiet=True)
    assert "The online probe starts anew: the one of the epochs before had other learning rates" in caplog.text


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"data": {"validation": 0.0}}, r"nothing is held out: hold a part out with --data\.validation 0\.1"),
        ({"data": {"labels": "none", "source": "photos"}}, r"24 of 24 training images have none: leave"),
    ],
    ids=["nothing held out", "no labels"],
)
def test_it_is_refused_where_it_has_nothing_to_learn_from_or_to_be_measured_on(parts, message, tmp_path, monkeypatch):
    if "labels" in parts["data"]:
        images = torch.randint(0, 256, (30, 3, 16, 16), dtype=torch.uint8)
        monkeypatch.setattr(sources, "load", lambda *args, **more: sources.from_tensors(images))
        parts = {"data": {"train_images": None}}
    with pytest.raises(ValueError, match=message):
        training.fit(changed(WATCHED, **parts), tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()


def test_a_probe_that_is_never_measured_is_refused():
    with pytest.raises(ValueError, match=r"evaluation\.every is 0.*never measured: set --evaluation\.every 1"):
        changed(TINY, evaluation={"online": True, "every": 0})


def test_every_method_can_be_watched():
    """What a method gives its backbone holds views of the batch, whatever the method."""
    for variant in METHODS:
        method = build(variant).train()
        online = Online(OnlineProbe(method.backbone.embedding_dim, CLASSES, LinearProbe()), method.backbone)
        batch = batch_for(method)
        with online.listening(), torch.no_grad():
            method.losses(batch)
        online.step(batch, 0.0)
        assert online.probe.weight.abs().max() > 0, variant


def test_it_learns_what_the_encoder_knows_and_is_measured_on_what_is_held_out(tmp_path, monkeypatch):
    """A classifier's features are separable: the probe is as often right as the classifier, far above one of ten."""
    data = {
        "train_images": 600,
        "batch_size": 40,
        "view": ClassifierView(size=16, crop="resized", min_scale=0.9, flip=0.0),
    }
    recipe = dataclasses.replace(WATCHED, method=options("supervised"))
    recipe = changed(recipe, train={"epochs": 4}, optim={"lr": 0.01}, data=data)
    sizes, measure = [], OnlineProbe.measure
    monkeypatch.setattr(OnlineProbe, "measure", lambda self, x, y: sizes.append(len(y)) or measure(self, x, y))
    last = training.fit(recipe, tmp_path / "run", quiet=True).history[-1]
    assert sizes == [120] * 4
    assert last["validation_online_top1"] > max(40, last["validation_top1"] - 10)
