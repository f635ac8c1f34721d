"""A plugin of each kind, as somebody else would write it; tests name this file by --plugin."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

import relatum
from relatum.relations.forms import Chord, Form


@relatum.register_relation("bell")
class Bell(relatum.Relation):
    """A Gaussian of the distance."""

    forms: tuple[Form, ...] = (Chord(),)
    low, high = 0.0, 1.0

    def __init__(self, width: float = 1.0) -> None:
        super().__init__()
        self.width = width

    def value(self, *forms: torch.Tensor) -> torch.Tensor:
        (chord,) = forms
        return torch.exp(-chord / self.width)


BELL = Bell()


@relatum.register_method("closer")
class Closer(relatum.Method, pairing="two-views"):
    """Pull two views together, and hold their spread.

    Args:
        backbone: the network.
        relation: how alike two embeddings are.
        spread: weight of the spread.
    """

    def __init__(
        self,
        backbone: relatum.Backbone,
        *,
        relation: relatum.Relation = BELL,
        spread: float = 1.0,
    ) -> None:
        super().__init__(backbone)
        self.relation, self.spread = relation, spread

    def losses(self, batch: relatum.Batch) -> dict[str, torch.Tensor]:
        a, b = (self.backbone.embed(view) for view in batch.views)
        return {"apart": -self.relation.matched(a, b).mean(), "flat": self.spread * (1 - a.std(0)).relu().mean()}


@relatum.register_backbone("two-layers")
def two_layers(num_classes: int, in_channels: int, size: int) -> relatum.Backbone:
    """Two convolutions."""
    module = nn.Sequential(nn.Conv2d(in_channels, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 12, 3, 2, 1))
    return relatum.Backbone.wrap(
        module, stages=("2", "3"), num_classes=num_classes, in_channels=in_channels, size=size, name="two-layers"
    )


@relatum.register_data("stripes")
def stripes(root: object) -> tuple:
    """Images of stripes, whose class is their direction."""
    generator = torch.Generator().manual_seed(0)

    def part(count: int) -> tuple[torch.Tensor, torch.Tensor]:
        labels = torch.arange(count) % 2
        rows = torch.randint(0, 256, (count, 3, 16, 1), generator=generator, dtype=torch.uint8).expand(-1, -1, -1, 16)
        return torch.where(labels[:, None, None, None] == 1, rows.transpose(2, 3), rows).contiguous(), labels

    return part(64), part(32)


@relatum.register_evaluator("length")
@dataclass(frozen=True)
class Length(relatum.Evaluator):
    """The mean length of an embedding, to a power."""

    power: float = 1.0
    columns: ClassVar[dict[str, str]] = {"mean": "length"}
    labeled: ClassVar[bool] = False

    def measure(self, subject: relatum.Subject) -> relatum.Measured:
        """`length_mean`."""
        lengths = subject.test["embedding"].features.norm(dim=1)
        return relatum.Measured({"mean": (lengths**self.power).mean().item()}, f"length to the power {self.power}")
