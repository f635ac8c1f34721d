"""The two ways to walk over all pairs, a tile at a time, with values and gradients together.

Both take the contrasts, the rows of a block, whether the gradients of each input and of the temperatures are wanted,
and the embeddings; both give the loss of each contrast and its `Gradients`. Outside autograd: nothing here is recorded.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from relatum.losses.readings import Classes, Contrast, Gradient, Gradients, Reading, Valued, ranges, values

__all__ = ["Wanted", "among", "gradients_of_temperatures", "with_keys"]


class Wanted(NamedTuple):
    """Which gradients are asked for."""

    inputs: Sequence[bool]
    temperatures: bool

    @property
    def any(self) -> bool:
        return any(self.inputs) or self.temperatures


def _tiles(
    contrasts: Sequence[Contrast], read: Reading, block: int, wanted: bool = False
) -> Iterator[tuple[slice, slice, list[Valued]]]:
    """The tiles of the upper triangle, the diagonal included: rows, columns, the values of each contrast."""
    rows = ranges(read.rows, block)
    for a, i in enumerate(rows):
        for j in rows[a:]:
            products = {product: product.tile(read.f[product][i], read.m[product][j]) for product in read.f}
            yield i, j, values(contrasts, products, wanted)


class _Anchors:
    """Anchors that are each other's keys: tiles of the upper triangle, each for its rows and its columns."""

    def __init__(
        self, contrasts: Sequence[Contrast], block: int, wanted: Wanted, z: Tensor, labels: Tensor | None
    ) -> None:
        self.contrasts, self.block, self.wanted = contrasts, block, wanted
        self.read = Reading(z, contrasts, any(wanted.inputs))
        self.n = n = len(z)
        self.classes = None if labels is None else Classes(labels, z.dtype)
        self.weight = z.new_full((n,), 1 / n) if self.classes is None else self.classes.weight
        self.shifts = self._shifts(z.dtype)
        self.slopes = [z.new_zeros(()) for _ in contrasts]  # sum of dL/dv v, which is -t dL/dt

    def _shifts(self, dtype: torch.dtype) -> list[Tensor | float]:
        """The shifts of the exponents: the bound of the relation, or the maximum of each row."""
        bounds = [contrast.bound(dtype) for contrast in self.contrasts]
        highest = [torch.full_like(self.weight, -torch.inf) for _ in bounds]
        if None in bounds:
            for i, j, tile in _tiles(self.contrasts, self.read, self.block):
                for (v, _), top in zip(tile, highest):
                    others = v.clone().fill_diagonal_(-torch.inf) if i == j else v
                    top[i] = torch.maximum(top[i], others.amax(1))
                    top[j] = torch.maximum(top[j], others.amax(0))
        return [
            top / contrast.temperature if bound is None else bound
            for contrast, bound, top in zip(self.contrasts, bounds, highest)
        ]

    def sums(self) -> tuple[list[Tensor], list[Tensor]]:
        """For each contrast and anchor, the sum of exponentials; and its mean similarity with its class."""
        sums = [torch.zeros_like(self.weight) for _ in self.contrasts]
        near = [torch.zeros_like(self.weight) for _ in self.contrasts]
        for i, j, tile in _tiles(self.contrasts, self.read, self.block):
            for k, (v, _) in enumerate(tile):
                rows, columns = self.contrasts[k].both(v, self.shifts[k], i, j)
                sums[k][i] += rows.sum(1)
                if i != j:
                    sums[k][j] += columns.sum(0)
                if self.classes is not None:
                    positives = self.classes.mask(i, j).mul_(v)
                    near[k][i] += positives.sum(1)
                    if i != j:
                        near[k][j] += positives.sum(0)
        if self.classes is not None:
            near = [similarity / self.classes.count.clamp(min=1) for similarity in near]
        return sums, near

    def differentiate(self, sums: list[Tensor]) -> None:
        """Add up the gradients over the tiles: `dL/dx_ij + dL/dx_ji` serves row i and row j."""
        classes, weight = self.classes, self.weight
        share = None if classes is None else weight / classes.count.clamp(min=1)
        for i, j, tile in _tiles(self.contrasts, self.read, self.block, wanted=True):
            for k, (v, vjp) in enumerate(tile):
                scale = 1 / self.contrasts[k].temperature
                rows, columns = self.contrasts[k].both(v, self.shifts[k], i, j)
                g = rows * (scale * weight[i] / sums[k][i])[:, None]
                g.addcmul_(columns, scale * weight[j] / sums[k][j])
                if classes is not None and share is not None:
                    both = share[i, None] + share[j]
                    if isinstance(scale, Tensor):
                        g.addcmul_(classes.mask(i, j), both.mul_(scale), value=-1)
                    else:
                        g.addcmul_(classes.mask(i, j), both, value=-scale)
                if self.wanted.temperatures:  # on the diagonal each pair stands twice
                    self.slopes[k] = self.slopes[k] + (g * v).sum() / (2 if i == j else 1)
                if self.read.gradients is not None:
                    self._add(k, vjp(g), i, j)

    def _add(self, k: int, slopes: list, i: slice, j: slice) -> None:
        read = self.read
        assert read.gradients is not None
        for product, g, x in slopes:
            f, m, into = read.f[product], read.m[product], read.gradients[k][product]
            product.tile_vjp(into[i], g, f[i], m[j], x)
            if i != j:
                product.tile_vjp(into[j], g.T, f[j], m[i], x.T)

    def partners(self) -> list[Tensor]:
        """The similarity of each anchor with the one positive that it has, row i with row i + n / 2; its gradient."""
        read, near = self.read, []
        a, b = slice(0, self.n // 2), slice(self.n // 2, self.n)
        products = {product: product.rows(read.f[product][a], read.m[product][b]) for product in read.f}
        for k, (v, vjp) in enumerate(values(self.contrasts, products, self.wanted.any)):
            near.append(v.repeat(2))
            slope = -2 / (self.n * self.contrasts[k].temperature)
            if self.wanted.temperatures:
                self.slopes[k] = self.slopes[k] + slope * v.sum()
            if read.gradients is not None:
                g = slope.expand_as(v).clone() if isinstance(slope, Tensor) else torch.full_like(v, slope)
                for product, gx, x in vjp(g):
                    f, m, into = read.f[product], read.m[product], read.gradients[k][product]
                    product.rows_vjp(into[a], gx, f[a], m[b], x)
                    product.rows_vjp(into[b], gx, f[b], m[a], x)
        return near


def among(
    contrasts: Sequence[Contrast], block: int, wanted: Wanted, labels: Tensor | None, *parts: Tensor
) -> tuple[Tensor, Gradients]:
    """Anchors that are each other's keys, given in parts; `labels` say who is whose positive, or the halves do."""
    anchors = _Anchors(contrasts, block, wanted, torch.cat(parts) if len(parts) > 1 else parts[0], labels)
    sums, near = anchors.sums()
    if wanted.any:
        anchors.differentiate(sums)
    if labels is None:
        near = anchors.partners()
    losses = [
        (anchors.weight * (total.log() + (shift - similarity / contrast.temperature))).sum()
        for contrast, total, shift, similarity in zip(contrasts, sums, anchors.shifts, near)
    ]
    gradients = [
        Gradient(number, g.contrast, g.column, rows)
        for g in anchors.read.embeddings_vjp(0)
        for number, rows in enumerate(g.value.split([len(part) for part in parts]), 1)
        if wanted.inputs[number]
    ]
    return torch.stack(losses), Gradients(gradients, gradients_of_temperatures(contrasts, anchors.slopes, wanted))


def gradients_of_temperatures(contrasts: Sequence[Contrast], slopes: list[Tensor], wanted: Wanted) -> Tensor | None:
    """The gradients of the temperatures, given the sums of `dL/dv v`; None where they are not wanted."""
    if not wanted.temperatures:
        return None
    return torch.stack([-slope / contrast.temperature for contrast, slope in zip(contrasts, slopes)])


def with_keys(
    contrasts: Sequence[Contrast], block: int, wanted: Wanted, query: Tensor, positive: Tensor, negatives: Tensor
) -> tuple[Tensor, Gradients]:
    """Queries with a key of their own and keys that all share: blocks of rows, each with all keys."""
    n = len(query)
    q, p, m = (Reading(z, contrasts, w) for z, w in zip((query, positive, negatives), wanted.inputs))
    losses = [query.new_zeros(()) for _ in contrasts]
    temperature_slopes = [query.new_zeros(()) for _ in contrasts]
    for i in ranges(n, block):
        products = {product: product.tile(q.f[product][i], m.m[product]) for product in q.f}
        own_products = {product: product.rows(q.f[product][i], p.m[product][i]) for product in q.f}
        tile, own = values(contrasts, products, wanted.any), values(contrasts, own_products, wanted.any)
        for k, (contrast, (v, vjp), (v_own, vjp_own)) in enumerate(zip(contrasts, tile, own)):
            t = contrast.temperature
            bound = contrast.bound(query.dtype)
            shift = torch.maximum(v.amax(1), v_own) / t if bound is None else bound
            e = contrast.exponentials(v, shift[:, None] if isinstance(shift, Tensor) else shift)
            e_own = contrast.exponentials(v_own, shift)
            total = e.sum(1) + e_own
            losses[k] = losses[k] + (total.log() + (shift - v_own / t)).sum() / n
            if not wanted.any:
                continue
            scale = 1 / (n * t * total)
            g, g_own = e.mul_(scale[:, None]), (e_own * scale).sub_(1 / (n * t))
            if wanted.temperatures:
                temperature_slopes[k] = temperature_slopes[k] + ((g * v).sum() + (g_own * v_own).sum())
            if any(wanted.inputs):
                _add_keys(k, vjp(g), vjp_own(g_own), i, q, p, m)
    gradients = [g for number, read in enumerate((q, p, m)) for g in read.embeddings_vjp(number)]
    return torch.stack(losses), Gradients(gradients, gradients_of_temperatures(contrasts, temperature_slopes, wanted))


def _add_keys(k: int, slopes: list, own_slopes: list, i: slice, q: Reading, p: Reading, m: Reading) -> None:
    for (product, g, x), (_, g_own, x_own) in zip(slopes, own_slopes):
        query, positive, negatives = q.f[product][i], p.f[product][i], m.f[product]
        if q.gradients is not None:
            into = q.gradients[k][product][i]
            product.tile_vjp(into, g, query, m.m[product], x)
            product.rows_vjp(into, g_own, query, p.m[product][i], x_own)
        if p.gradients is not None:
            product.rows_vjp(p.gradients[k][product][i], g_own, positive, q.m[product][i], x_own)
        if m.gradients is not None:
            product.tile_vjp(m.gradients[k][product], g.T, negatives, q.m[product][i], x.T)
