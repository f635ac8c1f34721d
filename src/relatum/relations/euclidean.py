"""The Euclidean distance of two embeddings, negated."""

from torch import Tensor

from relatum.relations.base import Relation
from relatum.relations.forms import Distance

__all__ = ["Euclidean"]


class Euclidean(Relation):
    """The negated Euclidean distance `-|a - b|`, in [-2, 0] on unit vectors; nothing is normalized."""

    forms = (Distance(),)
    low, high = -2.0, 0.0

    def value(self, *forms: Tensor) -> Tensor:
        return -forms[0]
