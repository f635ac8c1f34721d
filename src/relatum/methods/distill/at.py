"""Attention transfer: the student looks where the teacher looks.

    a(F) = q / |q|_2,   q = vec(mean_c F_c^2)      (one unit vector of h w pixels for each image)
    L = CE(z_s, y) + sum_l (beta_l / 2) mean_b |a(F_s^l) - a(F_t^l)|_2,   beta_l = beta / (h_l w_l)

Sergey Zagoruyko, Nikos Komodakis: Paying More Attention to Attention: Improving the Performance of Convolutional Neural
Networks via Attention Transfer. ICLR 2017, Eq. (2), with p = 2. The paper sets its weight to 10^3 "divided by number of
elements in attention map and batch size for each layer", hence beta_l, beta = 10^3 and the mean over the batch.

The authors' code squares the norm and has no half: beta sum_l mean_{b, pixels} (a(F_s^l) - a(F_t^l))^2, which is
sum_l beta_l mean_b |.|_2^2 with the same beta. The two norms differ near the goal: the paper's pulls with a force that
does not fade, the code's with one that does.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from relatum.core.precision import full_precision
from relatum.core.types import Batch
from relatum.methods.checks import at_least_zero
from relatum.methods.classifying import require_stages
from relatum.methods.distill.distiller import Distiller, same_size
from relatum.networks.backbones import Backbone

Norm = Literal["half-norm", "squared"]
"""How two attention maps are compared: half their distance (the paper), or its square (the authors' code)."""


class AT(Distiller, pairing="single"):
    """Learn the attention maps of a frozen teacher, at every stage.

    Stages are paired from the deepest on, and as many as both networks have; their channels may differ. Of two maps
    the larger is averaged to the size of the smaller.

    Args:
        backbone: the student, with classes.
        teacher: a trained network.
        weight: `beta`, the weight of the attention term.
        norm: `half-norm` is the paper, `squared` the authors' code and the ports of the field's benchmark.
        task_weight: weight of the cross-entropy.
        kd_weight: weight of the divergence from the teacher's logits.
        temperature: temperature of that divergence.
    """

    def __init__(
        self,
        backbone: Backbone,
        *,
        teacher: Backbone,
        weight: float = 1e3,
        norm: Norm = "half-norm",
        task_weight: float = 1.0,
        kd_weight: float = 0.0,
        temperature: float = 4.0,
    ) -> None:
        super().__init__(backbone, teacher, task_weight, kd_weight, temperature)
        for network in (backbone, teacher):
            require_stages(network, least=1)
        self.weight = at_least_zero("weight", weight)
        self.norm = norm

    def losses(self, batch: Batch) -> dict[str, Float[Tensor, ""]]:
        student, teacher, labels = self.features(batch)
        gap = attention_loss(student.stages, teacher.stages, self.norm)
        return self.class_terms(student, teacher, labels) | {"attention": self.weight * gap}


@full_precision
def attention(features: Float[Tensor, "n c h w"]) -> Float[Tensor, "n p"]:
    """The mean over the channels of the squared features, its `p = h w` pixels scaled to length one for each image."""
    return F.normalize(features.square().mean(1).flatten(1))


def attention_loss(student: Sequence[Tensor], teacher: Sequence[Tensor], norm: Norm = "half-norm") -> Float[Tensor, ""]:
    """The sum over stages of the mean over images of |a_s - a_t|_2 / (2 h w), or of |a_s - a_t|_2^2 / (h w).

    Args:
        student, teacher: maps "n c h w" of each stage, shallow to deep.
        norm: the first or the second form.
    """
    terms = []
    # The networks may differ in depth: the deepest stages correspond.
    for a, b in zip(reversed(student), reversed(teacher), strict=False):
        a, b = same_size(a, b)
        difference = attention(a) - attention(b)
        if norm == "half-norm":
            # Its subgradient at 0 is 0, where that of a root of squares would not be a number.
            terms.append(torch.linalg.vector_norm(difference, dim=1).mean() / (2 * difference.shape[1]))
        else:
            terms.append(difference.square().mean())
    return torch.stack(terms).sum()
