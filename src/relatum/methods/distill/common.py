"""What the distillation methods share: the terms on the classifier, and maps brought to one size."""

from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from relatum.core.precision import full_precision
from relatum.core.types import Features
from relatum.losses.objectives import kl_divergence
from relatum.networks.backbones import Backbone


@full_precision
def task_loss(
    logits: Float[Tensor, "n k"], labels: Int[Tensor, " n"], label_smoothing: float = 0.0
) -> Float[Tensor, ""]:
    """Cross-entropy with the classes, the mean over the batch.

    Args:
        logits: of the classifier.
        labels: the classes, in [0, k).
        label_smoothing: the share of the target that is spread evenly over all k classes.
    """
    return F.cross_entropy(logits, labels, label_smoothing=label_smoothing)


def logits_of(features: Features) -> Float[Tensor, "n k"]:
    """The logits of a network that `require_classes` has passed."""
    assert features.logits is not None
    return features.logits


def require_classes(backbone: Backbone) -> None:
    """Raise unless `backbone` has a classifier.

    Raises:
        ValueError: for a backbone without classes.
    """
    if backbone.num_classes < 1:
        raise ValueError(
            f"{backbone.name} has num_classes={backbone.num_classes} and this method trains a classifier; build the "
            "backbone with the number of classes of the data, such as num_classes=100."
        )


def require_weights(weights: dict[str, float]) -> None:
    """Raise unless all weights of loss terms, by their names, are at least 0.

    Raises:
        ValueError: for a negative weight, or one that is no number.
    """
    for name, weight in weights.items():
        if not weight >= 0:
            raise ValueError(f"{name} is {weight}; expected a number >= 0, 0 to switch the term off.")


class Classification:
    """The terms on the classifier that every distillation from a teacher starts from.

        task_weight CE(z_s, y) + kd_weight T^2 KL(softmax(z_t / T) || softmax(z_s / T))

    A teacher without classes will do where `kd_weight` is 0; the second term is then left out.

    Args:
        student: the network that learns.
        teacher: the network that it learns from.
        task_weight: of the cross-entropy with the classes, at least 0.
        kd_weight: of the divergence from the teacher's logits z_t, at least 0.
        temperature: `T > 0`.

    Raises:
        ValueError: for a student without classes, a teacher with other classes, or options out of range.
    """

    def __init__(
        self, student: Backbone, teacher: Backbone, task_weight: float, kd_weight: float, temperature: float
    ) -> None:
        require_classes(student)
        require_weights({"task_weight": task_weight, "kd_weight": kd_weight})
        if not temperature > 0:
            raise ValueError(f"the temperature is {temperature}; expected a positive number such as 4.")
        if kd_weight and teacher.num_classes != student.num_classes:
            raise ValueError(
                f"the teacher {teacher.name} has {teacher.num_classes} classes and the student {student.name} has "
                f"{student.num_classes}; their logits compare only where both were trained on the same classes: choose "
                "another teacher, or kd_weight=0 where the method has other terms."
            )
        self.task_weight = task_weight
        self.kd_weight = kd_weight
        self.temperature = temperature

    def __call__(self, student: Features, teacher: Features, labels: Int[Tensor, " n"]) -> dict[str, Float[Tensor, ""]]:
        logits = logits_of(student)
        terms = {"task": self.task_weight * task_loss(logits, labels)}
        if self.kd_weight:
            terms["kd"] = self.kd_weight * kl_divergence(logits, logits_of(teacher), self.temperature)
        return terms


def same_size(
    a: Float[Tensor, "n c h w"], b: Float[Tensor, "n _c _h _w"]
) -> tuple[Float[Tensor, "n c _p _q"], Float[Tensor, "n _c _p _q"]]:
    """Both maps at the smaller height and the smaller width of the two: the larger map is averaged."""
    size = (min(a.shape[2], b.shape[2]), min(a.shape[3], b.shape[3]))
    small_a, small_b = (x if x.shape[2:] == size else F.adaptive_avg_pool2d(x, size) for x in (a, b))
    return small_a, small_b
