"""What every distillation from a frozen teacher is: its checks, its terms on the classifier, and maps of one size."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from relatum.core.precision import full_precision
from relatum.core.types import Batch, Features
from relatum.losses.objectives import kl_divergence
from relatum.methods.checks import at_least_zero, positive, share
from relatum.methods.classifying import Classifying, class_logits, task_loss
from relatum.networks.backbones import Backbone
from relatum.networks.memory import Frozen
from relatum.networks.teachers import Teacher


class Distiller(Classifying):
    """A method that learns from a frozen teacher. Every one starts from the terms on the classifier:

        task_weight CE(z_s, y) + kd_weight T^2 KL(softmax(z_t / T) || softmax(z_s / T))

    A teacher without classes will do where `kd_weight` is 0; the second term is then left out.

    Args:
        backbone: the student, with classes.
        teacher: the network that it learns from.
        task_weight: weight of the cross-entropy with the classes, at least 0.
        kd_weight: weight of the divergence from the teacher's logits z_t, at least 0.
        temperature: `T > 0` of that divergence.
        standardize: compare standardized logits (`standardized`) in all divergences.

    Raises:
        ValueError: for a student without classes, a teacher with other classes, or options out of range.
    """

    def __init__(
        self,
        backbone: Backbone,
        teacher: Backbone,
        task_weight: float,
        kd_weight: float,
        temperature: float,
        *,
        standardize: bool = False,
    ) -> None:
        super().__init__(backbone)
        self.task_weight = at_least_zero("task_weight", task_weight)
        self.kd_weight = at_least_zero("kd_weight", kd_weight)
        self.temperature = positive("the temperature", temperature, 4)
        self.standardize = standardize
        if kd_weight:
            require_same_classes(backbone, teacher, least=2 if standardize else 1)
        self.teacher = Frozen(teacher)

    def features(self, batch: Batch) -> tuple[Features, Features, Int[Tensor, " n"]]:
        """What student and teacher say of the images, and the classes."""
        images = batch.views[0]
        return self.backbone(images), self.teacher(images), batch.labels[0]

    def class_terms(
        self, student: Features, teacher: Features, labels: Int[Tensor, " n"]
    ) -> dict[str, Float[Tensor, ""]]:
        """The weighted terms on the classifier: `task`, and `kd` unless its weight is 0."""
        logits = class_logits(student)
        terms = {"task": self.task_weight * task_loss(logits, labels)}
        if self.kd_weight:
            terms["kd"] = self.kd_weight * kl_divergence(*self.compared(student, teacher), self.temperature)
        return terms

    def compared(self, student: Features, teacher: Features) -> tuple[Float[Tensor, "n k"], Float[Tensor, "n k"]]:
        """The logits of both as the divergences compare them: as they are, or standardized."""
        own, goal = class_logits(student), class_logits(teacher)
        return (standardized(own), standardized(goal)) if self.standardize else (own, goal)


class Warmup(nn.Module):
    """The factor of a weight that rises linearly from 0 to 1 during the first steps of the training.

    Args:
        share_of_steps: 0 for a factor of 1 from the start.

    Raises:
        ValueError: for a share outside [0, 1).
    """

    progress: Float[Tensor, ""]

    def __init__(self, share_of_steps: float) -> None:
        super().__init__()
        self.share = share("warmup", share_of_steps, 1 / 12, below_one=True)
        if self.share:
            self.register_buffer("progress", torch.zeros(()))

    def forward(self) -> float | Float[Tensor, ""]:
        return (self.progress / self.share).clamp(max=1) if self.share else 1.0

    def update(self, progress: float) -> None:
        """Take note of the share of all steps that are done."""
        if self.share:
            self.progress.fill_(progress)


@full_precision
def standardized(logits: Float[Tensor, "n k"]) -> Float[Tensor, "n k"]:
    """`(z - mean(z)) / std(z)` over the k classes of each image: the divergences then compare shapes, not sizes.

    Logits that are all alike become zeros. Shangquan Sun, Wenqi Ren, Jingzhi Li, Rui Wang, Xiaochun Cao: Logit
    Standardization in Knowledge Distillation. CVPR 2024, Algorithm 1. `std` divides by k; the authors' code divides by
    k - 1, which is a temperature of `T sqrt((k - 1) / k)` here (0.5 % for 100 classes).
    """
    centered = logits - logits.mean(1, keepdim=True)
    # Not the root of a variance that may be 0, where it has no slope.
    return centered * (centered.square().mean(1, keepdim=True) + 1e-14).rsqrt()


def require_same_classes(student: Backbone, teacher: Backbone, least: int = 1) -> None:
    """Raise unless the logits of two networks compare.

    Raises:
        ValueError: for other numbers of classes, or fewer than `least`.
    """
    if teacher.num_classes != student.num_classes:
        why = teacher.why_no_logits if isinstance(teacher, Teacher) else ""
        why = why or f"the teacher {teacher.name} has {teacher.num_classes} classes"
        raise ValueError(
            f"{why} and the student {student.name} has {student.num_classes}; their logits compare only where both "
            "were trained on the same classes: choose another teacher, kd_weight=0 where the method has other terms, "
            "or a method that learns from features alone, such as fitnet, at, sp, rkd or cc."
        )
    if student.num_classes < least:
        raise ValueError(f"{student.name} has {student.num_classes} class(es); expected at least {least}.")


def same_size(
    a: Float[Tensor, "n c h w"], b: Float[Tensor, "n _c _h _w"]
) -> tuple[Float[Tensor, "n c _p _q"], Float[Tensor, "n _c _p _q"]]:
    """Both maps at the smaller height and the smaller width of the two: the larger map is averaged."""
    size = (min(a.shape[2], b.shape[2]), min(a.shape[3], b.shape[3]))
    small_a, small_b = (x if x.shape[2:] == size else F.adaptive_avg_pool2d(x, size) for x in (a, b))
    return small_a, small_b
