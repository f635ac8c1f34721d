"""k-NN against scikit-learn, and where scikit-learn has no answer against a naive vote."""

import math

import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier

from relatum.core.types import Embeddings
from relatum.evaluation import KNN


def random_set(n, classes, seed, *, signal=1.0, dtype=torch.double):
    g = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % classes
    centers = torch.randn(classes, 10, generator=torch.Generator().manual_seed(99), dtype=dtype)
    return Embeddings(torch.randn(n, 10, generator=g, dtype=dtype) + signal * centers[labels], labels)


def peer(train, k, temperature):
    weights = "uniform" if temperature is None else (lambda distance: np.exp((1 - distance) / temperature))
    model = KNeighborsClassifier(k, metric="cosine", algorithm="brute", weights=weights)
    return model.fit(train.features.numpy(), train.labels.numpy())


@pytest.mark.parametrize("temperature", [0.02, 0.1, 1.0, None], ids=lambda t: f"T={t}")
@pytest.mark.parametrize("k", [1, 5, 50, 300], ids=lambda k: f"k={k}")
def test_scikit_learn_says_the_same_of_every_image(k, temperature):
    train, test = random_set(300, 8, 0), random_set(64, 8, 1)
    probability = peer(train, k, temperature).predict_proba(test.features.numpy())
    order = np.argsort(-probability, axis=1, kind="stable")
    knn = KNN(k, temperature)
    # With the peer's own answers as the labels, one disagreement anywhere would show.
    assert knn(train, Embeddings(test.features, torch.from_numpy(order[:, 0])))["top1"] == 100
    voted = np.take_along_axis(probability, order, 1) > 0
    found = (order[:, :5] == test.labels.numpy()[:, None]) & voted[:, :5]
    expected = {"top1": 100 * found[:, :1].any(1).mean(), "top5": 100 * found.any(1).mean()}
    assert knn(train, test) == pytest.approx(expected)
    assert 12.5 <= expected["top1"] < 100  # the problem is neither hopeless nor trivial


def test_float32_is_the_same_to_an_image():
    train, test = random_set(300, 8, 0, dtype=torch.float32), random_set(200, 8, 1, dtype=torch.float32)
    expected = 100 * peer(train, 20, 0.1).score(test.features.numpy(), test.labels.numpy())
    assert KNN(20)(train, test)["top1"] == pytest.approx(expected, abs=0.5)


@pytest.mark.parametrize("k", [1, 2, 3, 5, 8])
def test_draws_are_settled_by_row_then_by_class(k):
    """Images on four directions only: nearly all neighbors and votes are draws."""
    g = torch.Generator().manual_seed(k)
    axes = torch.cat([torch.eye(2), -torch.eye(2)]).double()
    bank, labels = torch.randint(4, (40,), generator=g), torch.randint(7, (40,), generator=g)
    asked, truth = torch.randint(4, (30,), generator=g), torch.randint(7, (30,), generator=g)
    hits = {1: 0, 5: 0}
    for q, label in zip(asked.tolist(), truth.tolist()):
        cosine = [float(axes[q] @ axes[b]) for b in bank]
        neighbors = sorted(range(40), key=lambda j: (-cosine[j], j))[:k]
        votes = dict.fromkeys(range(7), 0.0)
        for j in neighbors:
            votes[int(labels[j])] += math.exp(cosine[j] / 0.5)
        ranked = sorted((c for c in votes if votes[c] > 0), key=lambda c: (-round(votes[c], 9), c))
        for cut in hits:
            hits[cut] += label in ranked[:cut]
    result = KNN(k, 0.5)(Embeddings(axes[bank], labels), Embeddings(axes[asked], truth))
    assert result == pytest.approx({f"top{cut}": 100 * h / 30 for cut, h in hits.items()})


def test_one_neighbor_gives_no_chance_hits_in_top5():
    train, test = random_set(100, 10, 0), random_set(50, 10, 1)
    result = KNN(1)(train, test)
    assert result["top5"] == result["top1"]


def test_few_classes_have_no_top5():
    assert list(KNN(5)(random_set(50, 4, 0), random_set(20, 4, 1))) == ["top1"]


def test_a_class_unknown_to_train_is_never_found():
    train, test = random_set(50, 4, 0), random_set(20, 4, 1)
    assert KNN(50)(train, Embeddings(test.features, torch.full_like(test.labels, 9))) == {"top1": 0, "top5": 0}


@pytest.mark.parametrize("temperature", [1e-4, 1e4])
def test_no_temperature_overflows(temperature):
    train, test = random_set(100, 4, 0, dtype=torch.float32), random_set(50, 4, 1, dtype=torch.float32)
    limit = KNN(1) if temperature < 1 else KNN(20, None)
    assert KNN(20, temperature)(train, test)["top1"] == pytest.approx(limit(train, test)["top1"], abs=2.1)


def test_length_of_the_features_says_nothing():
    train, test = random_set(100, 8, 0), random_set(50, 8, 1)
    stretched = Embeddings(train.features * torch.rand(100, 1, dtype=torch.double).add(0.1) * 1e3, train.labels)
    assert KNN(20)(stretched, test) == KNN(20)(train, test)


@pytest.mark.parametrize("rows", [1, 7, 1000])
def test_chunks_do_not_show(rows, monkeypatch):
    train, test = random_set(300, 8, 0), random_set(64, 8, 1)
    whole = KNN(20)(train, test)
    monkeypatch.setattr("relatum.evaluation.retrieval.BUDGET", rows * 300 * 8)
    assert KNN(20)(train, test) == whole


def test_more_neighbors_than_images_are_refused():
    with pytest.raises(ValueError, match=r"k=200 neighbors of a bank with 150 candidates.*lower k"):
        KNN()(random_set(150, 3, 0), random_set(5, 3, 1))


@pytest.mark.parametrize(("k", "temperature"), [(0, 0.1), (1, 0.0), (1, -1.0), (1, math.nan)])
def test_settings_without_meaning_are_refused(k, temperature):
    with pytest.raises(ValueError, match="expected"):
        KNN(k, temperature)


def test_the_protocol_stands_beside_the_number():
    assert str(KNN()) == "k-NN (k=200, T=0.1, cosine)"
    assert str(KNN(5, None)) == "k-NN (k=5, unweighted, cosine)"
