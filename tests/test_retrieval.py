"""Nearest neighbors and retrieval against sorted Python lists."""

import pytest
import torch
import torch.nn.functional as F

from relatum.core.types import Embeddings
from relatum.evaluation import Retrieval, nearest
from relatum.evaluation.retrieval import top


def naive_top(row, k):
    return sorted(range(len(row)), key=lambda j: (-row[j], j))[:k]


@pytest.mark.parametrize("levels", [1, 2, 50, 10**9], ids=["all-equal", "two-values", "some-ties", "no-ties"])
@pytest.mark.parametrize(("m", "k"), [(1, 1), (7, 7), (10, 3), (100, 1), (203, 4), (1000, 17), (1000, 999), (5000, 4)])
def test_top_is_the_stable_sort(m, k, levels):
    similarities = torch.randint(levels, (6, m)).double()
    values, indices = top(similarities, k)
    expected = torch.tensor([naive_top(row, k) for row in similarities.tolist()])
    assert torch.equal(indices, expected)
    assert torch.equal(values, similarities.gather(1, expected))


def test_ties_with_minus_infinity_and_negatives():
    row = torch.tensor([[-torch.inf, -1.0, -1.0, -3.0, -1.0, 0.0, -torch.inf]])
    assert top(row, 3).indices.tolist() == [[5, 1, 2]]
    assert top(row, 5).indices.tolist() == [[5, 1, 2, 4, 3]]


@pytest.mark.parametrize("exclude_self", [False, True])
def test_nearest_is_the_naive_cosine(exclude_self):
    x = torch.randn(30, 5, dtype=torch.double)
    found = nearest(x, x, 4, exclude_self=exclude_self)
    for i in range(30):
        row = [F.cosine_similarity(x[i], x[j], dim=0).item() for j in range(30)]
        if exclude_self:
            row[i] = -9.0
        expected = naive_top(row, 4)
        assert found.indices[i].tolist() == expected
        assert found.similarities[i].tolist() == pytest.approx([row[j] for j in expected])
    assert (found.indices[:, 0] == torch.arange(30)).all() is not exclude_self


@pytest.mark.parametrize("budget", [1, 8 * 300 * 7, 2**30], ids=["a-row", "seven-rows", "at-once"])
@pytest.mark.parametrize("exclude_self", [False, True])
def test_chunks_do_not_show(budget, exclude_self):
    x = torch.randn(300, 16, dtype=torch.double)
    whole = nearest(x, x, 5, exclude_self=exclude_self)
    parts = nearest(x, x, 5, exclude_self=exclude_self, budget=budget)
    assert torch.equal(whole.indices, parts.indices)
    torch.testing.assert_close(whole.similarities, parts.similarities)


def test_a_zero_vector_is_no_nan():
    assert nearest(torch.zeros(1, 3), torch.randn(4, 3), 2).similarities.tolist() == [[0, 0]]


@pytest.mark.parametrize(
    ("k", "exclude_self", "m", "message"),
    [
        (0, False, 5, "1 <= k <= 5"),
        (6, False, 5, "1 <= k <= 5"),
        (5, True, 5, "1 <= k <= 4"),
        (1, True, 4, "same set twice"),
        (1, False, 0, "n >= 1"),
    ],
)
def test_nearest_refuses(k, exclude_self, m, message):
    with pytest.raises(ValueError, match=message):
        nearest(torch.randn(5, 3), torch.randn(m, 3), k, exclude_self=exclude_self)


def naive_retrieval(queries, bank, ks, leave_one_out):
    recalls, precisions = {k: [] for k in ks}, []
    for i, (q, label) in enumerate(zip(*queries)):
        others = [j for j in range(len(bank.labels)) if not (leave_one_out and i == j)]
        others.sort(key=lambda j: -F.cosine_similarity(q, bank.features[j], dim=0).item())
        hits = [bool(bank.labels[j] == label) for j in others]
        r = sum(hits)
        if r == 0:
            continue
        for k in ks:
            recalls[k].append(any(hits[:k]))
        precisions.append(sum(hits[j] * sum(hits[: j + 1]) / (j + 1) for j in range(r)) / r)
    mean = {f"recall@{k}": 100 * sum(v) / len(v) for k, v in recalls.items()}
    return mean | {"map@r": 100 * sum(precisions) / len(precisions)}


def random_set(n, classes, seed):
    g = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (n,), generator=g)
    features = torch.randn(n, 6, generator=g, dtype=torch.double)
    features[:, 0] += labels  # some signal, so that it is neither chance nor perfect
    return Embeddings(features, labels)


@pytest.mark.parametrize("leave_one_out", [True, False])
@pytest.mark.parametrize("classes", [3, 25], ids=["large-classes", "lone-images"])
@pytest.mark.parametrize("budget", [1, 2**20])
def test_retrieval_is_the_naive_loop(leave_one_out, classes, budget, monkeypatch):
    train, test = random_set(60, classes, 0), random_set(40, classes, 1)
    monkeypatch.setattr("relatum.evaluation.retrieval.BUDGET", budget)
    result = Retrieval(recall=(1, 3), leave_one_out=leave_one_out)(train, test)
    bank = test if leave_one_out else train
    assert result == pytest.approx(naive_retrieval(test, bank, (1, 3), leave_one_out))


def test_leave_one_out_does_not_read_the_training_set():
    test = random_set(40, 3, 1)
    results = [Retrieval()(random_set(n, 3, 7), test) for n in (5, 60)]
    assert results[0] == results[1]


def test_retrieval_refuses_a_bank_without_the_classes():
    lone = Embeddings(torch.randn(3, 2), torch.arange(3))
    with pytest.raises(ValueError, match="none of 3 queries"):
        Retrieval(recall=(1,))(lone, lone)


@pytest.mark.parametrize("recall", [(), (0,)], ids=str)
def test_retrieval_refuses_cut_offs(recall):
    with pytest.raises(ValueError, match="recall="):
        Retrieval(recall=recall)
