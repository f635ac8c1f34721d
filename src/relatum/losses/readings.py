"""What the blocks keep of embeddings, labels and contrasts: all of it grows with N, nothing with N x N."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from relatum.relations import Form, Relation
from relatum.relations.forms import indicator

__all__ = ["Classes", "Contrast", "Gradient", "Gradients", "Reading", "Valued", "ranges", "values"]

Valued = tuple[Tensor, Callable[[Tensor], list[tuple[Form, Tensor, Tensor]]]]
"""The values of a contrast on a tile, and what makes of their gradient, for each form: it, its product's gradient and
the product."""


class Contrast(NamedTuple):
    """The softmax contrast of one relation at one temperature, a number or a learned one."""

    relation: Relation
    temperature: float | Tensor

    def bound(self, dtype: torch.dtype) -> float | None:
        """A shift of all exponents under which every `e^(v / t - shift)` is a normal number, or None."""
        bounds = self.relation.bounds()
        if bounds is None or isinstance(self.temperature, Tensor):  # whose value is not asked for: a GPU would wait
            return None
        low, high = bounds
        return high / self.temperature if (high - low) / self.temperature < -_floor(dtype) else None

    def exponentials(self, v: Tensor, shift: Tensor | float) -> Tensor:
        """`e^(v / t - shift)`; what vanishes next to 1 stays a normal number, as denormal ones are slow on a CPU."""
        if isinstance(self.temperature, Tensor):
            exponents = (v / self.temperature).sub_(shift)
        else:
            exponents = torch.rsub(v, -shift, alpha=-1 / self.temperature)
        if isinstance(shift, Tensor):
            exponents.clamp_(min=_floor(v.dtype))
        return exponents.exp_()

    def both(self, v: Tensor, shift: Tensor | float, i: slice, j: slice) -> tuple[Tensor, Tensor]:
        """Those of a tile, shifted for the anchors in its rows and for those in its columns: under a bound the same."""
        if isinstance(shift, Tensor):
            rows, columns = self.exponentials(v, shift[i, None]), self.exponentials(v, shift[j])
        else:
            rows = columns = self.exponentials(v, shift)
        return (rows.fill_diagonal_(0), columns.fill_diagonal_(0)) if i == j else (rows, columns)


def _floor(dtype: torch.dtype) -> float:
    return 0.9 * math.log(torch.finfo(dtype).tiny)


class Gradient(NamedTuple):
    """The gradient of one contrast in the columns of one input that start at `column`."""

    input: int
    contrast: int
    column: int
    value: Tensor


class Gradients(NamedTuple):
    """Everything that a backward pass scales: those of the inputs, and each contrast's in its own temperature."""

    inputs: list[Gradient]
    temperatures: Tensor | None


class Reading:
    """Embeddings as the contrasts read them; of the embeddings themselves it keeps what their forms need.

    Attributes:
        rows, width: the shape of the embeddings.
        f, m: the features of each product of the forms, and what they meet, `M f`.
        kept: what `features_vjp` needs to take the gradients of `f` to those of the embeddings.
        gradients: for each contrast, that of `f` in each of its products; None where it is not wanted.
    """

    def __init__(self, z: Tensor, contrasts: Sequence[Contrast], wanted: bool) -> None:
        self.rows, self.width = z.shape
        self.f: dict[Form, Tensor] = {}
        self.m: dict[Form, Tensor] = {}
        self.kept: dict[Form, Tensor] = {}
        products = [{form.product: None for form in contrast.relation.forms} for contrast in contrasts]
        for product in {product: None for own in products for product in own}:
            part = product.part(z)
            self.f[product], self.m[product] = product.features(part)
            self.kept[product] = product.kept(part)
        self.gradients: list[dict[Form, Tensor]] | None = None
        if wanted:
            self.gradients = [{product: torch.zeros_like(self.f[product]) for product in own} for own in products]

    def embeddings_vjp(self, number: int) -> list[Gradient]:
        """The gradients of the embeddings, the input of this number; uses up those of the features."""
        out = []
        for k, gradients in enumerate(self.gradients or ()):
            parts: dict[tuple[int, int], Tensor] = {}
            for product, g in gradients.items():
                g = product.features_vjp(self.kept[product], self.f[product], g)
                part = (product.space, product.spaces)
                parts[part] = parts[part].add_(g) if part in parts else g
            out += [Gradient(number, k, self.width // among * part, g) for (part, among), g in parts.items()]
        return out


def values(contrasts: Sequence[Contrast], products: dict[Form, Tensor], wanted: bool) -> list[Valued]:
    """What each contrast makes of the products of a tile."""
    return [_valued(contrast.relation, products, wanted) for contrast in contrasts]


def _valued(relation: Relation, products: dict[Form, Tensor], wanted: bool) -> Valued:
    forms = relation.forms
    x = [form.read(products[form.product]) for form in forms]
    if not wanted:
        return relation.value(*x), lambda grad_output: []
    value, vjp = relation.value_and_vjp(*x)

    def products_vjp(grad_output: Tensor) -> list[tuple[Form, Tensor, Tensor]]:
        return [
            (form.product, form.read_vjp(g, y), products[form.product])
            for form, y, g in zip(forms, x, vjp(grad_output))
        ]

    return value, products_vjp


def ranges(n: int, block: int) -> list[slice]:
    """`block` rows at a time."""
    return [slice(start, min(start + block, n)) for start in range(0, n, block)]


class Classes:
    """Which rows are positives of each other, by their labels.

    Attributes:
        count: the positives of each row.
        weight: how much each row counts in the mean over the rows that have positives.
    """

    def __init__(self, labels: Tensor, dtype: torch.dtype) -> None:
        order = labels.sort().values
        first, last = torch.searchsorted(order, labels), torch.searchsorted(order, labels, right=True)
        self.name = first.to(dtype)  # counts below 2^24 are exact in float32
        self.count = (last - first - 1).to(dtype)
        some = self.count.clamp(max=1)
        self.weight = some / some.sum().clamp(min=1)

    def mask(self, i: slice, j: slice) -> Tensor:
        """1 at the pairs of one class, else 0."""
        same = indicator(torch.eq, self.name[i, None].expand(-1, j.stop - j.start), self.name[j])
        return same.fill_diagonal_(0) if i == j else same
