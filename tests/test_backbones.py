"""Every backbone has the size and the stages of its definition, and gives what its plain model gives."""

import copy
import itertools
import math

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import nn

from relatum.networks.backbones import BACKBONES, Backbone, share_batch_statistics
from relatum.networks.small_resnets import SMALL_RESNETS, BasicBlock, PaddedIdentity, PreActBlock, SmallResNet

# Blocks of each stage; then bottleneck, groups, width of a group at the first stage, squeeze, pre-activation.
RESIDUAL = {
    "resnet18": ((2, 2, 2, 2), False, 1, 64, False, False),
    "resnet34": ((3, 4, 6, 3), False, 1, 64, False, False),
    "resnet50": ((3, 4, 6, 3), True, 1, 64, False, False),
    "resnet101": ((3, 4, 23, 3), True, 1, 64, False, False),
    "resnext50_32x4d": ((3, 4, 6, 3), True, 32, 4, False, False),
    "resnext101_32x8d": ((3, 4, 23, 3), True, 32, 8, False, False),
    "wide_resnet50_2": ((3, 4, 6, 3), True, 1, 128, False, False),
    "wide_resnet101_2": ((3, 4, 23, 3), True, 1, 128, False, False),
    "seresnet18": ((2, 2, 2, 2), False, 1, 64, True, False),
    "seresnet50": ((3, 4, 6, 3), True, 1, 64, True, False),
    "preact_resnet18": ((2, 2, 2, 2), False, 1, 64, False, True),
    "preact_resnet50": ((3, 4, 6, 3), True, 1, 64, False, True),
}

# Counts that the authors' or torchvision's pages print, with 1000 classes and the ImageNet stem.
PUBLISHED = {
    "resnet18": 11_689_512,
    "resnet34": 21_797_672,
    "resnet50": 25_557_032,
    "resnet101": 44_549_160,
    "resnext50_32x4d": 25_028_904,
    "resnext101_32x8d": 88_791_336,
    "wide_resnet50_2": 68_883_240,
    "wide_resnet101_2": 126_886_696,
    "seresnet50": 28_088_024,
    "mobilenetv1": 4_231_976,
}


