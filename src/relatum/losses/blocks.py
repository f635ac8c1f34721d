"""Softmax contrasts of all pairs, a block at a time: the values and gradients of `relatum.losses.objectives`, exactly.

Nothing of size N x N exists. Two facts make that possible:

- Each relation is an elementwise function `v(x1, x2, ...)` of a few symmetric bilinear forms `x = <f, M f'>` of
  features `f` that depend on one embedding each: `x` is a matrix product, and `dL/df = (dL/dx) M f'` is another.
- The losses are means, so that the weight of each row is known beforehand: the gradient is computed together with the
  value, while a block is at hand, and the backward pass only scales it by what comes from above.

With `l = v / t`, `Z_i = sum_j e^{l_ij}` and row weights `w_i`, the contrast of `n` anchors with all their keys is

    L = sum_i w_i (log Z_i - mean_{p in P(i)} l_ip),   dL/dl_ij = w_i (e^{l_ij} / Z_i - [j in P(i)] / |P(i)|).

Two schemes visit the pairs. Queries and keys: blocks of rows, each with all its keys, so that `Z` is known in the same
visit and nothing is computed twice. Anchors that are each other's keys: square tiles of the upper triangle, visited
once for `Z` and once for the gradient, where each tile serves its rows and its columns: `dL/dx_ij + dL/dx_ji =
e^{l_ij} (w_i / Z_i + w_j / Z_j)`, which halves the products and the elementwise work. Several terms share the blocks
and the products. Each term keeps its own gradient, so that any weighting of the terms from above is exact.

The exponents are shifted by the upper bound of the relation where its whole range is safe to exponentiate, else by
the maximum of each row.
"""

import logging
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from relatum.core.precision import full_precision
from relatum.relations import Cosine, Jaccard, Relation, Tanimoto, Within

__all__ = ["Block", "among_each_other", "size", "with_keys"]

Block = int | Literal["auto"] | None
"""Rows at a time; a size that was measured to be good; or all pairs at once."""

Pull = Callable[[Tensor], tuple[Tensor, ...]]

log = logging.getLogger(__name__)

# The edge of a tile, and the number of pairs from which blocks are used.
# CPU: on one thread (AVX-512, D = 128, forward and backward) tiles of 384 and 512 are level and beat 128 and 256, and
# those of 384 need less memory; one visit beats plain from 256 rows on (cosine 1.3 times, Jaccard 1.4, three terms 1.8;
# at 2,048 rows 1.9, 2.5 and 2.5).
# GPU: not measured; there the plain form is used until its matrices take a quarter of a gigabyte each.
_MEASURED = {"cpu": (384, 2**16), "gpu": (4096, 2**26)}


@dataclass(frozen=True)
class _Part:
    """One of several equal parts of an embedding."""

    index: int
    among: int

    def of(self, z: Tensor) -> Tensor:
        return z.chunk(self.among, dim=1)[self.index]


