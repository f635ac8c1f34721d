"""SwAV (Caron et al. 2020)."""

import math

import pytest
import torch

from cases import IMAGES, batch_for, build, train
from relatum.core.types import Batch
from relatum.methods.contrastive.crops import told_by_large
from relatum.methods.contrastive.swav import sinkhorn


def naive_sinkhorn(scores: list[list[float]], epsilon: float, iterations: int) -> list[list[float]]:
    """The authors' Algorithm: exp, then each prototype's and each image's sum scaled in turn, over single numbers."""
    n, k = len(scores), len(scores[0])
    q = [[math.exp(s / epsilon) for s in row] for row in scores]
    for _ in range(iterations):
        for j in range(k):
            total = sum(q[i][j] for i in range(n))
            for i in range(n):
                q[i][j] /= total * k
        for i in range(n):
            total = sum(q[i])
            q[i] = [value / (total * n) for value in q[i]]
    return [[n * value for value in row] for row in q]


def naive_loss(scores: list[list[list[float]]], codes: list[list[list[float]]], temperature: float) -> float:
    """Eq. (6): each large crop's codes, said by every other crop."""
    total, terms = 0.0, 0
    for i, code in enumerate(codes):
        for v, said in enumerate(scores):
            if v != i:
                terms += 1
                for q, s in zip(code, said):
                    norm = math.log(sum(math.exp(value / temperature) for value in s))
                    total -= sum(a * (b / temperature - norm) for a, b in zip(q, s)) / len(said)
    return total / terms


@pytest.mark.parametrize("iterations", [1, 3])
def test_sinkhorn_equals_the_loop(iterations):
    scores = torch.rand(7, 4, dtype=torch.double) * 2 - 1
    expected = torch.tensor(naive_sinkhorn(scores.tolist(), 0.05, iterations), dtype=torch.double)
    found = sinkhorn(scores, 0.05, iterations)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-15)
    torch.testing.assert_close(found.sum(1), torch.ones(7, dtype=torch.double))


def test_many_iterations_share_the_images_out_equally():
    shares = sinkhorn(torch.rand(12, 4, dtype=torch.double), 0.05, 500).sum(0)
    torch.testing.assert_close(shares, torch.full((4,), 3.0, dtype=torch.double))


def test_images_that_do_not_count_change_nothing():
    scores = torch.rand(9, 4, dtype=torch.double)
    counted = torch.arange(9) < 5
    found = sinkhorn(scores, 0.05, 3, counted)
    torch.testing.assert_close(found[:5], sinkhorn(scores[:5], 0.05, 3))
    assert not found[5:].any()


def test_codes_are_made_in_float32_and_no_epsilon_overflows():
    scores = torch.rand(6, 3) * 2 - 1
    with torch.autocast("cpu", torch.bfloat16):
        found = sinkhorn(scores.bfloat16(), 0.05, 3)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, sinkhorn(scores.bfloat16().float(), 0.05, 3), rtol=0, atol=0)
    assert sinkhorn(scores, 1e-4, 3).isfinite().all()


@pytest.mark.parametrize("variant", ["swav", "swav-multi-crop"])
def test_swav_equals_the_loop(variant):
    method = build(variant, temperature=0.2, epsilon=0.1).double().eval()
    batch = batch_for(method, dtype=torch.double)
    scores = []
    for view in batch.views:
        z = torch.nn.functional.normalize(method.projector(method.backbone.embed(view)), dim=1)
        scores.append((z @ torch.nn.functional.normalize(method.prototypes.weight, dim=1).T).tolist())
    codes = [naive_sinkhorn(rows, 0.1, 3) for rows in scores[:2]]
    (found,) = method.losses(batch).values()
    assert found.item() == pytest.approx(naive_loss(scores, codes, 0.2), rel=1e-11)


def test_the_queue_joins_when_it_is_due_and_as_far_as_it_is_filled():
    method = build("swav", prototypes=10, queue_size=20, queue_after=0.25, iterations=2).double().eval()
    with pytest.raises(ValueError, match="prototypes is 40, and 8 images of a batch and 20 of the queue"):
        build("swav", prototypes=40, queue_size=20).losses(batch_for(method))
    first, second, third = (batch_for(method, seed, torch.double) for seed in range(3))

    def scores(batch: Batch) -> list[torch.Tensor]:
        return [method.prototypes(method.projector(method.backbone.embed(view))) for view in batch.views]

    for batch, progress in ((first, 0.1), (second, 0.2)):
        alone = torch.stack([sinkhorn(s, 0.05, 2) for s in scores(batch)])
        torch.testing.assert_close(
            method.losses(batch)["swapped"], told_by_large(torch.stack(scores(batch)), alone, 0.1)
        )
        method.after_step(progress)
    method.clock.update(0.3)
    with torch.no_grad():  # 16 of the 20 places are filled
        every = zip(scores(third), scores(first), scores(second))
        codes = torch.stack([sinkhorn(torch.cat(parts), 0.05, 2)[:IMAGES] for parts in every])
    expected = told_by_large(torch.stack(scores(third)), codes, 0.1)
    torch.testing.assert_close(method.losses(third)["swapped"], expected)


def test_prototypes_wait_and_stay_of_length_one():
    method = build("swav", frozen_share=0.15)
    start = method.prototypes.weight.detach().clone()
    _, optimizer = train(method, 2)
    assert torch.equal(method.prototypes.weight, start)
    train(method, 1, first=2, optimizer=optimizer)
    assert not torch.allclose(method.prototypes.weight, start, atol=1e-4)
    torch.testing.assert_close(method.prototypes.weight.norm(dim=1), torch.ones(4))


def test_what_cannot_be_shared_out_is_refused_before_a_step():
    method = build("swav", prototypes=12, queue_size=3)
    method.refuse_batch(9)
    with pytest.raises(
        ValueError, match=r"prototypes is 12, and 8 images .* at most 11: .* raise --method.queue-size to 4"
    ):
        method.refuse_batch(8)
    with pytest.raises(ValueError, match="3 large crops of each image, and there are queues for 2"):
        method.losses(Batch.unlabeled(*torch.randn(3, 9, 3, 16, 16)))


def test_lightly_computes_the_same():
    lightly = pytest.importorskip("lightly.loss", exc_type=ImportError)
    generator = torch.Generator().manual_seed(1)
    crops = torch.rand(5, 8, 6, generator=generator, dtype=torch.double).mul(2).sub(1)
    ours, theirs = (crops.clone().requires_grad_() for _ in range(2))
    codes = torch.stack([sinkhorn(scores, 0.05, 3) for scores in crops[:2]])
    loss = told_by_large(ours, codes, 0.1)
    other = lightly.SwaVLoss()([*theirs[:2]], [*theirs[2:]]).squeeze()
    torch.testing.assert_close(loss, other, rtol=1e-10, atol=0)
    torch.testing.assert_close(*(torch.autograd.grad(value, z)[0] for value, z in ((loss, ours), (other, theirs))))
