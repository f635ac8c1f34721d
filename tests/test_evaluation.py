"""Extraction, the map in the plane, and what every evaluator refuses."""

from dataclasses import FrozenInstanceError

import pytest
import torch
from torch import nn

from relatum.core.types import Embeddings
from relatum.evaluation import KNN, Evaluator, LinearProbe, Retrieval, extract, tsne

EVALUATORS: list[Evaluator] = [
    KNN(k=3),
    KNN(k=3, temperature=None),
    LinearProbe(epochs=3, learning_rates=(0.1, 1.0)),
    LinearProbe(epochs=3, learning_rates=(0.1,)),
    Retrieval(recall=(1,)),
    Retrieval(recall=(1,), leave_one_out=False),
]


def clusters(n, classes=3, d=8, *, spread=0.1, seed=0, dtype=torch.float32):
    g = torch.Generator().manual_seed(seed)
    centers = torch.randn(classes, d, generator=torch.Generator().manual_seed(99), dtype=dtype)
    labels = torch.arange(n) % classes
    return Embeddings(centers[labels] + spread * torch.randn(n, d, generator=g, dtype=dtype), labels)


every = pytest.mark.parametrize("evaluator", EVALUATORS, ids=str)


@every
def test_results_are_plain_percentages_and_repeat(evaluator):
    train, test = clusters(40), clusters(20, seed=1)
    result = evaluator(train, test)
    assert result
    assert all(type(value) is float for value in result.values())
    assert all(0 <= value <= 100 for value in result.values())
    assert max(v for k, v in result.items() if k != "learning_rate") == 100  # well-separated clusters
    torch.randn(5)  # nothing hangs on the global generator
    assert evaluator(train, test) == result


@every
def test_the_protocol_is_fixed_and_stated(evaluator):
    with pytest.raises(FrozenInstanceError):
        evaluator.k = 1
    assert "(" in str(evaluator)


@every
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64], ids=str)
def test_any_floating_type_is_taken(evaluator, dtype):
    train, test = (Embeddings(e.features.to(dtype), e.labels) for e in (clusters(40), clusters(20, seed=1)))
    assert evaluator(train, test) == pytest.approx(evaluator(clusters(40), clusters(20, seed=1)), abs=5.1)


@every
def test_inputs_are_left_alone(evaluator):
    train, test = clusters(40), clusters(20, seed=1)
    evaluator(train, test)
    for used, fresh in zip((*train, *test), (*clusters(40), *clusters(20, seed=1))):
        assert torch.equal(used, fresh)


def broken(kind):
    features, labels = clusters(20, seed=1)
    match kind:
        case "unlabeled":
            labels = labels.clone()
            labels[4] = -1
        case "nan":
            features = features.clone()
            features[3, 2] = torch.nan
        case "infinite":
            features = features.clone()
            features[3, 2] = torch.inf
        case "empty":
            features, labels = features[:0], labels[:0]
        case "length":
            labels = labels[:-1]
        case "maps":
            features = features[:, :, None]
    return features, labels


@every
@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("unlabeled", "1 of 20 images have no label"),
        ("nan", "1 of 20 feature vectors hold NaN"),
        ("infinite", "1 of 20 feature vectors hold NaN or infinity"),
        ("empty", "n >= 1"),
        ("length", "20 feature vectors but 19 labels"),
        ("maps", "pool feature maps"),
    ],
)
def test_unusable_embeddings_are_refused(evaluator, kind, message):
    bad = Embeddings(*broken(kind))
    with pytest.raises(ValueError, match=message):
        evaluator(clusters(40), bad)
    if not getattr(evaluator, "leave_one_out", False):
        with pytest.raises(ValueError, match=message):
            evaluator(bad, clusters(20))


@pytest.mark.parametrize("evaluator", [e for e in EVALUATORS if not getattr(e, "leave_one_out", False)], ids=str)
def test_two_encoders_are_not_compared(evaluator):
    with pytest.raises(ValueError, match="8 dimensions and test features 5"):
        evaluator(clusters(40), clusters(20, d=5))


@pytest.mark.parametrize("evaluator", [e for e in EVALUATORS if not getattr(e, "leave_one_out", False)], ids=str)
def test_one_test_image_is_enough(evaluator):
    one = clusters(1, seed=1)
    assert max(v for k, v in evaluator(clusters(40), one).items() if k != "learning_rate") == 100


def test_extract_keeps_order_and_labels_without_gradient():
    encoder = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    images, labels = torch.randn(10, 3, 8, 8), torch.tensor([0, 1, -1, 2, 0, 1, 2, 0, 1, 2])
    out = extract(encoder, zip(images.split(4), labels.split(4)))
    assert out.features.dtype == torch.float32
    assert not out.features.requires_grad
    assert torch.equal(out.labels, labels)
    torch.testing.assert_close(out.features, encoder(images).detach())


def test_extract_gives_float32_of_a_bfloat16_encoder():
    out = extract(lambda x: x.mean((2, 3)).bfloat16(), [(torch.randn(2, 3, 4, 4), torch.zeros(2, dtype=torch.long))])
    assert out.features.dtype == torch.float32


def test_extract_refuses_no_batches():
    with pytest.raises(ValueError, match="data set empty"):
        extract(lambda x: x, [])


def test_tsne_keeps_clusters_apart_and_repeats():
    data = clusters(60, spread=0.02)
    points, labels = tsne(data, perplexity=10.0)
    assert points.shape == (60, 2)
    assert torch.equal(labels, data.labels)
    nearest = (torch.cdist(points, points) + 1e9 * torch.eye(60)).argmin(1)
    assert (labels[nearest] == labels).all()
    assert torch.equal(points, tsne(data, perplexity=10.0).features)


def test_tsne_maps_a_part_with_its_own_labels():
    data = clusters(200, spread=0.02)
    part = tsne(data, max_samples=50, perplexity=5.0, seed=3)
    assert len(part.features) == len(part.labels) == 50
    order = torch.randperm(200, generator=torch.Generator().manual_seed(3))[:50].sort().values
    assert torch.equal(part.labels, data.labels[order])
    assert not torch.equal(part.labels, tsne(data, max_samples=50, perplexity=5.0, seed=4).labels)


def test_tsne_draws_a_collapsed_encoder():
    points, _ = tsne(Embeddings(torch.ones(20, 4), torch.zeros(20, dtype=torch.long)), perplexity=5.0)
    assert points.isfinite().all()


@pytest.mark.parametrize(
    ("features", "perplexity", "message"),
    [
        (torch.randn(20, 4), 20.0, "0 < perplexity < 20"),
        (torch.randn(20, 4), 0.0, "perplexity=0"),
        (torch.randn(20, 1), 5.0, "at least 2 dimensions"),
        (torch.full((20, 4), torch.nan), 5.0, "NaN"),
    ],
    ids=["too-few", "zero", "one-dimension", "nan"],
)
def test_tsne_refuses(features, perplexity, message):
    with pytest.raises(ValueError, match=message):
        tsne(Embeddings(features, torch.zeros(20, dtype=torch.long)), perplexity=perplexity)
