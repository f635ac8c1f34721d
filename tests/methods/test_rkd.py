"""Relational knowledge distillation (Park et al. 2019)."""

import pytest
import torch
from torch.nn import functional as F

import reference
from distilling import batch, compared, student, teacher, values
from relatum.methods.distill import rkd
from relatum.methods.distill.rkd import RKD, Triangles, angle_loss, distance_loss, distances


@pytest.mark.parametrize("tuples", ["distinct", "all"])
def test_rkd_equals_the_loops_with_the_published_weights(tuples):
    method = RKD(student().double(), teacher=teacher().double(), tuples=tuples, kd_weight=0.5)
    given = batch(dtype=torch.float64)
    s, t, y = compared(method, given)
    distinct = tuples == "distinct"
    expected = {
        "task": reference.cross_entropy(s.logits, y),
        "kd": 0.5 * reference.distillation(s.logits, t.logits, 4.0),
        "distance": 25 * reference.rkd_distance(s.embedding, t.embedding, distinct),
        "angle": 50 * reference.rkd_angle(s.embedding, t.embedding, distinct),
    }
    assert values(method.losses(given)) == pytest.approx(expected, rel=1e-9)


def naive_cosines(f):
    e = F.normalize(f[:, None] - f, dim=2)
    return torch.einsum("jid,jkd->jik", e, e)


def near_points(norm, gap):
    """Two tight groups, far from the origin: what a trained network gives for two classes."""
    center = F.normalize(torch.randn(1, 64)) * norm
    return torch.cat([center + gap * torch.randn(4, 64), center + 1 + gap * torch.randn(4, 64)])


@pytest.mark.parametrize(("norm", "gap"), [(1, 1.0), (1, 1e-2), (700, 1e-2), (1000, 1e-3)])
def test_distances_and_angles_of_near_points_far_from_the_origin(norm, gap):
    f = near_points(float(norm), gap)
    exact = f.double()
    d = torch.stack([torch.stack([(a - b).norm() for b in exact]) for a in exact])
    assert torch.allclose(distances(f).double(), d, rtol=1e-6, atol=0)
    cosines = Triangles(distances(f)).cosines(slice(None), torch.empty(8, 8, 8))
    assert torch.allclose(cosines.double(), naive_cosines(exact), rtol=0, atol=2e-4)


def test_distance_survives_where_the_product_form_in_float32_does_not():
    f = near_points(700.0, 1e-2)
    float32 = (f.square().sum(1)[:, None] + f.square().sum(1) - 2 * f @ f.T).clamp(min=0).sqrt()
    exact = torch.cdist(f.double(), f.double(), compute_mode="donot_use_mm_for_euclid_dist")
    assert (float32 - exact).abs().max() > 0.1 * exact[exact > 0].min()  # the trap is real
    assert (distances(f) - exact).abs().max() < 1e-5 * exact.max()


def test_gradients_of_distances_and_angles_equal_those_of_the_naive_form():
    f, g = (torch.randn(6, d, dtype=torch.float64, requires_grad=True) for d in (4, 9))
    other = distances(g.detach())
    assert torch.autograd.gradcheck(lambda x: distance_loss(distances(x), other), f)
    assert torch.autograd.gradcheck(lambda x, y: angle_loss(distances(x), distances(y)), (f, g))
    # A side of length 0, whose unit vector the naive form differentiates by 1e12, has no part in this.
    proper = 1 - torch.eye(6, dtype=torch.float64)
    naive = F.smooth_l1_loss(naive_cosines(f), naive_cosines(g), reduction="none") * proper[:, :, None] * proper
    ours = angle_loss(distances(f), distances(g), "all")
    assert ours.item() == pytest.approx(naive.mean().item(), rel=1e-12)
    for a, b in zip(torch.autograd.grad(ours, (f, g)), torch.autograd.grad(naive.mean(), (f, g))):
        assert torch.allclose(a, b, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("triples", [1, 150, 10**6], ids=["a-vertex", "ragged", "whole"])
def test_angles_do_not_depend_on_how_many_are_at_hand(triples, monkeypatch):
    a, b = (distances(torch.randn(7, 5, dtype=torch.float64)).requires_grad_() for _ in range(2))
    expected = angle_loss(a, b)
    gradients = torch.autograd.grad(expected, (a, b))
    monkeypatch.setitem(rkd.TRIPLES, "cpu", triples)
    again = angle_loss(a, b)
    assert torch.allclose(again, expected, rtol=1e-12)
    for one, two in zip(torch.autograd.grad(again, (a, b)), gradients):
        assert torch.allclose(one, two, rtol=1e-10)


@pytest.mark.parametrize("collapsed", [False, True], ids=["two-equal", "all-equal"])
@pytest.mark.parametrize("tuples", ["distinct", "all"])
def test_equal_points_have_distance_zero_and_finite_gradients(collapsed, tuples):
    f = 100 * torch.randn(6, 16)
    f = f[:1].repeat(6, 1) if collapsed else torch.cat([f, f[:1]])
    f.requires_grad_()
    d = distances(f)
    assert d[0, -1] == 0
    other = distances(torch.randn(len(f), 8))
    loss = distance_loss(d, other, tuples) + angle_loss(d, other, tuples)
    loss.backward()
    assert loss.isfinite()
    assert f.grad.isfinite().all()


def test_relations_do_not_see_scale_rotation_or_translation():
    f, other = torch.randn(7, 5, dtype=torch.float64), distances(torch.randn(7, 9, dtype=torch.float64))
    rotation = torch.linalg.qr(torch.randn(5, 5, dtype=torch.float64)).Q
    moved = distances(3 * f @ rotation + 10)
    for loss in (distance_loss, angle_loss):
        assert loss(distances(f), other).item() == pytest.approx(loss(moved, other).item(), rel=1e-9)


def test_the_code_averages_over_tuples_that_cost_nothing():
    a, b = distances(torch.randn(7, 5, dtype=torch.float64)), distances(torch.randn(7, 5, dtype=torch.float64))
    assert distance_loss(a, b, "all") / distance_loss(a, b) == pytest.approx(6 / 7)
    assert angle_loss(a, b, "all") / angle_loss(a, b) == pytest.approx(6 * 5 / 49)


def test_no_angles_are_computed_at_weight_zero():
    method = RKD(student(), teacher=teacher(), angle_weight=0.0)
    assert set(method.losses(batch(n=2))) == {"task", "distance"}
