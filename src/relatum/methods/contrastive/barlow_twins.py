"""Barlow Twins: the features of two views correlate each with itself, and with no other. No negatives, no copy.

    C_ij = sum_b z^a_bi z^b_bj / (|z^a_.i| |z^b_.j|),   z: projections, centered over the batch
    L = sum_i (1 - C_ii)^2 + weight sum_{i != j} C_ij^2

Jure Zbontar, Li Jing, Ishan Misra, Yann LeCun, Stephane Deny: Barlow Twins: Self-Supervised Learning via Redundancy
Reduction. ICML 2021, Eq. (1) and (2). Their projector has three layers of 8192, the weight is 5e-3, and LARS steps it.
C is one of coordinates, not of images: a relation has no meaning in it. It is a statistic of the whole batch, over all
ranks; public ports that sum it over ranks without a gradient are off by one over their number.
"""

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from relatum.core.distributed import gather
from relatum.core.precision import full_precision
from relatum.core.types import Batch
from relatum.losses.grams import apart
from relatum.methods.base import Method
from relatum.methods.checks import at_least_zero
from relatum.networks.backbones import Backbone
from relatum.networks.heads import Projector


class BarlowTwins(Method, pairing="two-views"):
    """Bring the cross-correlation of the projections of two views to the identity.

    Args:
        backbone: the encoder.
        weight: weight of the correlations of different coordinates.
        hidden_width: hidden width of the projector.
        out_width: coordinates that are correlated; more are better, and cost their square.
        layers: fully connected layers of the projector.
    """

    def __init__(
        self,
        backbone: Backbone,
        *,
        weight: float = 5e-3,
        hidden_width: int = 2048,
        out_width: int = 2048,
        layers: int = 3,
    ) -> None:
        super().__init__(backbone)
        self.weight = at_least_zero("weight", weight)
        self.projector = Projector(backbone.embedding_dim, hidden_width, out_width, layers=layers, normalize=False)

    def losses(self, batch: Batch) -> dict[str, Float[Tensor, ""]]:
        a, b = (gather(self.projector(self.backbone.embed(view))) for view in batch.views)
        invariance, redundancy = barlow_terms(a, b)
        return {"invariance": invariance, "redundancy": self.weight * redundancy}


@full_precision
def barlow_terms(a: Float[Tensor, "n d"], b: Float[Tensor, "n d"]) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """`sum_i (1 - C_ii)^2` and `sum_{i != j} C_ij^2` of the projections of two views (Eq. 1 and 2).

    A coordinate that is the same for all images correlates with nothing: 0.

    Raises:
        ValueError: for fewer than two images.
    """
    if len(a) < 2:
        raise ValueError(f"a batch of {len(a)} image has no correlation; expected at least 2 images.")
    n = len(a)
    # Batch norm scales faster than a division by lengths does, to sqrt(n); only a constant coordinate sees its eps. It
    # cancels where means are large, and so gets what is centered: by a constant, as no gradient of it depends on means.
    centered = (z - z.detach().mean(0) for z in (a, b))
    normal_a, normal_b = (F.batch_norm(z, None, None, training=True, eps=1e-24) for z in centered)
    own, others = apart(normal_a, normal_b)
    return (1 - own / n).square().sum(), others / n**2
