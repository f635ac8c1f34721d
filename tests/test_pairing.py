"""Pairing: exact laws of every epoch over many label distributions, and the distributions that are promised."""

import inspect
from collections import Counter
from itertools import combinations

import pytest
import torch

from label_sets import EPOCHS, mixed, over_labels, rows_of, sizes, uniform
from relatum.data.pairing import class_balanced, same_class_pairs, shard, shuffled, triples

SAMPLERS = {
    "shuffled": lambda seed, epoch: shuffled(120, batch_size=24, seed=seed, epoch=epoch),
    "disjoint": lambda seed, epoch: triples(mixed(50, 40, 30), batch_size=36, seed=seed, epoch=epoch),
    "spread": lambda seed, epoch: triples(mixed(50, 40, 30), batch_size=36, seed=seed, epoch=epoch, mode="spread"),
    "anchor": lambda seed, epoch: triples(mixed(50, 40, 30), batch_size=36, seed=seed, epoch=epoch, mode="anchor"),
    "pairs": lambda seed, epoch: same_class_pairs(mixed(50, 40, 30), batch_size=12, seed=seed, epoch=epoch),
    "balanced": lambda seed, epoch: class_balanced(
        mixed(50, 40, 30), batch_size=12, per_class=4, seed=seed, epoch=epoch
    ),
}
over_samplers = pytest.mark.parametrize("sampler", SAMPLERS.values(), ids=SAMPLERS.keys())


def test_uniform_can_fail():
    draws = torch.randint(6, (6000,), generator=torch.Generator().manual_seed(0))
    assert uniform(torch.bincount(draws))
    draws[draws == 5] = torch.randint(6, (int((draws == 5).sum()),))
    assert not uniform(torch.bincount(draws, minlength=6))


# every sampler


@over_samplers
def test_is_a_function_of_seed_and_epoch_alone(sampler):
    expected = sampler(3, 7)
    torch.manual_seed(123)
    before = torch.get_rng_state()
    assert torch.equal(sampler(3, 7), expected)
    assert torch.equal(torch.get_rng_state(), before)
    assert expected.dtype == torch.int64
    assert expected.device.type == "cpu"


@over_samplers
@pytest.mark.parametrize("other", [(3, 8), (4, 7), (7, 3), (4, 6)], ids=str)
def test_differs_for_another_seed_or_epoch(sampler, other):
    assert not torch.equal(sampler(3, 7), sampler(*other))


