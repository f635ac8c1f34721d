"""Relational self-distillation with a handcrafted relation: row "+RD" of CORSD's Table 4, and no network to train.

    R_x^i = |u(f_o^i) - u(f_x^i)|,   u(f) = the mean of f over the positions, scaled to length one
    L = CE(o, p, n) + beta sum_{i<k} (R_p^i - R_p^k)^2 + (R_n^i - R_n^k)^2

for the triples (o, p, n) of CORSD, with the deepest relations detached and each term the mean over the batch. The
paper says of the row only that it uses "handcrafted function L2 norm for relation extraction without our proposed
relation network". Unit length is ours: it gives maps of all depths distances in one range, [0, sqrt 2] where features
are not negative. CORSD with networks that project each image before they are compared is `CORSD(relation=Euclidean())`.

Muzhou Yu et al.: CORSD: Class-Oriented Relational Self Distillation. ICASSP 2023, Section 3.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from relatum.core.precision import at_least_float32
from relatum.core.types import Batch
from relatum.methods.checks import positive
from relatum.methods.classifying import Classifying, class_logits, require_stages, task_loss
from relatum.methods.distill.corsd import relation_distillation
from relatum.networks.backbones import Backbone
from relatum.relations import Euclidean, unit


class RelationL2(Classifying, pairing="triples"):
    """Let the distances of images at every stage follow those at the deepest.

    Args:
        backbone: the classifier.
        beta: weight of the relation distillation, > 0.

    Raises:
        ValueError: for another weight, a backbone without classes, or one with a single stage.
    """

    def __init__(self, backbone: Backbone, *, beta: float = 0.01) -> None:
        super().__init__(backbone)
        require_stages(backbone)
        self.beta = positive("beta", beta, 0.01)
        self.relation = Euclidean()

    def losses(self, batch: Batch) -> dict[str, Float[Tensor, ""]]:
        features = self.backbone(torch.cat(batch.views))
        distances = []
        for maps in features.stages:
            anchor, positive, negative = unit(at_least_float32(maps).mean((2, 3))).chunk(3)
            distances.append(-torch.stack([self.relation.matched(anchor, x) for x in (positive, negative)]))
        return {
            "task": task_loss(class_logits(features), batch.labels.flatten()),
            "relation": self.beta * relation_distillation(torch.stack(distances)),
        }
