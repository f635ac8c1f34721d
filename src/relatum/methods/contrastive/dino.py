"""DINO: a slowly moving copy tells what it sees in the large crops of an image, and every other crop has to say so.

    s = h(f(x)),   t = h'(f'(x)),   p_i = softmax((t_i - c) / T_t)
    L = -1 / |T| sum_{(i, v) in T} sum_k p_ik log softmax_k(s_v / T_s)
    c = m_c c + (1 - m_c) mean(t),   theta' = m theta' + (1 - m) theta,   m -> 1

Mathilde Caron, Hugo Touvron, Ishan Misra, Herve Jegou, Julien Mairal, Piotr Bojanowski, Armand Joulin: Emerging
Properties in Self-Supervised Vision Transformers. ICCV 2021, Eq. (1) to (4) and Algorithm 1; T are the pairs of
multi-crop (`methods/contrastive/crops.py`).
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from relatum.core.distributed import mean_over_ranks
from relatum.core.precision import full_precision
from relatum.core.schedules import cosine
from relatum.core.types import Batch
from relatum.methods.base import Method
from relatum.methods.checks import positive, share
from relatum.methods.contrastive.crops import embed_crops, told_by_large
from relatum.networks.backbones import Backbone
from relatum.networks.heads import Projector, Prototypes
from relatum.networks.memory import Clock, MomentumCopy
from relatum.relations import Cosine, Relation


class DINO(Method, pairing="two-views", multi_crop=True):
    """Learn from a momentum copy of oneself, whose outputs are centered and sharpened.

    The center, the mean output over the batches of all processes, takes away what all images share: no output can win
    them all. The low temperature of the copy keeps the outputs from being equal. Each alone collapses.

    The last layer compares a unit embedding with unit prototypes, which is the paper's weight-normalized layer with its
    gain at one. A relation is how alike the two are; the paper's is the cosine. With the Jaccard index an image belongs
    to a prototype that it shares something with in both spaces.

    Where the authors' code differs from the paper: 8 small crops where the paper has 10; a constant temperature of the
    copy of 0.04 is its default, and the paper's rise to 0.07 an option. Both raise the weight decay from 0.04 to 0.4
    along half a cosine: an optimizer's here is constant.

    Args:
        backbone: the encoder; a vision transformer in the paper.
        relation: how an embedding and a prototype compare.
        temperature: the student's; 0.1 in the paper.
        first_teacher_temperature: the copy's at the start.
        teacher_temperature: the copy's at the end of its rise.
        teacher_warmup: the share of training in which it rises, linearly; 30 of 300 epochs in the paper.
        center_momentum: `m_c`, in [0, 1].
        momentum: `m` at the start, in [0, 1]; it rises to 1 along half a cosine.
        prototypes: outputs of the last layer; 65536 in the paper, for ImageNet.
        frozen_share: the share of training in which the last layer stays as it is; the first epoch in the paper.
        hidden_width: hidden width of the projector.
        out_width: width of each space: the paper's bottleneck.
        layers: fully connected layers of the projector, with GELU between them.
        projector_norm: batch-normalize the projector's hidden layers; none means where the backbone has batch norm, as
            in the paper: transformers train without any.
    """

    center: Float[Tensor, " k"]

    def __init__(
        self,
        backbone: Backbone,
        *,
        relation: Relation = Cosine(),
        temperature: float = 0.1,
        first_teacher_temperature: float = 0.04,
        teacher_temperature: float = 0.07,
        teacher_warmup: float = 0.1,
        center_momentum: float = 0.9,
        momentum: float = 0.996,
        prototypes: int = 4096,
        frozen_share: float = 0.01,
        hidden_width: int = 2048,
        out_width: int = 256,
        layers: int = 3,
        projector_norm: bool | None = None,
    ) -> None:
        super().__init__(backbone)
        self.temperature = positive("temperature", temperature, 0.1)
        self.first_temperature = positive("first_teacher_temperature", first_teacher_temperature, 0.04)
        self.teacher_temperature = positive("teacher_temperature", teacher_temperature, 0.07)
        self.teacher_warmup = share("teacher_warmup", teacher_warmup, 0.1)
        self.center_momentum = share("center_momentum", center_momentum, 0.9)
        self.momentum = share("momentum", momentum, 0.996)
        self.frozen_share = share("frozen_share", frozen_share, 0.01, below_one=True)
        self.trains_in_phases = frozen_share > 0
        if projector_norm is None:
            projector_norm = any(isinstance(layer, nn.modules.batchnorm._BatchNorm) for layer in backbone.modules())
        self.projector = Projector(
            backbone.embedding_dim,
            hidden_width,
            out_width,
            spaces=relation.spaces,
            layers=layers,
            hidden_norm=projector_norm,
            gelu=True,
        )
        self.prototypes = Prototypes(self.projector.out_width, prototypes, relation)
        self.copy = MomentumCopy(backbone, nn.Sequential(self.projector, self.prototypes))
        self.register_buffer("center", torch.zeros(prototypes))
        self.clock = Clock()
        self._new_center: Tensor | None = None

    @property
    def current_teacher_temperature(self) -> float:
        """The copy's at this moment of training."""
        done = min(1.0, self.clock.share / self.teacher_warmup) if self.teacher_warmup else 1.0
        return self.first_temperature + done * (self.teacher_temperature - self.first_temperature)

    def losses(self, batch: Batch) -> dict[str, Float[Tensor, ""]]:
        frozen = self.clock.share < self.frozen_share
        z = self.projector(embed_crops(self.backbone, batch.views))
        scores = self.prototypes(z, frozen=frozen).unflatten(0, (len(batch.views), -1))
        told = self.copy.project(torch.cat(batch.views[: batch.large]))
        self._new_center = mean_over_ranks(told.mean(0))
        targets = sharpened(told, self.center, self.current_teacher_temperature)
        return {"told": told_by_large(scores, targets.unflatten(0, (batch.large, -1)), self.temperature)}

    def after_step(self, progress: float) -> None:
        student = nn.Sequential(self.projector, self.prototypes)
        self.copy.update(self.backbone, student, momentum=cosine(progress, self.momentum, 1.0))
        if self._new_center is not None:
            self.center.lerp_(self._new_center.to(self.center.dtype), 1 - self.center_momentum)
        self._new_center = None
        self.clock.update(progress)


@full_precision
def sharpened(outputs: Float[Tensor, "n k"], center: Float[Tensor, " k"], temperature: float) -> Float[Tensor, "n k"]:
    """`softmax((outputs - center) / temperature)`: what the copy tells (Algorithm 1)."""
    return ((outputs - center) / temperature).softmax(1)
