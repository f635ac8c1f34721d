"""Blocks against the plain forms: the value and every gradient, for every loss, relation, temperature and precision."""

import logging

import pytest
import torch

from relatum.losses import blocks
from relatum.losses.matching import bank_loss, matching_loss
from relatum.losses.objectives import (
    contrast_terms,
    nt_xent,
    query_key_contrast,
    query_key_loss,
    supcon_loss,
    two_view_contrast,
)
from relatum.relations import Chord, Cosine, Euclidean, Jaccard, Relation, Tanimoto, UnitInner, Within


class Mine(Relation):
    """A user's relation: forms and a value, no derivative and no bounds; one space compared in two ways."""

    spaces = 2
    forms = (UnitInner(0, 2), Chord(0, 2), Chord(1, 2))

    def value(self, s, d1, d2):
        return (s.exp() - d1) / (1 + d2) + d2.sin()


class OtherValue(Jaccard):
    """A value of its own, but neither bounds nor a derivative: those that it inherits are another value's."""

    def value(self, s, d):
        return 3 * s * s - d


RELATIONS = {
    "cosine": Cosine(),
    "tanimoto": Tanimoto(),
    "jaccard": Jaccard(),
    "jaccard-signed": Jaccard("signed", eps=0.2),
    "jaccard-softplus": Jaccard("softplus", eps=0.05, sharpness=4.0),
    "euclidean": Euclidean(),
    "euclidean-of-a-space": Within(Euclidean(), 1, 2),
    "mine": Mine(),
    "other-value": OtherValue(),
    "cosine-of-a-space": Within(Cosine(), 1, 2),
    "tanimoto-of-a-space": Within(Tanimoto(), 0, 2),
}
LABELS = torch.tensor([3, -1, 3, 7, 7, 7, 0, 2**40, 3, 0, 12, 7])  # -1, 2^40 and 12 have no positive


def two_views(a, b, c, relation, temperature, block):
    return nt_xent(a, b, relation, temperature, block)


def query_keys(a, b, c, relation, temperature, block):
    return query_key_loss(a, b, c, relation, temperature, block)


def supcon(a, b, c, relation, temperature, block):
    return supcon_loss(torch.cat([a, b]), LABELS, relation, temperature, block)


def three_terms(a, b, c, relation, temperature, block):
    losses = two_view_contrast(a, b, contrast_terms(relation, temperature, (0.3,) * relation.spaces), block)
    return sum((k + 1) * loss for k, loss in enumerate(losses.values()))  # unequal: each term has its own gradient


def three_terms_with_keys(a, b, c, relation, temperature, block):
    losses = query_key_contrast(a, b, c, contrast_terms(relation, temperature, (0.3,) * relation.spaces), block)
    return sum((k + 1) * loss for k, loss in enumerate(losses.values()))


def one_of_a_bank(a, b, c, relation, temperature, block):
    """The queries of `a` and the bank `c`, where a query does not see all of its class."""
    queries, keys = torch.arange(len(a)), torch.arange(len(c))
    return bank_loss(a, c, (4 * queries + 1) % len(c), relation, temperature, (queries % 3, keys % 4), block)


def as_the_teacher(a, b, c, relation, temperature, block):
    """The students `a` alone have a gradient: the rest stands still where gradients are checked by small steps."""
    _, teacher, keys = embeddings(torch.bfloat16, (1, len(a), len(c)), a.shape[1])
    return matching_loss(a, teacher.to(a.dtype), keys.to(a.dtype), relation, temperature, 0.3, block)


LOSSES = [two_views, query_keys, supcon, three_terms, three_terms_with_keys, one_of_a_bank, as_the_teacher]
each_loss = pytest.mark.parametrize("loss", LOSSES, ids=lambda f: f.__name__)
each_relation = pytest.mark.parametrize("relation", RELATIONS.values(), ids=RELATIONS.keys())


def embeddings(dtype=torch.float64, sizes=(6, 6, 9), width=8):
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(n, width, generator=generator, dtype=torch.float64).to(dtype).requires_grad_() for n in sizes]


def value_and_gradients(loss, inputs, *options):
    value = loss(*inputs, *options)
    return value.detach(), [g for g in torch.autograd.grad(value, inputs, allow_unused=True) if g is not None]


