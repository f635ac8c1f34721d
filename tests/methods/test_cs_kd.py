"""Class-wise self-distillation (Yun et al. 2020)."""

import pytest
import torch
from torch import nn

import reference
from distilling import batch, lists, network, total, values
from relatum.core.types import Batch
from relatum.methods.distill.cs_kd import CSKD
from relatum.methods.distill.supervised import Supervised


@pytest.mark.parametrize(("weight", "temperature"), [(1.0, 4.0), (3.0, 1.0)])
def test_cs_kd_equals_the_loop(weight, temperature):
    backbone = network().double()
    method = CSKD(backbone, weight=weight, temperature=temperature)
    given = batch(views=2, dtype=torch.float64)
    anchors, partners = (lists(backbone(view).logits) for view in given.views)
    divergence = reference.divergence(reference.softened(partners, temperature), anchors, temperature)
    expected = {
        "task": reference.cross_entropy(anchors, given.labels[0].tolist()),
        "class": weight * temperature**2 * divergence,
    }
    assert values(method.losses(given)) == pytest.approx(expected, rel=1e-9)


def test_cs_kd_has_no_gradient_into_the_partner():
    method, given = CSKD(network()), batch(views=2)
    for view in given.views:
        view.requires_grad_(True)
    total(method.losses(given)).backward()
    assert given.views[0].grad.abs().sum() > 0
    assert given.views[1].grad is None


def test_cs_kd_normalizes_the_partners_apart_and_counts_them():
    method, given = CSKD(network()), batch(views=2)
    method.losses(given)
    norms = [m for m in method.backbone.modules() if isinstance(m, nn.BatchNorm2d)]
    assert {int(m.num_batches_tracked) for m in norms} == {2}


def test_cs_kd_of_an_image_with_itself_is_cross_entropy():
    method, given = CSKD(network().double()), batch(dtype=torch.float64)
    given = Batch(given.views * 2, given.labels.expand(2, -1), given.index.expand(2, -1))
    terms = method.losses(given)
    assert terms["class"].item() == pytest.approx(0, abs=1e-12)
    assert (
        terms["task"].item()
        == Supervised(method.backbone)
        .losses(given._replace(views=given.views[:1], labels=given.labels[:1]))["task"]
        .item()
    )
