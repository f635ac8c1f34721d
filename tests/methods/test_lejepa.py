"""LeJEPA (Balestriero and LeCun 2025), and the distance from a Gaussian that it regularizes by."""

import pytest
import torch

import reference
from cases import batch_for, build
from distilling import values
from relatum.losses import sketches
from relatum.losses.sketches import gaussian_distance, random_lines
from relatum.methods.contrastive.crops import embed_crops
from relatum.methods.contrastive.lejepa import lejepa_terms


@pytest.mark.parametrize(("variant", "width"), [("lejepa", 1), ("lejepa-multi-crop", 8)])
def test_lejepa_equals_the_loop(variant, width):
    """Eq. (7) is not divided by the width: the second form."""
    method = build(variant, weight=0.3, limit=3.0, points=9, lines=4).double()
    given = batch_for(method, dtype=torch.float64)
    z = method.projector(embed_crops(method.backbone, given.views)).chunk(len(given.views))
    torch.manual_seed(2)
    lines = random_lines(4, z[0]).tolist()
    prediction, sigreg = reference.lejepa([view.tolist() for view in z], 2, lines, 3.0, 9)
    torch.manual_seed(2)
    expected = {"prediction": 0.7 * width * prediction, "sigreg": 0.3 * sigreg}
    assert min(expected.values()) > 1e-3
    assert values(method.losses(given)) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("points", [3, 17, 33])
@pytest.mark.parametrize("at_once", [1, 13, 1000])  # one line at a time, two, all
def test_distance_equals_the_loop_however_many_lines_at_once(points, at_once, monkeypatch):
    monkeypatch.setitem(sketches._AT_ONCE, "cpu", at_once)
    z = 2 * torch.randn(6, 5, dtype=torch.float64, requires_grad=True)
    lines = random_lines(7, z)
    expected = [reference.epps_pulley((z @ line).tolist(), 5.0, points) for line in lines]
    assert gaussian_distance(z, lines, 5.0, points).item() == pytest.approx(sum(expected) / 7, rel=1e-12)
    assert torch.autograd.gradcheck(lambda z: gaussian_distance(z, lines, 5.0, points), z)


def test_in_float32_the_powers_lose_no_digit_that_matters():
    z = torch.randn(300, 8)
    lines = random_lines(16, z)
    found = []
    for precision in (torch.float32, torch.float64):
        own = z.to(precision).clone().requires_grad_()
        value = gaussian_distance(own, lines.to(precision), 3.0, 33)
        value.backward()
        found.append((value.double(), own.grad.double()))
    torch.testing.assert_close(found[0][0], found[1][0], rtol=1e-5, atol=0)
    torch.testing.assert_close(found[0][1], found[1][1], rtol=1e-4, atol=1e-6)


def test_a_point_is_as_far_from_a_gaussian_as_its_integral_says():
    """All in one place: |1 - e^{-t^2/2}|^2 e^{-t^2/2} integrates to sqrt(2 pi) (1 - sqrt(2) + 1 / sqrt(3)), n times."""
    z = torch.zeros(4, 3, dtype=torch.float64)
    expected = 4 * (2 * torch.pi) ** 0.5 * (1 - 2**0.5 + 3**-0.5)
    assert gaussian_distance(z, random_lines(5, z), 12.0, 401).item() == pytest.approx(expected, rel=1e-9)


def test_many_gaussian_numbers_are_as_far_as_chance_has_it():
    """E EP = int (1 - e^{-t^2}) e^{-t^2/2} dt = sqrt(2 pi) (1 - 1 / sqrt(3)), whatever n."""
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(20, 1500, generator=generator, dtype=torch.float64)
    mean = gaussian_distance(z, torch.eye(1500, dtype=torch.float64), 12.0, 101).item()  # 1,500 independent tests
    assert mean == pytest.approx((2 * torch.pi) ** 0.5 * (1 - 3**-0.5), rel=0.1)


def test_a_second_derivative_is_refused():
    z = torch.randn(4, 3, requires_grad=True)
    value = gaussian_distance(z, random_lines(5, z))
    with pytest.raises(RuntimeError, match="no second derivative"):
        torch.autograd.grad(value, z, create_graph=True)


def test_one_image_has_no_law():
    with pytest.raises(ValueError, match="1 image has no law"):
        lejepa_terms(torch.zeros(2, 1, 3), 2)


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ({"weight": 1.5}, "weight is 1.5"),
        ({"lines": 0}, "lines is 0"),
        ({"points": 16}, "points is 16"),
        ({"points": 1}, "points is 1"),
        ({"limit": -1.0}, "limit is -1.0"),
    ],
)
def test_options_out_of_range_are_refused(chosen, message):
    with pytest.raises(ValueError, match=message):
        build("lejepa", **chosen)
