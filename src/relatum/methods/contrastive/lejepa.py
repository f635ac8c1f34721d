"""LeJEPA: views predict their mean, and SIGReg keeps the embeddings an isotropic Gaussian. No negatives, no copy.

    mu_n   = mean of the large views of image n,   z_nv: projections
    L_pred = 1/(B V) sum_nv |mu_n - z_nv|^2 / d
    SIGReg = mean over random lines a of EP(<a, z_1>, ..., <a, z_B>),   EP: `relatum.losses.sketches`
    L      = weight 1/V sum_v SIGReg(z_.v) + (1 - weight) L_pred

Randall Balestriero, Yann LeCun: LeJEPA: Provable and Scalable Self-Supervised Learning Without the Heuristics. 2025,
equations (Epps-Pulley), (SIGReg), (7) and (LeJEPA). Eq. (7) has no division by d, the paper's Algorithm 2 has it, and
its weight of 0.05 belongs to it; `prediction="sum"` is Eq. (7). The paper integrates over |t| <= 5 with 17 points, the
authors' package today, and lightly, over |t| <= 3 with 33: `limit`, `points`. Algorithm 1 draws 256 lines, their
recommendation is 1024; all views of a step share them.

It looks at the law of coordinates on lines, not at pairs of images: a relation has no meaning in it. The law is that of
the whole batch, over all ranks, which share their lines; a public port that summed statistics over ranks without a
gradient was off by one over their number.
"""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from relatum.core.distributed import gather, of_first
from relatum.core.precision import full_precision
from relatum.core.types import Batch
from relatum.losses.sketches import gaussian_distance, random_lines
from relatum.methods.base import Method
from relatum.methods.checks import positive, share
from relatum.methods.contrastive.crops import embed_crops
from relatum.networks.backbones import Backbone
from relatum.networks.heads import Projector


class LeJEPA(Method, pairing="two-views", multi_crop=True):
    """Bring each view to the mean of its image's large views, and the law of all views to an isotropic Gaussian.

    With multi-crop small crops are predicted too, and have their own law.

    Args:
        backbone: the encoder.
        weight: weight of SIGReg, in [0, 1]; that of the prediction is the rest. The only number that has to be chosen.
        lines: random lines a step on which the law is tested.
        limit: the largest frequency at which it is.
        points: frequencies in [-limit, limit], an odd number.
        prediction: divide the squared distance by the width ("mean", Algorithm 2) or not ("sum", Eq. 7).
        hidden_width: hidden width of the projector.
        out_width: width of the projections.
        layers: fully connected layers of the projector.
    """

    def __init__(
        self,
        backbone: Backbone,
        *,
        weight: float = 0.05,
        lines: int = 1024,
        limit: float = 5.0,
        points: int = 17,
        prediction: Literal["mean", "sum"] = "mean",
        hidden_width: int = 2048,
        out_width: int = 128,
        layers: int = 3,
    ) -> None:
        super().__init__(backbone)
        self.weight = share("weight", weight, 0.05)
        if lines < 1:
            raise ValueError(f"lines is {lines}; expected a positive number of lines such as 1024.")
        if points < 3 or points % 2 == 0:
            raise ValueError(f"points is {points}; expected an odd number of at least 3, such as 17.")
        self.lines, self.points = lines, points
        self.limit = positive("limit", limit, 5.0)
        self.projector = Projector(backbone.embedding_dim, hidden_width, out_width, layers=layers, normalize=False)
        self.prediction_scale = 1 if prediction == "mean" else out_width

    def losses(self, batch: Batch) -> dict[str, Float[Tensor, ""]]:
        z = self.projector(embed_crops(self.backbone, batch.views))
        views = torch.stack([gather(view) for view in z.chunk(len(batch.views))])
        prediction, sigreg = lejepa_terms(views, batch.large, self.lines, self.limit, self.points)
        return {
            "prediction": (1 - self.weight) * self.prediction_scale * prediction,
            "sigreg": self.weight * sigreg,
        }


@full_precision
def lejepa_terms(
    views: Float[Tensor, "v n d"], large: int, lines: int = 1024, limit: float = 5.0, points: int = 17
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """The mean squared distance of all views from the mean of the large ones, and SIGReg, the mean over the views.

    Args:
        views: projections, those of large views first.
        large: how many of the views are large.
        lines: how many random lines, drawn from torch's generator on the first rank.
        limit, points: see `relatum.losses.sketches.gaussian_distance`.

    Raises:
        ValueError: for fewer than two images.
    """
    if views.shape[1] < 2:
        raise ValueError(f"a batch of {views.shape[1]} image has no law; expected at least 2 images.")
    drawn = of_first(random_lines(lines, views[0]))
    sigreg = torch.stack([gaussian_distance(view, drawn, limit, points) for view in views.unbind()]).mean()
    return (views[:large].mean(0) - views).square().mean(), sigreg
