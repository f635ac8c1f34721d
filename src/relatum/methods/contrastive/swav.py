"""SwAV: each large crop of an image says which prototypes it belongs to, and every other crop has to say the same.

    s = relation(g(f(x)), c_k),   q_i = sinkhorn(s_i)
    L = -1 / |T| sum_{(i, v) in T} sum_k q_ik log softmax_k(s_v / temperature)
    Q = argmax_Q <Q, S> + epsilon H(Q),   Q 1 = 1 / K,  Q' 1 = 1 / B

Mathilde Caron, Ishan Misra, Julien Mairal, Priya Goyal, Piotr Bojanowski, Armand Joulin: Unsupervised Learning of
Visual Features by Contrasting Cluster Assignments. NeurIPS 2020, Eq. (2) to (6); T are the pairs of multi-crop
(`methods/contrastive/crops.py`).
"""

from typing import cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from relatum.core.distributed import gather
from relatum.core.precision import full_precision
from relatum.core.types import Batch
from relatum.methods.base import Method
from relatum.methods.checks import at_least_zero, positive, share
from relatum.methods.contrastive.crops import embed_crops, told_by_large
from relatum.networks.backbones import Backbone
from relatum.networks.heads import Projector, Prototypes
from relatum.networks.memory import Clock, Queue
from relatum.relations import Cosine, Relation


class SwAV(Method, pairing="two-views", multi_crop=True):
    """Predict the cluster assignment of one crop of an image from the others.

    The assignments of a batch share it out over all prototypes in equal parts, so that not all images can be of one
    cluster. They are made in float32 from the images of all processes and of the queue, and get no gradient.

    A relation is how alike an embedding and a prototype are; the paper has the cosine. With the Jaccard index an image
    belongs to a prototype that it shares something with in both spaces.

    Where the authors' code differs: it takes the gradient of prototypes that it has scaled to length one before the
    step, as if they were free (here it is that of the scaled ones, and they are scaled after the step); its queue is
    made when it is due and waits until it is full (here it fills from the start, and what is in it counts).

    Args:
        backbone: the encoder.
        relation: how an embedding and a prototype compare.
        temperature: temperature of the prediction; 0.1 in the paper.
        prototypes: how many, K; 3000 for ImageNet. At most as many as a batch and the queue have images.
        epsilon: how soft the assignments are; 0.05 in the paper, and smaller ones are harder.
        iterations: normalizations of rows and columns that make the assignments; 3 in the paper.
        queue_size: how many embeddings of earlier batches help to share out a small one; 0 for none, 3840 for batches
            of 256 in the paper. Each large crop has a queue of its own.
        queue_after: the share of training after which the queue is used; 15 epochs in the paper.
        frozen_share: the share of training in which the prototypes stay as they are; the first epoch in the paper.
        hidden_width: hidden width of the projector; none means the width of the features. The paper has 2048.
        out_width: width of each space.
        layers: fully connected layers of the projector.

    Raises:
        ValueError: for options out of range, or more prototypes than images to share out.
    """

    queued: Int[Tensor, ""]

    def __init__(
        self,
        backbone: Backbone,
        *,
        relation: Relation = Cosine(),
        temperature: float = 0.1,
        prototypes: int = 512,
        epsilon: float = 0.05,
        iterations: int = 3,
        queue_size: int = 0,
        queue_after: float = 0.04,
        frozen_share: float = 0.01,
        hidden_width: int | None = None,
        out_width: int = 128,
        layers: int = 2,
    ) -> None:
        super().__init__(backbone)
        if iterations < 1:
            raise ValueError(f"iterations is {iterations}; expected at least 1, without which nothing is shared out.")
        self.temperature = positive("temperature", temperature, 0.1)
        self.epsilon = positive("epsilon", epsilon, 0.05)
        self.iterations = iterations
        self.queue_size = int(at_least_zero("queue_size", queue_size))
        self.queue_after = share("queue_after", queue_after, 0.04)
        self.frozen_share = share("frozen_share", frozen_share, 0.01, below_one=True)
        self.trains_in_phases = frozen_share > 0
        width, spaces = backbone.embedding_dim, relation.spaces
        self.projector = Projector(width, hidden_width or width, out_width, spaces=spaces, layers=layers)
        self.prototypes = Prototypes(self.projector.out_width, prototypes, relation)
        queues = (Queue(self.queue_size, self.projector.out_width, spaces) for _ in range(2 if queue_size else 0))
        self.queues = nn.ModuleList(queues)
        self.register_buffer("queued", torch.zeros((), dtype=torch.long))
        self.clock = Clock()
        self._new: list[Tensor] = []

    def losses(self, batch: Batch) -> dict[str, Float[Tensor, ""]]:
        frozen = self.clock.share < self.frozen_share
        z = self.projector(embed_crops(self.backbone, batch.views)).chunk(len(batch.views))
        z = [gather(rows) for rows in z]
        self.refuse_batch(len(z[0]))
        self._refuse_crops(batch.large)
        scores = torch.stack([self.prototypes(rows, frozen=frozen) for rows in z])
        self._new = [rows.detach() for rows in z[: batch.large]]
        codes = torch.stack([self._codes(i) for i in range(batch.large)])
        return {"swapped": told_by_large(scores, codes, self.temperature)}

    def after_step(self, progress: float) -> None:
        if self.clock.share >= self.frozen_share:
            self.prototypes.rescale()
        for queue, rows in zip(self.queues, self._new):
            cast(Queue, queue).update(rows)
        if self._new:
            self.queued += len(self._new[0])
        self._new = []
        self.clock.update(progress)

    def refuse_batch(self, images: int) -> None:
        count, queued = len(self.prototypes.weight), self.queue_size
        if count > images + queued:
            raise ValueError(
                f"prototypes is {count}, and {images} images of a batch and {queued} of the queue cannot be shared out "
                f"over so many; expected at most {images + queued}: lower --method.prototypes, or raise "
                f"--method.queue-size to {count - images} or --data.batch-size."
            )

    def _refuse_crops(self, large: int) -> None:
        if self.queue_size and large != len(self.queues):
            raise ValueError(
                f"a batch has {large} large crops of each image, and there are queues for {len(self.queues)}: leave "
                "data.view.large at 2, or give --method.queue-size 0."
            )

    @torch.no_grad()
    def _codes(self, crop: int) -> Float[Tensor, "n k"]:
        """The assignments of a large crop of all images, those of all processes."""
        rows = self._new[crop]
        if not self.queue_size or self.clock.share < self.queue_after:
            return sinkhorn(self.prototypes(rows), self.epsilon, self.iterations)
        queue = cast(Queue, self.queues[crop])
        filled = torch.arange(self.queue_size, device=rows.device) < self.queued
        counted = torch.cat([filled.new_ones(len(rows)), filled])
        scores = self.prototypes(torch.cat([rows, queue.keys.to(rows.dtype)]))
        return sinkhorn(scores, self.epsilon, self.iterations, counted)[: len(rows)]


