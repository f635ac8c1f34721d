"""The handcrafted relation of CORSD's Table 4."""

import pytest
import torch
from test_corsd import classifier, trained, triples

from relatum.methods.distill.relation_l2 import RelationL2


def test_relation_l2_equals_the_equation():
    method, batch = RelationL2(classifier().double(), beta=0.3), triples(dtype=torch.float64)
    terms = method.losses(batch)
    stages, _, logits = method.backbone(torch.cat(batch.views))
    n, r = 3, []
    for maps in stages:
        units = [pooled / pooled.square().sum().sqrt() for pooled in (m.mean((1, 2)) for m in maps)]
        r.append([(units[i] - units[n * j + i]).square().sum().sqrt() for j in (1, 2) for i in range(n)])
    expected = 0.3 * sum((r[i][j] - r[-1][j].detach()) ** 2 / n for i in range(len(r) - 1) for j in range(2 * n))
    assert set(terms) == {"task", "relation"}
    torch.testing.assert_close(terms["relation"], expected, rtol=1e-12, atol=1e-12)
    task = -sum(logits[i].log_softmax(0)[batch.labels.flatten()[i]] for i in range(3 * n)) / (3 * n)
    torch.testing.assert_close(terms["task"], task, rtol=1e-12, atol=1e-12)
    assert {name.split(".")[0] for name, _ in method.named_parameters()} == {"backbone"}
    deepest = torch.autograd.grad(terms["relation"], list(method.backbone.model.layer4.parameters()), allow_unused=True)
    assert not any(map(trained, deepest))


def test_relation_l2_without_weight_is_refused():
    with pytest.raises(ValueError, match="beta is 0"):
        RelationL2(classifier(), beta=0.0)