def defined_weights(name: str, stem: str, classes: int) -> int:
    """Weights by the papers' tables: convolutions without bias, two numbers a normalized channel."""
    if name == "mobilenetv1":
        widths = [32, 64, 128, 128, 256, 256, *[512] * 6, 1024, 1024]
        layers = sum(9 * a + 2 * a + a * b + 2 * b for a, b in itertools.pairwise(widths))
        return 3 * 32 * 9 + 64 + layers + (1024 + 1) * classes
    blocks, bottleneck, groups, group_width, squeeze, preactivation = RESIDUAL[name]
    total = 3 * 64 * (49 if stem == "imagenet" else 9)
    total += 0 if preactivation else 2 * 64
    channels = 64
    for stage, count in enumerate(blocks):
        planes = 64 * 2**stage
        out = 4 * planes if bottleneck else planes
        for block in range(count):
            if bottleneck:
                inner = groups * group_width * 2**stage
                total += channels * inner + 9 * inner * inner // groups + inner * out
                normalized = 2 * inner + (channels if preactivation else out)
            else:
                total += 9 * channels * out + 9 * out * out
                normalized = out + (channels if preactivation else out)
            total += 2 * normalized
            if squeeze:
                squeezed = max(8, out // 16)  # timm's floor, which the docstring states
                total += 2 * out * squeezed + squeezed + out
            if block == 0 and (stage > 0 or channels != out):
                total += channels * out + (0 if preactivation else 2 * out)
            channels = out
    total += 2 * channels if preactivation else 0
    return total + (channels + 1) * classes


def defined_stages(name: str, size: int, first_stride: int) -> list[tuple[int, int]]:
    if name == "mobilenetv1":
        widths = (128, 256, 512, 1024)
    else:
        widths = tuple(64 * 2**i * (4 if RESIDUAL[name][1] else 1) for i in range(4))
    return [(width, size // (first_stride * 2**i)) for i, width in enumerate(widths)]


def weights(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def meta(name: str, stem: str, **options: int) -> Backbone:
    """Shapes without arithmetic: the large networks cost nothing."""
    with torch.device("meta"):
        return Backbone(name, stem=stem, **options).requires_grad_(False).eval()


CASES = [(name, stem) for name in BACKBONES for stem in ("imagenet", "cifar")]
CASES += [(name, "tiny") for name in ("resnet18", "seresnet18", "preact_resnet18")]


@pytest.mark.parametrize(("name", "stem"), CASES, ids=lambda value: value)
def test_weights_and_stages_follow_the_definition(name: str, stem: str) -> None:
    backbone = meta(name, stem, num_classes=10)
    assert weights(backbone) == defined_weights(name, stem, 10)

    size = {"imagenet": 224, "cifar": 32, "tiny": 64}[stem]
    first_stride = {"imagenet": 4, "cifar": 1, "tiny": 2}[stem] * (2 if (name, stem) == ("mobilenetv1", "cifar") else 1)
    features = backbone(torch.empty(2, 3, size, size, device="meta"))
    stages = defined_stages(name, size, first_stride)
    assert [tuple(stage.shape) for stage in features.stages] == [(2, width, side, side) for width, side in stages]
    assert backbone.stage_channels == tuple(width for width, _ in stages)
    assert backbone.stage_strides == tuple(size // side for _, side in stages)
    assert features.embedding.shape == (2, backbone.embedding_dim) == (2, stages[-1][0])
    assert features.logits is not None
    assert features.logits.shape == (2, 10)


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_definition_agrees_with_the_published_count(name: str) -> None:
    assert defined_weights(name, "imagenet", 1000) == PUBLISHED[name]


def small_weights(depth: int, widths: tuple[int, ...], kind: str, classes: int) -> int:
    first, *rest = widths
    blocks = (depth - (4 if kind == "preactivation" else 2)) // 6
    total = 27 * first + 2 * (widths[-1] if kind == "preactivation" else first) + (widths[-1] + 1) * classes
    for before, width in zip(widths, rest, strict=False):
        total += 9 * before * width + 9 * width * width * (2 * blocks - 1)
        normalized = before + (2 * blocks - 1) * width if kind == "preactivation" else 2 * blocks * width
        total += 2 * normalized
        changes = before != width
        if changes and kind != "identity":
            total += before * width + (2 * width if kind == "projection" else 0)
    return total


# depth, widths, shortcut, classes, and the millions that the source prints.
SMALL = {
    "resnet8": (8, (16, 16, 32, 64), "identity", 10, "0.08"),
    "resnet14": (14, (16, 16, 32, 64), "identity", 10, "0.17"),
    "resnet20": (20, (16, 16, 32, 64), "identity", 10, "0.27"),  # He et al. 2016, Table 6
    "resnet32": (32, (16, 16, 32, 64), "identity", 10, "0.46"),
    "resnet44": (44, (16, 16, 32, 64), "identity", 10, "0.66"),
    "resnet56": (56, (16, 16, 32, 64), "identity", 10, "0.85"),
    "resnet110": (110, (16, 16, 32, 64), "identity", 10, "1.7"),
    "resnet20_b": (20, (16, 16, 32, 64), "projection", 100, "0.28"),  # Tian et al. 2020, Table 8, as those below
    "resnet32_b": (32, (16, 16, 32, 64), "projection", 100, "0.47"),
    "resnet56_b": (56, (16, 16, 32, 64), "projection", 100, "0.86"),
    "resnet110_b": (110, (16, 16, 32, 64), "projection", 100, "1.74"),
    "resnet8x4": (8, (32, 64, 128, 256), "projection", 100, "1.23"),
    "resnet14x4": (14, (32, 64, 128, 256), "projection", 100, "2.78"),  # ours
    "resnet32x4": (32, (32, 64, 128, 256), "projection", 100, "7.43"),
    "wrn_16_2": (16, (16, 32, 64, 128), "preactivation", 100, "0.70"),
    "wrn_40_1": (40, (16, 16, 32, 64), "preactivation", 100, "0.57"),
    "wrn_40_2": (40, (16, 32, 64, 128), "preactivation", 100, "2.26"),
}


def test_every_small_network_is_defined_here() -> None:
    assert list(SMALL) == list(SMALL_RESNETS)
    assert set(BACKBONES) == {*RESIDUAL, "mobilenetv1"}


@pytest.mark.parametrize("name", SMALL)
def test_small_networks_follow_their_definition(name: str) -> None:
    depth, widths, kind, classes, millions = SMALL[name]
    backbone = meta(name, "cifar", num_classes=classes)
    count = small_weights(depth, widths, kind, classes)
    assert weights(backbone) == count
    assert f"{count / 1e6:.{len(millions.split('.')[1])}f}" == millions

    features = backbone(torch.empty(2, 3, 32, 32, device="meta"))
    expected = [(2, width, 32 // 2**i, 32 // 2**i) for i, width in enumerate(widths[1:])]
    assert [tuple(stage.shape) for stage in features.stages] == expected
    assert backbone.stage_channels == widths[1:]
    assert backbone.stage_strides == (1, 2, 4)
    assert features.embedding.shape == (2, widths[-1])
    assert features.logits is not None
    assert features.logits.shape == (2, classes)


def test_the_benchmarks_resnet20_has_the_weights_of_its_code() -> None:
    assert weights(meta("resnet20_b", "cifar", num_classes=100)) == 278_324


def test_the_other_shortcut_of_the_narrow_networks_costs_what_the_file_says() -> None:
    assert weights(SmallResNet(20, shortcut="projection")) - weights(SmallResNet(20)) == 2752


@pytest.mark.parametrize(
    ("depth", "shortcut"), [(21, "identity"), (2, "identity"), (20, "preactivation")], ids=["21", "2", "wrn20"]
)
def test_a_depth_without_whole_blocks_is_refused(depth: int, shortcut: str) -> None:
    with pytest.raises(ValueError, match=f"depth is {depth}; expected 6n"):
        SmallResNet(depth, shortcut=shortcut)


def test_padded_identity_takes_every_other_pixel_and_adds_zeros() -> None:
    x = torch.randn(2, 3, 5, 4)
    y = PaddedIdentity(3, 7, 2)(x)
    assert y.shape == (2, 7, 3, 2)
    for channel in range(7):
        for i in range(3):
            for j in range(2):
                expected = x[:, channel, 2 * i, 2 * j] if channel < 3 else torch.zeros(2)
                assert torch.equal(y[:, channel, i, j], expected)


def normalize(bn: nn.BatchNorm2d, x: torch.Tensor) -> torch.Tensor:
    mean, variance = x.mean((0, 2, 3)), x.var((0, 2, 3), correction=0)
    y = (x - mean[:, None, None]) / (variance[:, None, None] + bn.eps).sqrt()
    return y * bn.weight[:, None, None] + bn.bias[:, None, None]


def randomize(model: nn.Module) -> nn.Module:
    """No gamma is zero and no beta is, so that every layer counts."""
    for name, parameter in model.named_parameters():
        if parameter.ndim == 1:
            nn.init.uniform_(parameter, 0.5, 1.5) if name.endswith("weight") else nn.init.normal_(parameter)
    return model


@pytest.mark.parametrize("stride", [1, 2])
def test_basic_block_equals_its_equation(stride: int) -> None:
    block = randomize(BasicBlock(4, 4, stride, PaddedIdentity(4, 4, stride)).double())
    x = torch.randn(3, 4, 6, 6, dtype=torch.float64)
    inner = normalize(block.bn1, F.conv2d(x, block.conv1.weight, stride=stride, padding=1)).clamp(min=0)
    outer = normalize(block.bn2, F.conv2d(inner, block.conv2.weight, padding=1))
    torch.testing.assert_close(block(x), (outer + x[:, :, ::stride, ::stride]).clamp(min=0))


@pytest.mark.parametrize(("out", "stride"), [(4, 1), (6, 2)], ids=["same", "projected"])
def test_preactivation_block_equals_its_equation(out: int, stride: int) -> None:
    block = randomize(PreActBlock(4, out, stride).double())
    x = torch.randn(3, 4, 6, 6, dtype=torch.float64)
    activated = normalize(block.bn1, x).clamp(min=0)
    inner = normalize(block.bn2, F.conv2d(activated, block.conv1.weight, stride=stride, padding=1)).clamp(min=0)
    shortcut = x if out == 4 else F.conv2d(activated, block.projection.weight, stride=stride)
    torch.testing.assert_close(block(x), shortcut + F.conv2d(inner, block.conv2.weight, padding=1))


# name, stem, size: every family, and what is quick of the papers' networks.
QUICK = [
    ("test_resnet", "imagenet", 64),
    ("test_resnet", "cifar", 16),
    ("test_resnet", "tiny", 32),
    ("seresnet18", "cifar", 16),
    ("preact_resnet18", "cifar", 16),
    ("mobilenetv1", "cifar", 16),
    ("test_efficientnet", "cifar", 32),
    ("test_convnext", "imagenet", 64),
    ("test_vit", "imagenet", 160),
    ("densenet121", "imagenet", 64),
    ("resnet20", "cifar", 16),
    ("resnet8x4", "cifar", 16),
    ("wrn_16_2", "cifar", 16),
]


@pytest.mark.parametrize(("name", "stem", "size"), QUICK, ids=lambda value: str(value))
def test_features_equal_the_plain_model(name: str, stem: str, size: int) -> None:
    backbone = randomize(Backbone(name, stem=stem, num_classes=7)).eval()
    model = backbone.model
    images = torch.randn(3, 3, size, size)
    seen: dict[str, torch.Tensor] = {}
    hooks = [
        model.get_submodule(info["module"]).register_forward_hook(
            # A copy: an in-place activation later on must not reach what was given out.
            lambda _, __, output, key=info["module"]: seen.update({key: output.clone()})
        )
        for info in model.feature_info
    ]
    with torch.no_grad():
        logits, embedding = model(images), model.forward_head(model.forward_features(images), pre_logits=True)
        features, embedded = backbone(images), backbone.embed(images)
    for hook in hooks:
        hook.remove()
    assert torch.equal(features.embedding, embedding)
    assert torch.equal(embedded, embedding)
    assert torch.equal(features.logits, logits)
    assert tuple(stage.shape[1] for stage in features.stages) == backbone.stage_channels
    strides = tuple(math.ceil(size / stage.shape[2]) for stage in features.stages)
    assert strides == backbone.stage_strides
    if name != "test_vit":  # a map from tokens is not a module's output
        maps = list(seen.values())
        assert all(any(s.shape == m.shape and torch.equal(s, m) for m in maps) for s in features.stages)


@pytest.mark.parametrize(("name", "stem", "size"), QUICK, ids=lambda value: str(value))
def test_every_parameter_learns_from_the_logits(name: str, stem: str, size: int) -> None:
    backbone = randomize(Backbone(name, stem=stem, num_classes=7))
    logits = backbone(torch.randn(4, 3, size, size)).logits
    assert logits is not None
    (logits * torch.randn_like(logits)).sum().backward()
    idle = [n for n, p in backbone.named_parameters() if p.grad is None or not p.grad.abs().max() > 0]
    assert idle == []


@pytest.mark.parametrize("name", ["preact_resnet18", "wrn_16_2"])
def test_preactivation_ends_in_normalization_and_activation(name: str) -> None:
    backbone = Backbone(name, stem="cifar")
    norm = backbone.model.bn1 if name == "wrn_16_2" else backbone.model.norm
    features = backbone(torch.randn(2, 3, 16, 16))
    expected = normalize(norm, features.stages[-1]).clamp(min=0).mean((2, 3))
    torch.testing.assert_close(features.embedding, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "conv", "pool"),
    [
        ("test_resnet", "conv1", "maxpool"),
        ("resnet18d", "conv1", "maxpool"),
        ("preact_resnet18", "stem.conv", "stem.pool"),
        ("mobilenetv1", "conv_stem", None),
    ],
)
def test_stems_are_what_they_say(name: str, conv: str, pool: str | None) -> None:
    for stem in ("cifar", "tiny") if pool else ("cifar",):
        model = meta(name, stem).model
        layer = model.get_submodule(conv)
        assert isinstance(layer, nn.Conv2d)
        assert (layer.kernel_size, layer.stride, layer.padding, layer.bias) == ((3, 3), (1, 1), (1, 1), None)
        if pool:
            kind = nn.Identity if stem == "cifar" else nn.MaxPool2d
            assert type(model.get_submodule(pool)) is kind


def test_a_new_stem_starts_with_the_variance_of_he_et_al() -> None:
    weight = Backbone("preact_resnet18", stem="cifar").model.stem.conv.weight
    assert weight.std().item() == pytest.approx(math.sqrt(2 / (64 * 9)), rel=0.1)


def test_the_imagenet_stem_is_timm_itself() -> None:
    backbone = Backbone("test_resnet")
    plain = timm.create_model("test_resnet", num_classes=0)
    plain.load_state_dict(backbone.model.state_dict())
    images = torch.randn(2, 3, 64, 64)
    assert torch.equal(plain.eval()(images), backbone.eval()(images).embedding)


@pytest.mark.parametrize(("name", "stem"), [("test_resnet", "cifar"), ("wrn_16_2", "cifar"), ("test_vit", "imagenet")])
def test_without_classes_there_is_no_classifier(name: str, stem: str) -> None:
    backbone = meta(name, stem)
    size = 160 if name == "test_vit" else 32
    features = backbone(torch.empty(2, 3, size, size, device="meta"))
    assert features.logits is None
    with_classes = meta(name, stem, num_classes=5)
    assert weights(with_classes) - weights(backbone) == (backbone.embedding_dim + 1) * 5


@pytest.mark.parametrize("name", ["test_resnet", "resnet20", "wrn_16_2"])
def test_one_channel_and_odd_sizes(name: str) -> None:
    backbone = Backbone(name, stem="cifar", in_channels=1)
    features = backbone(torch.randn(2, 1, 33, 19))
    assert all(stage.isfinite().all() for stage in features.stages)
    for stage, stride in zip(features.stages, backbone.stage_strides, strict=True):
        assert tuple(stage.shape[2:]) == (math.ceil(33 / stride), math.ceil(19 / stride))


@pytest.mark.parametrize("name", ["test_resnet", "resnet20", "wrn_16_2", "preact_resnet18"])
def test_bfloat16_and_channels_last(name: str) -> None:
    backbone = Backbone(name, stem="cifar", num_classes=3).eval()
    images = torch.randn(2, 3, 16, 16)
    expected = backbone(images)
    backbone.to(memory_format=torch.channels_last)
    images = images.to(memory_format=torch.channels_last)
    same = backbone(images)
    assert all(stage.is_contiguous(memory_format=torch.channels_last) for stage in same.stages)
    torch.testing.assert_close(same.embedding, expected.embedding, rtol=1e-4, atol=1e-4)
    with torch.autocast("cpu", torch.bfloat16):
        rough = backbone(images)
    assert rough.embedding.dtype == torch.bfloat16
    torch.testing.assert_close(rough.embedding.float(), expected.embedding, rtol=0.1, atol=0.1)


@pytest.mark.parametrize("name", ["vgg11_bn", "efficientnet_b0", "mobilenetv2_100", "swin_tiny_patch4_window7_224"])
def test_any_timm_model_with_staged_features(name: str) -> None:
    backbone = meta(name, "imagenet", num_classes=3)
    features = backbone(torch.empty(2, 3, 224, 224, device="meta"))
    assert tuple(stage.shape[1] for stage in features.stages) == backbone.stage_channels
    assert [stage.shape[2] for stage in features.stages] == [56, 28, 14, 7]
    assert features.embedding.shape == (2, backbone.embedding_dim)


def test_a_transformer_gives_a_map_at_each_quarter_of_its_depth() -> None:
    assert meta("vit_tiny_patch16_224", "imagenet")._stages == (2, 5, 8, 11)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "resnt18"}, "unknown backbone 'resnt18'; did you mean resnet18"),
        ({"name": "preact_resnet81", "stem": "cifar"}, "did you mean preact_resnet18"),
        ({"name": "zzzz"}, "unknown backbone 'zzzz'; expected a timm model or one of resnet18"),
        ({"name": "resnet18.nothing"}, "unknown backbone 'resnet18.nothing'; did you mean resnet18"),
        ({"name": "test_convnext", "stem": "cifar"}, r"'cifar' is not defined for test_convnext \(ConvNeXt\)"),
        ({"name": "tf_efficientnet_b0", "stem": "cifar"}, "'cifar' is not defined for tf_efficientnet_b0"),
        ({"name": "resnetv2_50d", "stem": "tiny"}, "'tiny' is not defined for resnetv2_50d"),
        ({"name": "mobilenetv1", "stem": "tiny"}, "mobilenetv1 has none; give stem='cifar'"),
        ({"name": "resnet20"}, "resnet20 is defined with the CIFAR stem only, not 'imagenet'; give stem='cifar'"),
        ({"name": "resnet20", "stem": "cifar", "pretrained": True}, "resnet20 has no published weights"),
        ({"name": "seresnet18", "pretrained": True}, "timm has no weights for seresnet18"),
        ({"name": "test_vit", "stem": "cifar"}, "test_vit is a vision transformer, which has no stem to change"),
        ({"name": "test_vit", "img_size": 40}, "img_size 40 is no multiple of patch_size 16 .* such as 32"),
        ({"name": "test_vit", "patch_size": 0}, "patch_size is 0; expected a positive number"),
        ({"name": "resnet18", "img_size": 32}, r"img_size is 32, and resnet18 \(ResNet\) has none to set"),
        ({"name": "resnet20", "stem": "cifar", "patch_size": 4}, "resnet20 takes images of any size"),
        ({"name": "deit_tiny_distilled_patch16_224"}, "lacks a single classifier"),
        ({"name": "resnet18", "num_classes": -1}, "num_classes is -1"),
        ({"name": "resnet18", "in_channels": 0}, "in_channels is 0"),
    ],
    ids=lambda value: value["name"] if isinstance(value, dict) else "",
)
def test_bad_choices_are_refused(options: dict, message: str) -> None:
    with torch.device("meta"), pytest.raises(ValueError, match=message):
        Backbone(**options)


@pytest.mark.parametrize(
    ("name", "stem", "shape", "message"),
    [
        ("test_resnet", "cifar", (1, 1, 32, 32), "images have 1 channels; test_resnet was built for 3"),
        ("test_resnet", "imagenet", (1, 3, 64, 31), "images are 64x31; .* shrinks them 32 times.*stem='cifar'"),
        ("test_resnet", "cifar", (1, 3, 7, 7), "images are 7x7; .* shrinks them 8 times.*: resize them$"),
        ("resnet20", "cifar", (1, 3, 3, 8), "images are 3x8; .* shrinks them 4 times"),
        (
            "swin_tiny_patch4_window7_224",
            "imagenet",
            (1, 3, 32, 32),
            "images are 32x32; swin_tiny.* takes 224x224 only",
        ),
        ("test_vit", "imagenet", (1, 3, 32, 40), "images are 32x40, which the patches of test_vit .* multiples of 16"),
        ("test_vit", "imagenet", (1, 3, 0, 32), "images are 0x32, which the patches"),
    ],
    ids=["channels", "imagenet", "cifar", "small", "fixed", "patches", "empty"],
)
def test_bad_images_are_refused(name: str, stem: str, shape: tuple[int, ...], message: str) -> None:
    backbone = meta(name, stem)
    for call in (backbone, backbone.embed):
        with pytest.raises(ValueError, match=message):
            call(torch.empty(shape, device="meta"))


def test_a_copy_of_a_compiled_backbone_is_plain_and_its_own(monkeypatch) -> None:
    called = []

    def compile(function):
        return lambda *args: (called.append(function.__name__), function(*args))[1]

    monkeypatch.setattr(torch, "compile", compile)
    backbone, images = Backbone("resnet8", stem="cifar", num_classes=3).eval(), torch.randn(2, 3, 8, 8)
    expected = backbone.embed(images)
    backbone.compile()
    assert torch.equal(backbone.embed(images), expected)
    assert torch.equal(backbone(images).embedding, expected)
    assert called == ["_embed", "_call_impl"]
    duplicate = copy.deepcopy(backbone)
    with torch.no_grad():
        for parameter in duplicate.parameters():
            parameter.zero_()
    assert not duplicate.embed(images).any()
    assert not duplicate(images).logits.any()
    assert called == ["_embed", "_call_impl"]


@pytest.mark.parametrize("name", ["preact_resnet18", "mobilenetv1", "resnet8"])
def test_shared_batch_statistics_leave_the_network_as_it_is(name: str) -> None:
    """torch's own conversion drops the activation of timm's layers that normalize and activate in one."""
    backbone, images = Backbone(name, stem="cifar").eval(), torch.randn(2, 3, 16, 16)
    expected, keys = backbone.embed(images), list(backbone.state_dict())
    shared = share_batch_statistics(backbone)
    layers = [m for m in shared.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    assert layers
    assert all(isinstance(layer, nn.SyncBatchNorm) for layer in layers)
    assert torch.equal(shared.embed(images), expected)
    assert list(shared.state_dict()) == keys
