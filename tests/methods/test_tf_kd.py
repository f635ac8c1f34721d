"""Teacher-free distillation (Yuan et al. 2020)."""

import math

import pytest
import torch

import reference
from distilling import CLASSES, batch, lists, network, total, values
from relatum.methods.distill.kd import KD
from relatum.methods.distill.label_smoothing import LabelSmoothing
from relatum.methods.distill.supervised import Supervised
from relatum.methods.distill.tf_kd import TFKD, TFKDVirtual, virtual_teacher


@pytest.mark.parametrize(("alpha", "temperature", "multiplier"), [(0.95, 6.0, 1.0), (0.4, 20.0, 0.5)])
def test_self_training_equals_the_loop(alpha, temperature, multiplier):
    backbone, teacher = network().double(), network().double()
    method = TFKD(backbone, teacher=teacher, alpha=alpha, temperature=temperature, multiplier=multiplier)
    given = batch(dtype=torch.float64)
    z, t = lists(backbone(given.views[0]).logits), lists(teacher(given.views[0]).logits)
    divergence = reference.divergence(reference.softened(t, temperature), z, temperature)
    expected = {
        "task": (1 - alpha) * reference.cross_entropy(z, given.labels[0].tolist()),
        "kd": alpha * multiplier * temperature**2 * divergence,
    }
    assert values(method.losses(given)) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("form", ["paper", "code"])
@pytest.mark.parametrize(("alpha", "temperature", "correct"), [(0.1, 20.0, 0.99), (0.6, 2.0, 0.9)])
def test_virtual_teacher_equals_the_loop(form, alpha, temperature, correct):
    backbone = network().double()
    method = TFKDVirtual(backbone, alpha=alpha, temperature=temperature, correct=correct, form=form, multiplier=0.7)
    given = batch(dtype=torch.float64)
    z, y = lists(backbone(given.views[0]).logits), given.labels[0].tolist()
    target = [reference.virtual_target(c, CLASSES, temperature, correct, form) for c in y]
    divergence = (
        temperature**2 * reference.divergence(target, z, temperature)
        if form == "paper"
        else reference.divergence(target, z)
    )
    expected = {"task": (1 - alpha) * reference.cross_entropy(z, y), "virtual": alpha * 0.7 * divergence}
    assert values(method.losses(given)) == pytest.approx(expected, rel=1e-9)


def gradient(method, given):
    method.zero_grad()
    total(method.losses(given)).backward()
    return torch.cat([p.grad.flatten() for p in method.backbone.parameters()])


def test_self_training_is_knowledge_distillation_with_a_share():
    backbone, teacher, given = network(), network(), batch()
    ours = TFKD(backbone, teacher=teacher, alpha=0.7, temperature=5.0, multiplier=0.5).losses(given)
    kd = KD(backbone, teacher=teacher, task_weight=0.3, kd_weight=0.35, temperature=5.0).losses(given)
    assert {k: v.item() for k, v in ours.items()} == pytest.approx({k: v.item() for k, v in kd.items()})


def test_a_network_that_is_its_own_teacher_learns_nothing_from_it():
    backbone = network()
    teacher = network()
    teacher.load_state_dict(backbone.state_dict())
    method = TFKD(backbone.eval(), teacher=teacher)
    assert method.losses(batch())["kd"].item() == pytest.approx(0, abs=1e-6)


def test_the_teacher_stays_as_it_was_and_out_of_the_state():
    teacher = network()
    before = {k: v.clone() for k, v in teacher.state_dict().items()}
    method = TFKD(network(), teacher=teacher).train()
    total(method.losses(batch())).backward()
    assert not teacher.training
    assert all(p.grad is None and not p.requires_grad for p in teacher.parameters())
    assert all(torch.equal(v, before[k]) for k, v in teacher.state_dict().items())
    assert all(name.startswith("backbone.") for name in method.state_dict())


def test_the_virtual_teacher_is_a_distribution():
    u = virtual_teacher(torch.tensor([0, 3]), 100, 0.99, torch.float64)
    torch.testing.assert_close(u.sum(1), torch.ones(2, dtype=torch.float64))
    assert u[1, 3] == 0.99
    assert u[1, 4] == pytest.approx(0.01 / 99)


def test_the_official_virtual_target_is_all_but_uniform():
    """At K = 100 and T = 20: 0.0105 at the true class, 0.0100 elsewhere."""
    target = (virtual_teacher(torch.tensor([7]), 100) / 20).softmax(1)[0]
    assert target[7].item() == pytest.approx(0.0105, abs=5e-5)
    assert target[8].item() == pytest.approx(0.0100, abs=5e-5)


@pytest.mark.parametrize(("temperature", "tolerance"), [(20.0, 6e-4), (1e6, 1e-7)], ids=["official", "limit"])
def test_the_official_virtual_teacher_is_label_smoothing(temperature, tolerance):
    """With m = K, so that `multiplier` is 1: the gradient of the logits is alpha |q - 1/K| apart, and vanishes."""
    backbone, given = network(num_classes=100).double(), batch(dtype=torch.float64)
    virtual = TFKDVirtual(backbone, alpha=0.1, temperature=temperature, form="code")
    smooth = LabelSmoothing(backbone, epsilon=0.1)
    assert relative_distance(gradient(virtual, given), gradient(smooth, given)) < tolerance
    constant = 0.1 * math.log(100)
    difference = total(smooth.losses(given)) - total(virtual.losses(given))
    assert difference.item() == pytest.approx(constant, rel=10 * tolerance)


def relative_distance(a, b):
    return ((a - b).norm() / b.norm()).item()


def test_the_virtual_teacher_of_the_paper_at_temperature_one_is_label_smoothing():
    """KL(u || p) with u_y = a: the target (1 - alpha) onehot + alpha u smooths by alpha (1 - a) K / (K - 1)."""
    backbone, given = network().double(), batch(dtype=torch.float64)
    virtual = TFKDVirtual(backbone, alpha=0.5, temperature=1.0, correct=0.9)
    smooth = LabelSmoothing(backbone, epsilon=0.5 * 0.1 * CLASSES / (CLASSES - 1))
    assert relative_distance(gradient(virtual, given), gradient(smooth, given)) < 1e-10


@pytest.mark.parametrize("form", ["paper", "code"])
def test_a_virtual_teacher_without_a_share_is_cross_entropy(form):
    backbone, given = network().double(), batch(dtype=torch.float64)
    plain = gradient(Supervised(backbone), given)
    assert relative_distance(gradient(TFKDVirtual(backbone, alpha=0.0, form=form), given), plain) < 1e-12
