"""Supervised training: cross-entropy with the classes, the baseline of every comparison.

    L = -log softmax(z)_y

There is no paper to name; recipes differ in schedule and augmentation only.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from relatum.core.types import Batch
from relatum.methods.classifying import Classifying, class_logits, task_loss


class Supervised(Classifying, pairing="single"):
    """Classify every image of the batch, whatever the number of views.

    Args:
        backbone: the network, with classes.

    Raises:
        ValueError: for a backbone without classes.
    """

    def losses(self, batch: Batch) -> dict[str, Float[Tensor, ""]]:
        logits = class_logits(self.backbone(torch.cat(batch.views)))
        return {"task": task_loss(logits, batch.labels.flatten())}
