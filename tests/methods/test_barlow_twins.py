"""Barlow Twins (Zbontar et al. 2021)."""

import pytest
import torch

import reference
from cases import batch_for, build
from distilling import values
from relatum.methods.contrastive.barlow_twins import barlow_terms


def test_barlow_twins_equals_the_loop():
    method = build("barlow-twins", weight=0.3).double()
    given = batch_for(method, dtype=torch.float64)
    a, b = (method.projector(method.backbone.embed(view)).tolist() for view in given.views)
    invariance, redundancy = reference.barlow_twins(a, b)
    expected = {"invariance": invariance, "redundancy": 0.3 * redundancy}
    assert values(method.losses(given)) == pytest.approx(expected, rel=1e-9)


def test_terms_see_neither_scale_nor_shift_of_a_coordinate():
    a, b = torch.randn(2, 6, 4, dtype=torch.float64)
    moved = 3 * a + torch.randn(4, dtype=torch.float64)
    for one, other in zip(barlow_terms(a, b), barlow_terms(moved, b)):
        torch.testing.assert_close(one, other)


def test_the_identity_is_the_goal():
    """Coordinates that are orthogonal over the batch, the same in both views, cost nothing."""
    z = torch.linalg.qr(torch.randn(8, 8, dtype=torch.float64)).Q[:, :3]
    z = torch.linalg.qr(torch.cat([torch.ones(8, 1, dtype=torch.float64), z], 1)).Q[:, 1:]  # centered
    invariance, redundancy = barlow_terms(z, z)
    assert invariance.item() == pytest.approx(0, abs=1e-24)
    assert redundancy.item() == pytest.approx(0, abs=1e-24)


def test_a_constant_coordinate_correlates_with_nothing_and_has_a_finite_gradient():
    a = torch.randn(6, 3, dtype=torch.float64)
    a[:, 1] = 7.0
    a.requires_grad_()
    invariance, redundancy = barlow_terms(a, a)
    (invariance + redundancy).backward()
    assert invariance.item() == pytest.approx(1.0)
    assert a.grad.isfinite().all()


def test_one_image_has_no_correlation():
    with pytest.raises(ValueError, match="1 image has no correlation"):
        barlow_terms(torch.zeros(1, 2), torch.zeros(1, 2))


def test_a_negative_weight_is_refused():
    with pytest.raises(ValueError, match="weight is -1;"):
        build("barlow-twins", weight=-1)
