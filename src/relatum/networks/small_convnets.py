"""The networks of the CIFAR benchmarks that are not residual, in one file that needs PyTorch only: copy it and use it.

They are those of RepDistiller's table (Tian et al., "Contrastive representation distillation", 2020), which differ from
the papers that they are named after; for images of 32 pixels:

- `cifar_vgg8`, `cifar_vgg13`: Simonyan and Zisserman, "Very deep convolutional networks" (2015), configuration B and,
  with one convolution a block, an own one; with batch normalization, one fully connected layer, the mean of the last
  map in its place, and no pooling before the fifth block, which sees 4 pixels as the fourth does. Maps of 64, 128, 256
  and 512 channels at 32, 16, 8 and 4 pixels.
- `cifar_mobilenetv2_half`: Sandler et al., "MobileNetV2" (2018), expansion 6, every width halved but that of the
  embedding, 1,280; ReLU in the place of ReLU6; stride 2 in the first convolution, and none in the second group. Maps of
  12, 16, 48 and 160 channels at 16, 8, 4 and 2 pixels.
- `cifar_shufflenetv1`: Zhang et al., "ShuffleNet" (2018), 3 groups; a 1x1 convolution to 24 channels and no pooling
  before the first stage; a ReLU after the depthwise convolution, which the paper leaves out. Maps of 240, 480 and 960
  channels at 16, 8 and 4 pixels.
- `cifar_shufflenetv2`: Ma et al., "ShuffleNet V2" (2018), width 1; a 1x1 convolution to 24 channels and no pooling
  before the first stage. Maps of 116, 232 and 464 channels at 16, 8 and 4 pixels, an embedding of 1,024.

The methods have the names and meanings of timm's, so that code for one reads the other.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn


class Stage(NamedTuple):
    """A part of a network, at whose end a map is given out.

    Attributes:
        layers: what it computes.
        width: channels of its map.
        reduction: image pixels for each pixel of its map.
    """

    layers: nn.Sequential
    width: int
    reduction: int


class SmallConvNet(nn.Module):
    """Stages one after the other, the mean of the last map, and a linear classifier.

    Args:
        stages: shallow to deep.
        num_classes: width of the classifier; 0 for none, then `forward` gives the embedding.
        last: layers between the last stage and the mean, and the width that they give; None for none.
    """

    def __init__(
        self, stages: Sequence[Stage], num_classes: int = 0, last: tuple[nn.Sequential, int] | None = None
    ) -> None:
        super().__init__()
        self.stages = nn.ModuleList(stage.layers for stage in stages)
        self.last, width = (nn.Sequential(), stages[-1].width) if last is None else last
        self.fc = nn.Linear(width, num_classes) if num_classes else nn.Identity()
        self.num_classes = num_classes
        self.num_features = self.head_hidden_size = width
        self.feature_info = [
            {"num_chs": stage.width, "reduction": stage.reduction, "module": f"stages.{i}"}
            for i, stage in enumerate(stages)
        ]

    def forward_intermediates(self, x: Tensor, indices: list[int] | None = None) -> tuple[Tensor, list[Tensor]]:
        """The last feature map, ready for the head, and the output of every stage (or of those in `indices`)."""
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return self.last(x), maps if indices is None else [maps[i] for i in indices]

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


def conv_bn(before: int, after: int, size: int, stride: int = 1, groups: int = 1, relu: bool = True) -> nn.Sequential:
    """A convolution that keeps the image size up to its stride, batch normalization and, if wanted, a ReLU."""
    layers: list[nn.Module] = [
        nn.Conv2d(before, after, size, stride, padding=size // 2, groups=groups, bias=False),
        nn.BatchNorm2d(after),
    ]
    return nn.Sequential(*layers, *([nn.ReLU()] if relu else []))


def start_anew(network: SmallConvNet) -> SmallConvNet:
    """Convolutions from a normal of variance 2 / fan-out, without bias; a classifier of deviation 0.01."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            fan_out = module.kernel_size[0] * module.kernel_size[1] * module.out_channels
            nn.init.normal_(module.weight, std=math.sqrt(2 / fan_out))
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.01)
            nn.init.zeros_(module.bias)
    return network


