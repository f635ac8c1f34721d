"""NNCLR: the positive of an image is another one, its nearest neighbor among the images of earlier batches.

    z = g(f(x)),   p = h(z),   NN(z) = the key of a queue that is most alike z
    L = 1/2 (in_batch_loss(NN(z_a), p_b) + in_batch_loss(NN(z_b), p_a))

Debidatta Dwibedi, Yusuf Aytar, Jonathan Tompson, Pierre Sermanet, Andrew Zisserman: With a Little Help from My Friends:
Nearest-Neighbor Contrastive Learning of Visual Representations. ICCV 2021, Eq. (3) and (4) and Algorithm 1. For
ResNet-50 they have a projector of three layers, 2048, 2048 and 256, a predictor with 4096 hidden units, a queue of
98304 and a temperature of 0.1. lightly's examples put NT-Xent in the place of Eq. (3): neighbors are negatives of
neighbors then, and predictions of predictions.

With another relation the neighbor is the key of largest relation, and the loss compares neighbors and predictions by
it. Jaccard's neighbor is the image whose two halves agree that it is alike: a large intersection in the first space, a
small difference in the second.
"""

from jaxtyping import Float
from torch import Tensor

from relatum.core.distributed import gather
from relatum.core.precision import at_least_float32
from relatum.core.types import Batch
from relatum.losses.objectives import contrast_terms
from relatum.losses.queries import in_batch_contrast, most_alike
from relatum.methods.base import Method
from relatum.networks.backbones import Backbone
from relatum.networks.heads import Projector
from relatum.networks.memory import Queue
from relatum.relations import Cosine, Relation, unit


class NNCLR(Method, pairing="two-views"):
    """Contrast the nearest neighbor of one view with the predictions of the other.

    The projections of the first view enter the queue after the step: no image is a neighbor of itself, except over
    epochs.

    Args:
        backbone: the encoder.
        relation: how two embeddings compare, in the search for neighbors as in the loss.
        temperature: temperature of the softmax over the relation.
        alphas: weights of the cosine contrast in each space of the relation (Eq. 4 of "Beyond Linear Metric"), or none;
            neighbors are found by the relation alone.
        cosine_temperature: temperature of those cosine terms; none means the same temperature.
        queue_size: how many keys neighbors are searched in, at least the batch; 98304 for ImageNet.
        hidden_width: hidden width of the projector.
        prediction_width: hidden width of the predictor.
        out_width: width of each space.
        layers: fully connected layers of the projector.
    """

    def __init__(
        self,
        backbone: Backbone,
        *,
        relation: Relation = Cosine(),
        temperature: float = 0.1,
        alphas: tuple[float, ...] = (),
        cosine_temperature: float | None = None,
        queue_size: int = 16384,
        hidden_width: int = 2048,
        prediction_width: int = 4096,
        out_width: int = 256,
        layers: int = 3,
    ) -> None:
        super().__init__(backbone)
        self.relation = relation
        self.terms = contrast_terms(relation, temperature, alphas, cosine_temperature)
        spaces = relation.spaces
        self.projector = Projector(
            backbone.embedding_dim,
            hidden_width,
            out_width,
            spaces=spaces,
            layers=layers,
            last_norm=True,
            normalize=False,
        )
        self.predictor = Projector(self.projector.out_width, prediction_width, out_width, spaces=spaces)
        self.queue = Queue(queue_size, self.projector.out_width, spaces)
        self._new_keys: Tensor | None = None

    def losses(self, batch: Batch) -> dict[str, Float[Tensor, ""]]:
        z = [self.projector(self.backbone.embed(view)) for view in batch.views]
        predictions = [gather(self.predictor(own)) for own in z]
        keys = [unit(at_least_float32(own.detach()), self.relation.spaces) for own in z]
        self.queue.refuse_fewer_than(len(predictions[0]))
        self._new_keys = keys[0]
        totals: dict[str, Tensor] = {}
        for own, prediction in zip(keys, reversed(predictions)):
            for name, loss in in_batch_contrast(gather(self.neighbors(own)), prediction, self.terms).items():
                totals[name] = totals.get(name, 0) + loss / 2
        return totals

    def neighbors(self, keys: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        """The key of the queue that is most alike each of `keys` (Eq. 4)."""
        return self.queue.keys[most_alike(keys, self.queue.keys, self.relation)]

    def after_step(self, progress: float) -> None:
        if self._new_keys is not None:
            self.queue.update(gather(self._new_keys))
        self._new_keys = None