@over_samplers
@pytest.mark.parametrize("world_size", [1, 2, 3, 4])
def test_shards_are_the_batch_in_the_order_of_the_ranks(sampler, world_size):
    whole = sampler(0, 0)
    parts = [shard(whole, rank, world_size) for rank in range(world_size)]
    assert all(part.shape[2] == whole.shape[2] // world_size for part in parts)
    assert torch.equal(torch.cat(parts, dim=2), whole)


# shuffled


@pytest.mark.parametrize("num_samples", [7, 8, 9, 64, 1000])
@pytest.mark.parametrize("batch_size", [1, 4, 7])
def test_shuffled_uses_each_image_at_most_once(num_samples, batch_size):
    indices = shuffled(num_samples, batch_size=batch_size, seed=0, epoch=0)
    assert indices.shape == (num_samples // batch_size, 1, batch_size)
    assert len(indices.unique()) == indices.numel()
    assert indices.min() >= 0
    assert indices.max() < num_samples


def test_shuffled_leaves_out_every_image_equally_often():
    used = torch.cat([shuffled(10, batch_size=4, seed=0, epoch=e).flatten() for e in range(1000)])
    assert uniform(1000 - torch.bincount(used))


def test_shuffled_places_are_uniform():
    first = torch.stack([shuffled(6, batch_size=3, seed=0, epoch=e)[:, 0, 0] for e in range(1000)])
    for place in first.T:
        assert uniform(torch.bincount(place, minlength=6))


# same-class pairs


@over_labels
@pytest.mark.parametrize("exclude_self", [False, True], ids=["any", "other"])
def test_same_class_pairs(labels, exclude_self):
    indices = same_class_pairs(labels, batch_size=1, seed=0, epoch=0, exclude_self=exclude_self)
    anchor, partner = rows_of(indices)
    assert torch.equal(anchor.sort().values, torch.arange(len(labels)))
    assert torch.equal(labels[anchor], labels[partner])
    assert not exclude_self or (anchor != partner).all()


@pytest.mark.parametrize("exclude_self", [False, True], ids=["any", "other"])
def test_partners_are_uniform(exclude_self):
    labels = mixed(3, 5)
    met = torch.zeros(8, 8)
    for epoch in range(600):
        met[*rows_of(same_class_pairs(labels, batch_size=8, seed=0, epoch=epoch, exclude_self=exclude_self))] += 1
    for image in range(8):
        allowed = labels == labels[image]
        if exclude_self:
            allowed = allowed & (torch.arange(8) != image)
        assert met[image, ~allowed].sum() == 0
        assert uniform(met[image, allowed])


def test_a_class_with_one_image_is_its_own_partner():
    anchor, partner = rows_of(same_class_pairs(torch.tensor([0, 1, 1]), batch_size=3, seed=0, epoch=0))
    assert partner[anchor == 0] == 0


# class-balanced batches


def steps_by_rule(labels, slots, per_class):
    """The largest S such that the groups fill S batches with different classes, by trying all."""
    groups = [n // per_class for n in sizes(labels).values()]
    return max(s for s in range(len(labels) + 1) if sum(min(g, s) for g in groups) >= s * slots)


BALANCED = {
    "CIFAR-100 in small": (mixed(*[20] * 100), 16, 4),
    "all classes in each": (mixed(*[20] * 10), 10, 2),
    "more steps than groups of a class": (mixed(*[2] * 50), 5, 2),
    "one image of each": (mixed(*[6] * 10), 7, 1),
    "does not divide": (mixed(*[11] * 9), 4, 3),
    "long tail": (mixed(*[round(300 * 0.8**k) for k in range(20)]), 8, 4),
    "almost all in one": (mixed(900, 4, 5, 2), 3, 2),
    "a single class": (mixed(12), 1, 5),
    "names with gaps": (mixed(9, 12, 10, names=(3, 70, 1000)), 2, 3),
}


@pytest.mark.parametrize(("labels", "slots", "per_class"), BALANCED.values(), ids=BALANCED.keys())
@pytest.mark.parametrize("epoch", EPOCHS)
def test_class_balanced(labels, slots, per_class, epoch):
    indices = class_balanced(labels, batch_size=slots * per_class, per_class=per_class, seed=0, epoch=epoch)
    assert indices.shape == (steps_by_rule(labels, slots, per_class), 1, slots * per_class)
    assert len(indices.unique()) == indices.numel()
    groups = labels[indices].view(-1, slots, per_class)
    assert (groups == groups[..., :1]).all()
    classes = groups[..., 0].sort(dim=1).values
    assert (classes[:, 1:] != classes[:, :-1]).all()


def test_class_balanced_uses_every_image_equally_often():
    labels = mixed(*[7] * 5)
    epochs = [class_balanced(labels, batch_size=4, per_class=2, seed=0, epoch=e).flatten() for e in range(400)]
    assert uniform(torch.bincount(torch.cat(epochs), minlength=35))


def test_class_balanced_lets_all_classes_meet():
    """In one epoch not the same few sets of classes, and over the epochs every pair of classes."""
    labels = mixed(*[40] * 9)
    meetings, sets = Counter(), 0
    for epoch in range(100):
        batches = labels[class_balanced(labels, batch_size=8, per_class=2, seed=0, epoch=epoch)][:, 0, ::2]
        drawn = [tuple(sorted(batch.tolist())) for batch in batches]
        sets += len(set(drawn))
        meetings.update(pair for batch in drawn for pair in combinations(batch, 2))
    assert sets / 100 > 26  # of 45 steps; 21 if classes that span two rows keep company, 9 if no row is permuted
    assert len(meetings) == 36
    frequency = torch.tensor(list(meetings.values())) / sum(meetings.values())
    assert frequency.mul(36).sub(1).abs().max() < 0.25


# errors: the value, what was expected, the remedy

TWO = mixed(6, 6)
ERRORS = {
    "shuffled: set smaller than a batch": (
        lambda: shuffled(5, batch_size=8, seed=0, epoch=0),
        r"batch_size=8 needs 8 images.*give 5.*at most 5",
    ),
    "shuffled: no batch": (lambda: shuffled(5, batch_size=0, seed=0, epoch=0), "batch_size=0.*at least 1"),
    "triples: not divisible": (
        lambda: triples(TWO, batch_size=128, seed=0, epoch=0),
        r"batch_size=128.*multiple of three.*use 129",
    ),
    "triples: no batch": (lambda: triples(TWO, batch_size=0, seed=0, epoch=0), r"batch_size=0.*use 3"),
    "triples: unlabeled": (
        lambda: triples(torch.tensor([0, 0, -1, 1, 1, -1]), batch_size=3, seed=0, epoch=0),
        r"2 of 6 images have no class \(label -1\).*keep only labeled",
    ),
    "triples: no labels": (
        lambda: triples(torch.zeros(0, dtype=torch.long), batch_size=3, seed=0, epoch=0),
        "no labels.*needs labeled data",
    ),
    "triples: a single class": (
        lambda: triples(torch.full((9,), 4), batch_size=3, seed=0, epoch=0),
        "all 9 images are of class 4.*second class",
    ),
    "disjoint: a class with one image": (
        lambda: triples(mixed(6, 1, 6, names=(0, 8, 3)), batch_size=3, seed=0, epoch=0),
        r"class 8 has 1 image, where at least 2.*1 of 3 classes.*positive.*leave it out",
    ),
    "anchor: a class with one image": (
        lambda: triples(mixed(6, 1, 6), batch_size=3, seed=0, epoch=0, mode="anchor"),
        "class 1 has 1 image, where at least 2",
    ),
    "disjoint: classes of two": (
        lambda: triples(mixed(2, 2, 2), batch_size=3, seed=0, epoch=0),
        "no class has three images.*mode='anchor'",
    ),
    "disjoint: set smaller than a batch": (
        lambda: triples(TWO, batch_size=129, seed=0, epoch=0),
        "batch_size=129 needs 43 triples.*give 4 .*at most 12",
    ),
    "triples: unknown mode": (
        lambda: inspect.unwrap(triples)(TWO, batch_size=3, seed=0, epoch=0, mode="anchors"),
        "mode='anchors'.*'disjoint', 'spread', 'anchor'",
    ),
    "pairs: a class with one image": (
        lambda: same_class_pairs(mixed(4, 1), batch_size=2, seed=0, epoch=0, exclude_self=True),
        "class 1 has 1 image.*exclude_self=True",
    ),
    "pairs: unlabeled": (
        lambda: same_class_pairs(torch.full((9,), -1), batch_size=2, seed=0, epoch=0),
        "9 of 9 images have no class",
    ),
    "pairs: set smaller than a batch": (
        lambda: same_class_pairs(TWO, batch_size=13, seed=0, epoch=0),
        "batch_size=13 needs 13 anchors.*at most 12",
    ),
    "balanced: per_class does not divide": (
        lambda: class_balanced(TWO, batch_size=10, per_class=4, seed=0, epoch=0),
        "batch_size=10.*per_class=4.*multiple",
    ),
    "balanced: per_class of zero": (
        lambda: class_balanced(TWO, batch_size=10, per_class=0, seed=0, epoch=0),
        "per_class=0.*positive",
    ),
    "balanced: too few classes": (
        lambda: class_balanced(TWO, batch_size=12, per_class=4, seed=0, epoch=0),
        "needs 3 classes.*have 2.*at most 8",
    ),
    "balanced: a class smaller than per_class": (
        lambda: class_balanced(mixed(6, 3, 6), batch_size=8, per_class=4, seed=0, epoch=0),
        "class 1 has 3 images, where at least 4",
    ),
    "balanced: unlabeled": (
        lambda: class_balanced(torch.tensor([0, -1]), batch_size=1, per_class=1, seed=0, epoch=0),
        "1 of 2 images have no class",
    ),
    "shard: not divisible": (
        lambda: shard(triples(TWO, batch_size=9, seed=0, epoch=0), 0, 2),
        "3 tuples of 3 images.*world_size=2.*such as 2",
    ),
    "shard: rank too large": (lambda: shard(torch.zeros(1, 1, 4, dtype=torch.long), 2, 2), r"rank=2.*0 \.\.\. 1"),
}


@pytest.mark.parametrize(("call", "message"), ERRORS.values(), ids=ERRORS.keys())
def test_errors_name_value_expectation_and_remedy(call, message):
    with pytest.raises(ValueError, match=message):
        call()
