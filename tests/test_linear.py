"""The linear probe against autograd, and against what a probe must never do."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from relatum.core.types import Batch, Embeddings
from relatum.evaluation import LinearProbe, extract, linear


def gaussians(n, classes=4, d=6, *, signal=1.0, seed=0, dtype=torch.double):
    g = torch.Generator().manual_seed(seed)
    centers = torch.randn(classes, d, generator=torch.Generator().manual_seed(99), dtype=dtype)
    labels = torch.randint(classes, (n,), generator=g)
    return Embeddings(torch.randn(n, d, generator=g, dtype=dtype) + signal * centers[labels], labels)


@pytest.mark.parametrize("decay", [0.0, 0.05])
def test_all_rates_at_once_are_each_rate_alone(decay):
    train = gaussians(100)
    probe = LinearProbe(epochs=20, batch_size=30, weight_decay=decay)
    together = probe.fit(train, 4, probe.learning_rates).weight.unflatten(1, (-1, 4))
    for i, rate in enumerate(probe.learning_rates):
        torch.testing.assert_close(together[:, i], probe.fit(train, 4, (rate,)).weight, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("decay", [0.0, 0.05])
def test_training_is_that_of_autograd_and_torch_sgd(decay):
    train, rate, epochs = gaussians(50), 0.3, 12
    probe = LinearProbe((rate,), epochs=epochs, batch_size=20, weight_decay=decay, seed=5)
    x = (train.features - train.features.mean(0)) / train.features.std(0, correction=0)
    model = nn.Linear(6, 4, dtype=torch.double)
    nn.init.zeros_(model.weight)
    nn.init.zeros_(model.bias)
    optimizer = torch.optim.SGD(model.parameters(), lr=rate, momentum=0.9, weight_decay=decay)
    g = torch.Generator().manual_seed(5)
    for epoch in range(epochs):
        # torch keeps the rate out of the momentum buffer, as the probe does, so that a changing rate acts at once
        optimizer.param_groups[0]["lr"] = rate * (1 + math.cos(math.pi * epoch / epochs)) / 2
        for rows in torch.randperm(50, generator=g).tensor_split(3):
            optimizer.zero_grad()
            F.cross_entropy(model(x[rows]), train.labels[rows]).backward()
            optimizer.step()
    weight = probe.fit(train, 4, (rate,)).weight
    torch.testing.assert_close(weight[:-1].T, model.weight.detach(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(weight[-1], model.bias.detach(), rtol=1e-4, atol=1e-5)


def test_a_separable_problem_is_solved():
    result = LinearProbe(epochs=30)(gaussians(400, 8, 10, signal=8.0), gaussians(200, 8, 10, signal=8.0, seed=1))
    assert result["top1"] == result["top5"] == 100


def test_random_labels_stay_at_chance():
    train, test = (
        Embeddings(e.features, e.labels[torch.randperm(2000)]) for e in (gaussians(2000), gaussians(2000, seed=1))
    )
    assert abs(LinearProbe(epochs=10)(train, test)["top1"] - 25) < 5  # five standard deviations


def needs_a_large_rate(n, seed):
    """The class lies along the small difference of two strongly correlated features."""
    g = torch.Generator().manual_seed(seed)
    common, labels = torch.randn(n, generator=g), torch.randint(2, (n,), generator=g)
    difference = 0.02 * (2 * labels - 1) + 0.002 * torch.randn(n, generator=g)
    return Embeddings(torch.stack([common + difference, common - difference], 1), labels)


def test_the_rate_that_works_is_chosen():
    train, test = needs_a_large_rate(600, 0), needs_a_large_rate(400, 1)
    result = LinearProbe((1e-4, 3.0), epochs=30, batch_size=64)(train, test)
    assert result["learning_rate"] == 3.0
    assert result["validation@3"] > result["validation@0.0001"] + 10
    slow = LinearProbe((1e-4,), epochs=30, batch_size=64)(train, test)
    assert result["top1"] > slow["top1"] + 10
    alone = LinearProbe((3.0,), epochs=30, batch_size=64)(train, test)
    assert result["top1"] == alone["top1"]  # trained anew on the whole training set


def test_the_choice_does_not_see_the_test_set():
    train, test = gaussians(300), gaussians(100, seed=1)
    probe = LinearProbe(epochs=10)
    first = probe(train, test)
    second = probe(train, Embeddings(-test.features, (test.labels + 1) % 4))
    assert first["top1"] != second["top1"]
    for key in first.keys() - {"top1"}:
        assert first[key] == second[key]


def test_of_a_draw_the_middle_rate_is_taken():
    result = LinearProbe((0.1, 0.3, 1.0), epochs=10)(gaussians(200, signal=9.0), gaussians(50, signal=9.0))
    assert result["validation@0.1"] == result["validation@1"] == 100
    assert result["learning_rate"] == 0.3


def test_scale_and_shift_of_the_features_do_not_matter():
    train, test = gaussians(300), gaussians(200, seed=1)
    probe = LinearProbe(epochs=10)
    moved = [Embeddings(1e-6 * e.features + 3e-6, e.labels) for e in (train, test)]
    assert probe(*moved) == pytest.approx(probe(train, test), abs=0.51)


@pytest.mark.parametrize("features", [torch.ones(60, 3), torch.zeros(60, 3)], ids=["constant", "zero"])
def test_a_collapsed_encoder_is_at_chance_and_finite(features):
    labels = torch.arange(60) % 3
    result = LinearProbe(epochs=3)(Embeddings(features, labels), Embeddings(features, labels))
    assert result["top1"] == pytest.approx(100 / 3)


def test_a_dead_unit_is_harmless():
    train, test = gaussians(300), gaussians(200, seed=1)
    dead = [Embeddings(F.pad(e.features, (0, 1)), e.labels) for e in (train, test)]
    assert LinearProbe(epochs=10)(*dead) == pytest.approx(LinearProbe(epochs=10)(train, test), abs=0.51)


def test_seed_decides_and_nothing_else():
    train, test = gaussians(300, dtype=torch.float32), gaussians(200, seed=1, dtype=torch.float32)
    first = LinearProbe(epochs=5, seed=1)(train, test)
    torch.manual_seed(123)
    assert LinearProbe(epochs=5, seed=1)(train, test) == first
    assert LinearProbe(epochs=5, seed=2)(train, test) != first


@pytest.mark.parametrize("fraction", [0.01, 0.1, 0.5, 0.99])
def test_the_held_out_part_is_stratified(fraction):
    labels = torch.cat([torch.full((n,), c) for c, n in enumerate((1, 2, 10, 100))])[torch.randperm(113)]
    held = LinearProbe(validation=fraction).held_out(labels)
    counts = torch.bincount(labels[held], minlength=4).tolist()
    assert counts == [0, *(min(max(round(n * fraction), 1), n - 1) for n in (2, 10, 100))]


def test_nothing_to_hold_out_is_refused():
    lone = Embeddings(torch.randn(4, 3), torch.arange(4))
    with pytest.raises(ValueError, match="no class of 4 training images has two"):
        LinearProbe()(lone, lone)
    assert LinearProbe((1.0,))(lone, lone)["top1"] == 100


def test_a_class_only_in_the_test_set_counts_as_missed():
    train = gaussians(200, signal=9.0)
    test = Embeddings(train.features, train.labels.masked_fill(train.labels == 0, 7))
    share = 100 * (train.labels != 0).double().mean().item()
    assert LinearProbe(epochs=10)(train, test)["top1"] == pytest.approx(share)


@pytest.mark.parametrize(
    "make",
    [
        lambda: LinearProbe(()),
        lambda: LinearProbe((0.1, 0.0)),
        lambda: LinearProbe((math.nan,)),
        lambda: LinearProbe(epochs=0),
        lambda: LinearProbe(batch_size=0),
        lambda: LinearProbe(validation=1.0),
        lambda: LinearProbe(weight_decay=-0.1),
    ],
    ids=["no-rate", "zero-rate", "nan-rate", "epochs", "batch", "validation", "decay"],
)
def test_settings_without_meaning_are_refused(make):
    with pytest.raises(ValueError, match="expected"):
        make()


def test_the_protocol_stands_beside_the_number():
    assert str(LinearProbe((0.1, 1.0))) == (
        "linear probe (SGD, lr 0.1, 1, chosen on 10% of train, 100 epochs, batch 512, wd 0, standardised features)"
    )
    assert "chosen" not in str(LinearProbe((0.1,)))


# --- with augmentation ---


def image_set(n, seed):
    g = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % 3
    images = 0.3 * torch.randn(n, 3, 8, 8, generator=g)
    images[torch.arange(n), labels] += 1.0
    return images, labels


def encoder():
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.5)
    )


def augmented_batches(images, labels, size=16):
    def batches(epoch):
        g = torch.Generator().manual_seed(epoch)
        for rows in torch.randperm(len(labels), generator=g).split(size):
            noise = 0.1 * torch.randn(images[rows].shape, generator=g)
            yield Batch((images[rows] + noise,), labels[rows][None], rows[None])

    return batches


@pytest.fixture
def small():
    images, labels = image_set(60, 0)
    model = encoder().eval()
    train = extract(model, [(images, labels)])
    test = extract(model, [image_set(30, 1)])
    return model, augmented_batches(images, labels), train, test


def test_augmented_probe_learns_and_leaves_the_encoder_bit_identical(small):
    model, batches, train, test = small
    before = {name: value.clone() for name, value in model.state_dict().items()}
    result = LinearProbe((0.01, 0.1), epochs=10).augmented(model, batches, train, test).metrics
    assert result["top1"] > 90
    assert all(p.grad is None for p in model.parameters())
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name
    # The control: in train mode the same run does move the statistics, so that the law above can fail.
    LinearProbe((0.1,), epochs=1).augmented(model.train(), batches, train, test)
    assert not torch.equal(model.state_dict()["1.running_mean"], before["1.running_mean"])


def test_without_augmentation_it_is_the_precomputed_probe():
    train, test = gaussians(90), gaussians(60, seed=1)
    probe = LinearProbe((0.3,), epochs=4, batch_size=30, seed=2)
    g = torch.Generator().manual_seed(2)

    def batches(_epoch):
        for rows in torch.randperm(90, generator=g).tensor_split(3):
            yield Batch((train.features[rows, :, None, None],), train.labels[rows][None], rows[None])

    result = probe.augmented(lambda x: x.flatten(1), batches, train, test).metrics
    assert result == pytest.approx(probe(train, test))


def test_held_out_images_train_no_classifier_that_chooses(small, monkeypatch):
    model, batches, train, test = small
    probe, seen = LinearProbe((0.01, 0.1), epochs=3), []
    step = linear.Regressions.step

    def recording(self, x, labels, progress):
        seen.append((self.scale[0].item(), len(x)))
        step(self, x, labels, progress)

    monkeypatch.setattr(linear.Regressions, "step", recording)
    probe.augmented(model, batches, train, test)
    totals = {}
    for heads, n in seen:
        totals[heads] = totals.get(heads, 0) + n
    held = int(probe.held_out(train.labels).sum())
    assert sorted(totals.values()) == [3 * (60 - held), 3 * 60]


def test_two_views_of_a_batch_both_train(small):
    model, batches, train, test = small

    def doubled(epoch):
        for batch in batches(epoch):
            yield Batch(batch.views * 2, batch.labels.expand(2, -1), batch.index.expand(2, -1))

    assert LinearProbe((0.1,), epochs=3).augmented(model, doubled, train, test).metrics["top1"] > 50


@pytest.mark.parametrize("shift", [1, 1000], ids=["shuffled", "beyond"])
def test_a_training_set_in_another_order_is_refused(small, shift):
    model, batches, train, test = small

    def shifted(epoch):
        for batch in batches(epoch):
            yield batch._replace(index=batch.index + shift)

    with pytest.raises(ValueError, match="embed the training set unshuffled"):
        LinearProbe((0.1,), epochs=1).augmented(model, shifted, train, test)
