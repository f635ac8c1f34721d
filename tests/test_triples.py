"""Triples: exact laws of every epoch over many label distributions, and the distributions that are promised."""

from collections import Counter

import pytest
import torch

from label_sets import EPOCHS, LABELS, mixed, over_labels, rows_of, sizes, uniform
from relatum.data.pairing import triples


def pairs_by_class(labels):
    """The number of disjoint pairs of each class, by the rule of the docstring, written as loops."""
    counts = sizes(labels)
    spare = {c: n - 2 * (n // 3) for c, n in counts.items()}
    return {c: min(n // 3, sum(s for b, s in spare.items() if b != c)) for c, n in counts.items()}


def assert_are_triples(labels, indices):
    anchor, positive, negative = rows_of(indices)
    assert torch.equal(labels[anchor], labels[positive])
    assert (labels[anchor] != labels[negative]).all()
    assert (anchor != positive).all()


@over_labels
@pytest.mark.parametrize("epoch", EPOCHS)
def test_disjoint_triples(labels, epoch):
    indices = triples(labels, batch_size=3, seed=0, epoch=epoch)
    assert_are_triples(labels, indices)
    assert len(indices.unique()) == indices.numel()
    expected = {c: n for c, n in pairs_by_class(labels).items() if n}
    assert sizes(labels[rows_of(indices)[0]]) == expected


NO_MAJORITY = {name: v for name, v in LABELS.items() if max(sizes(v).values()) <= len(v) / 2}


@pytest.mark.parametrize("labels", NO_MAJORITY.values(), ids=NO_MAJORITY.keys())
def test_disjoint_uses_all_but_the_remainders(labels):
    used = triples(labels, batch_size=3, seed=0, epoch=0).numel()
    assert used == len(labels) - sum(n % 3 for n in sizes(labels).values())


def test_disjoint_cuts_a_majority_to_the_negatives_there_are():
    """900 images against 4, 5 and 2: two pairs of the small classes, and 7 images left as negatives for 900."""
    labels = LABELS["almost all in one"]
    assert sizes(labels[rows_of(triples(labels, batch_size=3, seed=0, epoch=0))[0]]) == {0: 7, 1: 1, 2: 1}


@pytest.mark.parametrize("trial", range(100))
def test_disjoint_holds_on_small_random_sets(trial):
    """Where a matching is forced or nearly so, random repairs would cycle or stop short."""
    random = torch.Generator().manual_seed(trial)
    classes = int(torch.randint(2, 6, (), generator=random))
    counts = torch.randint(2, 8, (classes,), generator=random)
    counts[0] = torch.randint(3, 40, (), generator=random)
    labels = mixed(*counts.tolist())
    indices = triples(labels, batch_size=3, seed=trial, epoch=0)
    assert_are_triples(labels, indices)
    assert len(indices.unique()) == indices.numel()
    assert len(indices) == sum(pairs_by_class(labels).values())


def test_disjoint_outcomes_are_equally_likely():
    """Two classes of three images: the negatives are forced, so that 6 x 6 outcomes remain."""
    labels = torch.tensor([0, 1, 0, 1, 0, 1])
    outcomes = Counter()
    for epoch in range(900):
        both = triples(labels, batch_size=3, seed=1, epoch=epoch)[:, :, 0].tolist()
        outcomes[tuple(map(tuple, sorted(both, key=lambda t: t[0] % 2)))] += 1
    assert len(outcomes) == 36
    assert uniform(list(outcomes.values()))


def test_disjoint_negatives_meet_all_other_classes_equally():
    labels = mixed(*[9] * 6)
    meetings = torch.zeros(6, 6)
    for epoch in range(250):
        anchor, _, negative = labels[rows_of(triples(labels, batch_size=3, seed=0, epoch=epoch))]
        meetings.index_put_((anchor, negative), torch.ones(len(anchor)), accumulate=True)
    assert meetings.diagonal().sum() == 0
    assert uniform(meetings[~torch.eye(6, dtype=torch.bool)])


@pytest.mark.parametrize("row", range(3), ids=["anchor", "positive", "negative"])
def test_disjoint_gives_every_image_each_role_equally_often(row):
    labels = mixed(10, 10, 10)
    epochs = [rows_of(triples(labels, batch_size=3, seed=0, epoch=e))[row] for e in range(250)]
    assert uniform(torch.bincount(torch.cat(epochs), minlength=30))


@over_labels
@pytest.mark.parametrize("n", [1, 2, 7])
def test_spread_deals_the_anchors_of_a_class_evenly_to_the_steps(labels, n):
    """What is left out of the last step shortens one class or another; nothing else makes its share uneven."""
    whole = triples(labels, batch_size=3, seed=0, epoch=0)
    if len(whole) < n:
        pytest.skip("the set is smaller than a step")
    indices = triples(labels, batch_size=3 * n, seed=0, epoch=0, mode="spread")
    assert_are_triples(labels, indices)
    assert indices.shape == (len(whole) // n, 3, n)
    assert len(indices.unique()) == indices.numel()
    assert set(map(tuple, rows_of(indices).T.tolist())) <= set(map(tuple, rows_of(whole).T.tolist()))
    shares = torch.stack([torch.bincount(labels[anchors].long(), minlength=1001) for anchors in indices[:, 0]])
    assert (shares.amax(0) - shares.amin(0)).max() <= 1


def test_spread_gives_more_classes_to_a_step():
    """43 anchors of 100 classes with 16 each: always 43 classes, where a random draw has about 35."""
    labels = mixed(*[50] * 100)
    for mode, least, most in (("spread", 43, 43), ("disjoint", 28, 41)):
        steps = triples(labels, batch_size=129, seed=0, epoch=0, mode=mode)[:, 0]
        assert all(least <= len(labels[anchors].unique()) <= most for anchors in steps)


def test_spread_leaves_out_every_image_equally_often():
    """Three classes of 10 give 9 triples, of which a batch of 2 leaves one out."""
    labels = mixed(10, 10, 10)
    epochs = [triples(labels, batch_size=6, seed=0, epoch=e, mode="spread") for e in range(400)]
    assert uniform(torch.bincount(torch.cat(epochs).flatten(), minlength=30))


@over_labels
def test_anchor_triples(labels):
    indices = triples(labels, batch_size=3, seed=0, epoch=1, mode="anchor")
    assert_are_triples(labels, indices)
    assert indices.shape == (len(labels), 3, 1)
    assert torch.equal(rows_of(indices)[0].sort().values, torch.arange(len(labels)))


def test_anchor_draws_as_published():
    """Positives uniform in the class without the anchor, negatives uniform over classes, then over images."""
    labels = mixed(2, 3, 5)
    positives, negatives = torch.zeros(10, 10), torch.zeros(10, 10)
    for epoch in range(600):
        indices = triples(labels, batch_size=30, seed=0, epoch=epoch, mode="anchor")
        anchor, positive, negative = rows_of(indices)
        positives[anchor, positive] += 1
        negatives[anchor, negative] += 1
    for image in range(10):
        own = labels == labels[image]
        others = own & (torch.arange(10) != image)
        assert positives[image, ~others].sum() == 0
        assert others.sum() == 1 or uniform(positives[image, others])
        classes = [c for c in range(3) if c != labels[image]]
        assert uniform([negatives[image, labels == c].sum() for c in classes])
        assert all(uniform(negatives[image, labels == c]) for c in classes)


@pytest.mark.parametrize("mode", ["disjoint", "anchor"])
def test_batch_size_of_triples_counts_images(mode):
    labels = mixed(*[60] * 10)
    indices = triples(labels, batch_size=129, seed=0, epoch=0, mode=mode)
    assert indices.shape == ((200 if mode == "disjoint" else 600) // 43, 3, 43)


@pytest.mark.parametrize(
    ("mode", "batch_size", "count"), [("disjoint", 300, 16_600), ("anchor", 300, 50_000)], ids=["disjoint", "anchor"]
)
def test_triples_of_cifar100(mode, batch_size, count):
    labels = mixed(*[500] * 100)
    indices = triples(labels, batch_size=batch_size, seed=0, epoch=0, mode=mode)
    assert indices.shape[0] * indices.shape[2] == count
    assert_are_triples(labels, indices)
