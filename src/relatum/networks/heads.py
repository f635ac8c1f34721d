"""Small networks that are attached to a backbone for training, and dropped when it is exported."""

from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from relatum.relations import Relation, unit

__all__ = ["Projector", "Prototypes", "StageClassifier", "mlp", "separable", "separable_block"]


def mlp(
    widths: tuple[int, ...], *, batch_norm: bool = True, last_norm: bool = False, gelu: bool = False
) -> nn.Sequential:
    """Fully connected layers with ReLU between them.

    Args:
        widths: widths of the input, of each hidden layer, and of the output.
        batch_norm: normalize the hidden layers.
        last_norm: normalize the output too, without learned scale and shift (as SimSiam's projector does).
        gelu: GELU in the place of ReLU, as transformers have it.
    """
    layers: list[nn.Module] = []
    for before, after in pairwise(widths[:-1]):
        layers.append(nn.Linear(before, after, bias=not batch_norm))
        if batch_norm:
            layers.append(nn.BatchNorm1d(after))
        layers.append(nn.GELU() if gelu else nn.ReLU(inplace=True))
    layers.append(nn.Linear(widths[-2], widths[-1], bias=not last_norm))
    if last_norm:
        layers.append(nn.BatchNorm1d(widths[-1], affine=False))
    return nn.Sequential(*layers)


class Projector(nn.Module):
    """The network between a backbone and a relation; with two spaces it is the paper's bi-projector.

    Each space has a perceptron of its own on the same features. The output is one tensor, `[h^(1) | h^(2)]`, each
    part of length one, so that queues and gathering need not know how many spaces there are.

    Args:
        in_width: the width of the features.
        hidden_width: width of the hidden layers.
        out_width: width of each space.
        spaces: how many perceptrons; `relation.spaces` of the relation that reads the output.
        layers: fully connected layers, at least 1.
        hidden_norm: batch-normalize the hidden layers.
        last_norm: batch-normalize the output.
        normalize: scale each part to length one.
        gelu: GELU in the place of ReLU.
    """

    def __init__(
        self,
        in_width: int,
        hidden_width: int,
        out_width: int,
        *,
        spaces: int = 1,
        layers: int = 2,
        hidden_norm: bool = True,
        last_norm: bool = False,
        normalize: bool = True,
        gelu: bool = False,
    ) -> None:
        super().__init__()
        if min(in_width, hidden_width, out_width, spaces, layers) < 1:
            raise ValueError(
                f"a projector of widths {in_width}, {hidden_width}, {out_width}, {spaces} space(s) and {layers} "
                "layer(s) has nothing in it; expected positive numbers."
            )
        widths = (in_width, *[hidden_width] * (layers - 1), out_width)
        norms = {"batch_norm": hidden_norm, "last_norm": last_norm}
        self.branches = nn.ModuleList(mlp(widths, **norms, gelu=gelu) for _ in range(spaces))
        self.out_width = out_width * spaces
        self.normalize = normalize

    def forward(self, features: Float[Tensor, "n _in"]) -> Float[Tensor, "n _out"]:
        z = torch.cat([branch(features) for branch in self.branches], dim=1)
        # Lengths in float32: bfloat16's three digits would show in every similarity.
        return unit(z.float() if z.dtype != torch.float64 else z, len(self.branches)) if self.normalize else z


class Prototypes(nn.Module):
    """Directions that embeddings are compared with: the scores of an embedding are how alike it is to each.

    With the cosine it is a fully connected layer without bias, of unit rows, on unit embeddings: SwAV's prototypes, and
    DINO's weight-normalized last layer with its gain at one.

    Args:
        width: of an embedding, all spaces together.
        count: how many, at least 2.
        relation: how an embedding and a prototype compare; a prototype has a unit part in each of its spaces.
    """

    def __init__(self, width: int, count: int, relation: Relation) -> None:
        super().__init__()
        if count < 2:
            raise ValueError(f"prototypes is {count}; expected at least 2 to choose among, such as 512.")
        self.relation = relation
        self.weight = nn.Parameter(unit(torch.randn(count, width), relation.spaces))

    def forward(self, z: Float[Tensor, "n d"], *, frozen: bool = False) -> Float[Tensor, "n k"]:
        """The scores; `frozen` prototypes get no gradient from them."""
        weight = self.weight.detach() if frozen else self.weight
        return self.relation.all_pairs(z, unit(weight, self.relation.spaces))

    @torch.no_grad()
    def rescale(self) -> None:
        """Bring every part back to length one, which changes no score."""
        self.weight.copy_(unit(self.weight, self.relation.spaces))


