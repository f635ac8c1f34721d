"""ReSSL: an image relates to others, under strong augmentation, as a slow copy sees it relate under weak augmentation.

    q = g(f(strong view)),   k = g'(f'(weak view)),   L = relation_consistency(q, k, queue)

Mingkai Zheng, Shan You, Fei Wang, Chen Qian, Changshui Zhang, Xiaogang Wang, Chang Xu: ReSSL: Relational
Self-Supervised Learning with Weak Augmentation. NeurIPS 2021. Their code has a head of two layers without batch norm,
4096 hidden units and 512 outputs, on ImageNet a queue of 131072 and a momentum of 0.999; the copy is sharpened by a
temperature of 0.04 against 0.1. It reads the keys in shuffled groups, as MoCo does, and follows before they are read,
which here is after the step before: the same keys. The weak view is cropped and mirrored only: a recipe says
`second_jitter`, `second_grayscale`, `second_blur` and `second_solarize` of its view.

Relations of relations: each image has a distribution over the queue by the relation, and the distributions of its two
views are compared. By Jaccard two views of an image must overlap alike, in both spaces, with the same others. Its range
is [0, 1] where the cosine's is [-1, 1]: the same temperature is half as sharp.
"""

from jaxtyping import Float
from torch import Tensor

from relatum.core.distributed import gather
from relatum.core.schedules import cosine
from relatum.core.types import Batch
from relatum.losses.queries import relation_consistency
from relatum.methods.base import Method
from relatum.methods.checks import positive, share
from relatum.networks.backbones import Backbone
from relatum.networks.heads import Projector
from relatum.networks.memory import MomentumCopy, Queue
from relatum.relations import Cosine, Relation


class ReSSL(Method, pairing="two-views"):
    """Bring the relations of one view with a queue to those that a momentum copy has of the other.

    The first view is the student's, the second the copy's. The keys of a step enter the queue after it.

    Args:
        backbone: the encoder.
        relation: how an image and a key of the queue compare.
        temperature: temperature of the student's softmax over the queue.
        target_temperature: temperature of the copy's, lower, so that it is sharper.
        queue_size: how many keys, at least the batch; 131072 for ImageNet.
        momentum: momentum of the copy, in [0, 1].
        final_momentum: what it rises to along half a cosine; none keeps it constant.
        key_splits: groups in which the copy reads shuffled images, each with batch statistics of its own; the batch
            must be divisible by it. 1 turns the shuffling off.
        hidden_width: hidden width of the projector. The authors have 4096 for ResNet-50.
        out_width: width of each space.
        projector_norm: batch-normalize the projector's hidden layer, as SimCLR's is, so that methods compare with one
            network; the authors do not, and without it small networks of ours collapsed.
    """

    def __init__(
        self,
        backbone: Backbone,
        *,
        relation: Relation = Cosine(),
        temperature: float = 0.1,
        target_temperature: float = 0.04,
        queue_size: int = 4096,
        momentum: float = 0.99,
        final_momentum: float | None = None,
        key_splits: int = 4,
        hidden_width: int = 1024,
        out_width: int = 512,
        projector_norm: bool = True,
    ) -> None:
        super().__init__(backbone)
        self.relation = relation
        self.temperature = positive("temperature", temperature, 0.1)
        self.target_temperature = positive("target_temperature", target_temperature, 0.04)
        self.projector = Projector(
            backbone.embedding_dim, hidden_width, out_width, spaces=relation.spaces, hidden_norm=projector_norm
        )
        self.copy = MomentumCopy(backbone, self.projector, groups=key_splits)
        self.queue = Queue(queue_size, self.projector.out_width, relation.spaces)
        self.momentum = share("momentum", momentum, 0.99)
        self.final_momentum = momentum if final_momentum is None else share("final_momentum", final_momentum, 0.99)
        self._new_keys: Tensor | None = None

    def losses(self, batch: Batch) -> dict[str, Float[Tensor, ""]]:
        strong, weak = batch.views
        self._new_keys = keys = gather(self.copy.project(weak))
        self.queue.refuse_fewer_than(len(keys))
        query = gather(self.projector(self.backbone.embed(strong)))
        loss = relation_consistency(
            query, keys, self.queue.keys, self.relation, self.temperature, self.target_temperature
        )
        return {"consistency": loss}

    def after_step(self, progress: float) -> None:
        self.copy.update(self.backbone, self.projector, momentum=cosine(progress, self.momentum, self.final_momentum))
        if self._new_keys is not None:
            self.queue.update(self._new_keys)
        self._new_keys = None
