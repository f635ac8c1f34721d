"""Supervised training and label smoothing: cross-entropy with hard and with softened labels."""

import pytest
import torch

import reference
from distilling import CLASSES, batch, student, values
from relatum.methods.distill.label_smoothing import LabelSmoothing
from relatum.methods.distill.supervised import Supervised


@pytest.mark.parametrize("views", [1, 3])
@pytest.mark.parametrize("epsilon", [None, 0.0, 0.1, 0.4])
def test_baselines_equal_the_loop_over_all_views(epsilon, views):
    backbone = student().double()
    method = Supervised(backbone) if epsilon is None else LabelSmoothing(backbone, epsilon=epsilon)
    given = batch(views=views, dtype=torch.float64)._replace(labels=torch.randint(CLASSES, (views, 6)))
    logits = backbone(torch.cat(given.views)).logits.detach().numpy()
    expected = reference.cross_entropy(logits, given.labels.flatten().numpy(), epsilon or 0.0)
    assert values(method.losses(given)) == {"task": pytest.approx(expected, rel=1e-12)}


def test_label_smoothing_has_the_published_default():
    assert LabelSmoothing(student()).epsilon == 0.1
