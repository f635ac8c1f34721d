"""Decoupled knowledge distillation: how sure the teacher is, and how it ranks the wrong classes, are two losses.

    b = (p_y, 1 - p_y),   q = softmax(z / T) over the wrong classes alone,   p = softmax(z / T)
    L = CE(z_s, y) + T^2 (alpha KL(b_t || b_s) + beta KL(q_t || q_s))

Borui Zhao, Quan Cui, Renjie Song, Yiyu Qiu, Jiajun Liang: Decoupled Knowledge Distillation. CVPR 2022, Section 3. Plain
distillation is KL(b_t || b_s) + (1 - p_y of the teacher) KL(q_t || q_s): it silences the second part just where the
teacher is sure. alpha = 1, and beta = 8 for ResNet-32x4 to 8x4 on CIFAR-100; it depends on the pair of networks. The
authors' code lets both weights grow during the first 20 of 240 epochs, a step at each epoch: `warmup=1 / 12` lets them
grow with every step. It hides the true class by 1000 taken off its logit, which is not enough for logits beyond that;
here it has probability 0. Published on CIFAR-100, best epoch: ResNet-56 to 20 71.97, ResNet-32x4 to 8x4 76.32; with
standardized logits (see KD; its code has T = 2) 72.32 and 77.01.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from relatum.core.precision import full_precision
from relatum.core.types import Batch
from relatum.methods.checks import at_least_zero
from relatum.methods.distill.distiller import Distiller, Warmup, require_same_classes
from relatum.networks.backbones import Backbone


class DKD(Distiller, pairing="single"):
    """Learn from the logits of a frozen teacher, the true class and the wrong ones apart.

    Args:
        backbone: the student, with at least two classes.
        teacher: a trained network with the same classes.
        alpha: weight of the divergence of the true class from all others together.
        beta: weight of the divergence among the wrong classes.
        task_weight: weight of the cross-entropy.
        temperature: `T > 0` of both divergences.
        standardize: compare logits of mean 0 and deviation 1 over the classes (Sun et al. 2024).
        warmup: the share of all steps, at the start, in which both weights grow from 0; the authors' code has 20 of
            240 epochs.

    Raises:
        ValueError: for networks whose classes do not fit, or options out of range.
    """

    def __init__(
        self,
        backbone: Backbone,
        *,
        teacher: Backbone,
        alpha: float = 1.0,
        beta: float = 8.0,
        task_weight: float = 1.0,
        temperature: float = 4.0,
        standardize: bool = False,
        warmup: float = 0.0,
    ) -> None:
        super().__init__(backbone, teacher, task_weight, 0.0, temperature, standardize=standardize)
        require_same_classes(backbone, teacher, least=2)
        self.warmup = Warmup(warmup)
        self.alpha, self.beta = at_least_zero("alpha", alpha), at_least_zero("beta", beta)

    def losses(self, batch: Batch) -> dict[str, Float[Tensor, ""]]:
        student, teacher, labels = self.features(batch)
        own, goal = (logits / self.temperature for logits in self.compared(student, teacher))
        size = self.temperature**2 * self.warmup()
        target, others = (size * divergence for divergence in decoupled_divergences(own, goal, labels))
        return self.class_terms(student, teacher, labels) | {
            "target": self.alpha * target,
            "others": self.beta * others,
        }

    def after_step(self, progress: float) -> None:
        self.warmup.update(progress)


@full_precision
def decoupled_divergences(
    student: Float[Tensor, "n k"], teacher: Float[Tensor, "n k"], labels: Int[Tensor, " n"]
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """`KL(b_t || b_s)` and `KL(q_t || q_s)`, the means over the batch.

    Args:
        student, teacher: logits, over the temperature.
        labels: the true classes.
    """
    true = F.one_hot(labels, student.shape[1]).bool()
    own, goal = _binary(student, true), _binary(teacher, true)
    target = (goal.exp() * (goal - own)).sum(1).mean()
    own, goal = (z.masked_fill(true, -float("inf")).log_softmax(1).masked_fill(true, 0) for z in (student, teacher))
    return target, (goal.exp() * (goal - own)).sum(1).mean()


def _binary(logits: Float[Tensor, "n k"], true: Bool[Tensor, "n k"]) -> Float[Tensor, "n 2"]:
    """`log b`, of the true class and of all others together."""
    apart = [logits.masked_fill(hidden, -float("inf")).logsumexp(1, keepdim=True) for hidden in (~true, true)]
    return torch.cat(apart, 1) - logits.logsumexp(1, keepdim=True)
