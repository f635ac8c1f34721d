"""Losses of distillation equal torchdistill's in value and gradient, where it has them and has them right."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from relatum.losses.objectives import kl_divergence
from relatum.methods.distill.crd import chosen_logits, nce_loss
from relatum.methods.distill.dist import correlation_gaps
from relatum.methods.distill.distiller import standardized
from relatum.methods.distill.review_kd import Fusion, hierarchical_context_loss
from relatum.relations import Cosine

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


def test_crd_with_samples_equals_torchdistills():
    """Both anchors, on given samples, with constants that are not yet set: it cannot draw samples itself."""
    size, width, count = 30, 8, 12
    theirs = mid_level.CRDLoss("n", "e", "n", width, size, count, size, temperature=0.3, momentum=0.5, eps=0.0)
    theirs = theirs.double()
    columns = torch.randint(size, (IMAGES, count + 1))
    columns[:, 0] = torch.randperm(size)[:IMAGES]
    z, teacher = (F.normalize(torch.randn(IMAGES, width, dtype=torch.float64)) for _ in range(2))
    banks = [F.normalize(getattr(theirs, name)) for name in ("memory_v1", "memory_v2")]
    for name, bank in zip(("memory_v1", "memory_v2"), banks):
        getattr(theirs, name).copy_(bank)

    def sampled(query, bank):
        logits = chosen_logits(query, bank, columns, Cosine(), 0.3)
        return nce_loss(logits, logits.detach().logsumexp((0, 1)) - math.log(logits.numel()))

    def peer(z):
        supplied = {"pos_idx": columns[:, 0], "contrast_idx": columns}
        theirs.params[2:4] = -1
        for name, bank in zip(("memory_v1", "memory_v2"), banks):
            setattr(theirs, name, bank.clone())
        return theirs({"n": {"output": z}, "e": {"input": supplied}}, {"n": {"output": teacher}})

    # Its embeddings have length one already, which ours are given: the gradient is that along the sphere.
    require_equal(
        lambda z: sampled(F.normalize(z), banks[1]) + sampled(teacher, banks[0]),
        lambda z: peer(F.normalize(z)),
        z,
        1e-6,
    )


def test_the_hierarchical_context_loss_equals_torchdistills():
    student, teacher = torch.randn(2, 3, 6, 8, 8, dtype=torch.float64)
    theirs = mid_level.HierarchicalContextLoss("f", "output", "f", "output")

    def peer(z):
        return theirs({"f": {"output": (z * 1, None)}}, {"f": {"output": teacher}})

    require_equal(lambda z: hierarchical_context_loss(z, teacher), peer, student)


def test_the_attention_based_fusion_equals_torchdistills():
    """With the same weights, in value and gradient; its maps are square, and of the teacher's size."""
    wrapper = pytest.importorskip("torchdistill.models.wrapper", reason="needs the extra `bench`")
    ours = Fusion(5, 4, 6, alone=False).double()
    theirs = wrapper.AttentionBasedFusion(5, 4, 6, uses_attention=True).double()
    layers = ((ours.narrow, theirs.conv1), (ours.adapt, theirs.conv2), (ours.attention, theirs.attention_conv[0]))
    for mine, other in layers:
        other.load_state_dict(mine.state_dict())
    maps, deeper = torch.randn(2, 5, 8, 8, dtype=torch.float64), torch.randn(2, 4, 4, 4, dtype=torch.float64)

    def total(parts):
        return parts[0].square().sum() + parts[1].sum()

    require_equal(lambda z: total(ours(z, deeper, (8, 8))), lambda z: total(theirs(z, deeper, 8)), maps)
