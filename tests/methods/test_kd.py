"""Knowledge distillation (Hinton et al. 2015)."""

import pytest
import torch

import reference
from distilling import CLASSES, batch, compared, student, teacher, values
from relatum.losses.objectives import kl_divergence
from relatum.methods.distill.kd import KD


def test_kd_equals_the_loop_with_the_weights_of_the_benchmark():
    method, given = KD(student().double(), teacher=teacher().double()), batch(dtype=torch.float64)
    s, t, y = compared(method, given)
    expected = {
        "task": 0.1 * reference.cross_entropy(s.logits, y),
        "kd": 0.9 * reference.distillation(s.logits, t.logits, 4.0),
    }
    assert values(method.losses(given)) == pytest.approx(expected, rel=1e-9)


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
