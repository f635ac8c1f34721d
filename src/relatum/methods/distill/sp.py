"""Similarity-preserving distillation: images that excite the teacher alike should excite the student alike.

    G = A A^T,   A = the rows vec(F_b) of the batch,   each row of G scaled to length one,
    L = CE(z_s, y) + gamma |G_s - G_t|_F^2 / n^2

Frederick Tung, Greg Mori: Similarity-Preserving Knowledge Distillation. ICCV 2019, Eq. (1) to (5). F is the last
convolutional map. Rows are scaled by their Euclidean length, not by the sum of their magnitudes, as one port has it.
"""

from typing import ClassVar

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from relatum.core.distributed import gather
from relatum.core.precision import full_precision
from relatum.core.types import Batch
from relatum.methods.base import Method, Pairing
from relatum.methods.distill.common import Classification, require_weights
from relatum.networks.backbones import Backbone
from relatum.networks.memory import Frozen


class SP(Method):
    """Learn which images a frozen teacher finds similar, in its deepest map.

    Args:
        backbone: the student, with classes.
        teacher: a trained network; its map may have any size.
        weight: `gamma`.
        task_weight: of the cross-entropy.
        kd_weight: of the divergence from the teacher's logits.
        temperature: of that divergence.

    Raises:
        ValueError: for networks whose classes do not fit, or options out of range.
    """

    pairing: ClassVar[Pairing] = "single"
    needs_labels: ClassVar[bool] = True
    classifies: ClassVar[bool] = True

    def __init__(
        self,
        backbone: Backbone,
        *,
        teacher: Backbone,
        weight: float = 3000.0,
        task_weight: float = 1.0,
        kd_weight: float = 0.0,
        temperature: float = 4.0,
    ) -> None:
        super().__init__(backbone)
        self.classification = Classification(backbone, teacher, task_weight, kd_weight, temperature)
        require_weights({"weight": weight})
        self.teacher = Frozen(teacher)
        self.weight = weight

    def losses(self, batch: Batch) -> dict[str, Float[Tensor, ""]]:
        images, labels = batch.views[0], batch.labels[0]
        student, teacher = self.backbone(images), self.teacher(images)
        terms = self.classification(student, teacher, labels)
        similarity = similarity_loss(gather(student.stages[-1]), gather(teacher.stages[-1]))
        return terms | {"similarity": self.weight * similarity}


@full_precision
def similarities(features: Float[Tensor, "n c h w"]) -> Float[Tensor, "n n"]:
    """The inner products of all maps of a batch, each row scaled to length one (Eq. 1 and 2)."""
    rows = features.flatten(1)
    return F.normalize(rows @ rows.T)


def similarity_loss(
    student: Float[Tensor, "n _cs _hs _ws"], teacher: Float[Tensor, "n _ct _ht _wt"]
) -> Float[Tensor, ""]:
    """`|G_s - G_t|_F^2 / n^2` (Eq. 4): the mean over all pairs of images."""
    return F.mse_loss(similarities(student), similarities(teacher))
