"""Vision transformers as backbones: weights of the definition, stages that are blocks, sizes, attention, export."""

import runpy
from pathlib import Path

import pytest
import timm
import torch

from relatum.core.types import Batch
from relatum.methods.contrastive.mocov3 import MoCoV3
from relatum.networks.backbones import Backbone
from relatum.networks.export import load_encoder, save_encoder
from relatum.recipes.recipe import Optim
from relatum.training.optimizers import build_optimizer

NAME = "test_vit"  # 6 blocks of 64 channels, 2 heads


def transformer(**options) -> Backbone:
    return Backbone(NAME, **{"img_size": 32, "patch_size": 8} | options)


def defined_weights(width: int, depth: int, patch: int, tokens: int, classes: int) -> int:
    """Dosovitskiy et al. 2021: a perceptron of four times the width; biases everywhere, two numbers a normalization."""
    block = 2 * 2 * width + (width + 1) * 3 * width + (width + 1) * width + (width + 1) * 4 * width
    block += (4 * width + 1) * width
    embedding = (3 * patch * patch + 1) * width + width + (tokens + 1) * width
    return embedding + depth * block + 2 * width + (width + 1) * classes


@pytest.mark.parametrize(
    ("name", "width", "published"),
    [("vit_tiny_patch16_224", 192, 5_717_416), ("vit_small_patch16_224", 384, 22_050_664)],  # DeiT, 1000 classes
)
def test_weights_and_stages_follow_the_definition(name: str, width: int, published: int) -> None:
    assert defined_weights(width, 12, 16, 196, 1000) == published
    with torch.device("meta"):
        assert sum(p.numel() for p in Backbone(name, num_classes=1000).parameters()) == published
        small = Backbone(name, img_size=32, patch_size=4, num_classes=10)
    assert sum(p.numel() for p in small.parameters()) == defined_weights(width, 12, 4, 64, 10)
    features = small(torch.empty(2, 3, 32, 32, device="meta"))
    assert [tuple(stage.shape) for stage in features.stages] == [(2, width, 8, 8)] * 4
    assert (small.stage_channels, small.stage_strides, small.embedding_dim) == ((width,) * 4, (4,) * 4, width)
    assert small._stages == (2, 5, 8, 11)


def test_stages_are_the_outputs_of_their_blocks() -> None:
    backbone = transformer(num_classes=3).eval()
    seen: list[torch.Tensor] = []
    for i in backbone._stages:
        backbone.model.blocks[i].register_forward_hook(lambda _, given, out: seen.append(out))
    images = torch.randn(2, 3, 32, 32)
    features = backbone(images)
    assert len(features.stages) == 4
    for stage, tokens in zip(features.stages, seen, strict=True):
        torch.testing.assert_close(stage.flatten(2).mT, tokens[:, 1:], rtol=0, atol=0)
    plain = timm.create_model(NAME, img_size=32, patch_size=8, num_classes=3)
    plain.load_state_dict(backbone.model.state_dict())
    torch.testing.assert_close(features.logits, plain.eval()(images), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(features.embedding, backbone.embed(images))


def test_images_of_other_sizes_pass_with_an_interpolated_position() -> None:
    backbone = transformer().eval()
    images = torch.randn(2, 3, 16, 16)
    position = backbone.model.pos_embed
    small = transformer(img_size=16)
    state = backbone.model.state_dict()
    grid = position[:, 1:].mT.reshape(1, 64, 4, 4)
    resized = torch.nn.functional.interpolate(grid, size=(2, 2), mode="bicubic", antialias=True)
    state["pos_embed"] = torch.cat([position[:, :1], resized.flatten(2).mT], 1)
    small.model.load_state_dict(state)
    torch.testing.assert_close(backbone.embed(images), small.eval().embed(images))


def test_chunks_are_exact() -> None:
    backbone = transformer().train()
    images = torch.randn(5, 3, 32, 32)
    gradients = []
    for chunk in (0, 2):
        backbone.chunk = chunk
        backbone.zero_grad()
        backbone.embed(images).square().sum().backward()
        gradients.append([p.grad.clone() for p in backbone.parameters()])
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-5)


