"""How alike two embeddings are. Larger is more alike, always: distances enter negated.

An embedding may hold several *spaces* side by side, `z = [h^(1) | h^(2)]`, the outputs of a bi-projector.
With `s = <a, b>` and `d = |a - b|^2`:

| relation  | value                                          | range on unit vectors |
|-----------|------------------------------------------------|-----------------------|
| Cosine    | `s / (|a| |b|)`                                | [-1, 1]               |
| Tanimoto  | `s / (s + d) = s / (|a|^2 + |b|^2 - s)`        | [-1/3, 1]             |
| Jaccard   | `s / (s + d)`, `s` in space 1, `d` in space 2  | (0, 1] when clamped   |
| Euclidean | `-sqrt(d)`                                     | [-2, 0]               |

Jaccard with equal spaces is Tanimoto, and Tanimoto of 0/1 vectors is `|A and B| / |A or B|`: the index of sets
that gives the name.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from relatum.core.precision import full_precision

__all__ = ["RELATIONS", "Cosine", "Euclidean", "Jaccard", "Relation", "Tanimoto", "Within", "unit"]


def unit(z: Float[Tensor, "n d"], spaces: int = 1) -> Float[Tensor, "n d"]:
    """Scale each of the `spaces` equal parts of every row to length one (a zero part stays zero)."""
    if spaces == 1:
        return F.normalize(z, dim=1)
    return F.normalize(z.unflatten(1, (spaces, -1)), dim=2).flatten(1)


class Relation(nn.Module, ABC):
    """Scores pairs of embeddings; symmetric; larger = more alike.

    Attributes:
        spaces: the number of equal parts of an embedding that the relation compares each by itself.
        lowest: a lower bound of its values on unit vectors (-inf where there is none).
    """

    spaces: int = 1
    lowest: float = -1.0

    @abstractmethod
    def matched(self, a: Float[Tensor, "n d"], b: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
        """The relation of row i of `a` with row i of `b`."""

    @abstractmethod
    def all_pairs(self, a: Float[Tensor, "n d"], b: Float[Tensor, "m d"]) -> Float[Tensor, "n m"]:
        """The relation of each row of `a` with each row of `b`."""


class Cosine(Relation):
    """The cosine of the angle between two embeddings of any length, in [-1, 1]."""

    @full_precision
    def matched(self, a: Float[Tensor, "n d"], b: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
        return (unit(a) * unit(b)).sum(1)

    @full_precision
    def all_pairs(self, a: Float[Tensor, "n d"], b: Float[Tensor, "m d"]) -> Float[Tensor, "n m"]:
        return unit(a) @ unit(b).T


class Tanimoto(Relation):
    """The Tanimoto index `<a, b> / (|a|^2 + |b|^2 - <a, b>)`, in [-1/3, 1]; lengths count, nothing is normalized.

    On 0/1 vectors it is the Jaccard index of the sets that they indicate. Two zero vectors (two empty sets) give 1.
    """

    lowest = -1 / 3

    @full_precision
    def matched(self, a: Float[Tensor, "n d"], b: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
        return _ratio((a * b).sum(1), a.square().sum(1) + b.square().sum(1))

    @full_precision
    def all_pairs(self, a: Float[Tensor, "n d"], b: Float[Tensor, "m d"]) -> Float[Tensor, "n m"]:
        return _ratio(a @ b.T, a.square().sum(1)[:, None] + b.square().sum(1))


def _ratio(inner: Tensor, squares: Tensor) -> Tensor:
    """`inner / (squares - inner)`, the two equal parts of which vanish only together, for two zero vectors."""
    tiny = torch.finfo(inner.dtype).tiny
    return (inner + tiny) / (squares - inner + tiny)


class Jaccard(Relation):
    """The bi-projector Jaccard index `J = s / (s + ds)` of "Beyond Linear Metric", Section 2.3.3, Eq. (2).

    `s = <h1_a, h1_b>` measures the intersection in the first space, `ds = |h2_a - h2_b|^2` the difference in the
    second; each half of the embedding is scaled to length one.

    As printed it has a pole: `s` may be negative, and `s + ds = 0` is reachable. A measure of an intersection is
    not negative, therefore `measure="clamped"` (the default) takes

        J = (max(s, 0) + eps) / (max(s, 0) + ds + eps),

    which lies in (0, 1], is 1 exactly where `ds = 0`, and whose derivatives in `s` and `ds` are at most
    `1 / (4 eps)` and `1 / eps`. `measure="signed"` is the printed form; where `|s + ds| < eps` the denominator is
    replaced by `eps` of its sign: J is then bounded by `1 / eps` but jumps across the pole. It trains badly alone
    and is there for comparison.

    Args:
        measure: "clamped" or "signed".
        eps: a small positive constant.

    Raises:
        ValueError: for another measure, or an `eps` that is not positive.
    """

    spaces = 2

    def __init__(self, measure: Literal["clamped", "signed"] = "clamped", eps: float = 1e-2) -> None:
        super().__init__()
        if measure not in ("clamped", "signed"):
            raise ValueError(f'measure is {measure!r}; expected "clamped" (the default) or "signed" (as printed).')
        if not eps > 0:
            raise ValueError(f"eps is {eps}; expected a small positive number such as 0.01.")
        self.measure = measure
        self.eps = eps
        self.lowest = 0.0 if measure == "clamped" else -float("inf")

    def extra_repr(self) -> str:
        return f"measure={self.measure!r}, eps={self.eps}"

    def index(self, s: Float[Tensor, "*pairs"], ds: Float[Tensor, "*pairs"]) -> Float[Tensor, "*pairs"]:
        """J of intersections `s` and differences `ds >= 0`."""
        if self.measure == "clamped":
            overlap = s.clamp(min=0) + self.eps
            return overlap / (overlap + ds)
        union = s + ds
        return s / torch.where(union.abs() < self.eps, torch.full_like(union, self.eps).copysign(union), union)

    @full_precision
    def matched(self, a: Float[Tensor, "n d"], b: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
        (a1, a2), (b1, b2) = self._halves(a), self._halves(b)
        return self.index((a1 * b1).sum(1), (a2 - b2).square().sum(1))

    @full_precision
    def all_pairs(self, a: Float[Tensor, "n d"], b: Float[Tensor, "m d"]) -> Float[Tensor, "n m"]:
        (a1, a2), (b1, b2) = self._halves(a), self._halves(b)
        return self.index(a1 @ b1.T, (2 - 2 * (a2 @ b2.T)).clamp(min=0))

    def _halves(self, z: Tensor) -> tuple[Tensor, Tensor]:
        if z.shape[1] % 2:
            raise ValueError(
                f"an embedding of width {z.shape[1]} cannot be split in two halves [h1 | h2]; "
                "give the projector an even width, or use a bi-projector (spaces=2)."
            )
        half1, half2 = unit(z, 2).chunk(2, dim=1)
        return half1, half2


class Euclidean(Relation):
    """The negated Euclidean distance `-|a - b|`, in [-2, 0] on unit vectors; nothing is normalized."""

    lowest = -2.0

    @full_precision
    def matched(self, a: Float[Tensor, "n d"], b: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
        return -torch.linalg.vector_norm(a - b, dim=1)

    @full_precision
    def all_pairs(self, a: Float[Tensor, "n d"], b: Float[Tensor, "m d"]) -> Float[Tensor, "n m"]:
        # The matrix-product form of cdist cancels for close points of large norm.
        return -torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")


class Within(Relation):
    """A relation inside one of several spaces, such as the cosine of the first projector alone.

    Args:
        relation: what compares the part; it must itself look at one space.
        space: which part, counted from 0.
        spaces: the number of parts of an embedding.
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
        self.lowest = relation.lowest

    def part(self, z: Float[Tensor, "n d"]) -> Float[Tensor, "n e"]:
        """The columns of `z` that belong to the space."""
        return z.chunk(self.spaces, dim=1)[self.space]

    def matched(self, a: Float[Tensor, "n d"], b: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
        return self.relation.matched(self.part(a), self.part(b))

    def all_pairs(self, a: Float[Tensor, "n d"], b: Float[Tensor, "m d"]) -> Float[Tensor, "n m"]:
        return self.relation.all_pairs(self.part(a), self.part(b))


RELATIONS: dict[str, Callable[..., Relation]] = {
    "cosine": Cosine,
    "euclidean": Euclidean,
    "jaccard": partial(Jaccard, "clamped"),
    "jaccard-signed": partial(Jaccard, "signed"),
    "tanimoto": Tanimoto,
}
"""Every relation by the name that recipes and the command line use. Its keywords are options there: `relation_eps`."""
