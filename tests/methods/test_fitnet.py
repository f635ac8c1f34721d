"""FitNets (Romero et al. 2015)."""

import numpy as np
import pytest
import torch

import reference
from distilling import batch, compared, student, teacher, total, values
from relatum.methods.distill.fitnet import FitNet, hint_loss, regressor


def regressed(method, s):
    return method.regressor(torch.from_numpy(s.stages[1])).detach().numpy()


def test_fitnet_equals_the_loop():
    method = FitNet(student().double(), teacher=teacher().double(), kd_weight=0.5).double()
    given = batch(dtype=torch.float64)
    s, t, y = compared(method, given)
    expected = {
        "task": reference.cross_entropy(s.logits, y),
        "kd": 0.5 * reference.distillation(s.logits, t.logits, 4.0),
        "hint": 100 * np.mean([(a - b) ** 2 for a, b in zip(regressed(method, s).ravel(), t.stages[1].ravel())]),
    }
    assert values(method.losses(given)) == pytest.approx(expected, rel=1e-9)


def test_the_first_of_two_stages_has_the_hint_alone():
    method = FitNet(student().double(), teacher=teacher().double(), hint_share=0.5, rectify=True).double()
    given = batch(dtype=torch.float64)
    s, t, _ = compared(method, given)
    expected = {"task": 0.0, "hint": 100 * ((regressed(method, s) - t.stages[1]) ** 2).mean()}
    assert values(method.losses(given)) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(("side", "ratio"), [(8, 1.0), (16, 0.5), (4, 2.0)], ids=["equal", "larger", "smaller"])
def test_the_regressor_gives_the_size_and_width_of_the_hint(side, ratio):
    assert regressor(6, 10, ratio, False)(torch.randn(2, 6, side, side)).shape == (2, 10, 8, 8)


@pytest.mark.parametrize("rectify", [False, True])
def test_only_a_rectified_regressor_is_bound_to_positive_hints(rectify):
    lowest = regressor(6, 10, 1.0, rectify)(torch.randn(4, 6, 8, 8)).min()
    assert (lowest >= 0) == rectify


@pytest.mark.parametrize(("guided", "hint"), [(0, 0), (0, 3), (2, 0), (-1, -1), (1, 2)])
def test_any_stage_guides_any_stage(guided, hint):
    method = FitNet(student(), teacher=teacher("four-stages"), guided=guided, hint=hint)
    assert method.losses(batch())["hint"] > 0


def test_hints_come_first_and_then_the_classes():
    method = FitNet(student(), teacher=teacher(), hint_share=0.5)
    for progress, first in ((0.0, True), (0.49, True), (0.5, False), (1.0, False)):
        method.after_step(progress)
        terms = method.losses(batch())
        assert (terms["hint"] > 0) == first
        assert (terms["task"] > 0) == (not first)


def guided_part(name):
    """Whether a parameter of the student lies before the guided map."""
    return name.startswith(("conv1", "bn1", "layer1", "layer2"))


def test_what_waits_for_the_second_stage_has_no_gradient_not_even_zero():
    method = FitNet(student(), teacher=teacher(), hint_share=0.5)
    assert method.trains_in_phases
    total(method.losses(batch())).backward()
    for name, parameter in method.backbone.model.named_parameters():
        assert (parameter.grad is not None) == guided_part(name), name
    assert all(p.grad is not None for p in method.regressor.parameters())
    method.zero_grad()
    method.after_step(0.5)
    total(method.losses(batch())).backward()
    assert all(p.grad is not None for p in method.backbone.parameters())
    assert all(p.grad is None for p in method.regressor.parameters())


def test_weight_decay_and_momentum_leave_what_waits_where_it_is():
    method = FitNet(student(), teacher=teacher(), hint_share=0.5)
    before = {name: p.detach().clone() for name, p in method.backbone.model.named_parameters()}
    optimizer = torch.optim.SGD(method.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)
    for _ in range(2):
        total(method.losses(batch())).backward()
        optimizer.step()
        optimizer.zero_grad()
    for name, parameter in method.backbone.model.named_parameters():
        assert torch.equal(parameter, before[name]) != guided_part(name), name


def test_a_hint_met_exactly_costs_nothing():
    maps = torch.randn(3, 4, 5, 5)
    assert hint_loss(maps, maps) == 0
