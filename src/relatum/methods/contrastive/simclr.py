"""SimCLR: two views of an image attract, all other images of the batch repel.

    z = g(f(x)),   L = nt_xent(z_a, z_b)

Ting Chen, Simon Kornblith, Mohammad Norouzi, Geoffrey Hinton: A Simple Framework for Contrastive Learning of Visual
Representations. ICML 2020. With `relation=Jaccard()` and two `alphas` it is the proposed model of Bo Jiang, Hamid
Krim, Tianfu Wu, Derya Cansever: Refining Self-Supervised Learning in Imaging: Beyond Linear Metric. ICIP 2022, Eq. (4).
"""

import torch
from jaxtyping import Float
from torch import Tensor

from relatum.core.distributed import gather
from relatum.core.types import Batch
from relatum.losses.objectives import contrast_terms, two_view_contrast
from relatum.methods.base import Method
from relatum.networks.backbones import Backbone
from relatum.networks.heads import Projector
from relatum.relations import Cosine, Relation


class SimCLR(Method, pairing="two-views"):
    """Contrast the two views of each image with all other views of the batch.

    Args:
        backbone: the encoder.
        relation: how two embeddings compare.
        temperature: temperature of the softmax over the relation.
        alphas: weights of the cosine contrast in each space of the relation (Eq. 4), or none.
        cosine_temperature: temperature of those cosine terms; none means the same temperature.
        hidden_width: hidden width of the projector; none means the width of the features.
        out_width: width of each space.
        layers: fully connected layers of the projector.
    """

    def __init__(
        self,
        backbone: Backbone,
        *,
        relation: Relation = Cosine(),
        temperature: float = 0.5,
        alphas: tuple[float, ...] = (),
        cosine_temperature: float | None = None,
        hidden_width: int | None = None,
        out_width: int = 128,
        layers: int = 2,
    ) -> None:
        super().__init__(backbone)

        self.terms = contrast_terms(relation, temperature, alphas, cosine_temperature)
        width = backbone.embedding_dim
        self.projector = Projector(width, hidden_width or width, out_width, spaces=relation.spaces, layers=layers)

    def losses(self, batch: Batch) -> dict[str, Float[Tensor, ""]]:
        # One forward pass of all 2N views: batch statistics as in the paper, and one call instead of two.
        a, b = self.projector(self.backbone.embed(torch.cat(batch.views))).chunk(2)
        return two_view_contrast(gather(a), gather(b), self.terms)
