"""VICReg (Bardes et al. 2022), and the products of coordinates that it shares with Barlow Twins."""

import pytest
import torch

import reference
from cases import batch_for, build
from distilling import values
from relatum.losses.grams import apart
from relatum.methods.contrastive.vicreg import vicreg_terms


@pytest.mark.parametrize("width", [3, 24])  # fewer coordinates than images, and three times as many
def test_vicreg_equals_the_loop(width):
    weights = {"invariance_weight": 2.0, "variance_weight": 3.0, "covariance_weight": 0.7}
    method = build("vicreg", out_width=width, eps=1e-2, **weights).double()
    given = batch_for(method, dtype=torch.float64)
    a, b = (method.projector(method.backbone.embed(view)).tolist() for view in given.views)
    expected = dict(zip(("invariance", "variance", "covariance"), reference.vicreg(a, b, 1e-2)))
    expected = {name: weights[f"{name}_weight"] * term for name, term in expected.items()}
    assert min(expected.values()) > 1e-3
    assert values(method.losses(given)) == pytest.approx(expected, rel=1e-9)


def test_the_authors_code_halves_the_variance():
    """Eq. (6) adds the variance terms of the two views, the code takes their mean."""
    paper, code = (build("vicreg", variance=form).double() for form in ("sum", "mean"))
    given = batch_for(paper, dtype=torch.float64)
    ours, theirs = values(paper.losses(given)), values(code.losses(given))
    assert theirs == pytest.approx(ours | {"variance": ours["variance"] / 2})


def test_coordinates_of_variance_one_that_do_not_vary_together_cost_nothing():
    z = torch.linalg.qr(torch.cat([torch.ones(8, 1, dtype=torch.float64), torch.randn(8, 3).double()], 1)).Q[:, 1:]
    invariance, variance, covariance = vicreg_terms(*(7**0.5 * z + 5,) * 2)  # n - 1 = 7
    assert (invariance.item(), variance.item()) == (0, 0)
    assert covariance.item() == pytest.approx(0, abs=1e-24)


def test_a_constant_coordinate_has_a_finite_gradient():
    z = torch.zeros(6, 3, requires_grad=True)
    _, variance, covariance = vicreg_terms(z, z)
    (variance + covariance).backward()
    assert variance.item() == pytest.approx(2 * (1 - 1e-4**0.5))
    assert z.grad.isfinite().all()


@pytest.mark.parametrize("width", [2, 11, 12, 40])  # 12 is where 6 images take the products of images
def test_both_ways_to_take_the_products_of_coordinates_are_the_loop(width):
    a, b = torch.randn(2, 6, width, dtype=torch.float64)
    for one, other in ((a, b), (a, a)):
        products = one.T @ other
        beside = sum(products[i, j] ** 2 for i in range(width) for j in range(width) if i != j)
        diagonal, total = apart(one, other)
        torch.testing.assert_close(diagonal, products.diagonal())
        torch.testing.assert_close(total, beside)
    one, other = a.requires_grad_(), b.requires_grad_()
    assert torch.autograd.gradcheck(apart, (one, other))
    assert torch.autograd.gradcheck(apart, (one.detach(), other))
    assert torch.autograd.gradcheck(lambda z: apart(z, z), one)


def test_one_image_has_no_variance():
    with pytest.raises(ValueError, match="1 image has no variance"):
        vicreg_terms(torch.zeros(1, 2), torch.zeros(1, 2))


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ({"invariance_weight": -1.0}, "invariance_weight is -1.0"),
        ({"variance_weight": float("nan")}, "variance_weight is nan"),
        ({"covariance_weight": -0.5}, "covariance_weight is -0.5"),
        ({"eps": 0.0}, "eps is 0.0"),
    ],
)
def test_options_out_of_range_are_refused(chosen, message):
    with pytest.raises(ValueError, match=message):
        build("vicreg", **chosen)


@pytest.mark.parametrize("width", [2, 12])
def test_a_second_derivative_of_the_products_is_refused(width):
    a, b = torch.randn(2, 6, width).unbind()
    diagonal, total = apart(a.requires_grad_(), b)
    with pytest.raises(RuntimeError, match="no second derivative"):
        torch.autograd.grad(diagonal.sum() + total, a, create_graph=True)
