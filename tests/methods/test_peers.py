"""Losses of distillation equal torchdistill's in value and gradient, where it has them and has them right."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from relatum.losses.objectives import kl_divergence
from relatum.methods.distill.dist import correlation_gaps
from relatum.methods.distill.distiller import standardized

mid_level = pytest.importorskip("torchdistill.losses.mid_level", reason="needs the extra `bench`")

IMAGES, CLASSES = 16, 10


def outputs(student: Tensor, teacher: Tensor) -> tuple[dict, dict]:
    return {"f": {"output": student}}, {"f": {"output": teacher}}


def require_equal(ours: Callable[[Tensor], Tensor], theirs: Callable[[Tensor], Tensor], given: Tensor, rtol=1e-9):
    values, slopes = [], []
    for loss in (ours, theirs):
        z = given.clone().requires_grad_()
        value = loss(z).squeeze()
        values.append(value)
        slopes.append(torch.autograd.grad(value, z)[0])
    torch.testing.assert_close(values[0], values[1], rtol=rtol, atol=1e-12)
    torch.testing.assert_close(slopes[0], slopes[1], rtol=rtol, atol=1e-6 * slopes[1].abs().max().item())


def test_dist_equals_torchdistills():
    student, teacher = torch.randn(2, IMAGES, CLASSES, dtype=torch.float64)
    theirs = mid_level.DISTLoss("f", "output", "f", "output", beta=0.7, gamma=3.0, tau=2.0)

    def ours(z):
        classes, images = correlation_gaps(z, teacher, 2.0)
        return 4 * (0.7 * classes + 3.0 * images)

    require_equal(ours, lambda z: theirs(*outputs(z, teacher)), student)


def test_kd_of_standardized_logits_equals_torchdistills():
    """Its deviation divides by one less, which is another temperature; and it adds 1e-7 to it."""
    student, teacher = torch.randn(2, IMAGES, CLASSES, dtype=torch.float64)
    labels = torch.randint(CLASSES, (IMAGES,))
    theirs = mid_level.LogitStdKDLoss("f", "output", "f", "output", temperature=2.0, alpha=1e-30, beta=9.0)
    temperature = 2.0 * (CLASSES / (CLASSES - 1)) ** 0.5

    def ours(z):
        # T^2 is that of its temperature, not of ours.
        return 9 * (2.0 / temperature) ** 2 * kl_divergence(standardized(z), standardized(teacher), temperature)

    require_equal(ours, lambda z: theirs(*outputs(z, teacher), labels), student, rtol=1e-5)
