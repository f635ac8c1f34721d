"""MoCo v3: predictions against the keys that a slowly moving copy has of the same batch. No queue.

    q = h(g(f(x))),   k = g'(f'(x)),   theta' = m theta' + (1 - m) theta,  m -> 1
    L = 2 t (in_batch_loss(q_a, k_b) + in_batch_loss(q_b, k_a)),   t: temperature

Xinlei Chen, Saining Xie, Kaiming He: An Empirical Study of Training Self-Supervised Vision Transformers. ICCV 2021,
Eq. (1) and Algorithm 1. Projector and predictor have 4096 hidden units and 256 outputs, batch norm after every layer,
the last too; the projector has three layers on a ViT and two on a ResNet. The temperature is 0.2; the authors' code has
1.0 for ResNet-50. There the copy follows before the keys of a step are read, here after the step before: the same keys.
Section 4.2: a vision transformer trains without dips where its patches are projected by weights of chance, which are
never trained (`freeze_patches`). The authors' ViTs have a position embedding of sines that is not trained either, and
their ViT-S has 12 heads; timm's are trained, and 6.

With another relation it is what predictions and keys compare by; Jaccard's two spaces have a projector and a predictor
each, and the factor 2 t is that of each term's own temperature.
"""

from jaxtyping import Float
from torch import Tensor

from relatum.core.distributed import gather
from relatum.core.precision import at_least_float32
from relatum.core.schedules import cosine
from relatum.core.types import Batch
from relatum.losses.objectives import contrast_terms
from relatum.losses.queries import in_batch_contrast
from relatum.methods.base import Method
from relatum.methods.checks import share
from relatum.networks.backbones import Backbone
from relatum.networks.heads import Projector
from relatum.networks.memory import MomentumCopy
from relatum.networks.transformers import patch_projection
from relatum.relations import Cosine, Relation, unit


class MoCoV3(Method, pairing="two-views"):
    """Contrast the prediction of each view with the momentum copy's keys of the other.

    Args:
        backbone: the encoder.
        relation: how two embeddings compare.
        temperature: temperature of the softmax over the relation; the authors have 1.0 for ResNet-50.
        alphas: weights of the cosine contrast in each space of the relation (Eq. 4 of "Beyond Linear Metric"), or none.
        cosine_temperature: temperature of those cosine terms; none means the same temperature.
        momentum: momentum of the copy at the start, in [0, 1]; it rises to 1 along half a cosine.
        hidden_width: hidden width of projector and predictor. The paper has 4096.
        out_width: width of each space.
        layers: fully connected layers of the projector: 2 for a ResNet, 3 for a ViT.
        prediction_layers: those of the predictor.
        freeze_patches: leave the projection of the patches as it is at the start; for vision transformers.

    Raises:
        ValueError: for a backbone whose patches are to be frozen, and which has none; for options out of range.
    """

    def __init__(
        self,
        backbone: Backbone,
        *,
        relation: Relation = Cosine(),
        temperature: float = 0.2,
        alphas: tuple[float, ...] = (),
        cosine_temperature: float | None = None,
        momentum: float = 0.99,
        hidden_width: int = 2048,
        out_width: int = 256,
        layers: int = 2,
        prediction_layers: int = 2,
        freeze_patches: bool = False,
    ) -> None:
        super().__init__(backbone)
        if freeze_patches:
            patch_projection(backbone.model).requires_grad_(False)
        terms = contrast_terms(relation, temperature, alphas, cosine_temperature)
        self.terms = tuple(term._replace(weight=2 * float(term.temperature) * term.weight) for term in terms)
        self.spaces = spaces = relation.spaces
        self.projector = Projector(
            backbone.embedding_dim,
            hidden_width,
            out_width,
            spaces=spaces,
            layers=layers,
            last_norm=True,
            normalize=False,
        )
        self.predictor = Projector(
            self.projector.out_width,
            hidden_width,
            out_width,
            spaces=spaces,
            layers=prediction_layers,
            last_norm=True,
        )
        self.copy = MomentumCopy(backbone, self.projector)
        self.momentum = share("momentum", momentum, 0.99)

    def losses(self, batch: Batch) -> dict[str, Float[Tensor, ""]]:
        # Each view has batch statistics of its own, as in the authors' code.
        queries = [gather(self.predictor(self.projector(self.backbone.embed(view)))) for view in batch.views]
        keys = [gather(unit(at_least_float32(self.copy.project(view)), self.spaces)) for view in batch.views]
        totals: dict[str, Tensor] = {}
        for query, key in zip(queries, reversed(keys)):
            for name, loss in in_batch_contrast(query, key, self.terms).items():
                totals[name] = totals.get(name, 0) + loss
        return totals

    def after_step(self, progress: float) -> None:
        self.copy.update(self.backbone, self.projector, momentum=cosine(progress, self.momentum, 1.0))
