"""The networks of the field's tables that are not residual: weights and stages by their definitions."""

import subprocess
import sys
from itertools import pairwise

import pytest
import torch
from torch import nn

from relatum.networks.backbones import Backbone
from relatum.networks.export import load_encoder, save_encoder
from relatum.networks.small_convnets import (
    SMALL_CONVNETS,
    InvertedResidual,
    ShuffleV1Block,
    ShuffleV2Block,
    shuffled,
)


def conv(before, after, size, groups=1):
    """Weights of a convolution without bias, and of its batch normalization."""
    return before * after * size * size // groups + 2 * after


def vgg_weights(depth, classes):
    widths = [3, *(w for w in (64, 128, 256, 512, 512) for _ in range(depth))]
    return sum(conv(a, b, 3) + b for a, b in pairwise(widths)) + 513 * classes


def mobilenet_weights(classes):
    total, before = conv(3, 16, 3), 16
    for times, width, blocks in ((1, 8, 1), (6, 12, 2), (6, 16, 3), (6, 32, 4), (6, 48, 3), (6, 80, 3), (6, 160, 1)):
        for _ in range(blocks):
            inner = times * before
            total += conv(before, inner, 1) + conv(inner, inner, 3, inner) + conv(inner, width, 1)
            before = width
    return total + conv(160, 1280, 1) + 1281 * classes


def shufflenetv1_weights(classes):
    total, before = conv(3, 24, 1), 24
    for width, blocks in ((240, 4), (480, 8), (960, 4)):
        for block in range(blocks):
            after = width - before if block == 0 else width
            inner, first = after // 4, before == 24
            total += conv(before, inner, 1, 1 if first else 3) + conv(inner, inner, 3, inner) + conv(inner, after, 1, 3)
            before = width
    return total + 961 * classes


def shufflenetv2_weights(classes):
    total, before = conv(3, 24, 1), 24
    for width, blocks in ((116, 3), (232, 7), (464, 3)):
        half = width // 2
        total += conv(before, before, 3, before) + conv(before, half, 1)
        total += conv(before, half, 1) + conv(half, half, 3, half) + conv(half, half, 1)
        total += blocks * (2 * conv(half, half, 1) + conv(half, half, 3, half))
        before = width
    return total + conv(464, 1024, 1) + 1025 * classes


# Weights with 100 classes, by the formula and as a number that a mistake in both could not hide; channels and pixels.
DEFINED = {
    "cifar_vgg8": (vgg_weights(1, 100), 3_965_028, ((64, 32), (128, 16), (256, 8), (512, 4)), 512),
    "cifar_vgg13": (vgg_weights(2, 100), 9_462_180, ((64, 32), (128, 16), (256, 8), (512, 4)), 512),
    "cifar_mobilenetv2_half": (mobilenet_weights(100), 812_836, ((12, 16), (16, 8), (48, 4), (160, 2)), 1280),
    "cifar_shufflenetv1": (shufflenetv1_weights(100), 949_258, ((240, 16), (480, 8), (960, 4)), 960),
    "cifar_shufflenetv2": (shufflenetv2_weights(100), 1_355_528, ((116, 16), (232, 8), (464, 4)), 1024),
}


def test_every_network_is_defined_here():
    assert list(DEFINED) == list(SMALL_CONVNETS)


