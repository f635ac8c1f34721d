"""MoCo v2: queries against the keys of a slowly moving copy, and a queue of the keys of earlier batches.

    q = g(f(x_a)),   k = g'(f'(x_b)),   L = query_key_loss(q, k, queue),   theta' = m theta' + (1 - m) theta

Kaiming He, Haoqi Fan, Yuxin Wu, Saining Xie, Ross Girshick: Momentum Contrast for Unsupervised Visual Representation
Learning. CVPR 2020. Xinlei Chen, Haoqi Fan, Ross Girshick, Kaiming He: Improved Baselines with Momentum Contrastive
Learning. 2020.
"""

from typing import Literal

from jaxtyping import Float
from torch import Tensor

from relatum.core.distributed import gather
from relatum.core.schedules import cosine
from relatum.core.types import Batch
from relatum.losses.objectives import contrast_terms, query_key_contrast
from relatum.methods.base import Method
from relatum.methods.checks import share
from relatum.networks.backbones import Backbone
from relatum.networks.heads import Projector
from relatum.networks.memory import MomentumCopy, Queue
from relatum.relations import Cosine, Relation


class MoCo(Method, pairing="two-views"):
    """Contrast queries with the keys of a momentum copy and a queue.

    The momentum copy starts as an exact copy. The keys of a step enter the queue after the step: no query meets the
    keys of its own images among its negatives, in the symmetric form neither, where both losses are computed before.
    The copy reads its images in random order and in `key_splits` groups, each with batch statistics of its own
    (shuffled batch norm): otherwise the statistics tell a query which key is its own.

    Args:
        backbone: the encoder.
        relation: how two embeddings compare; the queue holds what it compares.
        temperature: temperature of the softmax over the relation. MoCo v2 has 0.2, its CIFAR demonstration 0.1.
        alphas: weights of the cosine contrast in each space of the relation (Eq. 4 of "Beyond Linear Metric"), or none.
        cosine_temperature: temperature of those cosine terms; none means the same temperature.
        queue_size: how many keys; 65536 for ImageNet, 4096 for CIFAR.
        momentum: momentum `m` of the copy, in [0, 1]; 0.999 for ImageNet, 0.99 for CIFAR.
        final_momentum: what `m` rises to along half a cosine; none keeps it constant, as in the papers.
        symmetric: let both views be query and key, at twice the cost.
        symmetric_loss: how the losses of the two directions join: "mean", so that a learning rate serves both forms; or
            "sum", as in the authors' CIFAR demonstration, which doubles the gradient.
        key_splits: how many groups; the batch must be divisible by it. 1 turns the shuffling off; the CIFAR
            demonstration has 8.
        projector_norm: batch-normalize the projector's hidden layer, as SimCLR's is, so that the two
            methods compare with one network; MoCo v2 has none.
        layers: fully connected layers of the projector: 2 in MoCo v2, 1 in the first MoCo.
        hidden_width: hidden width of the projector; none means the width of the features.
        out_width: width of each space.
    """

    def __init__(
        self,
        backbone: Backbone,
        *,
        relation: Relation = Cosine(),
        temperature: float = 0.2,
        alphas: tuple[float, ...] = (),
        cosine_temperature: float | None = None,
        queue_size: int = 4096,
        momentum: float = 0.99,
        final_momentum: float | None = None,
        symmetric: bool = False,
        symmetric_loss: Literal["mean", "sum"] = "mean",
        key_splits: int = 4,
        projector_norm: bool = True,
        layers: int = 2,
        hidden_width: int | None = None,
        out_width: int = 128,
    ) -> None:
        super().__init__(backbone)
        self.terms = contrast_terms(relation, temperature, alphas, cosine_temperature)
        width = backbone.embedding_dim
        self.projector = Projector(
            width,
            hidden_width or width,
            out_width,
            spaces=relation.spaces,
            layers=layers,
            hidden_norm=projector_norm,
        )
        self.copy = MomentumCopy(backbone, self.projector, groups=key_splits)
        self.queue = Queue(queue_size, self.projector.out_width, relation.spaces)
        self.momentum = share("momentum", momentum, 0.99)
        self.final_momentum = momentum if final_momentum is None else share("final_momentum", final_momentum, 0.99)
        self.symmetric = symmetric
        self.direction_weight = 1 / 2 if symmetric and symmetric_loss == "mean" else 1.0
        self._new_keys: list[Tensor] = []

    def losses(self, batch: Batch) -> dict[str, Float[Tensor, ""]]:
        a, b = batch.views
        directions = [(a, b), (b, a)] if self.symmetric else [(a, b)]
        self._new_keys = [self.copy.project(key) for _, key in directions]
        totals: dict[str, Tensor] = {}
        for (images, _), keys in zip(directions, self._new_keys):
            query = self.projector(self.backbone.embed(images))
            for name, loss in query_key_contrast(query, keys, self.queue.keys, self.terms).items():
                totals[name] = totals.get(name, 0) + self.direction_weight * loss
        return totals

    def after_step(self, progress: float) -> None:
        momentum = cosine(progress, self.momentum, self.final_momentum)
        self.copy.update(self.backbone, self.projector, momentum=momentum)
        for keys in self._new_keys:
            self.queue.update(gather(keys))
        self._new_keys = []
