"""Similarity-preserving distillation: images that excite the teacher alike should excite the student alike.

    G = A A^T,   A = the rows vec(F_b) of the batch,   each row of G scaled to length one,
    L = CE(z_s, y) + gamma |G_s - G_t|_F^2 / n^2

Frederick Tung, Greg Mori: Similarity-Preserving Knowledge Distillation. ICCV 2019, Eq. (1) to (5). F is the last
convolutional map. Rows are scaled by their Euclidean length, not by the sum of their magnitudes, as one port has it.
"""

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from relatum.core.distributed import gather
from relatum.core.precision import full_precision
from relatum.core.types import Batch
from relatum.methods.checks import at_least_zero
from relatum.methods.classifying import require_stages
from relatum.methods.distill.distiller import Distiller
from relatum.networks.backbones import Backbone


class SP(Distiller, pairing="single"):
    """Learn which images a frozen teacher finds similar, in its deepest map.

    Args:
        backbone: the student, with classes.
        teacher: a trained network; its map may have any size.
        weight: `gamma`, the weight of the similarity term.
        task_weight: weight of the cross-entropy.
        kd_weight: weight of the divergence from the teacher's logits.
        temperature: temperature of that divergence.
    """

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
        super().__init__(backbone, teacher, task_weight, kd_weight, temperature)
        for network in (backbone, teacher):
            require_stages(network, least=1)
        self.weight = at_least_zero("weight", weight)

    def losses(self, batch: Batch) -> dict[str, Float[Tensor, ""]]:
        student, teacher, labels = self.features(batch)
        similarity = similarity_loss(gather(student.stages[-1]), gather(teacher.stages[-1]))
        return self.class_terms(student, teacher, labels) | {"similarity": self.weight * similarity}


@full_precision
def similarity_loss(
    student: Float[Tensor, "n _cs _hs _ws"], teacher: Float[Tensor, "n _ct _ht _wt"]
) -> Float[Tensor, ""]:
    """`|G_s - G_t|_F^2 / n^2` (Eq. 4): the mean over all pairs of images."""
    gram_s, gram_t = (F.normalize(rows @ rows.T) for rows in (student.flatten(1), teacher.flatten(1)))
    return F.mse_loss(gram_s, gram_t)
