"""What a relation is: an elementwise function of forms, said once, from which all else follows."""

from abc import ABC
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from relatum.core.precision import full_precision
from relatum.relations.forms import Form

__all__ = ["Relation"]


class Relation(nn.Module, ABC):
    """Scores pairs of embeddings; symmetric; larger = more alike.

    A subclass is written in one of two ways. One says its `forms` and their `value`, elementwise: `matched`,
    `all_pairs` and the blocks of `relatum.losses` follow, with the derivative of `value` by autograd, a tile at a
    time, or by `vjp` where the class gives one. The other writes `matched` and `all_pairs` itself, and may compute
    anything; the losses then hold all pairs at once.

    Attributes:
        spaces: the number of equal parts of an embedding that the relation compares each by itself.
        forms: the numbers of a pair that its value is a function of; none if it writes `matched` and `all_pairs`.
        low, high: bounds of its values on unit vectors (infinite where there are none).
        bounded: whether these bounds hold for embeddings of any length. The blocks then need no maximum of each row.

    Raises:
        TypeError: for a subclass that is written in neither of the two ways.
    """

    spaces: int = 1
    forms: tuple[Form, ...] = ()
    low: float = -float("inf")
    high: float = float("inf")
    bounded: ClassVar[bool] = False

    def __init__(self) -> None:
        super().__init__()
        kind = type(self)
        plain = kind.matched is not Relation.matched and kind.all_pairs is not Relation.all_pairs
        if not plain and kind.value is Relation.value:
            raise TypeError(
                f"{kind.__name__} is no relation yet: expected `forms` and their `value`, or `matched` and `all_pairs`."
            )

    def value(self, *forms: Tensor) -> Tensor:
        """The relation of pairs, elementwise, of the values of its forms; it leaves them as they are."""
        raise NotImplementedError(f"{type(self).__name__} has no value of forms: it writes its pairs itself.")

    def vjp(self, grad_output: Tensor, value: Tensor, *forms: Tensor) -> tuple[Tensor, ...]:
        """The gradients of the forms, given that of the value, the value and the forms.

        Only worth writing where it is faster than autograd, a tile at a time. It may overwrite `grad_output`, and
        nothing else. One that a class inherits, while its `value` is its own, is not used.

        What it saves (loss and gradient of `nt_xent`, tiles of 384, D = 128, one thread, medians side by side; time
        by autograd over time by hand at 1,024 and 4,096 rows): cosine 1.23 and 1.19, Tanimoto 1.39 and 1.23, Jaccard
        1.41 and 1.35, signed 1.19 and 1.15, softplus 1.18 and 1.07; at most 1.2 MiB more memory. Euclidean: 1.02 and
        1.03, which pays for no line of code: it is left to autograd.
        """
        raise NotImplementedError(f"{type(self).__name__} leaves its derivative to autograd.")

    @full_precision
    def matched(self, a: Float[Tensor, "n d"], b: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
        """The relation of row i of `a` with row i of `b`."""
        return self.value(*(form.matched(a, b) for form in self.forms))

    @full_precision
    def all_pairs(self, a: Float[Tensor, "n d"], b: Float[Tensor, "m d"]) -> Float[Tensor, "n m"]:
        """The relation of each row of `a` with each row of `b`."""
        return self.value(*(form.pairs(a, b) for form in self.forms))

    def follows_forms(self) -> bool:
        """Whether `forms` and `value` say all: nothing writes its pairs itself, and nothing in it is trained."""
        kind = type(self)
        derived = kind.matched is Relation.matched and kind.all_pairs is Relation.all_pairs
        return derived and bool(self.forms) and not any(p.requires_grad for p in self.parameters())

    def bounds(self) -> tuple[float, float] | None:
        """`low` and `high` where they hold for embeddings of any length, else None."""
        said = all(_as_late_as_value(type(self), name) for name in ("low", "high", "bounded"))
        return (self.low, self.high) if self.bounded and said else None

    def value_and_vjp(self, *forms: Tensor) -> tuple[Tensor, Callable[[Tensor], tuple[Tensor, ...]]]:
        """The value of a tile, and the function from its gradient to those of the forms."""
        if type(self).vjp is not Relation.vjp and _as_late_as_value(type(self), "vjp"):
            value = self.value(*forms)
            return value, lambda grad_output: self.vjp(grad_output, value, *forms)
        return torch.func.vjp(self.value, *forms)[:2]


def _as_late_as_value(kind: type[Any], name: str) -> bool:
    """Whether a class says `name` where it says its value or later: else it is another value's."""
    order = kind.__mro__
    return _depth(order, name) <= _depth(order, "value")


def _depth(order: tuple[type[Any], ...], name: str) -> int:
    return next(depth for depth, base in enumerate(order) if name in vars(base))
