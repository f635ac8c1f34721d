"""The stage classifiers of self-distillation, and their blocks."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from distilling import CLASSES
from relatum.networks.heads import Depthwise, StageClassifier, separable_block


@pytest.mark.parametrize("size", [(1, 1), (2, 2), (7, 5), (32, 32)], ids=str)
def test_a_stage_classifier_takes_maps_of_any_size(size):
    head = StageClassifier((8, 12, 20), CLASSES)
    embedding, logits = head(torch.randn(4, 8, *size))
    assert embedding.shape == (4, 20)
    assert logits.shape == (4, CLASSES)


@pytest.mark.parametrize("attention", [False, True])
def test_a_stage_classifier_has_the_parameters_of_its_definition(attention):
    def block(before, after):  # depthwise and pointwise twice, scale and shift of two batch norms
        return 9 * before + before**2 + 9 * before + before * after + 2 * before + 2 * after

    widths = (8, 16, 32)
    expected = block(8, 16) + block(16, 32) + 33 * CLASSES + (block(8, 8) if attention else 0)
    head = StageClassifier(widths, CLASSES, attention=attention)
    assert sum(p.numel() for p in head.parameters()) == expected


def test_the_attention_halves_what_it_does_not_favor():
    """A block that gives zero everywhere gives an attention of sigmoid(0) = 1/2."""
    head = StageClassifier((8, 8), CLASSES).eval()
    plain = StageClassifier((8, 8), CLASSES, attention=False).eval()
    plain.load_state_dict({k: v for k, v in head.state_dict().items() if not k.startswith("attention")})
    nn.init.zeros_(head.attention[4].weight)
    nn.init.zeros_(head.attention[4].bias)
    maps = torch.randn(3, 8, 6, 6)
    torch.testing.assert_close(head(maps), plain(maps / 2))


@pytest.mark.parametrize("size", [1, 2, 3, 8, 9])
def test_a_separable_block_halves_the_map(size):
    assert separable_block(4, 6)(torch.randn(2, 4, size, size)).shape == (2, 6, -(-size // 2), -(-size // 2))


@pytest.mark.parametrize(("widths", "classes"), [((8,), 5), ((8, 0), 5), ((8, 16), 0)], ids=str)
def test_a_stage_classifier_of_nothing_is_refused(widths, classes):
    with pytest.raises(ValueError, match="has nothing in it"):
        StageClassifier(widths, classes)


@pytest.mark.parametrize(("stride", "expected"), [(1, torch.bfloat16), (2, torch.float32)])
def test_a_depthwise_convolution_that_strides_computes_in_float32_on_a_processor(stride, expected):
    layer, maps = Depthwise(4, stride), torch.randn(2, 4, 6, 6)
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(maps.bfloat16()).dtype == expected
    assert torch.equal(layer(maps), F.conv2d(maps, layer.weight, None, stride, 1, groups=4))
