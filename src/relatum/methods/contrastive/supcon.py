"""SupCon: all views of one class attract. With labels: the bound that no method without them should be asked to pass.

    L_out = sum_i -1/|P(i)| sum_{p in P(i)} log(e^{s_ip/t} / sum_{a != i} e^{s_ia/t}),   P(i): views of i's class

Prannay Khosla, Piotr Teterwak, Chen Wang, Aaron Sarna, Yonglong Tian, Phillip Isola, Aaron Maschinot, Ce Liu, Dilip
Krishnan: Supervised Contrastive Learning. NeurIPS 2020, Eq. (2).
"""

import torch
from jaxtyping import Float
from torch import Tensor

from relatum.core.distributed import gather
from relatum.core.types import Batch
from relatum.losses.objectives import supcon_loss
from relatum.methods.base import Method
from relatum.networks.backbones import Backbone
from relatum.networks.heads import Projector
from relatum.relations import Cosine, Relation


class SupCon(Method, pairing="two-views", needs_labels=True):
    """Contrast the views of each class with those of all others in the batch.

    Args:
        backbone: the encoder.
        relation: how two embeddings compare.
        temperature: temperature of the softmax over the relation.
        hidden_width: hidden width of the projector; none means the width of the features.
        out_width: width of each space.
    """

    def __init__(
        self,
        backbone: Backbone,
        *,
        relation: Relation = Cosine(),
        temperature: float = 0.1,
        hidden_width: int | None = None,
        out_width: int = 128,
    ) -> None:
        super().__init__(backbone)
        self.relation = relation
        self.temperature = temperature
        width = backbone.embedding_dim
        self.projector = Projector(width, hidden_width or width, out_width, spaces=self.relation.spaces)

    def losses(self, batch: Batch) -> dict[str, Float[Tensor, ""]]:
        z = self.projector(self.backbone.embed(torch.cat(batch.views)))
        labels = batch.labels.flatten()
        return {"contrast": supcon_loss(gather(z), gather(labels), self.relation, self.temperature)}
