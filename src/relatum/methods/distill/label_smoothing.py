"""Label smoothing: cross-entropy with a target that keeps a little for every class.

    L = -sum_c q_c log softmax(z)_c,   q_c = (1 - epsilon) [c = y] + epsilon / K

Christian Szegedy, Vincent Vanhoucke, Sergey Ioffe, Jonathon Shlens, Zbigniew Wojna: Rethinking the Inception
Architecture for Computer Vision. CVPR 2016, Section 7. It is the baseline that self-distillation has to beat.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from relatum.core.types import Batch
from relatum.methods.checks import share
from relatum.methods.classifying import Classifying, class_logits, task_loss
from relatum.networks.backbones import Backbone


class LabelSmoothing(Classifying, pairing="single"):
    """Classify with smoothed labels.

    Args:
        backbone: the network, with K classes.
        epsilon: the share of the target that is spread evenly over all K classes, the true one among them; in [0, 1).

    Raises:
        ValueError: for a backbone without classes, or an epsilon out of range.
    """

    def __init__(self, backbone: Backbone, *, epsilon: float = 0.1) -> None:
        super().__init__(backbone)
        self.epsilon = share("epsilon", epsilon, 0.1, below_one=True)

    def losses(self, batch: Batch) -> dict[str, Float[Tensor, ""]]:
        logits = class_logits(self.backbone(torch.cat(batch.views)))
        return {"task": task_loss(logits, batch.labels.flatten(), self.epsilon)}
