"""The small residual networks of the CIFAR benchmarks, in one file that needs PyTorch only: copy it and use it.

- `resnet8` ... `resnet110`: He et al., "Deep residual learning for image recognition" (2016), section 4.2: a 3x3
  convolution, three stages of 16, 32 and 64 channels at full, half and quarter size, identity shortcuts (option A).
- `resnet8x4`, `resnet32x4`: the same with 32 channels in the first layer, stages of 64, 128 and 256 channels, and
  projection shortcuts (option B): the wide pair of Tian et al., "Contrastive representation distillation" (2020);
  `resnet14x4` stands between them, and is ours.
- `resnet20_b`, `resnet32_b`, `resnet56_b`, `resnet110_b`: the narrow networks of their benchmark (RepDistiller), which
  have option B too: 2,752 weights more.
- `wrn_16_2`, `wrn_40_1`, `wrn_40_2`: Zagoruyko and Komodakis, "Wide residual networks" (2016), Table 1: depth and
  widening factor; pre-activation blocks, projection shortcuts taken after the activation.

The methods have the names and meanings of timm's, so that code for one reads the other.
"""

from collections.abc import Callable
from functools import partial
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn


def conv(in_channels: int, out_channels: int, size: int, stride: int = 1) -> nn.Conv2d:
    """A convolution without bias that keeps the image size up to its stride."""
    return nn.Conv2d(in_channels, out_channels, size, stride, padding=size // 2, bias=False)


class PaddedIdentity(nn.Module):
    """Option A: every `stride`-th pixel, new channels filled with zeros; no weights (He et al. 2016, section 4.2)."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.new_channels = out_channels - in_channels
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.new_channels))


class BasicBlock(nn.Module):
    """relu(shortcut(x) + bn(conv(relu(bn(conv(x)))))) (He et al. 2016, figure 2)."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, shortcut: nn.Module) -> None:
        super().__init__()
        self.conv1 = conv(in_channels, out_channels, 3, stride)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = conv(out_channels, out_channels, 3)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        residual = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(self.shortcut(x) + residual)


class PreActBlock(nn.Module):
    """shortcut + conv(relu(bn(conv(a)))), a = relu(bn(x)); the shortcut is x, or a projection of a (WRN, figure 1)."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = conv(in_channels, out_channels, 3, stride)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.conv2 = conv(out_channels, out_channels, 3)
        self.projection = None
        if stride != 1 or in_channels != out_channels:
            self.projection = conv(in_channels, out_channels, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        activated = F.relu(self.bn1(x))
        shortcut = x if self.projection is None else self.projection(activated)
        return shortcut + self.conv2(F.relu(self.bn2(self.conv1(activated))))


class SmallResNet(nn.Module):
    """A residual network of three stages for images of about 32 pixels.

    Args:
        depth: weighted layers as the papers count them: 6n + 2, or 6n + 4 with pre-activation (whose three
            projections are counted), n >= 1 blocks a stage.
        widths: channels of the first convolution and of the three stages.
        shortcut: what skips a block that changes size or width: `"identity"` (option A), `"projection"`
            (option B: 1x1 convolution and batch normalization) or `"preactivation"` (pre-activation blocks).
        num_classes: width of the classifier; 0 for none, then `forward` gives the embedding.
        in_channels: channels of the images.

    Raises:
        ValueError: if no whole number of blocks has this depth.
    """

    def __init__(
        self,
        depth: int,
        widths: tuple[int, int, int, int] = (16, 16, 32, 64),
        shortcut: Literal["identity", "projection", "preactivation"] = "identity",
        num_classes: int = 0,
        in_channels: int = 3,
    ) -> None:
        super().__init__()
        self.preactivation = shortcut == "preactivation"
        rest = 4 if self.preactivation else 2
        blocks, remainder = divmod(depth - rest, 6)
        if blocks < 1 or remainder:
            raise ValueError(f"depth is {depth}; expected 6n + {rest} with n >= 1, such as {18 + rest}")

        self.conv1 = conv(in_channels, widths[0], 3)
        self.bn1 = nn.BatchNorm2d(widths[-1] if self.preactivation else widths[0])
        self.layer1 = _stage(blocks, widths[0], widths[1], 1, shortcut)
        self.layer2 = _stage(blocks, widths[1], widths[2], 2, shortcut)
        self.layer3 = _stage(blocks, widths[2], widths[3], 2, shortcut)
        self.fc = nn.Linear(widths[3], num_classes) if num_classes else nn.Identity()
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

        self.num_classes = num_classes
        self.num_features = self.head_hidden_size = widths[3]
        self.feature_info = [
            {"num_chs": width, "reduction": 2**i, "module": f"layer{i + 1}"} for i, width in enumerate(widths[1:])
        ]

    def forward_intermediates(self, x: Tensor, indices: list[int] | None = None) -> tuple[Tensor, list[Tensor]]:
        """The last feature map, ready for the head, and the output of every stage (or of those in `indices`)."""
        x = self.conv1(x)
        if not self.preactivation:
            x = F.relu(self.bn1(x))
        stages = []
        for layer in (self.layer1, self.layer2, self.layer3):
            x = layer(x)
            stages.append(x)
        if self.preactivation:
            x = F.relu(self.bn1(x))
        return x, stages if indices is None else [stages[i] for i in indices]

    def forward_features(self, x: Tensor) -> Tensor:
        """The last feature map, ready for the head."""
        return self.forward_intermediates(x)[0]

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """The logits of a last feature map; its mean over the pixels, the embedding, if `pre_logits`."""
        embedding = x.mean((2, 3))
        return embedding if pre_logits else self.fc(embedding)

    def get_classifier(self) -> nn.Module:
        """The linear classifier, or an identity if there are no classes."""
        return self.fc

    def forward(self, x: Tensor) -> Tensor:
        """The logits of a batch of images, or their embedding if there are no classes."""
        return self.forward_head(self.forward_features(x))


def _stage(blocks: int, in_channels: int, out_channels: int, stride: int, shortcut: str) -> nn.Sequential:
    """`blocks` residual blocks, of which the first changes size and width."""
    layers: list[nn.Module] = []
    for i in range(blocks):
        channels, step = (in_channels, stride) if i == 0 else (out_channels, 1)
        if shortcut == "preactivation":
            layers.append(PreActBlock(channels, out_channels, step))
            continue
        skip: nn.Module = nn.Identity()
        if step != 1 or channels != out_channels:
            skip = PaddedIdentity(channels, out_channels, step)
            if shortcut == "projection":
                skip = nn.Sequential(conv(channels, out_channels, 1, step), nn.BatchNorm2d(out_channels))
        layers.append(BasicBlock(channels, out_channels, step, skip))
    return nn.Sequential(*layers)


_RESNET_B = partial(SmallResNet, shortcut="projection")
_RESNET_X4 = partial(SmallResNet, widths=(32, 64, 128, 256), shortcut="projection")
_WIDE_1 = partial(SmallResNet, widths=(16, 16, 32, 64), shortcut="preactivation")
_WIDE_2 = partial(SmallResNet, widths=(16, 32, 64, 128), shortcut="preactivation")

SMALL_RESNETS: dict[str, Callable[..., SmallResNet]] = {
    "resnet8": partial(SmallResNet, 8),
    "resnet14": partial(SmallResNet, 14),
    "resnet20": partial(SmallResNet, 20),
    "resnet32": partial(SmallResNet, 32),
    "resnet44": partial(SmallResNet, 44),
    "resnet56": partial(SmallResNet, 56),
    "resnet110": partial(SmallResNet, 110),
    "resnet20_b": partial(_RESNET_B, 20),
    "resnet32_b": partial(_RESNET_B, 32),
    "resnet56_b": partial(_RESNET_B, 56),
    "resnet110_b": partial(_RESNET_B, 110),
    "resnet8x4": partial(_RESNET_X4, 8),
    "resnet14x4": partial(_RESNET_X4, 14),
    "resnet32x4": partial(_RESNET_X4, 32),
    "wrn_16_2": partial(_WIDE_2, 16),
    "wrn_40_1": partial(_WIDE_1, 40),
    "wrn_40_2": partial(_WIDE_2, 40),
}
"""Each takes `num_classes` (0: no classifier) and `in_channels`."""
