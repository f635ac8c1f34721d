"""What losses of distillation do in limits: a student that is its teacher, a batch that holds every image twice."""

import copy

import pytest
import torch

from distilling import batch, teacher
from relatum.losses.objectives import kl_divergence
from relatum.methods.distill.at import AT, attention_loss
from relatum.methods.distill.cc import correlation_loss
from relatum.methods.distill.kd import KD
from relatum.methods.distill.rkd import RKD, angle_loss, distance_loss, distances
from relatum.methods.distill.sp import SP, similarity_loss

SETTLED = {
    "kd": lambda s, t: KD(s, teacher=t),
    "rkd": lambda s, t: RKD(s, teacher=t),
    "rkd-all": lambda s, t: RKD(s, teacher=t, tuples="all", kd_weight=0.5),
    "at": lambda s, t: AT(s, teacher=t),
    "at-squared": lambda s, t: AT(s, teacher=t, norm="squared", kd_weight=0.5),
    "sp": lambda s, t: SP(s, teacher=t, kd_weight=0.5),
}


@pytest.mark.parametrize("name", SETTLED)
def test_a_student_equal_to_its_teacher_has_nothing_to_learn_but_the_classes(name):
    master = teacher().double()
    method = SETTLED[name](copy.deepcopy(master), master).double().eval()
    terms = method.losses(batch(dtype=torch.float64))
    assert terms.pop("task") > 0
    assert terms
    assert all(term.item() == pytest.approx(0, abs=1e-12) for term in terms.values())
    sum(terms.values()).backward()
    assert all(p.grad.abs().max() < 1e-9 for p in method.parameters() if p.grad is not None)


TWICE = {
    "kd": (lambda a, b: kl_divergence(a.flatten(1), b.flatten(1), 4.0), 1),
    "attention": (lambda a, b: attention_loss((a,), (b,)), 1),
    "attention-squared": (lambda a, b: attention_loss((a,), (b,), "squared"), 1),
    "similarity": (similarity_loss, 0.5),  # the rows have length one, twice as many entries share it
    "correlation": (lambda a, b: correlation_loss(a.flatten(1), b.flatten(1)), 1),
    "distance": (lambda a, b: distance_loss(distances(a.flatten(1)), distances(b.flatten(1)), "all"), 1),
    "angle": (lambda a, b: angle_loss(distances(a.flatten(1)), distances(b.flatten(1)), "all"), 1),
}


@pytest.mark.parametrize(("loss", "factor"), TWICE.values(), ids=TWICE.keys())
def test_a_batch_that_holds_every_image_twice(loss, factor):
    a, b = torch.randn(2, 5, 3, 4, 4, dtype=torch.float64)
    once, twice = loss(a, b), loss(torch.cat([a, a]), torch.cat([b, b]))
    assert twice.item() == pytest.approx(factor * once.item(), rel=1e-9)
