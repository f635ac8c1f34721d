"""Attention transfer (Zagoruyko and Komodakis 2017)."""

import pytest
import torch

import reference
from distilling import batch, compared, student, teacher, values
from relatum.methods.distill.at import AT, attention, attention_loss
from relatum.methods.distill.distiller import same_size


@pytest.mark.parametrize("norm", ["half-norm", "squared"])
def test_attention_transfer_equals_the_loop(norm):
    method = AT(student().double(), teacher=teacher().double(), norm=norm, kd_weight=0.5)
    given = batch(dtype=torch.float64)
    s, t, y = compared(method, given)
    expected = {
        "task": reference.cross_entropy(s.logits, y),
        "kd": 0.5 * reference.distillation(s.logits, t.logits, 4.0),
        "attention": 1000 * reference.attention_transfer(s.stages, t.stages, norm == "squared"),
    }
    assert values(method.losses(given)) == pytest.approx(expected, rel=1e-9)


def test_attention_maps_have_length_one_and_forget_scale():
    f = torch.randn(3, 4, 5, 6)
    assert attention(f).shape == (3, 30)
    assert torch.allclose(attention(f).norm(dim=1), torch.ones(3))
    assert torch.allclose(attention(f), attention(7 * f), atol=1e-6)


def test_the_two_norms_of_attention_are_one_weight_apart_in_the_square():
    a, b = torch.randn(2, 1, 4, 5, 5, dtype=torch.float64)
    pixels = 25
    gap = 2 * pixels * attention_loss((a,), (b,))  # of a single image
    assert attention_loss((a,), (b,), "squared").item() == pytest.approx((gap**2 / pixels).item())


def test_stages_are_paired_from_the_deepest():
    deep = [torch.randn(2, 3, 8 // 2**i, 8 // 2**i) for i in range(3)]
    more = [torch.randn(2, 5, 16, 16), *deep]
    assert attention_loss(deep, more) == 0
    assert attention_loss(deep, [*deep, torch.randn(2, 5, 1, 1)]) > 0


def test_the_larger_map_is_averaged():
    a, b = torch.randn(2, 3, 8, 4), torch.randn(2, 5, 4, 8)
    small_a, small_b = same_size(a, b)
    assert small_a.shape == (2, 3, 4, 4)
    assert torch.allclose(small_a, a.reshape(2, 3, 4, 2, 4).mean(3))
    assert torch.allclose(small_b, b.reshape(2, 5, 4, 4, 2).mean(4))
    assert same_size(a, a)[0] is a
