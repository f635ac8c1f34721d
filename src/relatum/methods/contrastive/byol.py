"""BYOL: predict what a slowly moving copy says of the other view. No negatives.

    L = 2 - 2 cos(h(g(f(x_a))), g'(f'(x_b)))  in both directions,   theta' = m theta' + (1 - m) theta,  m -> 1

Jean-Bastien Grill, Florian Strub, Florent Altche, Corentin Tallec, Pierre Richemond, et al.: Bootstrap Your Own
Latent. NeurIPS 2020, Eq. (2).
"""

import torch
from jaxtyping import Float
from torch import Tensor

from relatum.core.schedules import cosine
from relatum.core.types import Batch
from relatum.methods.base import Method
from relatum.methods.checks import share
from relatum.networks.backbones import Backbone
from relatum.networks.heads import Projector
from relatum.networks.memory import MomentumCopy
from relatum.relations import Cosine, Relation


class BYOL(Method, pairing="two-views"):
    """Attract the prediction of one view to the momentum copy's projection of the other.

    Args:
        backbone: the encoder.
        relation: how a prediction and its target compare; the cosine in the paper.
        momentum: momentum of the copy at the start, in [0, 1]; it rises to 1 along half a cosine.
        hidden_width: hidden width of projector and predictor. The paper has 4096 for ResNet-50.
        out_width: width of each space.
    """

    def __init__(
        self,
        backbone: Backbone,
        *,
        relation: Relation = Cosine(),
        momentum: float = 0.99,
        hidden_width: int = 1024,
        out_width: int = 256,
    ) -> None:
        super().__init__(backbone)
        self.relation = relation
        spaces = self.relation.spaces
        self.projector = Projector(backbone.embedding_dim, hidden_width, out_width, spaces=spaces, normalize=False)
        self.predictor = Projector(self.projector.out_width, hidden_width, out_width, spaces=spaces)
        self.copy = MomentumCopy(backbone, self.projector)
        self.momentum = share("momentum", momentum, 0.99)

    def losses(self, batch: Batch) -> dict[str, Float[Tensor, ""]]:
        # Each view has batch statistics of its own, as in the authors' code: without negatives it matters.
        predictions = [self.predictor(self.projector(self.backbone.embed(view))) for view in batch.views]
        targets = [self.copy.project(view) for view in reversed(batch.views)]
        alike = self.relation.matched(torch.cat(predictions), torch.cat(targets))
        return {"prediction": 2 * (2 - 2 * alike.mean())}

    def after_step(self, progress: float) -> None:
        self.copy.update(self.backbone, self.projector, momentum=cosine(progress, self.momentum, 1.0))