def assert_equal(actual, expected, tolerance):
    """Relative to the largest entry: single entries of a gradient may cancel."""
    for x, y in zip((actual[0], *actual[1]), (expected[0], *expected[1]), strict=True):
        assert x.dtype == y.dtype
        assert (x - y).abs().max() <= tolerance * y.abs().max().clamp(min=1e-6), (x, y)


@each_loss
@each_relation
@pytest.mark.parametrize("temperature", [0.5, 0.01, 0.001], ids="t={}".format)  # 0.001 needs a shift for each row
@pytest.mark.parametrize("block", [5, 64], ids="block={}".format)
def test_equals_plain_in_float64(loss, relation, temperature, block):
    inputs = embeddings()
    expected = value_and_gradients(loss, inputs, relation, temperature, None)
    assert_equal(value_and_gradients(loss, inputs, relation, temperature, block), expected, 1e-10)


@each_loss
@pytest.mark.parametrize("block", [1, 4, 6, 11, 12])
def test_every_raggedness(loss, block):
    inputs = embeddings()
    expected = value_and_gradients(loss, inputs, Jaccard(), 0.2, None)
    assert_equal(value_and_gradients(loss, inputs, Jaccard(), 0.2, block), expected, 1e-10)


@each_loss
@each_relation
@pytest.mark.parametrize("temperature", [0.5, 0.01], ids="t={}".format)
def test_equals_plain_in_float32(loss, relation, temperature):
    inputs = embeddings(torch.float32)
    expected = value_and_gradients(loss, inputs, relation, temperature, None)
    assert_equal(value_and_gradients(loss, inputs, relation, temperature, 5), expected, 1e-5)


@each_loss
@each_relation
def test_equals_plain_in_float32_for_bfloat16_under_autocast(loss, relation):
    """Not the plain form under autocast, whose backward, called there, multiplies in bfloat16."""
    inputs = embeddings(torch.bfloat16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        actual = value_and_gradients(loss, inputs, relation, 0.2, 5)
    in_float32 = [z.detach().float().requires_grad_() for z in inputs]
    value, gradients = value_and_gradients(loss, in_float32, relation, 0.2, None)
    assert_equal((actual[0], []), (value, []), 1e-5)
    assert_equal(actual, (value, [g.bfloat16() for g in gradients]), 2**-7)  # rounded once, at the end


@each_loss
@each_relation
def test_gradcheck(loss, relation):
    inputs = embeddings()
    torch.autograd.gradcheck(lambda *z: loss(*z, relation, 0.4, 8), inputs, fast_mode=True)


@each_loss
def test_only_wanted_gradients_are_made(loss):
    """Detached keys cost none, and have none; the gradient of the rest is the same."""
    a, b, c = embeddings()
    (expected,) = torch.autograd.grad(loss(a, b, c, Jaccard(), 0.2, None), a)
    (actual,) = torch.autograd.grad(loss(a, b.detach(), c.detach(), Jaccard(), 0.2, 5), a)
    torch.testing.assert_close(actual, expected)
    with torch.no_grad():
        assert not loss(a, b, c, Jaccard(), 0.2, 5).requires_grad


@pytest.mark.parametrize("wanted", range(3), ids=["query", "positive", "negatives"])
@each_relation
def test_each_input_alone(wanted, relation):
    inputs = embeddings()
    expected = value_and_gradients(query_keys, inputs, relation, 0.2, None)[1][wanted]
    alone = [z if i == wanted else z.detach() for i, z in enumerate(inputs)]
    torch.testing.assert_close(torch.autograd.grad(query_keys(*alone, relation, 0.2, 4), alone[wanted])[0], expected)


def test_backward_twice_and_scaled():
    """The gradient that is kept is not used up."""
    a, b, c = embeddings()
    loss = two_views(a, b, c, Cosine(), 0.2, 5)
    first = torch.autograd.grad(loss, (a, b), retain_graph=True)
    second = torch.autograd.grad(-3 * loss, (a, b))
    for x, y in zip(first, second):
        torch.testing.assert_close(-3 * x, y)


def test_a_second_derivative_is_refused():
    """The gradient of the gradient is not known, and is not silently taken for zero."""
    a, b, c = embeddings()
    (gradient,) = torch.autograd.grad(two_views(a, b, c, Cosine(), 0.2, 5), a, create_graph=True)
    with pytest.raises(RuntimeError, match=r"no second derivative.*block=None"):
        gradient.square().sum().backward()
    (plain,) = torch.autograd.grad(two_views(a, b, c, Cosine(), 0.2, None), a, create_graph=True)
    assert torch.autograd.grad(plain.square().sum(), a)[0].any()


@pytest.mark.parametrize("n", [127, 128])
def test_a_second_derivative_is_there_or_refused_at_every_size(n):
    """The first derivative is there at both sizes, with `create_graph` too; what is refused says so."""
    a, b = (z.requires_grad_() for z in torch.randn(2, n, 4, dtype=torch.float64))
    (gradient,) = torch.autograd.grad(nt_xent(a, b), a, create_graph=True)
    torch.testing.assert_close(gradient, torch.autograd.grad(nt_xent(a, b, block=None), a)[0])
    if n < 128:
        assert torch.autograd.grad(gradient.square().sum(), a)[0].any()
    else:
        with pytest.raises(RuntimeError, match=r"no second derivative.*block=None"):
            torch.autograd.grad(gradient.square().sum() + a.sum(), a)


@each_loss
@each_relation
@pytest.mark.parametrize("block", [5, 64], ids="block={}".format)
def test_a_learned_temperature_has_its_gradient(loss, relation, block):
    """The plain form's, which autograd makes; the inputs' gradients stay those of a number."""
    inputs = embeddings()
    temperature = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    fixed = value_and_gradients(loss, inputs, relation, 0.3, None)
    for asked in ([*inputs, temperature], [temperature]):
        found, expected = (
            torch.autograd.grad(loss(*inputs, relation, temperature, size), asked, allow_unused=True)
            for size in (block, None)
        )
        assert expected[-1].abs() > 1e-3
        torch.testing.assert_close(found[-1], expected[-1], rtol=1e-9, atol=1e-12)
    assert_equal(value_and_gradients(lambda *z: loss(*z, relation, temperature, block), inputs), fixed, 1e-10)


def test_a_learned_temperature_of_another_precision_and_a_fixed_one_beside_it():
    a, b, _ = embeddings()
    learned = torch.tensor(0.3, requires_grad=True)  # float32, beside embeddings in float64
    terms = contrast_terms(Jaccard(), learned, (0.3, 0.3), cosine_temperature=0.5)
    found, expected = (
        torch.autograd.grad(sum(two_view_contrast(a, b, terms, block).values()), learned)[0] for block in (5, None)
    )
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected)
    with torch.no_grad():
        assert not nt_xent(a, b, temperature=learned, block=5).requires_grad


