"""What the methods without labels have beside their laws: schedules and projectors."""

import torch
from torch import nn

from cases import build
from relatum.relations import Jaccard


def test_byol_momentum_rises_to_one():
    method = build("byol", momentum=0.5)
    before = [p.clone() for p in method.copy.parameters()]
    for p in [*method.backbone.parameters(), *method.projector.parameters()]:
        p.data.add_(1.0)
    method.after_step(1.0)
    assert all(torch.equal(a, b) for a, b in zip(before, method.copy.parameters()))


def test_projector_branches_are_separate_networks():
    method = build("simclr", relation=Jaccard())
    first, second = method.projector.branches
    features = torch.randn(4, method.backbone.embedding_dim)
    z = method.projector(features)
    torch.testing.assert_close(z.chunk(2, 1)[0], nn.functional.normalize(first(features)))
    torch.testing.assert_close(z.chunk(2, 1)[1], nn.functional.normalize(second(features)))
    assert not torch.equal(first[0].weight, second[0].weight)
