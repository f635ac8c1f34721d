"""Two ranks equal one process: the loss, and the gradient that DistributedDataParallel would average."""

from collections.abc import Iterator

import pytest
import torch

from ranks import WORLD, Ranks
from relatum.core.distributed import gather, rank, world_size
from relatum.losses.objectives import (
    contrast_terms,
    debiased_loss,
    nt_xent,
    query_key_contrast,
    supcon_loss,
    two_view_contrast,
)
from relatum.relations import Cosine, Euclidean, Jaccard, Tanimoto, unit

N, WIDTH = 6, 8  # images over all ranks, width of an embedding

RELATIONS = {
    "cosine": (Cosine(), ()),
    "euclidean": (Euclidean(), ()),
    "jaccard": (Jaccard(), ()),
    "jaccard-signed": (Jaccard("signed"), ()),
    "jaccard-softplus": (Jaccard("softplus"), ()),
    "tanimoto": (Tanimoto(), ()),
    "three-terms": (Jaccard(), (0.3, 0.3)),
}
LOSSES = ("two views", "queue", "supcon", "debiased", "sum of a gathered statistic")


@pytest.fixture(scope="module")
def ranks() -> Iterator[Ranks]:
    pool = Ranks()
    yield pool
    pool.close()


def data() -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(3)
    a, b = (torch.randn(N, 5, generator=generator, dtype=torch.float64) for _ in range(2))
    queue = unit(torch.randn(7, WIDTH, generator=generator, dtype=torch.float64), 2)
    weight = torch.randn(5, WIDTH, generator=generator, dtype=torch.float64)
    return a, b, queue, weight, torch.arange(N) // 2


def loss_and_gradient(loss: str, relation: str, block: int | None, part: slice) -> tuple[float, torch.Tensor]:
    """What one rank computes from its part of the images, with gathering as the methods do it."""
    a, b, queue, weight, labels = data()
    weight.requires_grad_()
    kind, alphas = RELATIONS[relation]
    terms = contrast_terms(kind, 0.3, alphas)
    z_a, z_b = (unit(x[part] @ weight, 2) for x in (a, b))
    match loss:
        case "two views":
            value = sum(two_view_contrast(gather(z_a), gather(z_b), terms, block).values())
        case "queue":  # each rank has its own queries; the loss is the mean over ranks
            value = sum(query_key_contrast(z_a, z_b.detach(), queue, terms, block).values())
        case "supcon":
            z = torch.cat([z_a, z_b])
            value = supcon_loss(gather(z), gather(labels[part].repeat(2)), kind, 0.3, block)
        case "debiased":
            value = debiased_loss(gather(z_a), gather(z_b), 0.2, kind, 0.3)
        case "sum of a gathered statistic":  # where a wrong factor cannot hide behind a normalization
            value = gather(z_a).sum(0).pow(3).sum()
    value.backward()
    return value.item(), weight.grad


def on_rank(number: int, loss: str, relation: str, block: int | None) -> tuple[float, torch.Tensor]:
    share = N // WORLD
    return loss_and_gradient(loss, relation, block, slice(number * share, (number + 1) * share))


@pytest.mark.parametrize("relation", RELATIONS)
@pytest.mark.parametrize(
    ("loss", "block"), [*((loss, None) for loss in LOSSES), *((loss, 5) for loss in ("two views", "queue", "supcon"))]
)
def test_two_ranks_equal_one_process(ranks, loss, relation, block):
    value, gradient = loss_and_gradient(loss, relation, None, slice(None))
    (value0, gradient0), (value1, gradient1) = ranks.run(on_rank, loss, relation, block)
    assert (value0 + value1) / 2 == pytest.approx(value, rel=1e-12)
    torch.testing.assert_close((gradient0 + gradient1) / 2, gradient, rtol=1e-10, atol=1e-12)


def gathered(number: int) -> tuple[torch.Tensor, torch.Tensor, int, int]:
    labels = gather(torch.tensor([number, 10 + number]))
    return gather(torch.full((2, 3), float(number))), labels, rank(), world_size()


def test_gather_keeps_the_order_of_the_ranks(ranks):
    for number, (rows, labels, own, size) in enumerate(ranks.run(gathered)):
        assert rows[:, 0].tolist() == [0, 0, 1, 1]
        assert labels.tolist() == [0, 10, 1, 11]
        assert (own, size) == (number, WORLD)


def test_one_process_gathers_nothing():
    rows = torch.randn(2, 3)
    assert gather(rows) is rows
    assert (rank(), world_size()) == (0, 1)


def test_nt_xent_of_half_the_batch_is_another_loss():
    """The law above would hold for nothing if gathering made no difference."""
    a, b, *_ = data()
    half = nt_xent(a[:3], b[:3])
    assert abs(half.item() - nt_xent(a, b).item()) > 0.1