class Depthwise(nn.Conv2d):
    """A depthwise 3x3 convolution; where it strides on a processor, autocast does not reach it.

    The backward pass of a depthwise convolution of stride 2 takes 8 to 46 times as long in bfloat16 as in float32 on a
    Xeon with AMX (86 maps of 64 to 256 channels, one thread, torch 2.14), which doubled the time of CORSD's step.

    Args:
        channels: channels of the input and the output.
        stride: 1 or 2.
    """

    def __init__(self, channels: int, stride: int) -> None:
        super().__init__(channels, channels, 3, stride, padding=1, groups=channels, bias=False)

    def forward(self, maps: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c _h _w"]:
        if self.stride == (1, 1) or maps.device.type != "cpu" or not torch.is_autocast_enabled("cpu"):
            return super().forward(maps)
        with torch.autocast("cpu", enabled=False):
            return super().forward(maps.to(self.weight.dtype))


def separable(before: int, after: int, stride: int) -> nn.Sequential:
    """A depthwise 3x3 convolution, then a pointwise one."""
    return nn.Sequential(
        Depthwise(before, stride),
        nn.Conv2d(before, after, 1, bias=False),
    )


def separable_block(before: int, after: int) -> nn.Sequential:
    """Two separable convolutions, the first of stride 2, the second of another width; batch norm and ReLU after each.

    It is the block of self-distillation's stage classifiers (Zhang et al. 2021), and halves a map of any size >= 1.
    """
    return nn.Sequential(
        separable(before, before, 2),
        nn.BatchNorm2d(before),
        nn.ReLU(inplace=True),
        separable(before, after, 1),
        nn.BatchNorm2d(after),
        nn.ReLU(inplace=True),
    )


class StageClassifier(nn.Module):
    """A classifier on the feature map of one stage (Zhang et al. 2021).

    An attention map weighs the features; separable blocks bring them to the width of the deepest stage, a block for
    each stage in between; the mean over the positions is the embedding, and a fully connected layer classifies it. The
    attention is `sigmoid(upsample(block(F)))`: as the block ends in a ReLU, it lies in [1/2, 1).

    Args:
        widths: channels of the map, of what each block gives, and so of the embedding: those of this stage and of all
            deeper ones.
        num_classes: classes of the logits.
        attention: weigh the map; the conference version (Zhang et al. 2019) does not.

    Raises:
        ValueError: for fewer than two widths: the deepest stage has the backbone's own classifier.
    """

    def __init__(self, widths: tuple[int, ...], num_classes: int, *, attention: bool = True) -> None:
        super().__init__()
        if len(widths) < 2 or min(*widths, num_classes) < 1:
            raise ValueError(
                f"a stage classifier of widths {widths} for {num_classes} classes has nothing in it; expected the "
                "channels of the stage and of each deeper one, at least two positive numbers, and a positive number "
                "of classes."
            )
        self.attention = separable_block(widths[0], widths[0]) if attention else None
        self.blocks = nn.Sequential(*(separable_block(before, after) for before, after in pairwise(widths)))
        self.classifier = nn.Linear(widths[-1], num_classes)

    def forward(self, maps: Float[Tensor, "n c h w"]) -> tuple[Float[Tensor, "n _d"], Float[Tensor, "n _k"]]:
        """The embedding and the logits."""
        if self.attention is not None:
            attention = F.interpolate(self.attention(maps), maps.shape[2:], mode="bilinear", align_corners=False)
            maps = maps * attention.sigmoid()
        embedding = self.blocks(maps).mean((2, 3))
        return embedding, self.classifier(embedding)
