"""CS-KD: the prediction for an image follows the prediction for another image of its class.

    L = CE(z(x), y) + weight T^2 KL(softmax(z(x') / T) || softmax(z(x) / T)),   x' of the class of x

with no gradient through z(x').

Sukmin Yun, Jongjin Park, Kimin Lee, Jinwoo Shin: Regularizing Class-Wise Predictions via Self-Knowledge Distillation.
CVPR 2020, Eq. (2).
"""

import torch
from jaxtyping import Float
from torch import Tensor

from relatum.core.types import Batch
from relatum.losses.objectives import kl_divergence
from relatum.methods.checks import at_least_zero, positive
from relatum.methods.classifying import Classifying, class_logits, task_loss
from relatum.networks.backbones import Backbone


class CSKD(Classifying, pairing="same-class-pairs"):
    """Classify anchors, and hold their softened predictions to those for partners of the same class.

    The partners pass the backbone in a batch of their own, in training mode and without a gradient, as in the authors'
    code: their batch statistics are their own, and move the running statistics too. It costs a third of a training
    step, and twice the images.

    Args:
        backbone: the network, with classes.
        weight: weight of the divergence; 1 for CIFAR-100 and Tiny ImageNet, 3 for the fine-grained sets at batch
            size 32.
        temperature: `T > 0`; its square keeps the size of the gradient independent of it.

    Raises:
        ValueError: for a backbone without classes, or options out of range.
    """

    def __init__(self, backbone: Backbone, *, weight: float = 1.0, temperature: float = 4.0) -> None:
        super().__init__(backbone)
        self.weight = at_least_zero("weight", weight)
        self.temperature = positive("the temperature", temperature, 4)

    def losses(self, batch: Batch) -> dict[str, Float[Tensor, ""]]:
        anchors, partners = batch.views
        logits = class_logits(self.backbone(anchors))
        with torch.no_grad():
            target = class_logits(self.backbone(partners))
        return {
            "task": task_loss(logits, batch.labels[0]),
            "class": self.weight * kl_divergence(logits, target, self.temperature),
        }
