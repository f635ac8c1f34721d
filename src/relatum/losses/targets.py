"""A third way to walk over pairs: queries against keys that all share, where a target says which they are to meet.

With the target distribution `q_i` over the keys that query i sees, `l = v / t` and `Z_i` their sum of `e^{l_ij}`,

    L = 1/n sum_i (log Z_i - sum_j q_ij l_ij),   dL/dl_ij = 1/n (e^{l_ij} / Z_i - q_ij)

The target knows `q` for a block of rows at a time, so that nothing of size n x m exists here either. As all schemes
(`relatum.losses.schemes`) this runs outside autograd and gives values and gradients together.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from relatum.losses.readings import Contrast, Gradients, Reading, Valued, ranges, values
from relatum.losses.schemes import Wanted, gradients_of_temperatures

__all__ = ["FromTeacher", "FromView", "OneKey", "Rows", "Target", "with_target"]


class Rows(NamedTuple):
    """The target of a block of rows: one key of each row, or a distribution over all keys.

    Attributes:
        key: the column of the one key.
        share: the distribution over the columns.
        own_share: what of it lies on the key of the row's own.
        hidden: the keys that a row does not see; None if it sees all.
    """

    key: Tensor | None = None
    share: Tensor | None = None
    own_share: Tensor | float = 0.0
    hidden: Tensor | None = None

    def near(self, v: Tensor, v_own: Tensor | None) -> Tensor:
        """`sum_j q_ij v_ij`."""
        if self.key is not None:
            return v.gather(1, self.key[:, None]).squeeze(1)
        assert self.share is not None
        near = torch.linalg.vecdot(self.share, v)
        return near if v_own is None else near + self.own_share * v_own

    def take(self, g: Tensor, scale: float | Tensor) -> None:
        """Subtract `scale q_ij` in place."""
        if self.key is not None:
            ones = torch.ones_like(self.key, dtype=g.dtype)
            g.scatter_add_(1, self.key[:, None], (-scale * ones)[:, None])
        elif isinstance(scale, Tensor):
            assert self.share is not None
            g.sub_(self.share * scale)
        else:
            assert self.share is not None
            g.sub_(self.share, alpha=scale)


class OneKey:
    """Each query is to meet one of the keys, which stands among them; others of its class it does not see.

    Args:
        own: the row of that key, for each query.
        classes: of the queries and of the keys; those of a class hide from each other. None hides nothing.
    """

    def __init__(self, own: Tensor, classes: tuple[Tensor, Tensor] | None) -> None:
        self.own, self.classes = own, classes

    def rows(self, i: slice) -> Rows:
        hidden = None
        if self.classes is not None:
            queries, keys = self.classes
            hidden = (queries[i, None] == keys).scatter_(1, self.own[i, None], False)
        return Rows(key=self.own[i], hidden=hidden)


class FromTeacher:
    """Each query is to be as like the keys, and its teacher, as the teacher is like them and itself.

    Args:
        contrast: how the teacher compares, and at what temperature.
        teacher: its embeddings.
        keys: those that all rows share.
    """

    def __init__(self, contrast: Contrast, teacher: Tensor, keys: Tensor) -> None:
        self.contrast, self.teacher, self.keys = contrast, teacher, keys

    def rows(self, i: slice) -> Rows:
        rows, relation = self.teacher[i], self.contrast.relation
        logits = torch.cat([relation.matched(rows, rows)[:, None], relation.all_pairs(rows, self.keys)], dim=1)
        share = logits.div_(self.contrast.temperature).softmax(1)
        return Rows(share=share[:, 1:], own_share=share[:, 0])


class FromView:
    """Each query is to be as like the keys as another view of its image is.

    Args:
        contrast: how the other view compares, and at what temperature.
        view: its embeddings.
        keys: those that all rows share.
    """

    def __init__(self, contrast: Contrast, view: Tensor, keys: Tensor) -> None:
        self.contrast = contrast
        self.view, self.keys = (Reading(z, [contrast], False) for z in (view, keys))  # once, not for each block

    def rows(self, i: slice) -> Rows:
        products = {form: form.tile(self.view.f[form][i], self.keys.m[form]) for form in self.view.f}
        ((v, _),) = values([self.contrast], products, False)
        return Rows(share=(v / self.contrast.temperature).softmax(1))


Target = OneKey | FromTeacher | FromView
"""What makes the target of a block of rows."""


def with_target(
    target: Target,
    contrasts: Sequence[Contrast],
    block: int,
    wanted: Wanted,
    query: Tensor,
    keys: Tensor,
    own: Tensor | None = None,
) -> tuple[Tensor, Gradients]:
    """Queries, the keys that all share and, where there is one, a key of each query's own: blocks of rows."""
    n = len(query)
    inputs = (query, keys) if own is None else (query, keys, own)
    reads = [Reading(z, contrasts, w) for z, w in zip(inputs, wanted.inputs)]
    losses = [query.new_zeros(()) for _ in contrasts]
    slopes = [query.new_zeros(()) for _ in contrasts]
    for i in ranges(n, block):
        rows = target.rows(i)
        tiles, owns = _tiles(contrasts, reads, i, wanted.any)
        for k, (contrast, (v, vjp)) in enumerate(zip(contrasts, tiles)):
            v_own, vjp_own = owns[k] if owns else (None, None)
            t, shift = contrast.temperature, _shift(contrast, v, v_own, rows.hidden)
            e = contrast.exponentials(v, shift[:, None] if isinstance(shift, Tensor) else shift)
            if rows.hidden is not None:
                e.masked_fill_(rows.hidden, 0)
            e_own = None if v_own is None else contrast.exponentials(v_own, shift)
            total = e.sum(1) if e_own is None else e.sum(1) + e_own
            losses[k] = losses[k] + (total.log() + (shift - rows.near(v, v_own) / t)).sum() / n
            if not wanted.any:
                continue
            scale = 1 / (n * t)
            g = e.mul_((scale / total)[:, None])
            rows.take(g, scale)
            g_own = None if e_own is None else (e_own / total - rows.own_share) * scale
            if wanted.temperatures:
                slopes[k] = slopes[k] + (g * v).sum()
                if g_own is not None and v_own is not None:
                    slopes[k] = slopes[k] + (g_own * v_own).sum()
            if any(wanted.inputs):
                _add(k, vjp(g), [] if vjp_own is None or g_own is None else vjp_own(g_own), i, reads)
    gradients = [g for number, read in enumerate(reads) for g in read.embeddings_vjp(number)]
    return torch.stack(losses), Gradients(gradients, gradients_of_temperatures(contrasts, slopes, wanted))


