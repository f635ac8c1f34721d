"""Self-distillation, "Be your own teacher" (Zhang et al. 2019 and 2021)."""

import math

import pytest
import torch

import reference
from distilling import batch, lists, network, total, values
from relatum.methods.distill import sd as sd_file
from relatum.methods.distill.sd import SD, hint_loss


@pytest.mark.parametrize("temperature_squared", [False, True])
@pytest.mark.parametrize("hint", ["squared", "frobenius"])
@pytest.mark.parametrize(
    ("exempt", "hinted"), [("none", (0, 1, 2)), ("shallowest", (1, 2)), ("second-deepest", (0, 1))]
)
def test_sd_equals_the_loop(hint, exempt, hinted, temperature_squared):
    alpha, temperature, weight = 0.3, 3.0, 0.03
    method = SD(
        network().double(), hint=hint, hint_weight=weight, exempt=exempt, temperature_squared=temperature_squared
    ).double()
    given = batch(dtype=torch.float64)
    features = method.backbone(given.views[0])
    z, y, f = lists(features.logits), given.labels[0].tolist(), lists(features.embedding)
    expected = {"task": reference.cross_entropy(z, y), "stage_task": 0.0, "stage_logits": 0.0, "stage_hint": 0.0}
    for i in range(3):
        embedding, logits = method.classifiers[i](features.stages[i])
        divergence = reference.divergence(reference.softened(z, temperature), lists(logits), temperature)
        expected["stage_task"] += (1 - alpha) * reference.cross_entropy(lists(logits), y)
        expected["stage_logits"] += alpha * divergence * (temperature**2 if temperature_squared else 1)
        if i in hinted:
            adapted = lists(method.adapters[str(i)](embedding))
            expected["stage_hint"] += weight * reference.hint_distance(adapted, f, hint == "frobenius")
    assert values(method.losses(given)) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("name", ["stage_task", "stage_logits", "stage_hint"])
def test_sd_trains_neither_the_deepest_stage_nor_its_classifier_by_the_shallow_terms(name):
    method = SD(network())
    method.losses(batch())[name].backward()
    model = method.backbone.model
    assert all(p.grad is None for m in (model.layer4, model.fc) for p in m.parameters())
    assert sum(p.grad.abs().sum() for p in model.layer3.parameters()) > 0


def test_sd_hint_has_no_gradient_into_the_deepest_and_is_zero_on_equal_embeddings():
    shallow, deepest = torch.randn(4, 3, requires_grad=True), torch.randn(4, 3, requires_grad=True)
    for hint in ("squared", "frobenius"):
        assert torch.autograd.grad(hint_loss(shallow, deepest, hint), [shallow, deepest], allow_unused=True)[1] is None
        zero = hint_loss(shallow, shallow.detach(), hint)
        assert zero.item() == 0
        assert torch.autograd.grad(zero, shallow)[0].isfinite().all()


@pytest.mark.parametrize(("hint", "factor"), [("squared", 1.0), ("frobenius", math.sqrt(2))])
def test_sd_hint_is_one_of_the_batch_of_all_ranks(monkeypatch, hint, factor):
    """A second rank with the same images doubles the batch: the mean stays, the norm grows."""
    method, given = SD(network(), hint=hint), batch()
    alone = method.losses(given)["stage_hint"].item()
    monkeypatch.setattr(sd_file, "gather", lambda x: torch.cat([x, x]))
    assert method.losses(given)["stage_hint"].item() == pytest.approx(factor * alone, rel=1e-5)


def test_sd_without_a_hint_has_no_adapters():
    method = SD(network(), hint_weight=0.0)
    assert not list(method.adapters.parameters())
    assert set(method.losses(batch())) == {"task", "stage_task", "stage_logits"}


def test_sd_temperature_squared_keeps_the_gradient_of_the_teaching_the_same_size():
    """The gradient at T = 40 and 20: as large with the factor, a quarter without."""

    def size(temperature, squared):
        torch.manual_seed(0)
        method = SD(network(), temperature=temperature, temperature_squared=squared)
        method.losses(batch())["stage_logits"].backward()
        return method.classifiers[0].classifier.bias.grad.norm().item()

    assert size(40.0, True) == pytest.approx(size(20.0, True), rel=0.05)
    assert size(40.0, False) == pytest.approx(size(20.0, False) / 4, rel=0.05)


@pytest.mark.parametrize("name", ["resnet20", "test_resnet", "mobilenetv1"])
def test_the_stage_classifiers_of_sd_end_at_the_width_of_the_deepest_stage(name):
    backbone = network(name=name)
    method = SD(backbone)
    assert len(method.classifiers) == len(backbone.stage_channels) - 1
    for i, head in enumerate(method.classifiers):
        assert len(head.blocks) == len(backbone.stage_channels) - 1 - i
        assert head.classifier.in_features == backbone.stage_channels[-1]
    assert total(method.losses(batch())).isfinite()


def test_the_predictions_are_those_of_each_stage_and_of_their_mean_with_the_deepest():
    method, images = SD(network()).eval(), batch().views[0]
    predictions = method.predictions(images)
    assert list(predictions) == ["stage1", "stage2", "stage3", "ensemble"]
    features = method.backbone(images)
    heads = [classify(maps)[1] for classify, maps in zip(method.classifiers, features.stages)]
    assert all(torch.equal(predictions[f"stage{i}"], logits) for i, logits in enumerate(heads, 1))
    mean = (sum(heads) + features.logits) / 4
    torch.testing.assert_close(predictions["ensemble"], mean)
