"""SEED: a small encoder learns, without labels, how a large one that learned without labels relates images.

    t = f_t(x) / |.|,   s = g(f_s(x)) / |.|,   Q = the last keys t of earlier steps
    p = softmax([R(t, t), R(t, Q)] / T_t),   q = softmax([R(s, t), R(s, Q)] / T_s),   L = -sum_j p_j log q_j

Zhiyuan Fang, Jianfeng Wang, Lijuan Wang, Lei Zhang, Yezhou Yang, Zicheng Liu: SEED: Self-supervised Distillation for
Visual Representation. ICLR 2021, Section 3.2. R is the cosine there; any relation will do, as only the teacher's own
relations to other images are handed on. One of two spaces, such as the Jaccard index, reads the two halves of the
teacher's embedding: of every image the teacher then says an index with every key, at most 1, with itself.

The authors' code: Q of 65,536, T_s = 0.2, T_t = 1e-4, at which p is all but certain of the image itself (a cosine of
0.999 has e^{-10} of the weight), and the loss all but s against t; the default here is 0.01, where the nearest keys
have a share. Their t and s are the outputs of projectors of MoCo or SwAV; run folders hold encoders without projectors,
so that t is the teacher's embedding here, and g a perceptron from the student's to its width. They need a queue that
the batch divides. Published by a linear probe on ImageNet: EfficientNet-B0 67.6 %, where MoCo v2
alone gives 42.2.
"""

from jaxtyping import Float
from torch import Tensor

from relatum.core.distributed import gather
from relatum.core.types import Batch
from relatum.losses import checks
from relatum.losses.matching import matching_loss
from relatum.methods.base import Method
from relatum.networks.backbones import Backbone
from relatum.networks.heads import Projector
from relatum.networks.memory import Frozen, Queue
from relatum.relations import Cosine, Relation, unit


class SEED(Method, pairing="single"):
    """Relate images to a queue as a frozen encoder does, without labels.

    Args:
        backbone: the encoder that learns.
        teacher: a trained encoder, with classes or without; its embedding is compared.
        relation: how two embeddings compare; one of two spaces reads the halves of the teacher's embedding.
        queue_size: how many keys of earlier images; 65536 for ImageNet.
        student_temperature: `T_s > 0` of the student's softmax.
        teacher_temperature: `T_t > 0` of the teacher's; lower leaves fewer keys a share.
        hidden_width: hidden width of the projector; none means the width of the features.

    Raises:
        ValueError: for a teacher's embedding that has no such parts, or options out of range.
    """

    def __init__(
        self,
        backbone: Backbone,
        *,
        teacher: Backbone,
        relation: Relation = Cosine(),
        queue_size: int = 4096,
        student_temperature: float = 0.2,
        teacher_temperature: float = 0.01,
        hidden_width: int | None = None,
    ) -> None:
        super().__init__(backbone)
        checks.temperature(student_temperature, "student_temperature")
        checks.temperature(teacher_temperature, "teacher_temperature")
        spaces, width = relation.spaces, teacher.embedding_dim
        if width % spaces:
            raise ValueError(
                f"{relation} compares {spaces} parts of an embedding, and that of the teacher {teacher.name} is of "
                f"width {width}: expected a multiple of {spaces}; choose another relation or teacher."
            )
        self.relation = relation
        self.student_temperature, self.teacher_temperature = student_temperature, teacher_temperature
        own = backbone.embedding_dim
        self.projector = Projector(own, hidden_width or own, width // spaces, spaces=spaces)
        self.queue = Queue(queue_size, width, spaces)
        self.teacher = Frozen(teacher)
        self._new_keys: Tensor | None = None

    def losses(self, batch: Batch) -> dict[str, Float[Tensor, ""]]:
        images = batch.views[0]
        keys = unit(self.teacher(images).embedding.to(self.queue.keys.dtype), self.relation.spaces)
        self._new_keys = keys
        loss = matching_loss(
            self.projector(self.backbone.embed(images)),
            keys,
            self.queue.keys,
            self.relation,
            self.student_temperature,
            self.teacher_temperature,
        )
        return {"relation": loss}

    def after_step(self, progress: float) -> None:
        if self._new_keys is not None:
            self.queue.update(gather(self._new_keys))
        self._new_keys = None
