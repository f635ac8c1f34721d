"""Knowledge distillation (Hinton et al. 2015)."""

import pytest
import torch

import reference
from distilling import CLASSES, batch, compared, student, teacher, values
from relatum.losses.objectives import kl_divergence
from relatum.methods.distill.distiller import standardized
from relatum.methods.distill.kd import KD


def test_kd_equals_the_loop_with_the_weights_of_the_benchmark():
    method, given = KD(student().double(), teacher=teacher().double()), batch(dtype=torch.float64)
    s, t, y = compared(method, given)
    expected = {
        "task": 0.1 * reference.cross_entropy(s.logits, y),
        "kd": 0.9 * reference.distillation(s.logits, t.logits, 4.0),
    }
    assert values(method.losses(given)) == pytest.approx(expected, rel=1e-9)


def test_kd_of_standardized_logits_equals_the_loop():
    method = KD(student().double(), teacher=teacher().double(), kd_weight=9.0, temperature=2.0, standardize=True)
    given = batch(dtype=torch.float64)
    s, t, y = compared(method.double(), given)
    expected = {
        "task": 0.1 * reference.cross_entropy(s.logits, y),
        "kd": 9 * reference.distillation(reference.standardized(s.logits), reference.standardized(t.logits), 2.0),
    }
    assert values(method.losses(given)) == pytest.approx(expected, rel=1e-9)


def test_standardized_logits_forget_size_and_offset_and_nothing_else():
    zs = torch.randn(6, CLASSES, dtype=torch.float64)
    same = kl_divergence(standardized(3 * zs + 7), standardized(zs), 2.0)
    assert same.item() == pytest.approx(0, abs=1e-12)
    assert kl_divergence(standardized(-zs), standardized(zs), 2.0) > 0.1


def test_logits_that_are_all_alike_are_standardized_to_zeros_with_finite_slopes():
    flat = torch.full((2, CLASSES), 3.0, requires_grad=True)
    found = standardized(flat)
    assert torch.equal(found, torch.zeros(2, CLASSES))
    (found * torch.randn(2, CLASSES)).sum().backward()
    assert flat.grad.isfinite().all()


def test_a_single_class_has_no_deviation():
    with pytest.raises(ValueError, match=r"has 1 class.* expected at least 2"):
        KD(student(1), teacher=teacher(num_classes=1), standardize=True)


def test_the_gradient_of_the_divergence_tends_to_a_limit_with_temperature():
    zs, zt = torch.randn(8, CLASSES, dtype=torch.float64), torch.randn(8, CLASSES, dtype=torch.float64)
    zs.requires_grad_()

    def gradient(temperature):
        return torch.autograd.grad(kl_divergence(zs, zt, temperature), zs)[0]

    gap = (zs - zt).detach()
    limit = (gap - gap.mean(1, keepdim=True)) / (8 * CLASSES)  # Hinton et al., Eq. (4)
    assert torch.allclose(gradient(1e4), limit, rtol=1e-3, atol=1e-6)
    norms = [gradient(temperature).norm().item() for temperature in (4.0, 20.0, 1000.0)]
    assert max(norms) < 1.2 * min(norms)
