"""SimSiam: predict the other view, and stop the gradient there. No negatives, no copy.

    L = -1/2 cos(h(z_a), sg(z_b)) - 1/2 cos(h(z_b), sg(z_a)),   z = g(f(x))

Xinlei Chen, Kaiming He: Exploring Simple Siamese Representation Learning. CVPR 2021, Eq. (3) and (4).
"""

import torch
from jaxtyping import Float
from torch import Tensor

from relatum.core.types import Batch
from relatum.methods.base import Method
from relatum.networks.backbones import Backbone
from relatum.networks.heads import Projector
from relatum.relations import Cosine, Relation


class SimSiam(Method, pairing="two-views"):
    """Attract the prediction of one view to the detached projection of the other.

    Args:
        backbone: the encoder.
        relation: how a prediction and its target compare; the cosine in the paper.
        out_width: width of each space of projector and predictor; 2048 in the paper.
        bottleneck: hidden width of the predictor; a quarter of `out_width` in the paper.
        layers: fully connected layers of the projector; 3 in the paper, 2 for CIFAR.
    """

    def __init__(
        self,
        backbone: Backbone,
        *,
        relation: Relation = Cosine(),
        out_width: int = 2048,
        bottleneck: int = 512,
        layers: int = 3,
    ) -> None:
        super().__init__(backbone)
        self.relation = relation
        spaces = self.relation.spaces
        self.projector = Projector(
            backbone.embedding_dim, out_width, out_width, spaces=spaces, layers=layers, last_norm=True, normalize=False
        )
        self.predictor = Projector(self.projector.out_width, bottleneck, out_width, spaces=spaces, normalize=False)

    def losses(self, batch: Batch) -> dict[str, Float[Tensor, ""]]:
        # Each view has batch statistics of its own, as in the authors' code: without negatives it matters.
        z_a, z_b = (self.projector(self.backbone.embed(view)) for view in batch.views)
        p_a, p_b = self.predictor(z_a), self.predictor(z_b)
        alike = self.relation.matched(torch.cat([p_a, p_b]), torch.cat([z_b, z_a]).detach())
        return {"prediction": -alike.mean()}