def _tiles(
    contrasts: Sequence[Contrast], reads: list[Reading], i: slice, wanted: bool
) -> tuple[list[Valued], list[Valued]]:
    """The values of a block of rows with all keys, and with the keys of their own, if there are such."""
    q, m, *own = reads
    tiles = values(contrasts, {form: form.tile(q.f[form][i], m.m[form]) for form in q.f}, wanted)
    if not own:
        return tiles, []
    products = {form: form.rows(q.f[form][i], own[0].m[form][i]) for form in q.f}
    return tiles, values(contrasts, products, wanted)


def _shift(contrast: Contrast, v: Tensor, v_own: Tensor | None, hidden: Tensor | None) -> Tensor | float:
    """The shift of the exponents: the bound of the relation, or the maximum of what each row sees."""
    bound = contrast.bound(v.dtype)
    if bound is not None:
        return bound
    top = (v if hidden is None else v.masked_fill(hidden, -torch.inf)).amax(1)
    return (top if v_own is None else torch.maximum(top, v_own)) / contrast.temperature


def _add(k: int, slopes: list, own_slopes: list, i: slice, reads: list[Reading]) -> None:
    """Add the gradients of a block of rows to those of the features."""
    q, m, *own = reads
    for product, g, x in slopes:
        if q.gradients is not None:
            product.tile_vjp(q.gradients[k][product][i], g, q.f[product][i], m.m[product], x)
        if m.gradients is not None:
            product.tile_vjp(m.gradients[k][product], g.T, m.f[product], q.m[product][i], x.T)
    for product, g, x in own_slopes:
        if q.gradients is not None:
            product.rows_vjp(q.gradients[k][product][i], g, q.f[product][i], own[0].m[product][i], x)
        if own[0].gradients is not None:
            product.rows_vjp(own[0].gradients[k][product][i], g, own[0].f[product][i], q.m[product][i], x)
