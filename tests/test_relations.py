"""Laws of all relations, and the values that tie them to their names."""

import math

import pytest
import torch

from relatum.relations import Cosine, Euclidean, Jaccard, Tanimoto, Within, unit

RELATIONS = {
    "cosine": Cosine(),
    "euclidean": Euclidean(),
    "jaccard": Jaccard(),
    "jaccard-signed": Jaccard("signed"),
    "tanimoto": Tanimoto(),
    "within": Within(Cosine(), 1, 2),
}
RANGES = {
    "cosine": (-1, 1),
    "euclidean": (-2, 0),
    "jaccard": (0, 1),
    "jaccard-signed": (-100, 100),  # 1 / eps
    "tanimoto": (-1 / 3, 1),
    "within": (-1, 1),
}
every = pytest.mark.parametrize("name", RELATIONS)


def embeddings(n: int, name: str = "jaccard", width: int = 12) -> torch.Tensor:
    return unit(torch.randn(n, width, dtype=torch.float64), RELATIONS[name].spaces)


def hard_pairs(name: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Random, equal, opposite, orthogonal and nearly equal unit vectors: where formulas break."""
    a = embeddings(60, name)
    b = embeddings(60, name)
    b[:10] = a[:10]
    b[10:20] = -a[10:20]
    b[20:30] = unit(a[20:30] + 1e-9 * b[20:30], RELATIONS[name].spaces)
    b[30:40, :6], a[30:40, 6:] = -a[30:40, :6], b[30:40, 6:]  # space 1 opposite, space 2 equal
    axes = torch.eye(6, dtype=torch.float64).repeat(1, 2)  # orthogonal, in each space too
    a[40:45], b[40:45] = axes[:5], axes[1:]
    return tuple(unit(x, RELATIONS[name].spaces) for x in (a, b))


@every
def test_symmetric(name):
    a, b = hard_pairs(name)
    torch.testing.assert_close(RELATIONS[name].all_pairs(a, b), RELATIONS[name].all_pairs(b, a).T)
    torch.testing.assert_close(RELATIONS[name].matched(a, b), RELATIONS[name].matched(b, a))


@every
def test_matched_is_the_diagonal_of_all_pairs(name):
    a, b = hard_pairs(name)
    # The distance of nearly equal vectors from their inner product is good to 1e-15, and the root of it to 3e-8.
    torch.testing.assert_close(
        RELATIONS[name].matched(a, b), RELATIONS[name].all_pairs(a, b).diagonal(), atol=1e-7, rtol=1e-9
    )


@every
def test_permutation_equivariant(name):
    a, b = embeddings(7, name), embeddings(5, name)
    p, q = torch.randperm(7), torch.randperm(5)
    torch.testing.assert_close(RELATIONS[name].all_pairs(a[p], b[q]), RELATIONS[name].all_pairs(a, b)[p][:, q])


@every
def test_bounded_with_bounded_gradients_for_every_pair_of_unit_vectors(name):
    relation = RELATIONS[name]
    a, b = (x.requires_grad_() for x in hard_pairs(name))
    values = torch.cat([relation.matched(a, b), relation.all_pairs(a, b).flatten()])
    low, high = RANGES[name]
    assert values.isfinite().all()
    assert values.min() >= low - 1e-9
    assert values.max() <= high + 1e-9
    assert relation.lowest == -math.inf or values.min() >= relation.lowest - 1e-9
    for gradient in torch.autograd.grad(relation.matched(a, b).sum(), (a, b)):
        # The bound of Jaccard's slopes is 1/eps (clamped) and 1/eps^2 (signed); those of the others are below 10.
        bound = {"jaccard": 2 / 0.01, "jaccard-signed": 4 / 0.01**2}.get(name, 10)
        assert gradient.isfinite().all()
        assert gradient.norm(dim=1).max() <= bound


@every
def test_gradcheck_away_from_kinks(name):
    a, b = embeddings(4, name), embeddings(3, name)
    torch.autograd.gradcheck(RELATIONS[name].all_pairs, (a.requires_grad_(), b.requires_grad_()))
    torch.autograd.gradcheck(RELATIONS[name].matched, (a, a.detach().roll(1, 0).requires_grad_()))


@every
def test_half_precision_under_autocast_loses_nothing_that_float32_has(name):
    a, b = (x.bfloat16() for x in hard_pairs(name))
    with torch.autocast("cpu", torch.bfloat16):
        found = RELATIONS[name].all_pairs(a, b)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, RELATIONS[name].all_pairs(a.float(), b.float()), rtol=0, atol=0)


def test_more_alike_is_larger():
    a = embeddings(50)
    near, far = unit(a + 0.1 * embeddings(50), 2), embeddings(50)
    for name, relation in RELATIONS.items():
        if name != "jaccard-signed":  # negative where s < 0 < s + ds, and above 1 where s > -ds
            assert (relation.matched(a, near) > relation.matched(a, far)).all(), name


def test_cosine_of_angles():
    angles = torch.tensor([0.0, 20, 40, 60, 80], dtype=torch.float64).deg2rad()
    points = torch.stack([angles.cos(), angles.sin()], 1)
    torch.testing.assert_close(Cosine().all_pairs(3 * points, points), (angles[:, None] - angles).cos())


def test_tanimoto_of_indicators_is_the_jaccard_index_of_sets():
    sets = [{0, 1, 2}, {2, 3}, {0, 1, 2}, {4}, set(range(6)), set()]
    indicators = torch.tensor([[float(i in s) for i in range(6)] for s in sets])
    found = Tanimoto().all_pairs(indicators, indicators)
    for i, a in enumerate(sets):
        for j, b in enumerate(sets):
            index = len(a & b) / len(a | b) if a | b else 1.0
            assert found[i, j].item() == pytest.approx(index), (a, b)


def test_jaccard_with_equal_spaces_is_tanimoto():
    h = unit(torch.rand(20, 6, dtype=torch.float64))  # of the positive orthant: no clamping
    z = torch.cat([h, h], 1)
    torch.testing.assert_close(Jaccard(eps=1e-12).all_pairs(z, z), Tanimoto().all_pairs(h, h))
    signed = torch.randn(20, 6, dtype=torch.float64)
    z = unit(torch.cat([signed, signed], 1), 2)
    torch.testing.assert_close(Jaccard("signed").all_pairs(z, z), Tanimoto().all_pairs(unit(signed), unit(signed)))


def naive_index(a: list[float], b: list[float], eps: float, measure: str) -> float:
    """Eq. (2) for one pair, number by number."""
    half = len(a) // 2

    def scaled(part):
        length = math.sqrt(sum(x * x for x in part))
        return [x / length for x in part]

    (a1, b1), (a2, b2) = (map(scaled, (a[:half], b[:half]))), (map(scaled, (a[half:], b[half:])))
    s = sum(x * y for x, y in zip(a1, b1))
    ds = sum((x - y) ** 2 for x, y in zip(a2, b2))
    if measure == "clamped":
        return (max(s, 0.0) + eps) / (max(s, 0.0) + ds + eps)
    union = s + ds
    return s / (math.copysign(eps, union) if abs(union) < eps else union)


@pytest.mark.parametrize("measure", ["clamped", "signed"])
def test_jaccard_equals_naive_loops(measure):
    a, b = torch.randn(9, 10, dtype=torch.float64), torch.randn(7, 10, dtype=torch.float64)
    expected = [[naive_index(x, y, 0.05, measure) for y in b.tolist()] for x in a.tolist()]
    found = Jaccard(measure, eps=0.05).all_pairs(a, b)
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))


def test_clamped_jaccard_is_one_exactly_where_the_difference_vanishes():
    s = torch.linspace(-1, 1, 41, dtype=torch.float64)
    assert (Jaccard().index(s, torch.zeros_like(s)) == 1).all()
    assert (Jaccard().index(s, torch.full_like(s, 1e-6)) < 1).all()
    assert (Jaccard().index(s, torch.full_like(s, 4.0)) > 0).all()


def test_printed_form_has_a_guarded_pole_and_the_clamped_form_has_none():
    s = torch.tensor([-0.5, -0.5, -0.5], dtype=torch.float64, requires_grad=True)
    ds = torch.tensor([0.5 - 1e-9, 0.5, 0.5 + 1e-9], dtype=torch.float64)
    assert Jaccard("signed").index(s, ds).tolist() == [50.0, -50.0, -50.0]  # -0.5 / (-eps, eps, eps)
    (slope,) = torch.autograd.grad(Jaccard().index(s, ds).sum(), s)
    assert slope.abs().max() == 0  # clamped: the intersection is empty


def test_zero_embeddings_give_finite_values_and_gradients():
    zero = torch.zeros(2, 4, requires_grad=True)
    for name, relation in RELATIONS.items():
        value = relation.matched(zero, torch.ones(2, 4))
        (gradient,) = torch.autograd.grad(value.sum(), zero)
        assert value.isfinite().all(), name
        assert gradient.isfinite().all(), name


def test_unit_scales_each_space():
    z = unit(torch.randn(5, 12), spaces=3)
    torch.testing.assert_close(z.unflatten(1, (3, 4)).norm(dim=2), torch.ones(5, 3))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Jaccard("absolute"), "clamped"),
        (lambda: Jaccard(eps=0.0), "small positive"),
        (lambda: Within(Cosine(), 2, 2), "0 <= space < spaces"),
        (lambda: Within(Jaccard(), 0, 2), "relation of one space"),
        (lambda: Jaccard().matched(torch.ones(2, 3), torch.ones(2, 3)), "even width"),
    ],
)
def test_errors_say_what_was_expected(make, message):
    with pytest.raises(Exception, match=message):
        make()
