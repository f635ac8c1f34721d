"""MoCo (He et al. 2020): what is special about its memory."""

import pytest
import torch

from cases import batch_for, build
from relatum.methods.contrastive import moco


def test_moco_key_network_starts_as_an_exact_copy_without_gradients():
    method = build("moco")
    for own, copied in zip([method.backbone, method.projector], method.copy.networks):
        assert own.state_dict().keys() == copied.state_dict().keys()
        assert all(torch.equal(v, copied.state_dict()[k]) for k, v in own.state_dict().items())
    assert not any(p.requires_grad for p in method.copy.parameters())


def test_moco_follows_by_its_equation():
    method = build("moco", momentum=0.9)
    before = [p.clone() for p in method.copy.parameters()]
    for p in [*method.backbone.parameters(), *method.projector.parameters()]:
        p.data.add_(1.0)
    method.after_step(0.5)
    for old, new in zip(before, method.copy.parameters()):
        torch.testing.assert_close(new, old + 0.1)


def test_moco_momentum_rises_along_half_a_cosine():
    method = build("moco", momentum=0.9, final_momentum=1.0)
    for progress, expected in ((0.5, 0.95), (1.0, 1.0)):
        before = [p.clone() for p in method.copy.parameters()]
        for p, copied in zip([*method.backbone.parameters(), *method.projector.parameters()], before):
            p.data = copied + 1.0
        method.after_step(progress)
        for old, new in zip(before, method.copy.parameters()):
            torch.testing.assert_close(new, old + 1 - expected)


@pytest.mark.parametrize("symmetric", [False, True])
def test_moco_query_never_meets_the_keys_of_its_own_images(symmetric, monkeypatch):
    method = build("moco", symmetric=symmetric).train()
    seen = []
    original = moco.query_key_contrast

    def watch(query, keys, negatives, terms):
        seen.append((keys.clone(), negatives.clone()))
        return original(query, keys, negatives, terms)

    monkeypatch.setattr(moco, "query_key_contrast", watch)
    method.losses(batch_for(method))
    assert len(seen) == 1 + symmetric
    for keys, _ in seen:
        for _, negatives in seen:
            assert torch.cdist(keys, negatives).min() > 1e-3
    method.after_step(0.1)
    for keys, _ in seen:
        assert torch.cdist(keys, method.queue.keys).min(dim=1).values.max() < 1e-3


def test_moco_shuffled_keys_come_back_in_order():
    """Without batch statistics (evaluation mode) the groups are invisible."""
    images = batch_for(build("moco")).views[0]
    plain, split = build("moco", key_splits=1).eval(), build("moco", key_splits=4).eval()
    torch.testing.assert_close(split.copy.project(images), plain.copy.project(images))


def test_moco_queue_wraps_at_any_batch_size():
    method = build("moco", queue_size=11)
    queue = method.queue
    rows = torch.arange(100.0)[:, None].expand(-1, queue.keys.shape[1])
    written: list[float] = []
    for start, stop in ((0, 4), (4, 9), (9, 16), (16, 40), (40, 41)):
        queue.update(rows[start:stop])
        written += range(start, stop)
        # The last eleven of all that was written are there, each once.
        assert sorted(queue.keys[:, 0].tolist())[-min(11, len(written)) :] == written[-11:] or len(written) < 11
        if len(written) >= 11:
            assert sorted(queue.keys[:, 0].tolist()) == written[-11:]
    # The oldest is the next to go.
    assert queue.keys[queue.position, 0] == written[-11]


def test_moco_refuses_groups_that_do_not_divide_the_batch():
    method = build("moco", key_splits=3)
    with pytest.raises(ValueError, match=r"8 images cannot be split in key_splits=3.*divisor"):
        method.losses(batch_for(method))


def test_moco_sums_or_averages_its_two_directions():
    terms = {
        join: build("moco", symmetric=True, symmetric_loss=join, key_splits=1).losses(batch_for(build("moco")))
        for join in ("mean", "sum")
    }
    assert terms["sum"]["cosine"].item() == pytest.approx(2 * terms["mean"]["cosine"].item(), rel=1e-6)


@pytest.mark.parametrize(("norm", "layers"), [(True, 2), (False, 2), (False, 1)])
def test_moco_has_the_projector_that_was_chosen(norm, layers):
    (branch,) = build("moco", projector_norm=norm, layers=layers).projector.branches
    kinds = [type(layer).__name__ for layer in branch]
    hidden = ["Linear", *(["BatchNorm1d"] if norm else []), "ReLU"]
    assert kinds == [*hidden * (layers - 1), "Linear"]
