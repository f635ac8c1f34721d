"""VICReg: two views agree, each coordinate keeps its variance, and no two coordinates vary together.

    s(Z, Z') = 1/n sum_i |z_i - z'_i|^2 / d
    v(Z)     = 1/d sum_j max(0, 1 - sqrt(Var(z_.j) + eps))
    c(Z)     = 1/d sum_{i != j} C_ij^2,   C = 1/(n-1) sum_i (z_i - mean) (z_i - mean)^T
    L        = 25 s(Z, Z') + 25 (v(Z) + v(Z')) + (c(Z) + c(Z'))

Adrien Bardes, Jean Ponce, Yann LeCun: VICReg: Variance-Invariance-Covariance Regularization for Self-Supervised
Learning. ICLR 2022, Eq. (1) to (6). Eq. (5) has no division by d, which the paper's own Algorithm 1 has, and to which
its weights belong. The authors' code, and lightly's, halve `v(Z) + v(Z')`: `variance="mean"`. Their projector has three
layers of 8192, stepped by LARS.

It compares coordinates, not images: a relation has no meaning in it. Variances and covariances are statistics of the
whole batch, over all ranks, with their gradient; a public port's covariances were off by one over the number of ranks.
"""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from relatum.core.distributed import gather
from relatum.core.precision import full_precision
from relatum.core.types import Batch
from relatum.losses.grams import apart
from relatum.methods.base import Method
from relatum.methods.checks import at_least_zero, positive
from relatum.networks.backbones import Backbone
from relatum.networks.heads import Projector


class VICReg(Method, pairing="two-views"):
    """Attract two views, and keep the variance of coordinates up and their covariances down.

    Args:
        backbone: the encoder.
        invariance_weight: weight of the distance between the views.
        variance_weight: weight of what the deviations lack to 1.
        covariance_weight: weight of the covariances of different coordinates.
        variance: how the variance terms of the two views join: "sum" as in Eq. (6), or "mean" as in the authors' code.
        eps: what is added to a variance before its root.
        hidden_width: hidden width of the projector.
        out_width: coordinates; more are better.
        layers: fully connected layers of the projector.
    """

    def __init__(
        self,
        backbone: Backbone,
        *,
        invariance_weight: float = 25.0,
        variance_weight: float = 25.0,
        covariance_weight: float = 1.0,
        variance: Literal["sum", "mean"] = "sum",
        eps: float = 1e-4,
        hidden_width: int = 2048,
        out_width: int = 2048,
        layers: int = 3,
    ) -> None:
        super().__init__(backbone)
        self.invariance_weight = at_least_zero("invariance_weight", invariance_weight)
        self.variance_weight = at_least_zero("variance_weight", variance_weight) / (2 if variance == "mean" else 1)
        self.covariance_weight = at_least_zero("covariance_weight", covariance_weight)
        self.eps = positive("eps", eps, 1e-4)
        self.projector = Projector(backbone.embedding_dim, hidden_width, out_width, layers=layers, normalize=False)

    def losses(self, batch: Batch) -> dict[str, Float[Tensor, ""]]:
        a, b = (gather(self.projector(self.backbone.embed(view))) for view in batch.views)
        invariance, variance, covariance = vicreg_terms(a, b, self.eps)
        return {
            "invariance": self.invariance_weight * invariance,
            "variance": self.variance_weight * variance,
            "covariance": self.covariance_weight * covariance,
        }


@full_precision
def vicreg_terms(
    a: Float[Tensor, "n d"], b: Float[Tensor, "n d"], eps: float = 1e-4
) -> tuple[Float[Tensor, ""], Float[Tensor, ""], Float[Tensor, ""]]:
    """`s(Z, Z')`, `v(Z) + v(Z')` and `c(Z) + c(Z')` of the projections of two views (Eq. 1 to 5).

    Raises:
        ValueError: for fewer than two images.
    """
    n, d = a.shape
    if n < 2:
        raise ValueError(f"a batch of {n} image has no variance; expected at least 2 images.")
    variance, covariance = a.new_zeros(()), a.new_zeros(())
    for z in (a, b):
        centered = z - z.mean(0)
        squares, others = apart(centered, centered)
        variance = variance + F.relu(1 - torch.sqrt(squares / (n - 1) + eps)).mean()
        covariance = covariance + others / (d * (n - 1) ** 2)
    return F.mse_loss(a, b), variance, covariance
