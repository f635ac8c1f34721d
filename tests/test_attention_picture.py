"""The picture of a transformer's attention: the weights are those that make the network's output, and all is drawn."""

import logging

import matplotlib
import numpy as np
import pytest
import torch
from PIL import Image

from relatum.networks.backbones import Backbone
from relatum.networks.transformers import NoAttentionError
from relatum.recipes.building import measurer_of, prepare
from relatum.reports import attention, pictures, runs
from relatum.reports.tiles import SCALE
from test_training import TINY

CPU = torch.device("cpu")


def transformer() -> Backbone:
    torch.manual_seed(0)
    return Backbone("test_vit", img_size=16, patch_size=4).eval()  # 2 heads


def test_the_weights_make_what_the_fused_kernel_makes_of_the_values():
    """In float64: the class token's output is the sum of all values by these weights and its own, which is the rest."""
    backbone = transformer().double()
    layer = backbone.model.blocks[-1].attn
    assert layer.fused_attn
    passed = []
    handle = layer.register_forward_hook(lambda _, given, out: passed.append((given[0], out)))
    images = torch.randn(3, 3, 16, 16, dtype=torch.double)
    with torch.no_grad():
        backbone.embed(images)
        handle.remove()
        weights = backbone.attention(images).double().flatten(2)
        ((tokens, made),) = passed
        q, k, v = layer.qkv(tokens).unflatten(2, (3, layer.num_heads, -1)).permute(2, 0, 3, 1, 4)
        own = (q[:, :, :1] @ k.mT / q.shape[-1] ** 0.5).softmax(3).squeeze(2)
        torch.testing.assert_close(weights, own[:, :, 1:], rtol=1e-5, atol=1e-7)
        torch.testing.assert_close(weights.sum(2) + own[:, :, 0], torch.ones(3, 2).double(), rtol=1e-6, atol=1e-6)
        whole = torch.cat([1 - weights.sum(2, keepdim=True), weights], 2)
        expected = layer.proj((whole[:, :, None] @ v).squeeze(2).flatten(1))
    torch.testing.assert_close(made[:, 0], expected, rtol=1e-4, atol=1e-5)


def test_a_map_is_light_where_its_weights_are_large():
    weights = torch.full((4, 6), 0.01)
    weights[1, 4] = 0.5
    picture = np.asarray(attention.colored(weights, 240)).astype(int)
    assert picture.shape == (160, 240, 3)
    colors = np.round(np.array(matplotlib.colormaps[attention.COLORS]([0, 255])[:, :3]) * 255).astype(int)
    assert np.abs(picture[60, 180] - colors[1]).max() <= 2, "the middle of its patch"
    assert np.array_equal(picture[159, 0], colors[0])
    even = np.asarray(attention.colored(torch.full((3, 3), 0.1), 30))
    assert (even == even[0, 0]).all()


def test_an_image_stands_beside_the_mean_and_each_head(tmp_path):
    images = [torch.full((16, 16, 3), 40 * i, dtype=torch.uint8) for i in (1, 2)]
    weights = torch.zeros(2, 3, 4, 4)
    weights[0, 2, 0, 0] = 1.0  # the third head of the first image looks at its upper left corner
    attention.attention_maps(images, weights, tmp_path / "a.png", title="t", note="n")
    with Image.open(tmp_path / "a.png") as written:
        seen = np.asarray(written.convert("RGB")).astype(int)
    side, gap = attention.SIDE * SCALE, attention.GAP * SCALE
    left = attention.MARGIN * SCALE
    top = (attention.MARGIN + attention.TITLE + attention.HEADINGS) * SCALE
    for row, gray in enumerate((40, 80)):
        y = top + row * (side + gap)
        assert (seen[y : y + side, left : left + side] == gray).all()
    x = left + side + attention.WIDE_GAP * SCALE
    brightness = [seen[top : top + side // 4, x + i * (side + gap) :][:, : side // 4].mean() for i in range(4)]
    assert min(brightness[0], brightness[3]) > 3 * max(brightness[1], brightness[2]), "mean and head 3"
    with pytest.raises(ValueError, match="2 images and the attention of 3"):
        attention.attention_maps(images, torch.zeros(3, 1, 2, 2), tmp_path / "b.png")


def test_a_run_of_a_transformer_draws_it_and_that_of_a_network_without_says_why_not(tmp_path, caplog):
    prepared = prepare(TINY)
    measurer = measurer_of(TINY, prepared, CPU)
    shown = prepared.source.test
    pictures.draw_attention(measurer, transformer(), shown, tmp_path / "attention.png", name="tiny", kind="test")
    with Image.open(tmp_path / "attention.png") as written:
        assert written.size[1] == SCALE * (
            attention.MARGIN + attention.TITLE + attention.HEADINGS + attention.NOTE + attention.MARGIN // 2
            + pictures.ATTENDED * (attention.SIDE + attention.GAP)
        )  # fmt: skip
    with caplog.at_level(logging.INFO):
        pictures.draw_attention(
            measurer, Backbone("resnet8", stem="cifar"), shown, tmp_path / "none.png", name="tiny", kind="test"
        )
    assert not (tmp_path / "none.png").exists()
    assert "none.png is left out: SmallResNet has no attention of a class token" in caplog.text
    with pytest.raises(NoAttentionError, match="vit_tiny_patch16_224"):
        Backbone("resnet8", stem="cifar").attention(torch.zeros(1, 3, 16, 16))
    assert "attention.png" in runs.PICTURES
