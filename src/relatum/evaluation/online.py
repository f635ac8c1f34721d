"""The linear probe while the encoder trains: on the features that training computes anyway, which it never touches."""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from relatum.core.precision import full_precision
from relatum.evaluation.classification import hit_rates
from relatum.evaluation.linear import LinearProbe, Regressions

REMEMBERED = 0.9
"""The share of the past in the running mean and variance after each batch."""


class OnlineProbe(nn.Module):
    """Multinomial logistic regression that takes a step on every training batch while the encoder moves beneath it.

    The form of `LinearProbe` for features that change: its learning rates run side by side, from zero, by SGD with
    momentum 0.9 and a cosine over the whole training; features are standardized by the running mean and variance of
    the batches. The rate that is reported is the one with the smallest cross-entropy in the last epoch, where each
    batch counted before the step on it: held-out images choose nothing. It lags behind the encoder, and sees augmented
    images where `LinearProbe` sees clean ones: a curve to watch, not the number to report.

    Nothing here is random and nothing asks for a gradient, so that the encoder is the same with and without.

    Args:
        width: of the features.
        classes: their number.
        like: whose learning rates and weight decay it has.
        device: of the features.
    """

    weight: Float[Tensor, "e lk"]
    momentum: Float[Tensor, "e lk"]
    mean: Float[Tensor, " d"]
    variance: Float[Tensor, " d"]
    batches: Int[Tensor, ""]
    loss: Float[Tensor, " l"]

    def __init__(self, width: int, classes: int, like: LinearProbe, device: torch.device | str = "cpu") -> None:
        super().__init__()
        self.learning_rates = like.learning_rates
        self._regressions = Regressions(torch.zeros(1, width, device=device), classes, like.learning_rates, 0.0)
        self._regressions.decay = like.weight_decay
        self.register_buffer("weight", self._regressions.weight)
        self.register_buffer("momentum", self._regressions.momentum)
        self.register_buffer("mean", torch.zeros(width, device=device))
        self.register_buffer("variance", torch.zeros(width, device=device))
        self.register_buffer("batches", torch.zeros((), dtype=torch.long, device=device))
        self.register_buffer("loss", torch.zeros(len(like.learning_rates), dtype=torch.double, device=device))

    def __str__(self) -> str:
        rates = ", ".join(f"{rate:g}" for rate in self.learning_rates)
        return (
            f"online linear probe (SGD on the training batches' detached features, standardized by running moments, lr "
            f"{rates}, the one with the smallest cross-entropy on batches before their steps in the last epoch)"
        )

    def start_epoch(self) -> None:
        """Forget how the learning rates compared: what follows decides among them."""
        self.loss.zero_()

    @torch.no_grad()
    @full_precision
    def step(self, features: Float[Tensor, "n d"], labels: Int[Tensor, " n"], progress: float) -> None:
        """One step.

        Args:
            features: of a training batch, from all processes.
            labels: their classes.
            progress: the share of the training that is done, in [0, 1].
        """
        features = features.to(self.mean)
        kept = REMEMBERED * (self.batches > 0)
        mean = features.mean(0)
        self.mean.lerp_(mean, 1 - kept)
        self.variance.lerp_((features - mean).square().mean(0), 1 - kept)
        self.batches += 1
        x = self._inputs(features)
        logits = self._regressions.logits(x)
        chosen = labels[:, None, None].expand(-1, len(self.learning_rates), 1)
        self.loss += (logits.logsumexp(2) - logits.gather(2, chosen).squeeze(2)).double().mean(0)
        self._regressions.step(x, labels, progress)

    @torch.no_grad()
    @full_precision
    def measure(self, features: Float[Tensor, "n d"], labels: Int[Tensor, " n"]) -> dict[str, float]:
        """`{"top1": ..., "top5": ...}` in percent: of the classifier that the last epoch's batches chose.

        Args:
            features: of images that training does not see.
            labels: their classes.
        """
        x = self._inputs(features.to(self.mean))
        before = self._regressions.classes_before(x, labels.to(x.device))
        return hit_rates(before[:, int(self.loss.argmin())], self._regressions.classes)

    def load(self, state: Mapping[str, Any] | None) -> str:
        """Go on from a state that `state_dict` gave.

        Returns:
            why it starts anew instead, in words; "" where it does not.
        """
        if state is None:
            return "the epochs before had none"
        own = self.state_dict()
        if {name: value.shape for name, value in own.items()} != {name: value.shape for name, value in state.items()}:
            return "the one of the epochs before had other learning rates or classes"
        self.load_state_dict(state)  # in place: the regressions share these tensors
        return ""

    def _inputs(self, features: Float[Tensor, "n d"]) -> Float[Tensor, "n e"]:
        # Directions with less than a millionth of the mean variance are dead units: left small, not blown up.
        floor = 1e-6 * self.variance.mean() + torch.finfo(self.variance.dtype).tiny
        return F.pad((features - self.mean) * (self.variance + floor).rsqrt(), (0, 1), value=1.0)