@torch.no_grad()
@full_precision
def sinkhorn(
    scores: Float[Tensor, "n k"], epsilon: float, iterations: int, counted: Bool[Tensor, " n"] | None = None
) -> Float[Tensor, "n k"]:
    """Soft assignments of images to prototypes, which share the images out equally (Cuturi 2013; SwAV, Eq. 3 to 5).

    exp(scores / epsilon), its columns (prototypes) and then its rows (images) scaled to equal sums, `iterations` times;
    the assignments of an image sum to one. The scalings are kept apart from the matrix, which is never written again,
    and each image's largest score is taken from the others first, so that no epsilon overflows.

    Args:
        scores: how alike each image and each prototype are.
        epsilon: the weight of the entropy, above 0.
        iterations: at least 1.
        counted: which images take part; the assignments of the others are zero. None for all.
    """
    largest = scores.amax(1, keepdim=True)
    kernel = ((scores - largest) / epsilon).exp()
    rows = ((largest[:, 0] - largest.amax()) / epsilon).exp()
    taking_part = torch.ones_like(rows) if counted is None else counted.to(rows.dtype)
    rows = rows * taking_part
    tiny = torch.finfo(kernel.dtype).tiny
    columns = rows
    for _ in range(iterations):
        columns = 1 / (rows @ kernel).clamp(min=tiny)
        rows = taking_part / (kernel @ columns).clamp(min=tiny)
    return kernel * columns * rows[:, None]
