"""DIST: the student keeps the teacher's correlations, among the classes of an image and among the images of a class.

    Y = softmax(z / T), one row for each image;   rho(u, v) = Pearson's correlation
    L = CE(z_s, y) + T^2 (beta (1 - mean_b rho(Y_s[b, :], Y_t[b, :])) + gamma (1 - mean_c rho(Y_s[:, c], Y_t[:, c])))

Tao Huang, Shan You, Fei Wang, Chen Qian, Chang Xu: Knowledge Distillation from A Stronger Teacher. NeurIPS 2022,
Section 3: a student need not match the probabilities of a much stronger teacher, a positive linear map of them will do.
The first relation is the paper's inter-class one, the second the intra-class one, which is a statistic of the batch:
over several processes it is that of all images of the step.

The authors' first code has beta = gamma = 1 and no temperature (T = 1); torchdistill's port of a later one has the
factor T^2, as here. Both let no product of norms fall below 1e-8, which bends the correlation of classes that are never
likely in a batch; here no norm falls below 1e-12. Published on ImageNet: ResNet-34 to 18 72.07.
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from relatum.core.distributed import gather
from relatum.core.precision import full_precision
from relatum.core.types import Batch
from relatum.methods.checks import at_least_zero
from relatum.methods.distill.distiller import Distiller, require_same_classes
from relatum.networks.backbones import Backbone


class DIST(Distiller, pairing="single"):
    """Learn how the probabilities of a frozen teacher correlate, along classes and along images.

    Args:
        backbone: the student, with at least two classes.
        teacher: a trained network with the same classes.
        beta: weight of the correlation among the classes of each image.
        gamma: weight of the correlation among the images of the batch, for each class.
        task_weight: weight of the cross-entropy.
        temperature: `T > 0` of the probabilities; 1 on ImageNet.
        standardize: compare logits of mean 0 and deviation 1 over the classes (Sun et al. 2024).

    Raises:
        ValueError: for networks whose classes do not fit, or options out of range.
    """

    def __init__(
        self,
        backbone: Backbone,
        *,
        teacher: Backbone,
        beta: float = 1.0,
        gamma: float = 1.0,
        task_weight: float = 1.0,
        temperature: float = 1.0,
        standardize: bool = False,
    ) -> None:
        super().__init__(backbone, teacher, task_weight, 0.0, temperature, standardize=standardize)
        require_same_classes(backbone, teacher, least=2)
        self.beta, self.gamma = at_least_zero("beta", beta), at_least_zero("gamma", gamma)

    def losses(self, batch: Batch) -> dict[str, Float[Tensor, ""]]:
        student, teacher, labels = self.features(batch)
        own, goal = (gather(logits) for logits in self.compared(student, teacher))
        classes, images = correlation_gaps(own, goal, self.temperature)
        return self.class_terms(student, teacher, labels) | {
            "classes": self.beta * self.temperature**2 * classes,
            "images": self.gamma * self.temperature**2 * images,
        }


@full_precision
def correlation_gaps(
    student: Float[Tensor, "n k"], teacher: Float[Tensor, "n k"], temperature: float = 1.0
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """`1 - mean rho` along the classes of each image, and along the images for each class; both in [0, 2].

    Args:
        student, teacher: logits of the same images; no gradient flows into the teacher's.
        temperature: `T` of the softmax.

    Raises:
        ValueError: for a single image, which correlates with nothing.
    """
    if len(student) < 2:
        raise ValueError(f"a batch of {len(student)} image has no correlation among images; expected at least 2.")
    own, goal = (student / temperature).softmax(1), (teacher.detach() / temperature).softmax(1)
    classes, images = (1 - _correlation(own, goal, dim).mean() for dim in (1, 0))
    return classes, images


def _correlation(a: Float[Tensor, "n k"], b: Float[Tensor, "n k"], dim: int) -> Float[Tensor, " m"]:
    """Pearson's correlation along `dim`; 0 where one of both is constant."""
    a, b = (F.normalize(x - x.mean(dim, keepdim=True), dim=dim) for x in (a, b))
    return torch.linalg.vecdot(a, b, dim=dim)