def test_truth_values_as_labels():
    z = embeddings()[0]
    truth = torch.tensor([True, False, True, True, False, False])
    expected = value_and_gradients(lambda z: supcon_loss(z, truth.long(), block=None), [z])
    for block in (None, 4):
        assert_equal(
            value_and_gradients(lambda z, block=block: supcon_loss(z, truth, block=block), [z]), expected, 1e-10
        )


@each_relation
def test_kinks(relation):
    """Equal and opposite rows get the gradient of the plain form."""
    a, b, c = (z.detach() for z in embeddings())
    b[0], b[1], c[0], c[1] = a[0], -a[1], a[0], -a[2]
    inputs = [z.requires_grad_() for z in (a, b, c)]
    for loss in LOSSES:
        expected = value_and_gradients(loss, inputs, relation, 0.2, None)
        assert_equal(value_and_gradients(loss, inputs, relation, 0.2, 5), expected, 1e-10)


def test_no_class_has_two_rows():
    """Without any positive the loss is zero, and so is its gradient."""
    z = embeddings()[0]
    value, (gradient,) = value_and_gradients(lambda z: supcon_loss(z, torch.arange(6), block=4), [z])
    assert value == 0
    assert not gradient.any()


def test_rows_of_a_rank_have_the_gradient_of_the_whole():
    """A rank that holds the first rows of gathered embeddings gets, for them, the gradient of one process."""
    a, b, c = embeddings()
    whole = torch.autograd.grad(three_terms(a, b, c, Jaccard(), 0.2, None), (a, b))
    mine = [z[:3].detach().requires_grad_() for z in (a, b)]
    gathered = [torch.cat([own, z[3:].detach()]) for own, z in zip(mine, (a, b))]
    actual = torch.autograd.grad(three_terms(*gathered, c, Jaccard(), 0.2, 5), mine)
    for x, y in zip(actual, whole):
        torch.testing.assert_close(x, y[:3])


