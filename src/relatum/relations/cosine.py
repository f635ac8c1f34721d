"""The cosine of two embeddings."""

from torch import Tensor

from relatum.relations.base import Relation
from relatum.relations.forms import UnitInner

__all__ = ["Cosine"]


class Cosine(Relation):
    """The cosine of the angle between two embeddings of any length, in [-1, 1]."""

    forms = (UnitInner(),)
    low, high = -1.0, 1.0
    bounded = True

    def value(self, *forms: Tensor) -> Tensor:
        return forms[0]

    def vjp(self, grad_output: Tensor, value: Tensor, *forms: Tensor) -> tuple[Tensor, ...]:
        return (grad_output,)
