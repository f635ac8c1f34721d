"""Queries against the keys of their batch, and as another view relates to a queue: against the loops of the papers."""

import pytest
import torch

import reference
from relatum.losses import queries
from relatum.losses.objectives import contrast_terms
from relatum.losses.queries import in_batch_contrast, in_batch_loss, most_alike, relation_consistency
from relatum.relations import Cosine, Euclidean, Jaccard, Relation, Tanimoto, Within
from test_blocks import largest_tensor

RELATIONS = {
    "cosine": Cosine(),
    "euclidean": Euclidean(),
    "jaccard": Jaccard(),
    "jaccard-signed": Jaccard("signed", eps=0.2),
    "tanimoto": Tanimoto(),
}
relations = pytest.mark.parametrize("relation", RELATIONS.values(), ids=RELATIONS)
blocks = pytest.mark.parametrize("block", [None, 4], ids=["plain", "blocks"])


def embeddings(*sizes: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(n, 6, generator=generator, dtype=torch.float64) for n in sizes]


def table(relation: Relation, a: torch.Tensor, b: torch.Tensor) -> list[list[float]]:
    """Pair by pair, by matched rows."""
    return [[relation.matched(x[None], y[None]).item() for y in b] for x in a]


@relations
@blocks
@pytest.mark.parametrize("temperature", [0.1, 1.0])
def test_in_batch_loss_is_the_loop(relation, block, temperature):
    query, keys = embeddings(7, 7)
    expected = reference.in_batch(table(relation, query, keys), temperature)
    assert in_batch_loss(query, keys, relation, temperature, block).item() == pytest.approx(expected, rel=1e-10)


@blocks
def test_terms_in_the_batch_are_weighted_and_named(block):
    query, keys = embeddings(7, 7)
    terms = contrast_terms(Jaccard(), 0.2, (0.3, 0.1))
    expected = {
        "cosine1": 0.3 * reference.in_batch(table(Within(Cosine(), 0, 2), query, keys), 0.2),
        "cosine2": 0.1 * reference.in_batch(table(Within(Cosine(), 1, 2), query, keys), 0.2),
        "jaccard": 0.6 * reference.in_batch(table(Jaccard(), query, keys), 0.2),
    }
    found = {name: loss.item() for name, loss in in_batch_contrast(query, keys, terms, block).items()}
    assert found == pytest.approx(expected, rel=1e-10)


@relations
@blocks
@pytest.mark.parametrize(("temperature", "target_temperature"), [(0.1, 0.04), (0.5, 1.0)])
def test_relation_consistency_is_the_loop(relation, block, temperature, target_temperature):
    query, target, keys = embeddings(7, 7, 9)
    tables = table(relation, query, keys), table(relation, target, keys)
    expected = reference.consistency(*tables, temperature, target_temperature)
    found = relation_consistency(query, target, keys, relation, temperature, target_temperature, block)
    assert found.item() == pytest.approx(expected, rel=1e-10)


@blocks
def test_consistency_is_least_where_both_relate_alike_and_has_no_gradient_there(block):
    query, keys = embeddings(5, 9)
    query.requires_grad_()
    loss = relation_consistency(query, query, keys, Cosine(), 0.2, 0.2, block)
    assert torch.autograd.grad(loss, query)[0].abs().max() < 1e-12


@relations
@pytest.mark.parametrize("block", [1, 4, 7])
@pytest.mark.parametrize("temperature", [0.2, 0.001])  # 0.001 needs a shift for each row
def test_gradients_by_blocks_are_those_of_the_plain_form(relation, block, temperature):
    """Of the queries and of the keys of their batch; of the queries alone where another view is the target."""
    query, target, keys = (z.requires_grad_() for z in embeddings(7, 7, 9))
    terms = contrast_terms(relation, temperature, (0.3,) * relation.spaces)

    def gradients(size):
        unequal = sum((k + 1) * loss for k, loss in enumerate(in_batch_contrast(query, target, terms, size).values()))
        alike = relation_consistency(query, target, keys, relation, temperature, 0.3, size)
        return *torch.autograd.grad(unequal, (query, target)), *torch.autograd.grad(alike, query)

    for found, expected in zip(gradients(block), gradients(None)):
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9 * expected.abs().max().item())


@blocks
def test_only_the_queries_have_a_gradient_of_consistency(block):
    query, target, keys = (z.requires_grad_() for z in embeddings(7, 7, 9))
    loss = relation_consistency(query, target, keys, block=block)
    assert torch.autograd.grad(loss, (target, keys), allow_unused=True) == (None, None)


@relations
@blocks
def test_learned_temperatures_have_the_gradient_of_the_plain_form(relation, block):
    query, target, keys = embeddings(7, 7, 9)
    temperature = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    for loss in (
        lambda size: in_batch_loss(query, target, relation, temperature, size),
        lambda size: relation_consistency(query, target, keys, relation, temperature, 0.2, size),
    ):
        found, expected = (torch.autograd.grad(loss(size), temperature)[0] for size in (block, None))
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("loss", [in_batch_loss, lambda a, b, **rest: relation_consistency(a, b, b, **rest)])
def test_nothing_of_all_pairs_exists(loss):
    query, keys = torch.randn(2, 60, 4, requires_grad=True)
    peak = {block: largest_tensor(lambda b=block: loss(query, keys, block=b).backward()) for block in (None, 20)}
    assert peak[None] >= 60 * 60
    assert peak[20] <= 20 * 60


@relations
@pytest.mark.parametrize("pairs", [1, 20, 2**24])  # a query at a time, two, all
def test_most_alike_is_the_best_of_all_pairs(relation, pairs, monkeypatch):
    monkeypatch.setattr(queries, "_PAIRS_AT_ONCE", pairs)
    query, keys = embeddings(5, 9)
    expected = [row.index(max(row)) for row in table(relation, query, keys)]
    assert most_alike(query, keys, relation).tolist() == expected


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda a: in_batch_loss(a[:1], a[:1]), "batch of 1 image has no negatives"),
        (lambda a: in_batch_loss(a, a, temperature=0.0), "temperature is 0.0"),
        (lambda a: in_batch_contrast(a, a, contrast_terms(Cosine(), 0.1), block=0), "block is 0"),
        (lambda a: relation_consistency(a, a, a, target_temperature=-1.0), "target_temperature is -1.0"),
        (lambda a: most_alike(a, a[:0]), "4 queries and 0 negatives"),
    ],
)
def test_what_cannot_be_compared_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call(embeddings(4)[0])
