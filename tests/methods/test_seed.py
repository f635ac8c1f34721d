"""SEED (Fang et al. 2021)."""

import pytest
import torch
from torch.nn import functional as F

import reference
from cases import CLASSES, SIZE, batch_for, build
from distilling import lists, network
from relatum.core.types import Batch, Features
from relatum.evaluation.geometry import effective_rank
from relatum.losses.matching import matching_loss
from relatum.methods.distill.seed import SEED
from relatum.networks.backbones import Backbone
from relatum.relations import Jaccard, unit


def seed(**chosen):
    return build("seed", teacher=network().double(), **chosen).double()


def test_seed_equals_the_loop_over_two_steps():
    """The second step meets the keys that the first has left; none meets its own among them."""
    method = seed(queue_size=10, student_temperature=0.3, teacher_temperature=0.05)
    for step in range(2):
        images = batch_for(method, step, torch.float64).views[0]
        keys = lists(method.queue.keys)
        own = lists(method.projector.branches[0](method.backbone.embed(images)))
        goal = lists(method.teacher(images).embedding)
        expected = reference.similarity_matching(own, goal, keys, 0.3, 0.05)
        terms = method.losses(batch_for(method, step, torch.float64))
        assert terms["relation"].item() == pytest.approx(expected, rel=1e-9)
        assert torch.equal(method.queue.keys, torch.tensor(keys, dtype=torch.float64))
        method.after_step(0.5)
        newest = unit(method.teacher(images).embedding)
        assert torch.cdist(newest, method.queue.keys).min(dim=1).values.max() < 1e-6


def test_jaccard_relates_halves_of_the_teachers_embedding():
    method = seed(relation=Jaccard())
    width = method.teacher.network.embedding_dim
    assert [branch[-1].out_features for branch in method.projector.branches] == [width // 2, width // 2]
    images = batch_for(method, dtype=torch.float64).views[0]
    teacher = unit(method.teacher(images).embedding, 2)
    own, relation = method.projector(method.backbone.embed(images)), Jaccard()
    logits = torch.cat([relation.matched(own, teacher)[:, None], relation.all_pairs(own, method.queue.keys)], 1) / 0.2
    itself = torch.cat([relation.matched(teacher, teacher)[:, None], relation.all_pairs(teacher, method.queue.keys)], 1)
    expected = -((itself / 0.01).softmax(1) * logits.log_softmax(1)).sum(1).mean()
    terms = method.losses(batch_for(method, dtype=torch.float64))
    torch.testing.assert_close(terms["relation"], expected)
    torch.testing.assert_close(itself[:, 0], torch.ones(len(own), dtype=torch.float64))


def test_a_student_that_is_its_teacher_has_nothing_to_learn_at_one_temperature():
    teacher = unit(torch.randn(6, 8, dtype=torch.float64))
    keys = unit(torch.randn(20, 8, dtype=torch.float64))
    for block in (None, 4):
        student = teacher.clone().requires_grad_()
        matching_loss(student, teacher, keys, None, 0.3, 0.3, block).backward()
        # Along the sphere: what would make an embedding longer changes no cosine.
        assert student.grad.abs().max() < 1e-12


def test_many_keys_go_by_blocks_and_give_the_plain_numbers():
    student, teacher = (unit(torch.randn(64, 16, dtype=torch.float64)) for _ in range(2))
    keys = unit(torch.randn(1100, 16, dtype=torch.float64))
    student.requires_grad_()
    found = []
    for block in (None, "auto"):
        value = matching_loss(student, teacher, keys, Jaccard(), 0.2, 0.01, block)
        found.append((value, *torch.autograd.grad(value, student)))
    torch.testing.assert_close(found[1], found[0])


def directions_after_training(differs):
    """The effective rank of the projections that 30 steps leave, with a teacher that tells images apart or does not."""
    method = build("seed", queue_size=32)
    look = torch.randn(48, method.queue.keys.shape[1])
    patterns = F.interpolate(torch.randn(16, 3, 4, 4), size=(SIZE, SIZE), mode="bilinear")

    def network(images):
        return Features((), F.adaptive_avg_pool2d(images, 4).flatten(1) * differs @ look + 1, None)

    method.teacher.__dict__["network"] = network
    optimizer = torch.optim.SGD([*method.backbone.parameters(), *method.projector.parameters()], 0.1, momentum=0.9)
    for step in range(30):
        method.losses(Batch.unlabeled(patterns + 0.1 * torch.randn_like(patterns)))["relation"].backward()
        optimizer.step()
        optimizer.zero_grad()
        method.after_step((step + 1) / 30)
    with torch.no_grad():
        return effective_rank(method.projector(method.backbone.embed(patterns)))


def test_a_student_keeps_the_directions_of_its_teacher():
    torch.manual_seed(0)
    apart = directions_after_training(1.0)
    torch.manual_seed(0)
    assert apart > 1.5 * directions_after_training(0.0)


def test_a_teacher_may_have_classes_or_none_and_keeps_its_state():
    for classes in (0, CLASSES):
        teacher = Backbone("test_resnet", stem="cifar", num_classes=classes)
        method = SEED(Backbone("resnet8", stem="cifar"), teacher=teacher, queue_size=8)
        assert method.losses(batch_for(method))["relation"].isfinite()
        assert method.embed(torch.randn(2, 3, SIZE, SIZE)).shape == (2, 64)


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ({"queue_size": 0}, "queue of 0 keys"),
        ({"student_temperature": 0.0}, "student_temperature is 0.0"),
        ({"teacher_temperature": -1.0}, "teacher_temperature is -1.0"),
    ],
)
def test_options_out_of_range_are_refused(chosen, message):
    with pytest.raises(ValueError, match=message):
        seed(**chosen)


def test_a_teacher_whose_embedding_has_no_halves_is_refused():
    odd = network()
    odd.embedding_dim = 63
    with pytest.raises(ValueError, match=r"compares 2 parts .* test_resnet is of width 63"):
        build("seed", teacher=odd, relation=Jaccard())
