"""DINO (Caron et al. 2021)."""

import math

import pytest
import torch
from torch.nn import functional as F

from cases import batch_for, build, train
from relatum.core.schedules import cosine
from relatum.methods.contrastive.crops import told_by_large
from relatum.methods.contrastive.dino import sharpened


def softmax(values: list[float]) -> list[float]:
    exponentials = [math.exp(value - max(values)) for value in values]
    return [value / sum(exponentials) for value in exponentials]


def naive_loss(student, teacher, center, temperature: float, teacher_temperature: float) -> float:
    """Algorithm 1 over single numbers: `student` of all crops, `teacher` of the large ones, image by image."""
    total, terms = 0.0, 0
    for i, outputs in enumerate(teacher):
        for v, others in enumerate(student):
            if v == i:
                continue
            terms += 1
            for t, s in zip(outputs, others):
                p = softmax([(a - c) / teacher_temperature for a, c in zip(t, center)])
                q = softmax([a / temperature for a in s])
                total -= sum(a * math.log(b) for a, b in zip(p, q)) / len(outputs)
    return total / terms


@pytest.mark.parametrize("variant", ["dino", "dino-multi-crop"])
def test_dino_equals_the_loop(variant):
    method = build(variant, temperature=0.2, teacher_temperature=0.15, teacher_warmup=0.0).double().eval()
    batch = batch_for(method, dtype=torch.double)
    for p in method.copy.parameters():
        p.data.add_(0.05 * torch.randn_like(p))
    method.center.normal_()
    backbone, head = method.copy.networks

    def scores(backbone, projector, prototypes, views) -> list[list[list[float]]]:
        unit = F.normalize(prototypes.weight, dim=1)
        return [(F.normalize(projector(backbone.embed(view)), dim=1) @ unit.T).tolist() for view in views]

    student = scores(method.backbone, method.projector, method.prototypes, batch.views)
    teacher = scores(backbone, *head, batch.views[:2])
    expected = naive_loss(student, teacher, method.center.tolist(), 0.2, 0.15)
    (found,) = method.losses(batch).values()
    assert found.item() == pytest.approx(expected, rel=1e-11)
    before = method.center.clone()
    method.after_step(0.5)
    mean = torch.tensor(teacher, dtype=torch.double).flatten(0, 1).mean(0)
    torch.testing.assert_close(method.center, 0.9 * before + 0.1 * mean)


def test_the_copys_temperature_rises_and_its_momentum_too():
    method = build("dino", first_teacher_temperature=0.04, teacher_temperature=0.07, teacher_warmup=0.3, momentum=0.9)
    found = []
    for progress in (0.0, 0.1, 0.3, 0.8):
        method.clock.update(progress)
        found.append(method.current_teacher_temperature)
    assert found == pytest.approx([0.04, 0.05, 0.07, 0.07])
    before = [p.clone() for p in method.copy.parameters()]
    student = [*method.backbone.parameters(), *method.projector.parameters(), *method.prototypes.parameters()]
    for p in student:
        p.data.add_(1.0)
    method.after_step(0.5)
    momentum = cosine(0.5, 0.9, 1.0)
    for copied, old in zip(method.copy.parameters(), before, strict=True):
        torch.testing.assert_close(copied, old + (1 - momentum))


def test_the_last_layer_waits_in_the_first_part_and_its_length_does_not_matter():
    method = build("dino", frozen_share=0.15)
    start = method.prototypes.weight.detach().clone()
    _, optimizer = train(method, 2)
    assert torch.equal(method.prototypes.weight, start)
    train(method, 1, first=2, optimizer=optimizer)
    assert not torch.equal(method.prototypes.weight, start)
    method.eval()
    loss = method.losses(batch_for(method))["told"]
    method.prototypes.weight.data.mul_(torch.rand(12, 1) + 0.5)
    torch.testing.assert_close(method.losses(batch_for(method))["told"], loss)


def test_nothing_is_learned_from_an_output_that_all_images_share():
    """An output that is large for every image is taken away by the center, and told to nobody."""
    outputs = torch.randn(6, 4, dtype=torch.double)
    shifted = outputs + torch.tensor([50.0, 0, 0, 0])
    told = sharpened(shifted, shifted.mean(0), 0.1)
    torch.testing.assert_close(told, sharpened(outputs, outputs.mean(0), 0.1))
    assert told[:, 0].max() < 1


def test_lightly_computes_the_same():
    lightly = pytest.importorskip("lightly.loss", exc_type=ImportError)
    generator = torch.Generator().manual_seed(1)
    outputs = torch.rand(5, 8, 6, generator=generator, dtype=torch.double).mul(2).sub(1)
    teacher = torch.rand(2, 8, 6, generator=generator, dtype=torch.double)
    theirs_loss = lightly.DINOLoss(output_dim=6).double()
    theirs_loss.center.normal_(generator=generator)
    center = theirs_loss.center.flatten().clone()
    ours, theirs = (outputs.clone().requires_grad_() for _ in range(2))
    targets = sharpened(teacher.flatten(0, 1), center, 0.04).unflatten(0, (2, 8))
    loss = told_by_large(ours, targets, 0.1)
    other = theirs_loss([*teacher], [*theirs], teacher_temp=0.04)
    torch.testing.assert_close(loss, other, rtol=1e-6, atol=0)  # its temperature is a float32 tensor
    torch.testing.assert_close(
        *(torch.autograd.grad(value, z)[0] for value, z in ((loss, ours), (other, theirs))), rtol=1e-6, atol=1e-9
    )
    torch.testing.assert_close(theirs_loss.center.flatten(), center.lerp(teacher.flatten(0, 1).mean(0), 0.1))
