"""Correlation congruence (Peng et al. 2019)."""

import pytest
import torch
from torch.nn import functional as F

import reference
from distilling import batch, compared, student, teacher, values
from relatum.methods.distill.cc import CC, correlation_loss, neighbor_loss


@pytest.mark.parametrize("kernel", ["taylor", "neighbors"])
def test_correlation_congruence_equals_the_loop(kernel):
    method = CC(student().double(), teacher=teacher().double(), kernel=kernel, kd_weight=0.5).double()
    given = batch(dtype=torch.float64)
    s, t, y = compared(method, given)
    a = method.student_embed(torch.from_numpy(s.embedding)).detach().numpy()
    b = method.teacher_embed(torch.from_numpy(t.embedding)).detach().numpy()
    taylor, neighbors = 100 * reference.correlation(a, b, 0.4, 2), 0.02 * reference.neighbor_products(a, b)
    expected = {
        "task": reference.cross_entropy(s.logits, y),
        "kd": 0.5 * reference.distillation(s.logits, t.logits, 4.0),
        "correlation": taylor if kernel == "taylor" else neighbors,
    }
    assert values(method.losses(given)) == pytest.approx(expected, rel=1e-9)


def test_the_series_tends_to_the_gaussian_kernel():
    a, b = torch.randn(2, 6, 4, dtype=torch.float64)

    def gaussian(f):
        return (-0.4 * torch.cdist(F.normalize(f), F.normalize(f)).square()).exp()

    expected = F.mse_loss(gaussian(a), gaussian(b))
    assert correlation_loss(a, b, 0.4, order=12).item() == pytest.approx(expected.item(), rel=1e-6)


@pytest.mark.parametrize(("kernel", "trained"), [("taylor", False), ("neighbors", True)])
def test_the_teachers_embedding_is_fixed_unless_the_benchmarks_loss_is_chosen(kernel, trained):
    method = CC(student(), teacher=teacher(), kernel=kernel)
    assert all(p.requires_grad == trained for p in method.teacher_embed.parameters())
    assert "teacher_embed.weight" in method.state_dict()


def test_equal_embeddings_cost_nothing():
    rows = torch.randn(4, 7)
    assert correlation_loss(rows, 3 * rows) == pytest.approx(0, abs=1e-12)
    assert neighbor_loss(rows, rows) == 0
