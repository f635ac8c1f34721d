"""NNCLR (Dwibedi et al. 2021), ReSSL (Zheng et al. 2021) and MoCo v3 (Chen et al. 2021): their losses and memories."""

import pytest
import torch
from torch.nn import functional as F

import reference
from cases import batch_for, build, train
from distilling import values
from relatum.data.views import ContrastiveView
from relatum.relations import Jaccard


def cosines(a, b):
    return (F.normalize(a) @ F.normalize(b).T).tolist()


def test_nnclr_equals_the_loop():
    """Eq. (3) and (4) in both directions: neighbors by the queue, contrasted with the other view's predictions."""
    method = build("nnclr", temperature=0.3).double()
    given = batch_for(method, dtype=torch.float64)
    z = [method.projector(method.backbone.embed(view)) for view in given.views]
    predictions = [method.predictor(own) for own in z]
    expected = 0.0
    for own, prediction in zip(z, reversed(predictions)):
        rows = cosines(own, method.queue.keys)
        neighbors = method.queue.keys[[row.index(max(row)) for row in rows]]
        expected += reference.in_batch(cosines(neighbors, prediction), 0.3) / 2
    assert values(method.losses(given)) == pytest.approx({"cosine": expected}, rel=1e-9)


def test_nnclr_remembers_the_first_view_after_the_step():
    method = build("nnclr")
    given = batch_for(method)
    method.losses(given)
    with torch.no_grad():
        keys = F.normalize(method.projector(method.backbone.embed(given.views[0])))
    before = method.queue.keys.clone()
    method.losses(given)
    assert torch.equal(method.queue.keys, before)
    method.after_step(0.5)
    torch.testing.assert_close(method.queue.keys[:8], keys, rtol=1e-4, atol=1e-5)
    assert torch.equal(method.queue.keys[8:], before[8:])


def test_nnclr_finds_neighbors_by_its_relation():
    """The cosine prefers the key that is long where it agrees, the Jaccard index the one that agrees in both halves."""
    cosine, jaccard = build("nnclr", out_width=4), build("nnclr", relation=Jaccard(), out_width=2)
    one = torch.tensor([[1.0, 0.0, 1.0, 0.0]])
    long, both = torch.tensor([3.0, 0.0, 0.0, 1.0]), torch.tensor([0.3, 1.0, 1.0, 0.1])
    for method in (cosine, jaccard):
        method.queue.keys.copy_(torch.stack([long, both]).repeat(12, 1))
    assert torch.equal(cosine.neighbors(one), long[None])
    assert torch.equal(jaccard.neighbors(one), both[None])


def test_ressl_equals_the_loop():
    method = build("ressl", temperature=0.2, target_temperature=0.1, key_splits=1).double()
    given = batch_for(method, dtype=torch.float64)
    query = method.projector(method.backbone.embed(given.views[0]))
    target = method.copy.project(given.views[1])
    tables = cosines(query, method.queue.keys), cosines(target, method.queue.keys)
    expected = reference.consistency(*tables, 0.2, 0.1)
    assert values(method.losses(given)) == pytest.approx({"consistency": expected}, rel=1e-9)


def test_ressl_has_no_gradient_through_the_weak_view():
    method = build("ressl")
    given = batch_for(method)
    views = tuple(view.requires_grad_() for view in given.views)
    sum(method.losses(given._replace(views=views)).values()).backward()
    assert views[0].grad.abs().max() > 0
    assert views[1].grad is None


def test_the_second_view_may_be_weak():
    """ReSSL's: cropped and mirrored only."""
    view = ContrastiveView(size=8, blur=0.5, second_jitter=0.0, second_grayscale=0.0, second_blur=0.0)
    assert view.of(0) == view
    second = view.of(1)
    assert (second.jitter_probability, second.grayscale, second.blur, second.solarize) == (0, 0, 0, 0)
    assert (second.min_scale, second.flip) == (view.min_scale, view.flip)
    with pytest.raises(ValueError, match=r"second_jitter is 1\.5"):
        ContrastiveView(second_jitter=1.5)


@pytest.mark.parametrize("temperature", [0.2, 0.7])
def test_mocov3_equals_the_loop(temperature):
    """Algorithm 1: both directions, each times 2 t."""
    method = build("mocov3", temperature=temperature).double()
    given = batch_for(method, dtype=torch.float64)
    queries = [method.predictor(method.projector(method.backbone.embed(view))) for view in given.views]
    keys = [method.copy.project(view) for view in given.views]
    expected = sum(
        2 * temperature * reference.in_batch(cosines(query, key), temperature)
        for query, key in zip(queries, reversed(keys))
    )
    assert values(method.losses(given)) == pytest.approx({"cosine": expected}, rel=1e-9)


def test_mocov3_copy_starts_equal_and_its_momentum_rises_to_one():
    method = build("mocov3", momentum=0.5)
    own = [*method.backbone.parameters(), *method.projector.parameters()]
    assert all(torch.equal(a, b) for a, b in zip(own, method.copy.parameters()))
    for p in own:
        p.data.add_(1.0)
    before = [p.clone() for p in method.copy.parameters()]
    method.after_step(1.0)
    assert all(torch.equal(a, b) for a, b in zip(before, method.copy.parameters()))
    method.after_step(0.5)  # half of the way from 0.5 to 1
    for old, new in zip(before, method.copy.parameters()):
        torch.testing.assert_close(new, old + 0.25)


@pytest.mark.parametrize("name", ["nnclr", "ressl"])
def test_a_queue_that_is_smaller_than_the_batch_is_refused(name):
    method = build(name, queue_size=7)
    with pytest.raises(ValueError, match="queue_size is 7, less than the 8 images of a batch"):
        train(method, 1)


@pytest.mark.parametrize(
    ("name", "chosen", "message"),
    [
        ("nnclr", {"queue_size": 0}, "queue of 0 keys"),
        ("nnclr", {"temperature": 0.0}, "temperature is 0.0"),
        ("nnclr", {"alphas": (0.5, 0.5)}, "one weight for each"),
        ("ressl", {"target_temperature": 0.0}, "target_temperature is 0.0"),
        ("ressl", {"temperature": -1.0}, "temperature is -1.0"),
        ("ressl", {"key_splits": 0}, "key_splits is 0"),
        ("ressl", {"momentum": 1.5}, "momentum is 1.5"),
        ("mocov3", {"momentum": -0.1}, "momentum is -0.1"),
        ("mocov3", {"layers": 0}, "expected positive numbers"),
    ],
)
def test_options_that_cannot_work_are_refused(name, chosen, message):
    with pytest.raises(ValueError, match=message):
        build(name, **chosen)
