"""SimCLR: two views of an image attract, all other images of the batch repel.

    z = g(f(x)),   L = nt_xent(z_a, z_b)

Ting Chen, Simon Kornblith, Mohammad Norouzi, Geoffrey Hinton: A Simple Framework for Contrastive Learning of Visual
Representations. ICML 2020. With `relation=Jaccard()` and two `alphas` it is the proposed model of Bo Jiang, Hamid
Krim, Tianfu Wu, Derya Cansever: Refining Self-Supervised Learning in Imaging: Beyond Linear Metric. ICIP 2022, Eq. (4).
"""

from jaxtyping import Float
from torch import Tensor

from relatum.core.distributed import gather
from relatum.core.types import Batch
from relatum.losses.objectives import contrast_terms, two_view_contrast
from relatum.methods.base import Method
from relatum.methods.contrastive.crops import crop_pairs, embed_crops
from relatum.networks.backbones import Backbone
from relatum.networks.heads import Projector
from relatum.relations import Cosine, Relation


class SimCLR(Method, pairing="two-views", multi_crop=True):
    """Contrast the two views of each image with all other views of the batch.

    With multi-crop the pairs are those of SwAV and DINO: each large crop with each other crop of its image, no small
    crop with a small one. A pair of crops is contrasted as two views are, its negatives the same two crops of the other
    images, and the loss is the mean over the terms of SwAV's sum, in which two large crops meet twice and a large and a
    small one once: L = 1 / |T| sum_{(i, v) in T} nt_xent(z_i, z_v), T = {(i, v): i large, v any other}. Without small
    crops, and with two large ones, it is SimCLR's. Crops of one size share batch statistics.

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
        z = self.projector(embed_crops(self.backbone, batch.views)).chunk(len(batch.views))
        z = [gather(view) for view in z]
        pairs = crop_pairs(batch)
        totals: dict[str, Tensor] = {}
        for (i, v), count in pairs.items():
            for name, loss in two_view_contrast(z[i], z[v], self.terms).items():
                totals[name] = totals.get(name, 0) + count / pairs.total() * loss
        return totals