@dataclass(frozen=True)
class _Space(ABC):
    """The features `f` of a part of the embeddings, in a bilinear form `<f, M f'>` with symmetric `M`."""

    part: _Part

    @abstractmethod
    def features(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """`f` and `M f` of the part."""

    def kept(self, z: Tensor) -> Tensor:
        """What of the part `pull` needs."""
        return z

    @abstractmethod
    def pull(self, kept: Tensor, f: Tensor, g: Tensor) -> Tensor:
        """The gradient of the part, given `g`, that of `f`; may overwrite `g`."""


class _Unit(_Space):
    """Inner products of parts scaled to length one."""

    def features(self, z: Tensor) -> tuple[Tensor, Tensor]:
        f = z / _length(z)
        return f, f

    def kept(self, z: Tensor) -> Tensor:
        return _length(z)

    def pull(self, kept: Tensor, f: Tensor, g: Tensor) -> Tensor:
        radial = torch.bmm(f[:, None], g[:, :, None])[:, 0]  # `vecdot` would hold the products
        return g.addcmul_(f, radial, value=-1).div_(kept)


def _length(z: Tensor) -> Tensor:
    return torch.linalg.vector_norm(z, dim=1, keepdim=True).clamp_min(1e-12)  # as torch's normalize


class _Raw(_Space):
    """Inner products of parts as they are."""

    def features(self, z: Tensor) -> tuple[Tensor, Tensor]:
        return z, z

    def pull(self, kept: Tensor, f: Tensor, g: Tensor) -> Tensor:
        return g


class _Squares(_Space):
    """`|a|^2 + |b|^2`: the form of `f = (|z|^2, 1)` in which `M` swaps the two."""

    def features(self, z: Tensor) -> tuple[Tensor, Tensor]:
        squares = z.square().sum(1)
        f = torch.stack([squares, torch.ones_like(squares)], dim=1)
        return f, f.flip(1)

    def pull(self, kept: Tensor, f: Tensor, g: Tensor) -> Tensor:
        return 2 * g[:, :1] * kept


class _Form(NamedTuple):
    """A relation as a function of bilinear forms.

    Attributes:
        spaces: what the forms compare.
        low, high: bounds of the values.
        value: from the forms to the values, and the pull-back of a gradient of the values to those of the forms.
            It leaves its arguments as they are, and may return one of them; the pull-back may overwrite its own.
    """

    spaces: tuple[_Space, ...]
    low: float
    high: float
    value: Callable[..., tuple[Tensor, Pull]]


def _identity(x: Tensor) -> tuple[Tensor, Pull]:
    return x, lambda g: (g,)


def _tanimoto(inner: Tensor, squares: Tensor) -> tuple[Tensor, Pull]:
    """`v = (x + e) / u`, `u = q - x + e`: `dv/dx = (1 + v) / u`, `dv/dq = -v / u`."""
    tiny = torch.finfo(inner.dtype).tiny
    union = (squares - inner).add_(tiny)
    v = (inner + tiny).div_(union)

    def pull(g: Tensor) -> tuple[Tensor, ...]:
        g = g.div_(union)
        return torch.addcmul(g, g, v), (g * v).neg_()

    return v, pull


def _clamped(s: Tensor, b: Tensor, eps: float) -> tuple[Tensor, Pull]:
    """`v = o / u`, `o = max(s, 0) + eps`, `u = o + d`, `d = max(2 - 2b, 0)`: `dv/ds = d / u^2`, `dv/db = 2 o / u^2`."""
    overlap = s.clamp(min=0).add_(eps)
    chord = torch.rsub(b, 2, alpha=2)
    union = chord.clamp(min=0).add_(overlap)
    v = overlap.div_(union)

    def pull(g: Tensor) -> tuple[Tensor, ...]:
        g = g.div_(union)
        grad_b = (g * v).mul_(2)
        grad_s = torch.addcmul(g, g, v, value=-1)
        return _where_positive(grad_s, s), _where_positive(grad_b, chord)

    return v, pull


def _signed(s: Tensor, b: Tensor, eps: float) -> tuple[Tensor, Pull]:
    """`v = s / u`, `u = s + d`, or `u = +-eps` near the pole, where only the numerator moves."""
    chord = torch.rsub(b, 2, alpha=2)
    union = chord.clamp(min=0).add_(s)
    regular = union.abs() >= eps
    union = torch.where(regular, union, torch.full_like(union, eps).copysign_(union))
    v = s / union

    def pull(g: Tensor) -> tuple[Tensor, ...]:
        g = g.div_(union)
        slope = g * v * regular
        return g - slope, _where_positive(2 * slope, chord)

    return v, pull


def _where_positive(g: Tensor, x: Tensor) -> Tensor:
    """The pull-back of `max(x, 0)`; 0 at the kink, as torch's clamp has it."""
    return g.mul_(_compare(torch.gt, x, 0.0))


def _compare(comparison: Callable[..., Tensor], x: Tensor, y: Tensor | float) -> Tensor:
    """1 where it holds, else 0: on a CPU, comparing into floats is several times faster than masking by booleans."""
    return comparison(x, y, out=torch.empty_like(x, memory_format=torch.contiguous_format))


def _form(relation: Relation, part: _Part | None = None) -> _Form | None:
    """The form of a relation, or None: a subclass may compute anything, so that only the exact types are known."""
    if type(relation) is Within and part is None:
        return _form(relation.relation, _Part(relation.space, relation.spaces))
    if type(relation) is Cosine:
        return _Form((_Unit(part or _Part(0, 1)),), -1.0, 1.0, _identity)
    if type(relation) is Tanimoto:
        part = part or _Part(0, 1)
        return _Form((_Raw(part), _Squares(part)), -1 / 3, 1.0, _tanimoto)
    if type(relation) is Jaccard and part is None:
        spaces = (_Unit(_Part(0, 2)), _Unit(_Part(1, 2)))
        if relation.measure == "clamped":
            return _Form(spaces, 0.0, 1.0, partial(_clamped, eps=relation.eps))
        return _Form(spaces, -1 / relation.eps, 1 / relation.eps, partial(_signed, eps=relation.eps))
    return None


class _Term(NamedTuple):
    """The softmax contrast of one relation at one temperature."""

    form: _Form
    temperature: float

    def bound(self, dtype: torch.dtype) -> float | None:
        """A shift of all exponents under which every `e^(v / t - shift)` is a normal number, or None."""
        safe = (self.form.high - self.form.low) / self.temperature < -_floor(dtype)
        return self.form.high / self.temperature if safe else None

    def exponentials(self, v: Tensor, shift: Tensor | float) -> Tensor:
        """`e^(v / t - shift)`; what vanishes next to 1 stays a normal number, as denormal ones are slow on a CPU."""
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


class _Gradient(NamedTuple):
    """The gradient of one term in the columns of one input that start at `column`."""

    input: int
    term: int
    column: int
    value: Tensor


class _Read:
    """Embeddings as the terms read them; of the embeddings themselves it keeps what the spaces need.

    Attributes:
        rows, width: of the embeddings.
        f, m: the features of each space, and what they meet, `M f`.
        kept: what pulls the gradients of `f` back.
        gradients: for each term, of `f` in each of its spaces; None where it is not wanted.
    """

    def __init__(self, z: Tensor, terms: Sequence[_Term], wanted: bool) -> None:
        self.rows, self.width = z.shape
        self.f: dict[_Space, Tensor] = {}
        self.m: dict[_Space, Tensor] = {}
        self.kept: dict[_Space, Tensor] = {}
        for space in {space: None for term in terms for space in term.form.spaces}:
            part = space.part.of(z)
            self.f[space], self.m[space] = space.features(part)
            self.kept[space] = space.kept(part)
        self.gradients: list[dict[_Space, Tensor]] | None = None
        if wanted:
            self.gradients = [{space: torch.zeros_like(self.f[space]) for space in term.form.spaces} for term in terms]

    def pulled(self, number: int) -> list[_Gradient]:
        """The gradients of the embeddings, the input of this number; uses up those of the features."""
        out = []
        for k, gradients in enumerate(self.gradients or ()):
            parts: dict[_Part, Tensor] = {}
            for space, g in gradients.items():
                g = space.pull(self.kept[space], self.f[space], g)
                parts[space.part] = parts[space.part].add_(g) if space.part in parts else g
            out += [_Gradient(number, k, self.width // part.among * part.index, g) for part, g in parts.items()]
        return out


def _values(terms: Sequence[_Term], x: dict[_Space, Tensor]) -> list[tuple[Tensor, Pull]]:
    return [term.form.value(*(x[space] for space in term.form.spaces)) for term in terms]


def _tiles(terms: Sequence[_Term], read: _Read, block: int) -> Iterator[tuple[slice, slice, list[tuple[Tensor, Pull]]]]:
    """The tiles of the upper triangle, the diagonal included: their rows, their columns, the values of each term."""
    ranges = _ranges(read.rows, block)
    for a, i in enumerate(ranges):
        for j in ranges[a:]:
            yield i, j, _values(terms, {space: read.f[space][i] @ read.m[space][j].T for space in read.f})


def _ranges(n: int, block: int) -> list[slice]:
    return [slice(start, min(start + block, n)) for start in range(0, n, block)]


class _Classes:
    """Which rows are positives of each other, by their labels.

    Attributes:
        count: the positives of each row.
        weight: of each row in the mean over the rows that have positives.
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
        same = _compare(torch.eq, self.name[i, None].expand(-1, j.stop - j.start), self.name[j])
        return same.fill_diagonal_(0) if i == j else same


def _among(
    terms: Sequence[_Term], block: int, wanted: Sequence[bool], labels: Tensor | None, *parts: Tensor
) -> tuple[Tensor, list[_Gradient]]:
    """Anchors that are each other's keys: tiles of the upper triangle."""
    n, dtype = sum(map(len, parts)), parts[0].dtype
    read = _Read(torch.cat(parts) if len(parts) > 1 else parts[0], terms, any(wanted))
    classes = None if labels is None else _Classes(labels, dtype)
    weight = parts[0].new_full((n,), 1 / n) if classes is None else classes.weight

    bounds = [term.bound(dtype) for term in terms]
    highest = [torch.full_like(weight, -torch.inf) for _ in terms]
    if None in bounds:
        for i, j, values in _tiles(terms, read, block):
            for (v, _), top in zip(values, highest):
                others = v.clone().fill_diagonal_(-torch.inf) if i == j else v
                top[i] = torch.maximum(top[i], others.amax(1))
                top[j] = torch.maximum(top[j], others.amax(0))
    shifts = [top / term.temperature if bound is None else bound for term, bound, top in zip(terms, bounds, highest)]

    sums = [torch.zeros_like(weight) for _ in terms]
    near = [torch.zeros_like(weight) for _ in terms]  # the mean similarity of an anchor with its positives
    for i, j, values in _tiles(terms, read, block):
        for k, (v, _) in enumerate(values):
            rows, columns = terms[k].both(v, shifts[k], i, j)
            sums[k][i] += rows.sum(1)
            if i != j:
                sums[k][j] += columns.sum(0)
            if classes is not None:
                positives = classes.mask(i, j).mul_(v)
                near[k][i] += positives.sum(1)
                if i != j:
                    near[k][j] += positives.sum(0)
    if classes is not None:
        near = [similarity / classes.count.clamp(min=1) for similarity in near]

    if read.gradients is not None:
        for i, j, values in _tiles(terms, read, block):
            for k, (v, pull) in enumerate(values):
                scale = 1 / terms[k].temperature
                rows, columns = terms[k].both(v, shifts[k], i, j)
                g = rows * (scale * weight[i] / sums[k][i])[:, None]
                g.addcmul_(columns, scale * weight[j] / sums[k][j])
                if classes is not None:
                    share = weight / classes.count.clamp(min=1)
                    g.addcmul_(classes.mask(i, j), share[i, None] + share[j], value=-scale)
                for space, gx in zip(terms[k].form.spaces, pull(g)):
                    read.gradients[k][space][i].addmm_(gx, read.m[space][j])
                    if i != j:
                        read.gradients[k][space][j].addmm_(gx.T, read.m[space][i])

    if classes is None:  # row i + n / 2 is the one positive of row i
        a, b = slice(0, n // 2), slice(n // 2, n)
        for k, (v, pull) in enumerate(_values(terms, {s: (read.f[s][a] * read.m[s][b]).sum(1) for s in read.f})):
            near[k] = v.repeat(2)
            if read.gradients is not None:
                for space, gx in zip(terms[k].form.spaces, pull(torch.full_like(v, -2 / (n * terms[k].temperature)))):
                    read.gradients[k][space][a].addcmul_(gx[:, None], read.m[space][b])
                    read.gradients[k][space][b].addcmul_(gx[:, None], read.m[space][a])
    losses = [
        (weight * (total.log() + (shift - similarity / term.temperature))).sum()
        for term, total, shift, similarity in zip(terms, sums, shifts, near)
    ]
    gradients = [
        _Gradient(number, g.term, g.column, rows)
        for g in read.pulled(0)
        for number, rows in enumerate(g.value.split([len(part) for part in parts]), 1)
        if wanted[number]
    ]
    return torch.stack(losses), gradients


def _with_keys(
    terms: Sequence[_Term], block: int, wanted: Sequence[bool], query: Tensor, positive: Tensor, negatives: Tensor
) -> tuple[Tensor, list[_Gradient]]:
    """Queries with a key of their own and keys that all share: blocks of rows."""
    n = len(query)
    q, p, m = (_Read(z, terms, w) for z, w in zip((query, positive, negatives), wanted))
    losses = [query.new_zeros(()) for _ in terms]
    for i in _ranges(n, block):
        values = _values(terms, {space: q.f[space][i] @ m.m[space].T for space in q.f})
        own = _values(terms, {space: (q.f[space][i] * p.m[space][i]).sum(1) for space in q.f})
        for k, (term, (v, pull), (v_own, pull_own)) in enumerate(zip(terms, values, own)):
            t = term.temperature
            bound = term.bound(query.dtype)
            shift = torch.maximum(v.amax(1), v_own) / t if bound is None else bound
            e = term.exponentials(v, shift[:, None] if isinstance(shift, Tensor) else shift)
            e_own = term.exponentials(v_own, shift)
            total = e.sum(1) + e_own
            losses[k] = losses[k] + (total.log() + (shift - v_own / t)).sum() / n
            if not any(wanted):
                continue
            scale = 1 / (n * t * total)
            slopes = pull(e.mul_(scale[:, None])), pull_own((e_own * scale).sub_(1 / (n * t)))
            for space, gx, gx_own in zip(term.form.spaces, *slopes):
                if q.gradients is not None:
                    q.gradients[k][space][i].addmm_(gx, m.m[space]).addcmul_(gx_own[:, None], p.m[space][i])
                if p.gradients is not None:
                    p.gradients[k][space][i].addcmul_(gx_own[:, None], q.m[space][i])
                if m.gradients is not None:
                    m.gradients[k][space].addmm_(gx.T, q.m[space][i])
    return torch.stack(losses), [g for number, read in enumerate((q, p, m)) for g in read.pulled(number)]


class _Exact(torch.autograd.Function):
    """Losses whose gradients are known with their values; what comes from above scales them."""

    @staticmethod
    def forward(ctx: Any, visit: Callable[..., Any], terms: Any, block: int, *inputs: Tensor | None) -> Tensor:
        losses, gradients = visit(terms, block, ctx.needs_input_grad[3:], *inputs)
        ctx.places = [(g.input, g.term, g.column) for g in gradients]
        ctx.shapes = [None if z is None else z.shape for z in inputs]
        ctx.save_for_backward(*(g.value for g in gradients))
        return losses

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, above: Tensor) -> tuple[Tensor | None, ...]:
        out: list[Tensor | None] = [None] * len(ctx.shapes)
        for (number, term, column), g in zip(ctx.places, ctx.saved_tensors):
            whole = out[number]
            if whole is None:
                whole = out[number] = g.new_zeros(ctx.shapes[number])
            whole[:, column : column + g.shape[1]].addcmul_(g, above[term])
        return None, None, None, *out


def size(
    block: Block,
    relations: Sequence[Relation],
    anchors: Float[Tensor, "n d"],
    keys: Float[Tensor, "m d"] | None = None,
    *,
    views: int = 1,
) -> int | None:
    """The rows of a block, or None for the plain form.

    Args:
        block: that number; None for the plain form; or "auto": the plain form for few pairs, else blocks.
        relations: what compares; the plain form serves all others than Cosine, Tanimoto, Jaccard, and those Within.
        anchors: the queries, or those that are each other's keys.
        keys: the negatives, if they are not the anchors.
        views: how many such sets of anchors are compared together.

    Raises:
        ValueError: for a number that is not positive.
    """
    if isinstance(block, int) and block < 1:
        raise ValueError(f'block is {block}; expected a number of rows such as 512, "auto", or None for no blocks.')
    width = anchors.shape[1]
    n = views * len(anchors)
    m = n if keys is None else len(keys)
    served = all(_form(relation) is not None and width % relation.spaces == 0 for relation in relations)
    if block == "auto":
        tile, least = _MEASURED["cpu" if anchors.device.type == "cpu" else "gpu"]
        rows = tile if keys is None else min(max(2 * tile * tile // max(m, 1), 32), tile)
        block = rows if n * m >= least else None
    if not served or n < 2 or m < 1:
        block = None
    if not torch.compiler.is_compiling():
        _report(tuple(type(relation).__name__ for relation in relations), served, block is not None, keys is None)
    return block


@lru_cache
def _report(relations: tuple[str, ...], served: bool, blocks: bool, triangle: bool) -> None:
    """Say once for each kind of loss, and for few and for many pairs, what computes it."""
    how = "square tiles of the upper triangle" if triangle else "blocks of rows"
    why = "" if served else " (a relation that the blocks do not know)"
    log.info("contrast of %s: %s%s", ", ".join(relations), how if blocks else "plain, all pairs at once", why)


def _terms(contrasts: Sequence[tuple[Relation, float]]) -> tuple[_Term, ...]:
    forms = [(_form(relation), temperature) for relation, temperature in contrasts]
    return tuple(_Term(form, temperature) for form, temperature in forms if form is not None)


@full_precision
def among_each_other(
    parts: tuple[Float[Tensor, "_ d"], ...],
    labels: Int[Tensor, " n"] | None,
    contrasts: Sequence[tuple[Relation, float]],
    block: int,
) -> Float[Tensor, " t"]:
    """The contrasts of anchors that are each other's keys; each anchor's own key is left out.

    Args:
        parts: the anchors, one row a view: n in all parts, which are put one below the other here, where the whole
            can be given up once it is read.
        labels: rows that share one are positives (`supcon_loss`). Without labels, rows i and i + n / 2 are the two
            views of an image (`nt_xent`).
        contrasts: relations and temperatures, which one visit serves; `size` must have accepted the relations.
        block: the rows and columns of a tile.
    """
    return _Exact.apply(_among, _terms(contrasts), block, labels, *parts)


@full_precision
def with_keys(
    query: Float[Tensor, "n d"],
    positive: Float[Tensor, "n d"],
    negatives: Float[Tensor, "m d"],
    contrasts: Sequence[tuple[Relation, float]],
    block: int,
) -> Float[Tensor, " t"]:
    """The contrasts of queries with a key of their own and negatives that all share (`query_key_loss`).

    Args:
        query, positive, negatives: what of them is detached costs no gradient.
        contrasts: relations and temperatures, which one visit serves; `size` must have accepted the relations.
        block: the rows of a block.
    """
    return _Exact.apply(_with_keys, _terms(contrasts), block, query, positive, negatives)