@pytest.mark.parametrize("name", DEFINED)
def test_weights_and_stages_follow_the_definition(name):
    formula, counted, stages, width = DEFINED[name]
    with torch.device("meta"):
        backbone = Backbone(name, stem="cifar", num_classes=100).eval()
    assert sum(p.numel() for p in backbone.parameters()) == formula == counted
    features = backbone(torch.empty(2, 3, 32, 32, device="meta"))
    assert [tuple(maps.shape) for maps in features.stages] == [(2, c, side, side) for c, side in stages]
    assert backbone.stage_channels == tuple(c for c, _ in stages)
    assert backbone.stage_strides == tuple(32 // side for _, side in stages)
    assert features.embedding.shape == (2, backbone.embedding_dim) == (2, width)
    assert features.logits.shape == (2, 100)


@pytest.mark.parametrize("name", DEFINED)
def test_features_are_those_of_the_plain_model_and_every_weight_learns(name):
    backbone = Backbone(name, stem="cifar", num_classes=7, in_channels=1)
    images = torch.randn(4, 1, 16, 16)
    features = backbone(images)
    (features.logits * torch.randn(4, 7)).sum().backward()
    assert [n for n, p in backbone.named_parameters() if p.grad is None or not p.grad.abs().max() > 0] == []
    model = backbone.eval().model
    with torch.no_grad():
        assert torch.equal(backbone(images).logits, model(images))
        assert torch.equal(backbone.embed(images), model.forward_head(model.forward_features(images), pre_logits=True))


def of_a_shuffle(x, groups):
    c = x.shape[1]
    return torch.stack([x[:, (i % groups) * (c // groups) + i // groups] for i in range(c)], 1)


def test_a_shuffle_deals_the_channels_of_the_groups_in_turn():
    x = torch.randn(2, 12, 3, 5)
    assert torch.equal(shuffled(x, 3), of_a_shuffle(x, 3))
    assert torch.equal(shuffled(shuffled(x, 3), 4), x)


@pytest.mark.parametrize(("before", "after", "stride"), [(8, 8, 1), (8, 8, 2), (8, 12, 1)])
def test_an_inverted_residual_adds_its_input_where_nothing_changes(before, after, stride):
    block, x = InvertedResidual(before, after, stride, 6).double().eval(), torch.randn(2, before, 6, 6).double()
    rest = block.layers(x)
    kinds = [[type(m).__name__ for m in part] for part in block.layers]
    assert kinds == [["Conv2d", "BatchNorm2d", "ReLU"]] * 2 + [["Conv2d", "BatchNorm2d"]]
    assert block.layers[1][0].groups == 6 * before
    torch.testing.assert_close(block(x), rest + x if (before, stride) == (after, 1) else rest)


@pytest.mark.parametrize(("stride", "first"), [(1, False), (2, False), (2, True)])
def test_a_block_of_shufflenetv1_equals_its_equation(stride, first):
    block = ShuffleV1Block(24, 24, stride, 3, first=first).double().eval()
    x = torch.randn(2, 24, 6, 6).double()
    assert (block.compress[0].groups, block.expand[0].groups) == (1 if first else 3, 3)
    inner = block.compress(x)
    rest = block.expand(block.depthwise(inner if first else of_a_shuffle(inner, 3)))
    if stride == 1:
        expected = rest + x
    else:
        windows = nn.functional.pad(x, (1, 1, 1, 1)).unfold(2, 3, 2).unfold(3, 3, 2)
        expected = torch.cat([rest, windows.mean((-2, -1))], 1)
    torch.testing.assert_close(block(x), expected.clamp(min=0))


def test_a_block_of_shufflenetv2_keeps_half_of_its_channels():
    block, x = ShuffleV2Block(8, 8, 1).double().eval(), torch.randn(2, 8, 6, 6).double()
    expected = of_a_shuffle(torch.cat([x[:, :4], block.right(x[:, 4:])], 1), 2)
    torch.testing.assert_close(block(x), expected)
    block = ShuffleV2Block(6, 8, 2).double().eval()
    x = torch.randn(2, 6, 6, 6).double()
    torch.testing.assert_close(block(x), of_a_shuffle(torch.cat([block.left(x), block.right(x)], 1), 2))


def test_the_exported_file_rebuilds_the_network_without_relatum(tmp_path):
    backbone = Backbone("cifar_shufflenetv2", stem="cifar", num_classes=4).eval()
    save_encoder(backbone, tmp_path, mean=(0.5,) * 3, std=(0.25,) * 3, size=32)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["encoder.py", "encoder.safetensors", "small_convnets.py"]
    code = "import sys; sys.modules['relatum'] = None; import runpy; runpy.run_path('encoder.py', run_name='__main__')"
    run = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, '.'); {code}"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert run.stdout.startswith("SmallConvNet("), run.stderr
    loaded, _ = load_encoder(tmp_path)
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(loaded(images).logits, backbone(images).logits)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"stem": "imagenet"}, "is defined with the CIFAR stem only"), ({"pretrained": True}, "has no published weights")],
)
def test_what_is_not_defined_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Backbone("cifar_vgg8", **{"stem": "cifar", **options})
