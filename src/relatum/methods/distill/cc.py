"""Correlation congruence: the kernel matrix of the student's embeddings follows that of the teacher's.

    K_ij = sum_{p=0}^{P} e^{-2 gamma} (2 gamma)^p / p! <f_i, f_j>^p,   f = phi(embedding) / |phi(embedding)|
    L = CE(z_s, y) + beta |K_s - K_t|_F^2 / n^2

K is the Taylor series of the Gaussian kernel exp(-gamma |f_i - f_j|^2) of unit vectors, phi a linear layer.

Baoyun Peng, Xiao Jin, Jiaheng Liu, Dongsheng Li, Yichao Wu, Yu Liu, Shunfeng Zhou, Zhaoning Zhang: Correlation
Congruence for Knowledge Distillation. ICCV 2019. The authors published no code. The teacher's phi is a fixed random
projection here, which keeps angles (Johnson and Lindenstrauss): were it trained by this loss, both could fall to a
constant. What goes by the name of CC in the field's benchmark is another loss, which the authors sent to it:

    Delta_i = |phi_s(.)_i - phi_t(.)_i|,   L = CE(z_s, y) + beta mean_i <Delta_i, Delta_{i+1}>

with both layers trained and neighbors in the (random) order of the batch: `kernel="neighbors"`.
"""

import math
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from relatum.core.distributed import gather
from relatum.core.precision import full_precision
from relatum.core.types import Batch
from relatum.methods.checks import at_least_zero
from relatum.methods.distill.distiller import Distiller
from relatum.networks.backbones import Backbone

Kernel = Literal["taylor", "neighbors"]
"""The kernel matrix of the paper, or the products of neighboring differences of the field's benchmark."""

WEIGHTS: dict[Kernel, float] = {"taylor": 100.0, "neighbors": 0.02}
"""`beta` of each form, as published with it."""


class CC(Distiller, pairing="single"):
    """Learn how a frozen teacher's embeddings correlate.

    The paper's own totals have (1 - alpha) KD + beta L_CC with alpha = 0 and beta = 0.003, a weight that vanishes
    beside a mean over n^2 pairs; 100 is that of a public port of the same form. It draws its batches class by class;
    random batches serve here, as in all ports.

    Args:
        backbone: the student, with classes.
        teacher: a trained network.
        weight: `beta`, the weight of the correlation term; none means 100 for `taylor` and 0.02 for `neighbors`.
        kernel: `taylor` is the paper, `neighbors` the loss of the field's benchmark.
        gamma: width of the Gaussian kernel for `taylor`, positive.
        order: order `P >= 1` of its Taylor series.
        width: width of phi's output.
        task_weight: weight of the cross-entropy.
        kd_weight: weight of the divergence from the teacher's logits.
        temperature: temperature of that divergence.

    Raises:
        ValueError: for networks whose classes do not fit, or options out of range.
    """

    def __init__(
        self,
        backbone: Backbone,
        *,
        teacher: Backbone,
        weight: float | None = None,
        kernel: Kernel = "taylor",
        gamma: float = 0.4,
        order: int = 2,
        width: int = 128,
        task_weight: float = 1.0,
        kd_weight: float = 0.0,
        temperature: float = 4.0,
    ) -> None:
        super().__init__(backbone, teacher, task_weight, kd_weight, temperature)
        self.weight = at_least_zero("weight", WEIGHTS[kernel] if weight is None else weight)
        if not gamma > 0 or order < 1 or width < 1:
            raise ValueError(
                f"gamma is {gamma}, order {order} and width {width}; expected a positive gamma such as 0.4, an order "
                "of at least 1 such as 2, and a positive width such as 128."
            )
        self.student_embed = nn.Linear(backbone.embedding_dim, width)
        self.teacher_embed = nn.Linear(teacher.embedding_dim, width).requires_grad_(kernel == "neighbors")
        self.kernel = kernel
        self.gamma = gamma
        self.order = order

    def losses(self, batch: Batch) -> dict[str, Float[Tensor, ""]]:
        student, teacher, labels = self.features(batch)
        terms = self.class_terms(student, teacher, labels)
        a = gather(self.student_embed(student.embedding))
        b = gather(self.teacher_embed(teacher.embedding))
        correlation = correlation_loss(a, b, self.gamma, self.order) if self.kernel == "taylor" else neighbor_loss(a, b)
        return terms | {"correlation": self.weight * correlation}


@full_precision
def taylor_kernel(embedding: Float[Tensor, "n d"], gamma: float = 0.4, order: int = 2) -> Float[Tensor, "n n"]:
    """`sum_{p=0}^{order} e^{-2 gamma} (2 gamma)^p / p! <f_i, f_j>^p` for the rows f, scaled to length one."""
    unit = F.normalize(embedding)
    cosine = unit @ unit.T
    kernel = torch.zeros_like(cosine)
    for p in range(order, -1, -1):  # Horner
        kernel = kernel * cosine + math.exp(-2 * gamma) * (2 * gamma) ** p / math.factorial(p)
    return kernel


def correlation_loss(
    student: Float[Tensor, "n d"], teacher: Float[Tensor, "n d"], gamma: float = 0.4, order: int = 2
) -> Float[Tensor, ""]:
    """`|K_s - K_t|_F^2 / n^2`: the mean over all pairs of images."""
    return F.mse_loss(taylor_kernel(student, gamma, order), taylor_kernel(teacher, gamma, order))


@full_precision
def neighbor_loss(student: Float[Tensor, "n d"], teacher: Float[Tensor, "n d"]) -> Float[Tensor, ""]:
    """`mean_i <Delta_i, Delta_{i+1}>`, `Delta_i = |student_i - teacher_i|` in each coordinate.

    Raises:
        ValueError: for fewer than two images.
    """
    if len(student) < 2:
        raise ValueError(f"a batch of {len(student)} image has no neighbors; expected at least 2 images.")
    difference = (student - teacher).abs()
    return (difference[:-1] * difference[1:]).sum(1).mean()
