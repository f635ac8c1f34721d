"""The Tanimoto index of two embeddings."""

import torch
from torch import Tensor

from relatum.relations.base import Relation
from relatum.relations.forms import Inner, Squares

__all__ = ["Tanimoto"]


class Tanimoto(Relation):
    """The Tanimoto index `<a, b> / (|a|^2 + |b|^2 - <a, b>)`, in [-1/3, 1]; lengths count, nothing is normalized.

    On 0/1 vectors it is the Jaccard index of the sets that they indicate. Two zero vectors (two empty sets) give 1.
    """

    forms = (Inner(), Squares())
    low, high = -1 / 3, 1.0
    bounded = True

    def value(self, *forms: Tensor) -> Tensor:
        inner, squares = forms
        tiny = torch.finfo(inner.dtype).tiny  # numerator and denominator vanish only together, for two zero vectors
        return (inner + tiny) / (squares - inner + tiny)

    def vjp(self, grad_output: Tensor, value: Tensor, *forms: Tensor) -> tuple[Tensor, ...]:
        """`v = x / u`, `u = q - x`: `dv/dx = (1 + v) / u`, `dv/dq = -v / u`."""
        inner, squares = forms
        g = grad_output.div_((squares - inner).add_(torch.finfo(inner.dtype).tiny))
        slope = g * value
        return g.add_(slope), slope.neg_()