def test_attention_is_the_softmax_of_the_last_block() -> None:
    backbone = transformer().eval().double()
    images = torch.randn(2, 3, 16, 24, dtype=torch.double)
    model = backbone.model
    inputs: list[torch.Tensor] = []
    handle = model.blocks[-1].attn.register_forward_pre_hook(lambda _, given: inputs.append(given[0]))
    with torch.no_grad():
        backbone.embed(images)
    handle.remove()
    attention = model.blocks[-1].attn
    heads, width = attention.num_heads, 64 // attention.num_heads
    weight, bias = attention.qkv.weight, attention.qkv.bias
    found = backbone.attention(images)
    assert found.shape == (2, heads, 2, 3)
    for image in range(2):
        for head in range(heads):
            rows = slice(head * width, (head + 1) * width)
            q = inputs[0][image, 0] @ weight[:64][rows].T + bias[:64][rows]
            keys = inputs[0][image] @ weight[64:128][rows].T + bias[64:128][rows]
            expected = (keys @ q / width**0.5).softmax(0)[1:].view(2, 3)
            torch.testing.assert_close(found[image, head].double(), expected, rtol=1e-5, atol=1e-6)
    assert attention.fused_attn == timm.create_model(NAME).blocks[-1].attn.fused_attn


def test_a_network_without_a_class_token_has_no_attention_to_show() -> None:
    with pytest.raises(ValueError, match="ResNet has no attention of a class token"):
        Backbone("test_resnet").attention(torch.zeros(1, 3, 32, 32))


def test_an_exported_transformer_is_timms_own_with_all_its_weights(tmp_path: Path) -> None:
    backbone = transformer(num_classes=4).eval()
    save_encoder(backbone, tmp_path, mean=(0.5,) * 3, std=(0.2,) * 3, size=32)
    images = torch.randn(2, 3, 32, 32)
    loaded, info = load_encoder(tmp_path)
    assert (info.img_size, info.patch_size) == (32, 8)
    torch.testing.assert_close(loaded.embed(images), backbone.embed(images), rtol=0, atol=0)
    rebuilt = runpy.run_path(str(tmp_path / "encoder.py"))["encoder"]()  # loads strictly
    assert type(rebuilt) is type(timm.create_model(NAME))
    assert rebuilt.state_dict().keys() == timm.create_model(NAME, img_size=32, patch_size=8).state_dict().keys()
    features = rebuilt.forward_head(rebuilt.forward_features(images), pre_logits=True)
    torch.testing.assert_close(features, backbone.embed(images), rtol=0, atol=0)
    assert rebuilt(torch.randn(1, 3, 16, 16)).shape == (1, 4)


def test_frozen_patches_stay_as_they_were_and_all_else_of_moco_v3_learns() -> None:
    torch.manual_seed(0)
    backbone = transformer()
    method = MoCoV3(backbone, layers=3, hidden_width=16, out_width=8, freeze_patches=True)
    before = {name: parameter.clone() for name, parameter in backbone.named_parameters()}
    optimizer = build_optimizer(method, Optim(name="adamw", lr=1e-3, weight_decay=0.1))
    for step in range(2):
        views = tuple(torch.randn(4, 3, 32, 32) for _ in range(2))
        torch.stack([*method.losses(Batch.unlabeled(*views)).values()]).sum().backward()
        optimizer.step()
        method.after_step(step / 2)
    same = {name for name, parameter in backbone.named_parameters() if torch.equal(parameter, before[name])}
    assert same == {"model.patch_embed.proj.weight", "model.patch_embed.proj.bias"}


def test_a_network_without_patches_has_none_to_freeze() -> None:
    with pytest.raises(ValueError, match=r"ResNet projects no patches that could be frozen; leave freeze_patches out"):
        MoCoV3(Backbone("resnet18", stem="cifar"), freeze_patches=True)
