"""Similarity-preserving distillation (Tung and Mori 2019)."""

import pytest
import torch

import reference
from distilling import batch, compared, student, teacher, values
from relatum.methods.distill.sp import SP


def test_similarity_preserving_equals_the_loop():
    method = SP(student().double(), teacher=teacher().double(), kd_weight=0.5)
    given = batch(dtype=torch.float64)
    s, t, y = compared(method, given)
    expected = {
        "task": reference.cross_entropy(s.logits, y),
        "kd": 0.5 * reference.distillation(s.logits, t.logits, 4.0),
        "similarity": 3000 * reference.similarity(s.stages[-1], t.stages[-1]),
    }
    assert values(method.losses(given)) == pytest.approx(expected, rel=1e-9)
