"""The networks on pairs of images, against pairs that are really concatenated."""

import pytest
import torch
from torch import nn

from relatum.methods.distill.corsd import CORSD
from relatum.networks.backbones import Backbone
from relatum.networks.relation_networks import Comparison, ImageProjection, Interaction, PairProjection, checkpointed
from relatum.relations import Cosine, Euclidean, Jaccard


def classifier(name="test_resnet") -> Backbone:
    return Backbone(name, stem="cifar", num_classes=5)


def leaves(module):
    return [m for m in module.modules() if not list(m.children())]


def test_widths_double_from_the_pair_to_the_last_stage():
    def pointwise(g):
        return [(m.in_channels, m.out_channels) for m in leaves(g) if isinstance(m, nn.Conv2d) and m.groups == 1]

    # ResNet-18, first stage: 2C -> 4C -> 8C -> 16C, the anchor's and the partner's half of the first apart.
    full = [(64, 128), (64, 128), (128, 256), (256, 256), (256, 512), (512, 512), (512, 1024)]
    assert pointwise(PairProjection(64, 1024, 3)) == full
    capped = [(64, 32), (64, 32), (32, 64), (64, 64), (64, 128), (128, 128), (128, 256)]
    assert pointwise(PairProjection(64, 256, 3)) == capped
    assert CORSD(classifier("resnet20")).projections[0].out_width == 128
    assert CORSD(classifier("resnet20"), width=64).projections[0].out_width == 64
    assert CORSD(classifier("resnet20"), width=64).projections[-1].out_width == 128


def test_anchors_and_partners_are_paired_by_position():
    maps = torch.randn(6, 4, 8, 8)
    pairs = ImageProjection(4, 8, 0)(maps, 2)
    means = maps.mean((2, 3))
    torch.testing.assert_close(pairs, torch.stack([torch.cat([means[j % 2], means[j]]) for j in range(2, 6)]))


@pytest.mark.parametrize("make", [lambda g: PairProjection(4, 16, 2, groups=g), lambda g: Interaction(6, 8, groups=g)])
def test_separate_statistics_equal_two_calls(make):
    grouped, plain = make(2).double(), make(1).double()
    plain.load_state_dict(grouped.state_dict())
    if isinstance(plain, Interaction):
        pairs = torch.randn(8, 6, dtype=torch.float64)
        together, apart = grouped(pairs), torch.cat([plain(pairs[:4]), plain(pairs[4:])])
    else:
        maps = torch.randn(12, 4, 8, 8, dtype=torch.float64)
        anchors, positives, negatives = maps.chunk(3)
        together = grouped(maps, 4)
        apart = torch.cat([plain(torch.cat([anchors, partners]), 4) for partners in (positives, negatives)])
    torch.testing.assert_close(together, apart, rtol=1e-12, atol=1e-12)
    for name, buffer in plain.state_dict().items():
        torch.testing.assert_close(grouped.state_dict()[name], buffer, rtol=1e-12, atol=1e-12)


def test_joint_statistics_are_not_separate_ones():
    joint, separate = (PairProjection(4, 16, 2, groups=g) for g in (1, 2))
    separate.load_state_dict(joint.state_dict())
    maps = torch.randn(12, 4, 8, 8)
    assert (joint(maps, 4) - separate(maps, 4)).abs().max() > 1e-2


def test_checkpointed_moves_running_statistics_once():
    projection = PairProjection(4, 16, 2)
    checkpointed(projection, torch.randn(12, 4, 8, 8, requires_grad=True), 4).sum().backward()
    assert {int(v) for name, v in projection.state_dict().items() if name.endswith("num_batches_tracked")} == {1}


@pytest.mark.parametrize(
    ("relation", "least"),
    [(Euclidean(), 0.0), (Cosine(), -1.0), (Jaccard(), -1.0)],
    ids=["euclidean", "cosine", "jaccard"],
)
def test_distance_of_a_relation_is_least_for_equal_images(relation, least):
    psi = Comparison(12, 4, relation).eval()
    a, b = torch.randn(5, 6), torch.randn(5, 6)
    torch.testing.assert_close(psi(torch.cat([a, a], 1)), torch.full((5,), least), atol=1e-5, rtol=0)
    far = psi(torch.cat([a, b], 1))
    assert (far > least + 1e-3).all()
    h_a, h_b = psi.projector(a), psi.projector(b)
    torch.testing.assert_close(far, torch.stack([-relation.matched(h_a[[i]], h_b[[i]])[0] for i in range(5)]))