class MyCosine(Cosine):
    """A subclass may compute anything."""

    def all_pairs(self, a, b):
        return super().all_pairs(a, b) ** 3


class Alone(Relation):
    """Pairs written without forms."""

    def matched(self, a, b):
        return (a * b).sum(1)

    def all_pairs(self, a, b):
        return a @ b.T


class Trained(Cosine):
    """What it trains has a gradient in the plain form only."""

    def __init__(self):
        super().__init__()
        self.gain = torch.nn.Parameter(torch.tensor(2.0, dtype=torch.float64))

    def value(self, *forms):
        return self.gain * forms[0]


UNKNOWN = {
    "subclass": MyCosine(),
    "alone": Alone(),
    "trained": Trained(),
    "within": Within(MyCosine(), 0, 2),
    "trained-within": Within(Trained(), 0, 2),
}


@pytest.mark.parametrize("relation", UNKNOWN.values(), ids=UNKNOWN.keys())
@each_loss
def test_unknown_relations_take_the_plain_form(loss, relation):
    inputs = embeddings(sizes=(6, 6, 9))
    assert blocks.size(4, [relation], inputs[0]) is None
    if relation.spaces == 1 or loss in (two_views, query_keys, supcon):
        expected = value_and_gradients(loss, inputs, relation, 0.2, None)
        assert_equal(value_and_gradients(loss, inputs, relation, 0.2, 4), expected, 1e-10)


class TestSwitch:
    def test_auto_is_plain_for_few_pairs_and_blocks_for_many(self):
        few, many = torch.zeros(64, 4), torch.zeros(1024, 4)
        assert blocks.size("auto", [Cosine()], few) is None
        assert blocks.size("auto", [Cosine()], many) == 384
        assert blocks.size("auto", [Cosine()], few, torch.zeros(65536, 4)) == 32
        assert blocks.size("auto", [Cosine()], few, few) is None

    def test_is_overridden(self):
        z = torch.zeros(1024, 4)
        assert blocks.size(None, [Cosine()], z) is None
        assert blocks.size(7, [Cosine()], z[:8]) == 7

    @pytest.mark.parametrize("block", [0, -3])
    def test_refuses_no_rows(self, block):
        a, b, _ = embeddings()
        with pytest.raises(ValueError, match=f"block is {block}; expected a number of rows"):
            nt_xent(a, b, block=block)

    def test_embeddings_that_do_not_split_get_the_error_of_the_relation(self):
        a, b, _ = embeddings(width=7)
        with pytest.raises(ValueError, match="width 7 cannot be split"):
            nt_xent(a, b, Jaccard(), block=4)

    def test_choice_is_logged_once(self, caplog):
        blocks._report.cache_clear()
        a, b, _ = embeddings()
        with caplog.at_level(logging.INFO, logger="relatum.losses.blocks"):
            for block in (None, None, 4, 4):
                nt_xent(a, b, block=block)
            nt_xent(a, b, MyCosine(), block=4)
        assert [record.getMessage() for record in caplog.records] == [
            "contrast of Cosine: plain, all pairs at once",
            "contrast of Cosine: square tiles of the upper triangle",
            "contrast of MyCosine: plain, all pairs at once (a relation that says no forms)",
        ]


def largest_tensor(function):
    """The elements of the largest tensor that any operation returns."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class Largest(TorchDispatchMode):
        elements = 0

        def __torch_dispatch__(self, op, types, args=(), kwargs=None):
            out = op(*args, **(kwargs or {}))
            for tensor in out if isinstance(out, (tuple, list)) else (out,):
                if isinstance(tensor, torch.Tensor):
                    self.elements = max(self.elements, tensor.numel())
            return out

    with Largest() as largest:
        function()
    return largest.elements


@each_loss
@pytest.mark.parametrize("temperature", [0.5, 0.01])
def test_nothing_of_size_n_by_n_exists(loss, temperature, monkeypatch):
    monkeypatch.setitem(globals(), "LABELS", torch.arange(120) % 7)
    inputs = embeddings(torch.float32, sizes=(60, 60, 120), width=4)
    peak = {
        block: largest_tensor(lambda block=block: value_and_gradients(loss, inputs, Jaccard(), temperature, block))
        for block in (None, 20)
    }
    assert peak[None] >= 60 * 120
    assert peak[20] <= 20 * 121  # the keys that all share, and one of the row itself
