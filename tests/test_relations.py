"""Laws of all relations, and the values that tie them to their names."""

import math

import pytest
import torch

from relatum.relations import (
    RELATIONS as NAMED,
)
from relatum.relations import (
    Chord,
    Cosine,
    Distance,
    Euclidean,
    Inner,
    Jaccard,
    Relation,
    Squares,
    Tanimoto,
    UnitInner,
    Within,
    unit,
)

RELATIONS = {
    "cosine": Cosine(),
    "euclidean": Euclidean(),
    "jaccard": Jaccard(),
    "jaccard-signed": Jaccard("signed"),
    "jaccard-softplus": Jaccard("softplus"),
    "jaccard-softplus-sharp": Jaccard("softplus", sharpness=100.0),
    "tanimoto": Tanimoto(),
    "within": Within(Cosine(), 1, 2),
}
RANGES = {
    "cosine": (-1, 1),
    "euclidean": (-2, 0),
    "jaccard": (0, 1),
    "jaccard-signed": (-100, 100),  # 1 / eps
    "jaccard-softplus": (0, 1),
    "jaccard-softplus-sharp": (0, 1),
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
    assert values.max() <= relation.high + 1e-9
    assert values.min() >= relation.low - 1e-9
    for gradient in torch.autograd.grad(relation.matched(a, b).sum(), (a, b)):
        # The bound of Jaccard's slopes is 1/eps, and 1/eps^2 if signed; those of the others are below 10.
        bound = {"jaccard-signed": 4 / 0.01**2}.get(name, 2 / 0.01 if name.startswith("jaccard") else 10)
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


@pytest.mark.parametrize("measure", ["clamped", "softplus", "signed"])
@pytest.mark.parametrize("half", [0, 1])
def test_a_half_of_length_zero_is_orthogonal_to_all(measure, half):
    """One rule for matched rows and all pairs: s = 0, or ds = 2; between two such halves too."""
    relation = Jaccard(measure, eps=0.05)
    a, b = (unit(torch.randn(2, 8, dtype=torch.float64), 2) for _ in range(2))
    a.unflatten(1, (2, 4))[:, half] = 0
    b.unflatten(1, (2, 4))[1, half] = 0
    s, ds = (a * b)[:, :4].sum(1), 2 - 2 * (a * b)[:, 4:].sum(1)
    assert (s if half == 0 else ds - 2).tolist() == [0, 0]
    torch.testing.assert_close(relation.matched(a, b), relation.index(s, ds))
    torch.testing.assert_close(relation.all_pairs(a, b).diagonal(), relation.index(s, ds))


def test_softplus_is_its_formula_has_a_slope_everywhere_and_becomes_the_clamp():
    s = torch.linspace(-1, 1, 9, dtype=torch.float64, requires_grad=True)
    ds = torch.linspace(0, 4, 9, dtype=torch.float64)
    found = Jaccard("softplus", eps=0.02, sharpness=5.0).index(s, ds)
    for value, x, d in zip(found.tolist(), s.tolist(), ds.tolist()):
        overlap = math.log(1 + math.exp(5 * x)) / 5 + 0.02
        assert value == pytest.approx(overlap / (overlap + d), rel=1e-12)
    (slope,) = torch.autograd.grad(found.sum(), s)
    assert (slope[1:] > 1e-4).all()  # the clamped one has none below zero
    sharp, clamped = Jaccard("softplus", sharpness=1e6), Jaccard()
    torch.testing.assert_close(sharp.index(s, ds), clamped.index(s, ds), atol=1e-4, rtol=0)


FORMS = {
    "unit-inner": UnitInner(1, 2),
    "chord": Chord(1, 2),
    "inner": Inner(1, 2),
    "squares": Squares(1, 2),
    "distance": Distance(1, 2),
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_a_form_says_the_same_for_rows_pairs_and_tiles(form):
    """And its derivatives on tiles and rows are those of autograd."""
    a, b = (torch.randn(n, 6, dtype=torch.float64, requires_grad=True) for n in (4, 4))
    product = form.product
    with torch.no_grad():
        f, m_b = product.features(product.part(a))[0], product.features(product.part(b))[1]
        kept = product.kept(product.part(a))
        tile, rows = product.tile(f, m_b), product.rows(f, m_b)
    for plain, x, vjp in (
        (form.pairs(a, b), tile, product.tile_vjp),
        (form.matched(a, b), rows, product.rows_vjp),
    ):
        torch.testing.assert_close(form.read(x), plain.detach())
        g = torch.randn_like(x)
        into = torch.zeros_like(f)
        vjp(into, form.read_vjp(g.clone(), form.read(x)), f, m_b, x)
        (expected,) = torch.autograd.grad(plain, a, g)
        torch.testing.assert_close(product.features_vjp(kept, f, into), expected[:, 3:])
        assert not expected[:, :3].any()


@every
def test_a_derivative_written_by_hand_is_that_of_autograd(name):
    relation = RELATIONS[name]
    x = [2 * torch.rand(50, dtype=torch.float64) - float(k == 0) for k in range(len(relation.forms))]
    g = torch.randn(50, dtype=torch.float64)
    value, vjp = relation.value_and_vjp(*x)
    expected, by_autograd = torch.func.vjp(relation.value, *x)[:2]
    assert torch.equal(value, expected)
    for found, right in zip(vjp(g.clone()), by_autograd(g)):
        torch.testing.assert_close(found, right)


class Squared(Relation):
    """As the documentation has it."""

    forms = (UnitInner(),)

    def value(self, cosine):
        return cosine * cosine.abs()


class Own(Relation):
    def matched(self, a, b):
        return (a * b).sum(1)

    def all_pairs(self, a, b):
        return a @ b.T


class Changed(Jaccard):
    def value(self, s, d):
        return s - d


class ChangedPairs(Jaccard):
    def all_pairs(self, a, b):
        return super().all_pairs(a, b) / 2


def test_a_relation_of_a_user_is_written_in_one_of_two_ways():
    a, b = torch.randn(2, 5, 4, dtype=torch.float64)
    torch.testing.assert_close(Squared().all_pairs(a, b), Cosine().all_pairs(a, b) * Cosine().all_pairs(a, b).abs())
    torch.testing.assert_close(Squared().matched(a, b), Squared().all_pairs(a, b).diagonal())
    assert Squared().follows_forms()
    assert Within(Squared(), 0, 2).follows_forms()
    assert not Own().follows_forms()
    assert not Within(Own(), 0, 2).follows_forms()
    torch.testing.assert_close(Within(Own(), 1, 2).all_pairs(a, b), a[:, 2:] @ b[:, 2:].T)

    class Neither(Relation):
        def matched(self, a, b):
            return (a * b).sum(1)

    with pytest.raises(TypeError, match="Neither is no relation yet: expected `forms` and their `value`, or `matched`"):
        Neither()


def test_nothing_that_belongs_to_another_value_is_used():
    """A subclass with its own value has no bounds and no derivative by hand until it gives its own."""
    assert Jaccard().bounds() == (0, 1)
    assert Changed().bounds() is None
    s, d = (torch.rand(3, dtype=torch.float64) for _ in range(2))
    slopes = Changed().value_and_vjp(s, d)[1](torch.ones(3, dtype=torch.float64))
    assert [slope.tolist() for slope in slopes] == [[1, 1, 1], [-1, -1, -1]]
    assert Changed().follows_forms()
    assert not ChangedPairs().follows_forms()
    assert Euclidean().bounds() is None  # [-2, 0] holds for unit vectors alone


def test_every_name_makes_its_relation_and_takes_its_options():
    assert {name: repr(make()) for name, make in NAMED.items()} == {
        "cosine": "Cosine()",
        "euclidean": "Euclidean()",
        "jaccard": "Jaccard(measure='clamped', eps=0.01)",
        "jaccard-signed": "Jaccard(measure='signed', eps=0.01)",
        "jaccard-softplus": "Jaccard(measure='softplus', eps=0.01, sharpness=10.0)",
        "tanimoto": "Tanimoto()",
    }
    assert NAMED["jaccard-signed"](eps=0.25).eps == 0.25
    assert NAMED["jaccard-softplus"](sharpness=4.0).sharpness == 4


def test_unit_scales_each_space():
    z = unit(torch.randn(5, 12), spaces=3)
    torch.testing.assert_close(z.unflatten(1, (3, 4)).norm(dim=2), torch.ones(5, 3))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Jaccard("absolute"), "clamped"),
        (lambda: Jaccard(eps=0.0), "small positive"),
        (lambda: Jaccard("soft"), "softplus"),
        (lambda: Jaccard(sharpness=5.0), "only measure=.softplus. has"),
        (lambda: Jaccard("softplus", sharpness=math.nan), "sharpness is nan"),
        (lambda: Within(Cosine(), 2, 2), "0 <= space < spaces"),
        (lambda: Within(Jaccard(), 0, 2), "relation of one space"),
        (lambda: Jaccard().matched(torch.ones(2, 3), torch.ones(2, 3)), "even width"),
    ],
)
def test_errors_say_what_was_expected(make, message):
    with pytest.raises(Exception, match=message):
        make()
