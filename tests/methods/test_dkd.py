"""Decoupled knowledge distillation (Zhao et al. 2022)."""

import pytest
import torch

import reference
from distilling import CLASSES, batch, compared, network, student, teacher, values
from relatum.losses.objectives import kl_divergence
from relatum.methods.distill.dkd import DKD, decoupled_divergences


def test_dkd_equals_the_loop():
    method = DKD(student().double(), teacher=teacher().double(), alpha=0.7, beta=3.0, temperature=2.0, task_weight=0.9)
    given = batch(dtype=torch.float64)
    s, t, y = compared(method, given)
    target, others = reference.decoupled(s.logits, t.logits, y, 2.0)
    expected = {
        "task": 0.9 * reference.cross_entropy(s.logits, y),
        "target": 0.7 * 4 * target,
        "others": 3.0 * 4 * others,
    }
    assert values(method.losses(given)) == pytest.approx(expected, rel=1e-9)


def test_the_weights_grow_with_the_steps_of_the_warm_up():
    method = DKD(student().double(), teacher=teacher().double(), warmup=0.25, standardize=True).double().eval()
    given = batch(dtype=torch.float64)
    s, t, y = compared(method, given)
    full = reference.decoupled(reference.standardized(s.logits), reference.standardized(t.logits), y, 4.0)
    for progress, factor in ((0.0, 0.0), (0.05, 0.2), (0.25, 1.0), (0.9, 1.0)):
        method.after_step(progress)
        terms = values(method.losses(given))
        assert terms["task"] == pytest.approx(reference.cross_entropy(s.logits, y), rel=1e-9)
        expected = [16 * factor * weight * value for weight, value in zip((1.0, 8.0), full)]
        assert [terms["target"], terms["others"]] == pytest.approx(expected, rel=1e-6, abs=1e-12)


def test_plain_distillation_weighs_the_wrong_classes_by_how_unsure_the_teacher_is():
    """Of a single image, in value and gradient: the paper's reformulation, which holds for every pair of logits."""
    zs, zt = torch.randn(2, 1, CLASSES, dtype=torch.float64)
    y = torch.tensor([3])
    zs.requires_grad_()
    target, others = decoupled_divergences(zs, zt, y)
    ours = target + (1 - zt.softmax(1)[0, 3]) * others
    plain = kl_divergence(zs, zt, 1.0)
    torch.testing.assert_close(ours, plain, rtol=1e-12, atol=1e-12)
    for a, b in zip(torch.autograd.grad(ours, zs), torch.autograd.grad(plain, zs)):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


def test_a_teacher_that_is_sure_gives_finite_gradients():
    zs, zt = torch.randn(2, 4, CLASSES)
    y = torch.tensor([0, 1, 2, 3])
    zt[torch.arange(4), y] = 1e4
    zs.requires_grad_()
    target, others = decoupled_divergences(zs, zt, y)
    (target + others).backward()
    assert target.isfinite()
    assert others > 0
    assert zs.grad.isfinite().all()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: DKD(student(), teacher=teacher(num_classes=7)), "7 classes .* 5"),
        (lambda: DKD(student(), teacher=teacher(), beta=-1), "beta is -1;"),
        (lambda: DKD(student(), teacher=teacher(), alpha=-1), "alpha is -1;"),
        (lambda: DKD(student(), teacher=teacher(), warmup=1.0), "warmup is 1.0;"),
        (lambda: DKD(network(1), teacher=network(1)), "has 1 class.* expected at least 2"),
    ],
)
def test_what_cannot_work_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
