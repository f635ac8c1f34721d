"""Teacher-free distillation: the teacher is the network itself, trained before, or a distribution made by hand.

    self-training     L = (1 - alpha) CE(z, y) + alpha T^2 KL(softmax(z_t / T) || softmax(z / T))
    virtual teacher   L = (1 - alpha) CE(z, y) + alpha T^2 KL(softmax(log u / T) || softmax(z / T)),
                      u_c = a if c = y, (1 - a) / (K - 1) otherwise

Li Yuan, Francis E. H. Tay, Guilin Li, Tao Wang, Jiashi Feng: Revisiting Knowledge Distillation via Label Smoothing
Regularization. CVPR 2020, Section 5. The paper writes no T^2; it is the usual factor of Hinton et al. (2015), and
the authors' code has it in self-training.

That code differs from the paper. It takes the mean of the divergence over images *and* classes, and multiplies it by
an undocumented m that changes with the network: `multiplier = m / K` here, such as 50 / 100 for self-training of
ResNet-18 on CIFAR-100. Its virtual teacher is softmax(u / T), the softmax of *probabilities*, and the student has no
temperature there:

    L = (1 - alpha) CE(z, y) + alpha m / K KL(softmax(u / T) || softmax(z))               form="code"

For K = 100 and T = 20 the target is 0.0105 at y and 0.0100 elsewhere; with m = K (ResNet-18: alpha = 0.1, T = 20,
m = 100) this is label smoothing with epsilon = alpha, but for a constant.
"""

from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from relatum.core.precision import at_least_float32
from relatum.core.types import Batch
from relatum.losses.objectives import kl_divergence
from relatum.methods.checks import at_least_zero, positive, share
from relatum.methods.classifying import Classifying, class_logits, task_loss
from relatum.methods.distill.distiller import Distiller
from relatum.networks.backbones import Backbone


class TFKD(Distiller, pairing="single"):
    """Learn from an earlier training of the same network: knowledge distillation with oneself.

    Args:
        backbone: the student, with classes.
        teacher: the same architecture, trained before; any network of the same classes will do.
        alpha: the share of the teacher in the loss, in [0, 1]; the labels have the rest.
        temperature: `T > 0` of the divergence; the authors have 6 for ResNet-18 and ResNet-50, 20 for others.
        multiplier: factor of the teacher's share, at least 0; the paper has none, the code m / K.

    Raises:
        ValueError: for networks whose classes do not fit, or options out of range.
    """

    def __init__(
        self,
        backbone: Backbone,
        *,
        teacher: Backbone,
        alpha: float = 0.95,
        temperature: float = 6.0,
        multiplier: float = 1.0,
    ) -> None:
        learned = share("alpha", alpha, 0.95) * at_least_zero("multiplier", multiplier)
        super().__init__(backbone, teacher, 1 - alpha, learned, temperature)

    def losses(self, batch: Batch) -> dict[str, Float[Tensor, ""]]:
        return self.class_terms(*self.features(batch))


class TFKDVirtual(Classifying, pairing="single"):
    """Learn from a virtual teacher: nearly sure of the true class, and even about all others.

    Args:
        backbone: the network, with K > 1 classes.
        alpha: the share of the virtual teacher in the loss, in [0, 1]; the labels have the rest.
        temperature: `T > 0` of the divergence; the authors have 20 or 40.
        correct: `a`, the virtual teacher's probability of the true class, in (0, 1).
        form: paper, both sides have the temperature and the loss has its square; or code, the teacher is the softmax of
            its probabilities over T, and the student has no temperature.
        multiplier: factor of the virtual teacher's share, at least 0; the paper has none, the code m / K.

    Raises:
        ValueError: for a backbone with fewer than two classes, or options out of range.
    """

    def __init__(
        self,
        backbone: Backbone,
        *,
        alpha: float = 0.1,
        temperature: float = 20.0,
        correct: float = 0.99,
        form: Literal["paper", "code"] = "paper",
        multiplier: float = 1.0,
    ) -> None:
        super().__init__(backbone)
        if backbone.num_classes < 2:
            raise ValueError(f"{backbone.name} has 1 class; the virtual teacher needs at least one that is wrong.")
        if not 0 < correct < 1:
            raise ValueError(f"correct is {correct}; expected a probability in (0, 1) such as 0.99.")
        self.alpha = share("alpha", alpha, 0.1)
        self.temperature = positive("the temperature", temperature, 20)
        self.multiplier = at_least_zero("multiplier", multiplier)
        self.correct = correct
        self.form = form

    def losses(self, batch: Batch) -> dict[str, Float[Tensor, ""]]:
        labels = batch.labels[0]
        logits = class_logits(self.backbone(batch.views[0]))
        teacher = virtual_teacher(labels, logits.shape[1], self.correct, at_least_float32(logits).dtype)
        if self.form == "paper":
            divergence = kl_divergence(logits, teacher.log(), self.temperature)
        else:
            divergence = kl_divergence(logits, teacher / self.temperature)
        return {
            "task": (1 - self.alpha) * task_loss(logits, labels),
            "virtual": self.alpha * self.multiplier * divergence,
        }


def virtual_teacher(
    labels: Int[Tensor, " n"], num_classes: int, correct: float = 0.99, dtype: torch.dtype = torch.float32
) -> Float[Tensor, "n k"]:
    """`u`, the probabilities that the virtual teacher gives each image (Eq. 9).

    Args:
        labels: the classes, in [0, num_classes).
        num_classes: `K > 1`.
        correct: `a`, the probability of the true class; the others share the rest evenly.
        dtype: type of the probabilities.
    """
    wrong = (1 - correct) / (num_classes - 1)
    return torch.full((len(labels), num_classes), wrong, dtype=dtype, device=labels.device).scatter(
        1, labels[:, None], correct
    )
