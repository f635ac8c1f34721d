"""A relation inside one of several spaces."""

from collections.abc import Callable

from jaxtyping import Float
from torch import Tensor

from relatum.relations.base import Relation
from relatum.relations.forms import Form, split

__all__ = ["Within"]


class Within(Relation):
    """A relation inside one of several spaces, such as the cosine of the first projector alone.

    Args:
        relation: what compares the part; it must itself look at one space.
        space: which part, counted from 0.
        spaces: the number of parts of an embedding.

    Raises:
        ValueError: for a relation of several spaces, or a part that is not there.
    """

    def __init__(self, relation: Relation, space: int, spaces: int) -> None:
        super().__init__()
        if relation.spaces != 1 or not 0 <= space < spaces:
            raise ValueError(
                f"space {space} of {spaces} with {relation} is not a part that one relation can compare; expected "
                "a relation of one space, and 0 <= space < spaces."
            )
        self.relation = relation
        self.space = space
        self.spaces = spaces
        self.low, self.high = relation.low, relation.high

    @property
    def forms(self) -> tuple[Form, ...]:  # type: ignore[override]  # those of the relation, moved
        return tuple(form.within(self.space, self.spaces) for form in self.relation.forms)

    def part(self, z: Float[Tensor, "n d"]) -> Float[Tensor, "n e"]:
        """The columns of `z` that belong to the space."""
        return split(z, self.spaces)[self.space]

    def matched(self, a: Float[Tensor, "n d"], b: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
        return self.relation.matched(self.part(a), self.part(b))

    def all_pairs(self, a: Float[Tensor, "n d"], b: Float[Tensor, "m d"]) -> Float[Tensor, "n m"]:
        return self.relation.all_pairs(self.part(a), self.part(b))

    def value(self, *forms: Tensor) -> Tensor:
        return self.relation.value(*forms)

    def follows_forms(self) -> bool:
        kind = type(self)
        derived = kind.matched is Within.matched and kind.all_pairs is Within.all_pairs and kind.value is Within.value
        return derived and self.relation.follows_forms()

    def bounds(self) -> tuple[float, float] | None:
        return self.relation.bounds()

    def value_and_vjp(self, *forms: Tensor) -> tuple[Tensor, Callable[[Tensor], tuple[Tensor, ...]]]:
        return self.relation.value_and_vjp(*forms)
