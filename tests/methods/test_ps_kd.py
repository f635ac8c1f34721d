"""Progressive self-distillation (Kim et al. 2021)."""

import math

import pytest
import torch

import reference
from distilling import CLASSES, IMAGES, SAMPLES, batch, lists, network, total, values
from relatum.core.types import Batch
from relatum.methods.distill import ps_kd as ps_kd_file
from relatum.methods.distill.ps_kd import PSKD, refined_target
from relatum.methods.distill.supervised import Supervised


def test_ps_kd_equals_a_loop_over_two_epochs():
    """With a network that learns between the steps, and images that come in another order."""
    backbone = network().double()
    method = PSKD(backbone, num_samples=SAMPLES, alpha=0.8).double()
    optimizer = torch.optim.SGD(method.parameters(), lr=0.05)
    images = torch.randn(12, 3, 16, 16, dtype=torch.float64)
    labels = torch.randint(CLASSES, (12,))
    numbers = torch.randperm(SAMPLES)[:12]
    past: dict[int, list[float]] = {}
    steps = [*torch.arange(12).chunk(2), *torch.randperm(12).chunk(2)]
    for step, rows in enumerate(steps):
        alpha = 0.8 * step / len(steps)
        z = lists(backbone(images[rows]).logits)
        expected = 0.0
        for row, one in zip(rows.tolist(), z):
            hard = [float(c == labels[row]) for c in range(CLASSES)]
            soft = past.get(row, hard)
            for c, p in enumerate(reference.softmax(one)):
                expected -= ((1 - alpha) * hard[c] + alpha * soft[c]) * math.log(p) / len(rows)
        terms = method.losses(Batch((images[rows],), labels[rows][None], numbers[rows][None]))
        assert values(terms) == {"task": pytest.approx(expected, rel=1e-6)}
        total(terms).backward()
        optimizer.step()
        optimizer.zero_grad()
        method.after_step((step + 1) / len(steps))
        past |= {row: reference.softmax(one) for row, one in zip(rows.tolist(), z)}
    for row, p in past.items():
        assert method.bank.rows[numbers[row]].tolist() == pytest.approx(p, rel=1e-6)
    unseen = [n for n in range(SAMPLES) if n not in numbers.tolist()]
    assert (method.bank.rows[unseen] == 0).all()


def test_ps_kd_is_cross_entropy_before_an_image_was_seen():
    backbone = network().double()
    method = PSKD(backbone, num_samples=SAMPLES).double()
    method.after_step(1.0)  # at the full share
    given = batch(dtype=torch.float64)
    expected = Supervised(backbone).losses(given)["task"].item()
    assert method.losses(given)["task"].item() == pytest.approx(expected, rel=1e-12)


def test_ps_kd_without_a_share_is_cross_entropy_after_it_was_seen():
    backbone = network().double()
    method, given = PSKD(backbone, num_samples=SAMPLES, alpha=0.0).double(), batch(dtype=torch.float64)
    expected = Supervised(backbone).losses(given)["task"].item()
    for progress in (0.5, 1.0):
        assert method.losses(given)["task"].item() == pytest.approx(expected, rel=1e-12)
        method.after_step(progress)


def test_ps_kd_writes_the_bank_after_the_step_and_not_before():
    method, given = PSKD(network(), num_samples=SAMPLES), batch()
    logits = method.backbone(given.views[0]).logits
    method.losses(given)
    assert (method.bank.rows == 0).all()
    method.after_step(0.1)
    torch.testing.assert_close(method.bank(given.index[0]), logits.softmax(1).detach())
    assert method.bank.rows.sum().item() == pytest.approx(IMAGES, rel=1e-5)


def test_ps_kd_keeps_the_bank_and_the_progress_in_the_state():
    method, given = PSKD(network(), num_samples=SAMPLES), batch()
    method.losses(given)
    method.after_step(0.25)
    state = method.state_dict()
    assert torch.equal(state["bank.rows"], method.bank.rows)
    assert state["progress"].item() == 0.25
    assert (state["bank.rows"].sum(1) > 0).sum() == IMAGES


def test_ps_kd_writes_the_predictions_of_all_ranks(monkeypatch):
    method, given = PSKD(network(), num_samples=SAMPLES), batch()
    others = torch.tensor([n for n in range(SAMPLES) if n not in given.index[0].tolist()][:IMAGES])
    theirs = torch.rand(IMAGES, CLASSES).softmax(1)
    monkeypatch.setattr(ps_kd_file, "gather", lambda x: torch.cat([x, theirs if x.is_floating_point() else others]))
    method.losses(given)
    method.after_step(0.5)
    assert torch.equal(method.bank(others), theirs)
    assert (method.bank(given.index[0]).sum(1) > 0).all()


def test_a_refined_target_is_a_distribution_with_and_without_a_past():
    past = torch.stack([torch.randn(CLASSES).softmax(0), torch.zeros(CLASSES)])
    target = refined_target(torch.tensor([1, 2]), past, torch.tensor(0.8))
    torch.testing.assert_close(target.sum(1), torch.ones(2))
    torch.testing.assert_close(target[0], 0.8 * past[0] + 0.2 * torch.eye(CLASSES)[1])
    assert torch.equal(target[1], torch.eye(CLASSES)[2])


def test_ps_kd_in_half_precision_is_that_of_rounded_predictions():
    """The rows are what float16 makes of the predictions, in half of the memory; the next target is made of them."""
    given, methods = batch(), [PSKD(network(), num_samples=SAMPLES, bank=bank) for bank in ("float32", "float16")]
    methods[1].load_state_dict(methods[0].state_dict())
    for method in methods:
        method.losses(given)
        method.after_step(1.0)
    whole, half = methods
    index, labels = given.index[0], given.labels[0]
    assert half.bank.rows.dtype == half.state_dict()["bank.rows"].dtype == torch.float16
    assert half.bank.rows.nbytes * 2 == whole.bank.rows.nbytes
    assert torch.equal(half.bank.rows, whole.bank.rows.half())
    assert (half.bank(index) - whole.bank(index)).abs().max() <= 2**-12
    target = refined_target(labels, whole.bank(index).half().float(), torch.tensor(0.8))
    torch.testing.assert_close(target.sum(1), torch.ones(len(labels)))
    logits = half.backbone(given.views[0]).logits
    expected = -(target * logits.log_softmax(1)).sum(1).mean()
    assert values(half.losses(given)) == {"task": pytest.approx(expected.item(), rel=1e-6)}
    assert values(half.losses(given)) != values(whole.losses(given))
