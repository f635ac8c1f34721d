"""Supervised training: cross-entropy with the classes, the baseline of every comparison.

    L = -log softmax(z)_y

There is no paper to name; recipes differ in schedule and augmentation only.
"""

from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from relatum.core.types import Batch
from relatum.methods.base import Method, Pairing
from relatum.methods.distill.common import logits_of, require_classes, task_loss
from relatum.networks.backbones import Backbone


class Supervised(Method):
    """Classify every image of the batch, whatever the number of views.

    Args:
        backbone: the network, with classes.

    Raises:
        ValueError: for a backbone without classes.
    """

    pairing: ClassVar[Pairing] = "single"
    needs_labels: ClassVar[bool] = True
    classifies: ClassVar[bool] = True

    def __init__(self, backbone: Backbone) -> None:
        super().__init__(backbone)
        require_classes(backbone)

    def losses(self, batch: Batch) -> dict[str, Float[Tensor, ""]]:
        logits = logits_of(self.backbone(torch.cat(batch.views)))
        return {"task": task_loss(logits, batch.labels.flatten())}
