"""The Jaccard index of two embeddings in two spaces."""

import math
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from relatum.relations.base import Relation
from relatum.relations.forms import Chord, UnitInner, indicator

__all__ = ["Jaccard", "Measure"]

Measure = Literal["clamped", "softplus", "signed"]
"""How the intersection is measured by the inner product in the first space."""


class Jaccard(Relation):
    """The bi-projector Jaccard index `J = s / (s + ds)` of "Beyond Linear Metric", Section 2.3.3, Eq. (2).

    `s = <h1_a, h1_b>` measures the intersection in the first space, `ds = |h2_a - h2_b|^2` the difference in the
    second; each half of the embedding is scaled to length one. A half of length zero has no direction: it counts as
    orthogonal to all others, `s = 0` or `ds = 2`.

    As printed it has a pole: `s` may be negative, and `s + ds = 0` is reachable. A measure of an intersection is
    not negative, therefore `measure="clamped"` (the default) takes

        J = (o + eps) / (o + ds + eps),   o = max(s, 0),

    which lies in (0, 1], is 1 exactly where `ds = 0`, and whose derivatives in `s` and `ds` are at most
    `1 / (4 eps)` and `1 / eps`. Its first space has no gradient where `s <= 0`. `measure="softplus"` has one for all
    pairs: `o = log(1 + e^(k s)) / k` with the sharpness `k`, within the same bounds; as `k` grows it becomes the
    clamped one. `measure="signed"` is the printed form; where `|s + ds| < eps` the denominator is replaced by `eps` of
    its sign: J is then bounded by `1 / eps` but jumps across the pole. It trains badly alone and is there for
    comparison.

    Args:
        measure: "clamped", "softplus" (not in the paper) or "signed".
        eps: a small positive constant.
        sharpness: `k > 0`, of "softplus" alone; None is 10.

    Raises:
        ValueError: for another measure, or an `eps` or `sharpness` that is not positive and finite.
    """

    spaces = 2
    forms = (UnitInner(0, 2), Chord(1, 2))
    bounded = True

    def __init__(self, measure: Measure = "clamped", eps: float = 1e-2, sharpness: float | None = None) -> None:
        super().__init__()
        if measure not in get_args(Measure):
            raise ValueError(
                f'measure is {measure!r}; expected "clamped" (the default), "softplus", or "signed" (as printed).'
            )
        if not 0 < eps < math.inf:
            raise ValueError(f"eps is {eps}; expected a small positive number such as 0.01.")
        if sharpness is not None and measure != "softplus":
            raise ValueError(
                f'sharpness is {sharpness}, which only measure="softplus" has; leave it out, or take that.'
            )
        sharpness = 10.0 if sharpness is None else sharpness
        if not 0 < sharpness < math.inf:
            raise ValueError(f"sharpness is {sharpness}; expected a positive number such as 10.")
        self.measure = measure
        self.eps = eps
        self.sharpness = sharpness

    @property
    def low(self) -> float:  # type: ignore[override]  # it depends on the measure
        return -1 / self.eps if self.measure == "signed" else 0.0

    @property
    def high(self) -> float:  # type: ignore[override]
        return 1 / self.eps if self.measure == "signed" else 1.0

    def extra_repr(self) -> str:
        sharpness = f", sharpness={self.sharpness}" if self.measure == "softplus" else ""
        return f"measure={self.measure!r}, eps={self.eps}{sharpness}"

    def value(self, *forms: Tensor) -> Tensor:
        return self.index(*forms)

    def index(self, s: Float[Tensor, "*pairs"], ds: Float[Tensor, "*pairs"]) -> Float[Tensor, "*pairs"]:
        """J of intersections `s` and differences `ds >= 0`."""
        if self.measure == "signed":
            return s / self._guarded(s + ds)
        overlap = self._overlap(s)
        return overlap / (overlap + ds)

    def vjp(self, grad_output: Tensor, value: Tensor, *forms: Tensor) -> tuple[Tensor, ...]:
        """`v = o / u`, `u = o + d`: `dv/do = (1 - v) / u`, `dv/dd = -v / u`; near the pole `u` stands still."""
        s, ds = forms
        if self.measure == "signed":
            union = s + ds
            regular = indicator(torch.ge, union.abs(), self.eps)
            g = grad_output.div_(self._guarded(union))
            slope = (g * value).mul_(regular)
            return g.sub_(slope), slope.neg_()
        g = grad_output.div_(self._overlap(s).add_(ds))
        slope = g * value
        g = g.sub_(slope)
        if self.measure == "softplus":
            return g.mul_((s * self.sharpness).sigmoid_()), slope.neg_()
        return g.mul_(indicator(torch.gt, s, 0.0)), slope.neg_()

    def _overlap(self, s: Tensor) -> Tensor:
        """The intersection; no part of it depends on `ds`, so that it may be overwritten outside autograd."""
        if self.measure == "softplus":
            return F.softplus(s, beta=self.sharpness, threshold=40) + self.eps  # linear from where both agree
        return s.clamp(min=0) + self.eps

    def _guarded(self, union: Tensor) -> Tensor:
        return torch.where(union.abs() < self.eps, torch.full_like(union, self.eps).copysign(union), union)
