"""Debiased contrastive learning: some of the negatives are of the anchor's class, and that share is taken out.

    L = -log(e^{s+/t} / (e^{s+/t} + M g)),   g: the repulsion of the negatives, corrected by the class prior

Ching-Yao Chuang, Joshua Robinson, Lin Yen-Chen, Antonio Torralba, Stefanie Jegelka: Debiased Contrastive Learning.
NeurIPS 2020, Eq. (7) and (8).
"""

import torch
from jaxtyping import Float
from torch import Tensor

from relatum.core.distributed import gather
from relatum.core.types import Batch
from relatum.losses.objectives import debiased_loss
from relatum.methods.base import Method
from relatum.networks.backbones import Backbone
from relatum.networks.heads import Projector
from relatum.relations import Cosine, Relation


class Debiased(Method, pairing="two-views"):
    """SimCLR with the debiased contrastive loss.

    Args:
        backbone: the encoder.
        class_prior: the probability that two images share a class, in [0, 1): 1 / classes for balanced data. The
            paper has 0.1 for CIFAR-10.
        relation: how two embeddings compare.
        temperature: temperature of the softmax over the relation.
        hidden_width: hidden width of the projector; none means the width of the features.
        out_width: width of each space.
    """

    def __init__(
        self,
        backbone: Backbone,
        *,
        class_prior: float = 0.1,
        relation: Relation = Cosine(),
        temperature: float = 0.5,
        hidden_width: int | None = None,
        out_width: int = 128,
    ) -> None:
        super().__init__(backbone)
        self.relation = relation
        self.temperature = temperature
        self.class_prior = class_prior
        width = backbone.embedding_dim
        self.projector = Projector(width, hidden_width or width, out_width, spaces=self.relation.spaces)

    def losses(self, batch: Batch) -> dict[str, Float[Tensor, ""]]:
        a, b = self.projector(self.backbone.embed(torch.cat(batch.views))).chunk(2)
        return {"contrast": debiased_loss(gather(a), gather(b), self.class_prior, self.relation, self.temperature)}
