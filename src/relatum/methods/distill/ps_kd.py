"""PS-KD: the target of an image is its label, softened by what the network said of it an epoch ago.

    q_n = (1 - alpha_t) onehot(y_n) + alpha_t P_n,   L = -sum_c q_nc log softmax(z_n)_c,   P_n <- softmax(z_n)

P_n is replaced after each step that sees image n, by the prediction of that step: training mode, augmented view. Until
then it is the label, so that the first epoch is plain cross-entropy.

Kyungyul Kim, ByeongMoon Ji, Doyoung Yoon, Sangheum Hwang: Self-Knowledge Distillation with Progressive Refinement of
Targets. ICCV 2021, Eq. (5). There alpha_t = alpha_T t / E in epoch t = 1 ... E. Methods know the share of the training
that is done, not the epochs: here alpha grows with every step, from 0 to alpha_T, which is on average half an epoch
behind the published staircase and ends at the same value.
"""

from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from relatum.core.distributed import gather
from relatum.core.precision import at_least_float32
from relatum.core.types import Batch
from relatum.losses.objectives import soft_cross_entropy
from relatum.methods.checks import share
from relatum.methods.classifying import Classifying, class_logits
from relatum.networks.backbones import Backbone
from relatum.networks.memory import Bank


class PSKD(Classifying, pairing="single"):
    """Classify with targets that move from the labels towards the network's own past predictions.

    The predictions of all training images are part of the state: 4 bytes for each image and class on each device, 20 MB
    for CIFAR-100 and 5.1 GB for ImageNet. With `bank="float16"` it is half of that, with `sharded` each of W processes
    has a W-th of it, in its memory and in its file of the checkpoint. Neither is the default: float16 rounds
    probabilities by up to 2^-12, so that numbers would move; and a bank in parts needs a run folder that all processes
    see, which several machines may not have. The numbers of a bank in parts are those of a whole one.

    Args:
        backbone: the network, with classes.
        num_samples: how many training images there are.
        alpha: `alpha_T`, the share of the past prediction in the target at the end of the training, in [0, 1].
        bank: the precision in which past predictions are kept; float16 takes half of the memory.
        sharded: each process holds and saves the predictions of its own part of the images.

    Raises:
        ValueError: for a backbone without classes, or options out of range.
    """

    progress: Float[Tensor, ""]

    def __init__(
        self,
        backbone: Backbone,
        *,
        num_samples: int,
        alpha: float = 0.8,
        bank: Literal["float32", "float16"] = "float32",
        sharded: bool = False,
    ) -> None:
        super().__init__(backbone)
        self.bank = Bank(num_samples, backbone.num_classes, dtype=getattr(torch, bank), sharded=sharded)
        self.register_buffer("progress", torch.zeros(()))
        self.alpha = share("alpha", alpha, 0.8)
        self._seen: tuple[Tensor, Tensor] | None = None

    def losses(self, batch: Batch) -> dict[str, Float[Tensor, ""]]:
        index, labels = batch.index[0], batch.labels[0]
        logits = class_logits(self.backbone(batch.views[0]))
        target = refined_target(labels, self.bank(index), self.alpha * self.progress)
        self._seen = index, at_least_float32(logits.detach()).softmax(1)
        return {"task": soft_cross_entropy(logits, target)}

    def after_step(self, progress: float) -> None:
        if self._seen is not None:
            index, predictions = self._seen
            self.bank.update(gather(index), gather(predictions))
        self._seen = None
        self.progress.fill_(progress)


def refined_target(
    labels: Int[Tensor, " n"], past: Float[Tensor, "n k"], alpha: Float[Tensor, ""]
) -> Float[Tensor, "n k"]:
    """`(1 - alpha) onehot(y) + alpha P`; of an image without a past, whose row is zero, the label alone.

    Args:
        labels: the classes.
        past: the earlier prediction for each image, or zeros.
        alpha: share of the past in the target, in [0, 1].
    """
    # What the past leaves is the label's: the sum is one whether a row holds probabilities or nothing.
    certain = 1 - alpha * past.sum(1, keepdim=True)
    return certain * F.one_hot(labels, past.shape[1]) + alpha * past
