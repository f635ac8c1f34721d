"""Alignment, uniformity and effective rank against double loops and closed forms."""

import math

import pytest
import torch
import torch.nn.functional as F

from relatum.evaluation import alignment, effective_rank, uniformity


@pytest.mark.parametrize("alpha", [1.0, 2.0, 3.5])
def test_alignment_is_the_loop(alpha):
    a, b = torch.randn(20, 5, dtype=torch.double), torch.randn(20, 5, dtype=torch.double)
    naive = 0.0
    for x, y in zip(a, b):
        naive += math.dist((x / x.norm()).tolist(), (y / y.norm()).tolist()) ** alpha / 20
    assert alignment(a, b, alpha) == pytest.approx(naive)


def test_alignment_at_its_extremes():
    a = torch.randn(10, 4)
    assert alignment(a, 7 * a) == pytest.approx(0, abs=1e-9)
    assert alignment(a, -a) == pytest.approx(4)


@pytest.mark.parametrize("t", [0.5, 2.0, 50.0])
@pytest.mark.parametrize("budget", [1, 8 * 23 * 4, 2**20], ids=["a-row", "four-rows", "at-once"])
def test_uniformity_is_the_double_loop(t, budget):
    x = torch.randn(23, 5, dtype=torch.double)
    u = F.normalize(x).tolist()
    terms = [math.exp(-t * math.dist(u[i], u[j]) ** 2) for i in range(23) for j in range(i + 1, 23)]
    assert uniformity(x, t, budget=budget) == pytest.approx(math.log(sum(terms) / len(terms)))


def test_uniformity_at_its_extremes():
    point = torch.randn(1, 6)
    assert uniformity(point.expand(10, 6)) == pytest.approx(0, abs=1e-5)
    poles = torch.cat([point, -point])
    assert uniformity(poles) == pytest.approx(-8, abs=1e-5)  # one pair, distance 2
    assert uniformity(poles, t=1e3) == pytest.approx(-4e3)  # a sum of exponentials would give log 0


def test_uniformity_prefers_the_sphere():
    even, cap = torch.randn(200, 8), torch.randn(200, 8)
    cap[:, 0] += 5
    assert uniformity(even) < uniformity(cap) - 1


@pytest.mark.parametrize(("n", "d"), [(40, 7), (7, 40), (5000, 6), (1, 3)])
def test_effective_rank_is_its_definition(n, d):
    x = torch.randn(n, d, dtype=torch.double) * torch.rand(d, dtype=torch.double)
    sigma = torch.linalg.svdvals(x)
    p = (sigma / sigma.sum()).tolist()
    assert effective_rank(x) == pytest.approx(math.exp(-sum(v * math.log(v) for v in p)))


@pytest.mark.parametrize("rank", [1, 3, 8])
def test_effective_rank_of_equal_directions_is_their_number(rank):
    basis = torch.linalg.qr(torch.randn(30, 8)).Q[:, :rank]
    rotation = torch.linalg.qr(torch.randn(8, 8)).Q[:rank]
    assert effective_rank(5 * basis @ rotation) == pytest.approx(rank, rel=1e-4)


def test_effective_rank_of_dead_features_is_zero():
    assert effective_rank(torch.zeros(5, 3)) == 0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: uniformity(torch.randn(1, 3)), "at least 2"),
        (lambda: uniformity(torch.randn(4, 3), t=0.0), "t=0"),
        (lambda: alignment(torch.randn(4, 3), torch.randn(4, 3), alpha=-1.0), "alpha=-1"),
        (lambda: alignment(torch.zeros(0, 3), torch.zeros(0, 3)), "n >= 1"),
        (lambda: uniformity(torch.full((3, 2), torch.nan)), "NaN"),
        (lambda: effective_rank(torch.full((3, 2), torch.inf)), "infinity"),
    ],
    ids=["one-image", "t", "alpha", "empty", "nan", "infinite"],
)
def test_refusals(call, message):
    with pytest.raises(ValueError, match=message):
        call()
