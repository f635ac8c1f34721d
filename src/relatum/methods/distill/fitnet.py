"""FitNets: a map inside the student, regressed onto a map inside the teacher, the hint.

    L = CE(z_s, y) + beta mean((r(F_s) - F_t)^2)

Adriana Romero, Nicolas Ballas, Samira Ebrahimi Kahou, Antoine Chassang, Carlo Gatta, Yoshua Bengio: FitNets: Hints for
Thin Deep Nets. ICLR 2015, Eq. (3). The paper trains in two stages, first the student up to the map by the hint alone
(half the sum of squares over the map), then the whole by knowledge distillation: `hint_share > 0`. The field's
benchmark (Tian et al., ICLR 2020), where beta = 100 is from, joins both in one: the default.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from relatum.core.precision import full_precision
from relatum.core.types import Batch
from relatum.methods.checks import at_least_zero, share
from relatum.methods.classifying import require_stages
from relatum.methods.distill.distiller import Distiller, same_size
from relatum.networks.backbones import Backbone


class FitNet(Distiller, pairing="single"):
    """Learn from a feature map of a frozen teacher.

    The regressor r is dropped after training.

    Args:
        backbone: the student, with classes.
        teacher: a trained network.
        weight: `beta`, the weight of the hint.
        guided: the stage of the student that is guided, counted from 0 at the shallowest, or from -1 at the deepest.
        hint: the stage of the teacher that guides, counted likewise.
        rectify: end the regressor with a ReLU, as the benchmark does. It fits hints that come out of a ReLU, and
            cannot reach the negative values of pre-activation networks.
        hint_share: the share of all steps, at the start, that train by the hint alone; the hint is then dropped. The
            weights behind the guided stage wait without a gradient. 0 trains by all terms throughout.
        task_weight: weight of the cross-entropy.
        kd_weight: weight of the divergence from the teacher's logits.
        temperature: temperature of that divergence.

    Raises:
        ValueError: for networks whose classes do not fit, a stage that does not exist, or options out of range.
    """

    progress: Float[Tensor, ""]

    def __init__(
        self,
        backbone: Backbone,
        *,
        teacher: Backbone,
        weight: float = 100.0,
        guided: int = 1,
        hint: int = 1,
        rectify: bool = False,
        hint_share: float = 0.0,
        task_weight: float = 1.0,
        kd_weight: float = 0.0,
        temperature: float = 4.0,
    ) -> None:
        super().__init__(backbone, teacher, task_weight, kd_weight, temperature)
        self.weight = at_least_zero("weight", weight)
        self.hint_share = share("hint_share", hint_share, 0.3, below_one=True)
        for name, stage, network in (("guided", guided, backbone), ("hint", hint, teacher)):
            require_stages(network, least=1)
            count = len(network.stage_channels)
            if not -count <= stage < count:
                raise ValueError(f"{name} is stage {stage}; {network.name} has the stages 0 to {count - 1}.")
        self.regressor = regressor(
            backbone.stage_channels[guided],
            teacher.stage_channels[hint],
            backbone.stage_strides[guided] / teacher.stage_strides[hint],
            rectify,
        )
        self.register_buffer("progress", torch.zeros(()))
        self.guided = guided
        self.hint = hint
        self.trains_in_phases = hint_share > 0

    def losses(self, batch: Batch) -> dict[str, Float[Tensor, ""]]:
        student, teacher, labels = self.features(batch)
        terms = self.class_terms(student, teacher, labels)
        hint = self.weight * hint_loss(self.regressor(student.stages[self.guided]), teacher.stages[self.hint])
        if not self.hint_share:
            return terms | {"hint": hint}
        # What waits has no gradient, not one of zero, which would let weight decay and momentum move it.
        zero = torch.zeros_like(hint)
        if self.progress < self.hint_share:
            return dict.fromkeys(terms, zero) | {"hint": hint}
        return terms | {"hint": zero}

    def after_step(self, progress: float) -> None:
        self.progress.fill_(progress)


def regressor(in_channels: int, out_channels: int, stride_ratio: float, rectify: bool) -> nn.Sequential:
    """A convolution and batch normalization from the student's map to the size and the width of the hint.

    Args:
        in_channels: channels of the student's map.
        out_channels: channels of the hint.
        stride_ratio: pixels of the hint for each pixel of the student's map, along a side. 1/2 and 2 have a
            convolution that changes the size; others a 1x1 convolution, and the larger map is averaged in the loss.
        rectify: end with a ReLU.
    """
    convolution: nn.Module
    if stride_ratio == 0.5:
        convolution = nn.Conv2d(in_channels, out_channels, 3, stride=2, padding=1, bias=False)
    elif stride_ratio == 2:
        convolution = nn.ConvTranspose2d(in_channels, out_channels, 4, stride=2, padding=1, bias=False)
    else:
        convolution = nn.Conv2d(in_channels, out_channels, 1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(out_channels), nn.ReLU() if rectify else nn.Identity())


@full_precision
def hint_loss(student: Float[Tensor, "n c h w"], hint: Float[Tensor, "n c _h _w"]) -> Float[Tensor, ""]:
    """`mean((r(F_s) - F_t)^2)` over images, channels and pixels; a larger map is averaged to the smaller one's size.

    Eq. (3) of the paper is `c h w / 2` times this.
    """
    return F.mse_loss(*same_size(student, hint))