def vgg(depths: tuple[int, ...], num_classes: int = 0, in_channels: int = 3) -> SmallConvNet:
    """A VGG network with so many convolutions (with bias) in each of its five blocks."""
    blocks, before = [], in_channels
    for depth, width in zip(depths, (64, 128, 256, 512, 512)):
        layers: list[nn.Module] = []
        for _ in range(depth):
            layers += [nn.Conv2d(before, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()]
            before = width
        blocks.append((layers, width))
    stages = [
        Stage(nn.Sequential(*([nn.MaxPool2d(2)] if i else []), *layers), width, 2**i)
        for i, (layers, width) in enumerate(blocks[:4])
    ]
    stages[3].layers.extend(blocks[4][0])
    return start_anew(SmallConvNet(stages, num_classes))


class InvertedResidual(nn.Module):
    """[x +] bn(1x1(relu(bn(depthwise(relu(bn(1x1(x))))))): x where size and width stay (Sandler et al. 2018)."""

    def __init__(self, before: int, after: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = before * expansion
        self.layers = nn.Sequential(
            conv_bn(before, inner, 1),
            conv_bn(inner, inner, 3, stride, groups=inner),
            conv_bn(inner, after, 1, relu=False),
        )
        self.skips = stride == 1 and before == after

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x) if self.skips else self.layers(x)


def mobilenetv2(num_classes: int = 0, in_channels: int = 3, *, share: float = 0.5, expansion: int = 6) -> SmallConvNet:
    """A MobileNetV2 with this share of each width but the last."""
    # Times, channels, blocks and stride of each group (Sandler et al. 2018, Table 2; there the second has stride 2).
    groups = (
        (1, 16, 1, 1),
        (expansion, 24, 2, 1),
        (expansion, 32, 3, 2),
        (expansion, 64, 4, 2),
        (expansion, 96, 3, 1),
        (expansion, 160, 3, 2),
        (expansion, 320, 1, 1),
    )
    before, made = int(32 * share), []
    first = conv_bn(in_channels, before, 3, 2)
    for times, channels, blocks, stride in groups:
        width = int(channels * share)
        for block in range(blocks):
            made.append((InvertedResidual(before, width, stride if block == 0 else 1, times), stride, width))
            before = width
    layers: list[nn.Module] = [first]
    stages, reduction = [], 2
    counts = [group[2] for group in groups]
    ends = (sum(counts[:2]), sum(counts[:3]), sum(counts[:5]), sum(counts))
    for number, (module, _, width) in enumerate(made, 1):
        layers.append(module)
        if number in ends:
            stages.append(Stage(nn.Sequential(*layers), width, reduction))
            layers, reduction = [], 2 * reduction
    return start_anew(SmallConvNet(stages, num_classes, (conv_bn(before, 1280, 1), 1280)))


def shuffled(x: Tensor, groups: int) -> Tensor:
    """Channel i of group g becomes channel g of group i."""
    n, c, h, w = x.shape
    return x.view(n, groups, c // groups, h, w).transpose(1, 2).reshape(n, c, h, w)


class ShuffleV1Block(nn.Module):
    """relu(shortcut + bn(1x1(relu(bn(depthwise(shuffle(relu(bn(1x1(x)))))))))), the 1x1 in groups.

    With stride 2 the shortcut is the mean over 3x3 pixels, and stands beside the rest instead of being added. The first
    1x1 of the network is in one group (Zhang et al. 2018, Section 3.2 and Figure 2).
    """

    def __init__(self, before: int, after: int, stride: int, groups: int, *, first: bool) -> None:
        super().__init__()
        self.groups = 1 if first else groups
        inner = after // 4
        self.compress = conv_bn(before, inner, 1, groups=self.groups)
        self.depthwise = conv_bn(inner, inner, 3, stride, groups=inner)
        self.expand = conv_bn(inner, after, 1, groups=groups, relu=False)
        self.pool = nn.AvgPool2d(3, stride=2, padding=1) if stride == 2 else None

    def forward(self, x: Tensor) -> Tensor:
        rest = self.expand(self.depthwise(shuffled(self.compress(x), self.groups)))
        return (rest + x if self.pool is None else torch.cat([rest, self.pool(x)], 1)).relu()


def shufflenetv1(num_classes: int = 0, in_channels: int = 3, *, groups: int = 3) -> SmallConvNet:
    """A ShuffleNet of 4, 8 and 4 blocks."""
    stages, before = [], 24
    for i, (width, blocks) in enumerate(((240, 4), (480, 8), (960, 4))):
        # What halves gives its pooled input beside its own channels.
        layers: list[nn.Module] = [ShuffleV1Block(before, width - before, 2, groups, first=i == 0)]
        layers += [ShuffleV1Block(width, width, 1, groups, first=False) for _ in range(blocks - 1)]
        stem = [conv_bn(in_channels, 24, 1)] if i == 0 else []
        stages.append(Stage(nn.Sequential(*stem, *layers), width, 2 ** (i + 1)))
        before = width
    return SmallConvNet(stages, num_classes)


class ShuffleV2Block(nn.Module):
    """One half of the channels as it is, the other through 1x1, depthwise and 1x1; shuffled (Ma et al. 2018, Figure 3).

    With stride 2 both halves read all channels, and the first goes through depthwise and 1x1.
    """

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        half = after // 2
        self.left = None
        if stride == 2:
            self.left = nn.Sequential(
                conv_bn(before, before, 3, stride, groups=before, relu=False), conv_bn(before, half, 1)
            )
        self.right = nn.Sequential(
            conv_bn(before if stride == 2 else half, half, 1),
            conv_bn(half, half, 3, stride, groups=half, relu=False),
            conv_bn(half, half, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        left, right = x.chunk(2, 1) if self.left is None else (self.left(x), x)
        return shuffled(torch.cat([left, self.right(right)], 1), 2)


def shufflenetv2(num_classes: int = 0, in_channels: int = 3) -> SmallConvNet:
    """A ShuffleNetV2 of width 1, with 1 + 3, 1 + 7 and 1 + 3 blocks."""
    stages, before = [], 24
    for i, (width, blocks) in enumerate(((116, 3), (232, 7), (464, 3))):
        layers: list[nn.Module] = [conv_bn(in_channels, 24, 1)] if i == 0 else []
        layers += [ShuffleV2Block(before, width, 2), *(ShuffleV2Block(width, width, 1) for _ in range(blocks))]
        stages.append(Stage(nn.Sequential(*layers), width, 2 ** (i + 1)))
        before = width
    return SmallConvNet(stages, num_classes, (conv_bn(before, 1024, 1), 1024))


SMALL_CONVNETS: dict[str, Callable[..., SmallConvNet]] = {
    "cifar_vgg8": partial(vgg, (1, 1, 1, 1, 1)),
    "cifar_vgg13": partial(vgg, (2, 2, 2, 2, 2)),
    "cifar_mobilenetv2_half": mobilenetv2,
    "cifar_shufflenetv1": shufflenetv1,
    "cifar_shufflenetv2": shufflenetv2,
}
"""Each takes `num_classes` (0: no classifier) and `in_channels`."""
