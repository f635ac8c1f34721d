"""The effective rank as an alarm: it is told every epoch, and a run that collapses is told so, once."""

import dataclasses
import logging
from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from relatum.methods import METHODS, SimCLR, SimSiam
from relatum.networks.backbones import Backbone
from relatum.recipes import building
from relatum.recipes.recipe import options
from relatum.reports.records import Record, is_measurement
from relatum.training import loop as training
from relatum.training.collapse import alarm
from test_training import TINY, changed

EPOCHS = 6
SHORT = changed(
    TINY,
    train={"epochs": EPOCHS, "precision": "32-true"},
    optim={"name": "sgd", "lr": 0.5, "weight_decay": 0.4, "decay_all": False},  # nothing but a loss holds images apart
    evaluation={"run": ("knn",)},
)
SIMSIAM = dataclasses.replace(SHORT, method=options("simsiam", out_width=16, bottleneck=8))
SIMCLR = dataclasses.replace(SHORT, method=options("simclr"))


def network() -> Backbone:
    """Nothing in it holds images apart, as batch normalization would."""
    torch.manual_seed(0)
    return Backbone.wrap(nn.Sequential(nn.Flatten(), nn.Linear(768, 64), nn.Tanh(), nn.Linear(64, 32)), size=16)


def without_predictor_and_stopped_gradient(self, batch):
    """SimSiam's loss on what the encoder itself says."""
    a, b = (self.backbone.embed(view) for view in batch.views)
    return {"prediction": -F.cosine_similarity(a, b).mean()}


Fit = Callable[..., Record]


@pytest.fixture
def fit(tmp_path, monkeypatch) -> Fit:
    """A run of the small network, whose encoder is kept in memory."""

    def run(recipe, **parts) -> Record:
        return training.fit(changed(recipe, **parts), tmp_path / recipe.method.name, backbone=network(), quiet=True)

    return run


def test_a_run_that_collapses_is_told_so_once_and_what_to_do(fit, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(SimSiam, "losses", without_predictor_and_stopped_gradient)
    with caplog.at_level(logging.WARNING):
        record = fit(SIMSIAM)
    ranks = [entry["effective_rank"] for entry in record.history]
    assert ranks[-1] < 2 < ranks[0], ranks
    (notice,) = (notice for notice in record.notices if notice.startswith("collapse"))
    (warning,) = (entry.getMessage() for entry in caplog.records if "collapse" in entry.getMessage())
    assert notice == warning
    first = next(epoch for epoch, rank in enumerate(ranks, 1) if rank < max(2, max(ranks[:epoch]) / 4))
    assert notice.startswith(
        f"collapse: after epoch {first} the effective rank of the features is {ranks[first - 1]:.2f}"
    )
    assert "--optim.lr" in notice
    assert "--optim.warmup-epochs" in notice


def test_a_run_that_does_not_collapse_is_told_nothing(fit, caplog):
    with caplog.at_level(logging.WARNING):
        record = fit(SIMCLR)
    assert min(entry["effective_rank"] for entry in record.history) > 4
    assert not [notice for notice in record.notices if "collapse" in notice]
    assert "collapse" not in caplog.text


def test_the_effective_rank_of_what_is_held_out_stands_beside_the_accuracies(fit, tmp_path):
    record = fit(SIMCLR, train={"epochs": 1})
    assert list(record.history[0])[-3:] == ["validation_knn_top1", "validation_knn_top5", "effective_rank"]
    assert "effective_rank" in (tmp_path / "simclr" / "metrics.csv").read_text().splitlines()[0]
    assert is_measurement("effective_rank")
    prepared = building.prepare(SIMCLR)
    view = building.measurer_of(SIMCLR, prepared, torch.device("cpu"))
    method = SimCLR(network())
    features = view.embed(method.eval().embed, prepared.held_out).features.double()
    singular = torch.linalg.svdvals(features)
    share = singular / singular.sum()
    expected = (-(share * share.log()).sum()).exp().item()
    assert view.between_epochs(method)["effective_rank"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("ranks", "epoch"),
    [
        ([8.0, 9.0, 9.5], None),
        ([2.0, 2.4, 2.0], None),
        ([1.9], 1),
        ([0.0], 1),
        ([12.0, 3.1], None),
        ([12.0, 2.9], 2),
        ([8.0, 40.0, 10.1, 9.9, 9.0], 4),
        ([1.5, 30.0], 1),
        ([None, 9.0, None, 2.0], 4),
        ([], None),
    ],
)
def test_the_rule(ranks, epoch):
    history = [{"epoch": i} | ({} if rank is None else {"effective_rank": rank}) for i, rank in enumerate(ranks, 1)]
    said = alarm(history)
    assert said.startswith(f"collapse: after epoch {epoch} ") if epoch else not said


@pytest.mark.parametrize(("method", "told"), [("simclr", True), ("supervised", False), ("supcon", False)])
def test_features_that_are_trained_with_labels_may_gather(method, told):
    """Two classes have two directions, and are meant to."""
    parts = SimpleNamespace(method=METHODS[method])
    assert bool(training.Assembled.collapse(parts, [{"epoch": 1, "effective_rank": 1.2}])) is told
