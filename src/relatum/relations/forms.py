"""Forms: the numbers of a pair of embeddings that a relation is an elementwise function of.

A form `x(a, b)` is said three times over: for matched rows, for all pairs (both under autograd), and for the tiles of
`relatum.losses.blocks`, where only features of single embeddings are kept and the derivative is another product. Most
are bilinear, `x = <f(a), M f(b)>` with symmetric `M`: a tile is a matrix product, and `dL/df = (dL/dx) M f`.

| form        | of parts `a`, `b` of two embeddings                | bilinear |
|-------------|----------------------------------------------------|----------|
| `UnitInner` | `<a, b> / (|a| |b|)`                               | yes      |
| `Inner`     | `<a, b>`                                           | yes      |
| `Squares`   | `|a|^2 + |b|^2`                                    | yes      |
| `Chord`     | `|a / |a| - b / |b||^2 = 2 - 2 <a, b> / (|a| |b|)` | affine   |
| `Distance`  | `|a - b|`                                          | no       |

A part of length zero has no direction: its unit inner product with anything is 0, and its chord 2.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

__all__ = ["Chord", "Distance", "Form", "Inner", "Squares", "UnitInner", "split", "unit"]


def split(z: Float[Tensor, "n d"], spaces: int) -> tuple[Float[Tensor, "n e"], ...]:
    """The equal parts of embeddings, one for each space.

    Raises:
        ValueError: for a width that the number of spaces does not divide.
    """
    if z.shape[1] % spaces:
        halves, even = ("two halves [h1 | h2]", "an even width") if spaces == 2 else ("spaces", "such a width")
        raise ValueError(
            f"an embedding of width {z.shape[1]} cannot be split in {halves}: expected a multiple of {spaces}; "
            f"give the projector {even}, or use one with as many heads (spaces={spaces})."
        )
    return (z,) if spaces == 1 else z.chunk(spaces, dim=1)


def unit(z: Float[Tensor, "n d"], spaces: int = 1) -> Float[Tensor, "n d"]:
    """Scale each of the `spaces` equal parts of every row to length one (a zero part stays zero)."""
    if spaces == 1:
        return F.normalize(z, dim=1)
    split(z, spaces)  # says what is wrong with a width that does not split
    return F.normalize(z.unflatten(1, (spaces, -1)), dim=2).flatten(1)


def indicator(comparison: Callable[..., Tensor], x: Tensor, y: Tensor | float) -> Tensor:
    """1 where it holds, else 0: on a CPU, comparing into floats is several times faster than masking by booleans."""
    return comparison(x, y, out=torch.empty_like(x, memory_format=torch.contiguous_format))


@dataclass(frozen=True)
class Form(ABC):
    """A number for each pair of embeddings, symmetric in the two.

    `matched` and `pairs` are what autograd sees. The methods below them serve the blocks: none is recorded, `f` are
    the features of a part, `m` what they meet (`M f`), and `x` the values of the form on a tile.

    Attributes:
        space: which part of the embeddings it compares, counted from 0.
        spaces: the number of equal parts of an embedding.
    """

    space: int = 0
    spaces: int = 1

    def within(self, space: int, spaces: int) -> "Form":
        """The same form in one part of several."""
        return replace(self, space=space, spaces=spaces)

    def part(self, z: Tensor) -> Tensor:
        """The columns of the embeddings that it compares."""
        return split(z, self.spaces)[self.space]

    @abstractmethod
    def matched(self, a: Tensor, b: Tensor) -> Tensor:
        """The form of row i of `a` with row i of `b`."""

    @abstractmethod
    def pairs(self, a: Tensor, b: Tensor) -> Tensor:
        """The form of each row of `a` with each row of `b`."""

    @property
    def product(self) -> "Form":
        """The form whose tiles this one is read from: forms with one product share it."""
        return self

    def read(self, x: Tensor) -> Tensor:
        """This form, of the values of its product."""
        return x

    def read_vjp(self, grad_output: Tensor, x: Tensor) -> Tensor:
        """The gradient of the product, given that of this form and its values; may overwrite `grad_output`."""
        return grad_output

    def features(self, part: Tensor) -> tuple[Tensor, Tensor]:
        """`f` and `M f` of a part."""
        return part, part

    def kept(self, part: Tensor) -> Tensor:
        """What of the part `features_vjp` needs."""
        return part

    def features_vjp(self, kept: Tensor, f: Tensor, grad_output: Tensor) -> Tensor:
        """The gradient of the part, given that of `f`; may overwrite `grad_output`."""
        return grad_output

    def tile(self, f: Tensor, m: Tensor) -> Tensor:
        """The values of each row of `f` with each row of `m`."""
        return f @ m.T

    def tile_vjp(self, into: Tensor, grad_output: Tensor, f: Tensor, m: Tensor, x: Tensor) -> None:
        """Add to `into` the gradient of the rows `f` of a tile."""
        into.addmm_(grad_output, m)

    def rows(self, f: Tensor, m: Tensor) -> Tensor:
        """The values of row i of `f` with row i of `m`."""
        return (f * m).sum(1)

    def rows_vjp(self, into: Tensor, grad_output: Tensor, f: Tensor, m: Tensor, x: Tensor) -> None:
        """Add to `into` the gradient of `f`, each row with its own partner."""
        into.addcmul_(grad_output[:, None], m)


class UnitInner(Form):
    """The inner product of parts scaled to length one: their cosine."""

    def matched(self, a: Tensor, b: Tensor) -> Tensor:
        return (unit(self.part(a)) * unit(self.part(b))).sum(1)

    def pairs(self, a: Tensor, b: Tensor) -> Tensor:
        return unit(self.part(a)) @ unit(self.part(b)).T

    def features(self, part: Tensor) -> tuple[Tensor, Tensor]:
        f = part / _length(part)
        return f, f

    def kept(self, part: Tensor) -> Tensor:
        return _length(part)

    def features_vjp(self, kept: Tensor, f: Tensor, grad_output: Tensor) -> Tensor:
        radial = torch.bmm(f[:, None], grad_output[:, :, None])[:, 0]  # `vecdot` would hold the products
        return grad_output.addcmul_(f, radial, value=-1).div_(kept)


def _length(z: Tensor) -> Tensor:
    return torch.linalg.vector_norm(z, dim=1, keepdim=True).clamp_min(1e-12)  # as torch's normalize


class Chord(Form):
    """The squared distance of parts scaled to length one, in [0, 4]; that of a zero part is 2 (see above)."""

    def matched(self, a: Tensor, b: Tensor) -> Tensor:
        a, b = unit(self.part(a)), unit(self.part(b))
        # Not 2 - 2 <a, b>, which cancels; what a zero part lacks to length one is added, and 0 for all others.
        return (a - b).square().sum(1) + (_lack(a) + _lack(b))

    def pairs(self, a: Tensor, b: Tensor) -> Tensor:
        return (2 - 2 * (unit(self.part(a)) @ unit(self.part(b)).T)).clamp(min=0)

    @property
    def product(self) -> Form:
        return UnitInner(self.space, self.spaces)

    def read(self, x: Tensor) -> Tensor:
        return torch.rsub(x, 2, alpha=2).clamp_(min=0)

    def read_vjp(self, grad_output: Tensor, x: Tensor) -> Tensor:
        return grad_output.mul_(-2).mul_(indicator(torch.gt, x, 0.0))


def _lack(a: Tensor) -> Tensor:
    square = a.square().sum(1)
    return torch.where(square < 0.5, 1 - square, 0)


class Inner(Form):
    """The inner product of parts as they are."""

    def matched(self, a: Tensor, b: Tensor) -> Tensor:
        return (self.part(a) * self.part(b)).sum(1)

    def pairs(self, a: Tensor, b: Tensor) -> Tensor:
        return self.part(a) @ self.part(b).T


class Squares(Form):
    """`|a|^2 + |b|^2`: the bilinear form of `f = (|z|^2, 1)` in which `M` swaps the two."""

    def matched(self, a: Tensor, b: Tensor) -> Tensor:
        return self.part(a).square().sum(1) + self.part(b).square().sum(1)

    def pairs(self, a: Tensor, b: Tensor) -> Tensor:
        return self.part(a).square().sum(1)[:, None] + self.part(b).square().sum(1)

    def features(self, part: Tensor) -> tuple[Tensor, Tensor]:
        squares = part.square().sum(1)
        f = torch.stack([squares, torch.ones_like(squares)], dim=1)
        return f, f.flip(1)

    def features_vjp(self, kept: Tensor, f: Tensor, grad_output: Tensor) -> Tensor:
        return 2 * grad_output[:, :1] * kept


class Distance(Form):
    """`|a - b|` of parts as they are, from their differences.

    It is no matrix product: `|a|^2 + |b|^2 - 2 <a, b>` cancels for close points of large norm, and the root makes an
    error of 1e-7 one of 3e-4. A tile costs `O(d)` for each pair, as the plain form does, but is not kept.
    """

    def matched(self, a: Tensor, b: Tensor) -> Tensor:
        return torch.linalg.vector_norm(self.part(a) - self.part(b), dim=1)

    def pairs(self, a: Tensor, b: Tensor) -> Tensor:
        return torch.cdist(self.part(a), self.part(b), compute_mode="donot_use_mm_for_euclid_dist")

    def tile(self, f: Tensor, m: Tensor) -> Tensor:
        return torch.cdist(f, m, compute_mode="donot_use_mm_for_euclid_dist")

    def tile_vjp(self, into: Tensor, grad_output: Tensor, f: Tensor, m: Tensor, x: Tensor) -> None:
        g, f, m, x = (t.contiguous() for t in (grad_output, f, m, x))
        into.add_(torch.ops.aten._cdist_backward(g, f, m, 2.0, x))

    def rows(self, f: Tensor, m: Tensor) -> Tensor:
        return torch.linalg.vector_norm(f - m, dim=1)

    def rows_vjp(self, into: Tensor, grad_output: Tensor, f: Tensor, m: Tensor, x: Tensor) -> None:
        slope = torch.where(x > 0, grad_output / x, 0)
        into.addcmul_(slope[:, None], f - m)
