"""Softmax contrasts of all pairs, a block at a time: the values and gradients of `relatum.losses.objectives`, exactly.

Nothing of size N x N exists. Two facts make that possible:

- Each relation is an elementwise function `v(x1, x2, ...)` of a few forms (`relatum.relations.forms`) of features `f`
  that depend on one embedding each; most are bilinear, so that `x` is a matrix product, and `dL/df = (dL/dx) M f'` is
  another.
- The losses are means, so that the weight of each row is known beforehand: the gradient is computed together with the
  value, while a block is at hand, and the backward pass only scales it by the gradient of its output.

With `l = v / t`, `Z_i = sum_j e^{l_ij}` and row weights `w_i`, the contrast of `n` anchors with all their keys is

    L = sum_i w_i (log Z_i - mean_{p in P(i)} l_ip),   dL/dl_ij = w_i (e^{l_ij} / Z_i - [j in P(i)] / |P(i)|),

and `dL/dt = -(1 / t) sum_ij (dL/dv_ij) v_ij` where the temperature is learned. Two schemes walk over the pairs
(`relatum.losses.schemes`). Queries and keys: blocks of rows, each with all its keys, so that `Z` is known in the same
pass and nothing is computed twice. Anchors that are each other's keys: square tiles of the upper triangle, once for `Z`
and once for the gradient, where each tile serves its rows and its columns: `dL/dx_ij + dL/dx_ji = e^{l_ij} (w_i / Z_i +
w_j / Z_j)`, which halves the products and the elementwise work. A third walks as the first and has a target in the
place of P(i), which may be a distribution (`relatum.losses.targets`). Several contrasts share the blocks and the
products. Each keeps its own gradient, so that any weighting of them afterwards is exact.

The exponents are shifted by the upper bound of the relation where its whole range is safe to exponentiate, else by
the maximum of each row.

Limits: first derivatives only (a second one is refused by name), no `torch.func` transforms, and relations that say
their forms; all else takes the plain form, or asks for it with `block=None`.
"""

import logging
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from relatum.core.precision import full_precision
from relatum.losses import schemes, targets
from relatum.losses.readings import Contrast, Gradients
from relatum.relations import Relation

__all__ = ["Block", "among_each_other", "size", "with_keys", "with_target"]

Block = int | Literal["auto"] | None
"""Rows at a time; a size that was measured to be good; or all pairs at once."""

log = logging.getLogger(__name__)

# The edge of a tile, and the number of pairs from which blocks are used.
# CPU: on one thread (AVX-512, D = 128, forward and backward) tiles of 384 and 512 are level and beat 128 and 256, and
# those of 384 need less memory; one pass beats plain from 256 rows on (cosine 1.3 times, Jaccard 1.4, three terms 1.8;
# at 2,048 rows 1.9, 2.5 and 2.5).
# GPU: not measured; there the plain form is used until its matrices take a quarter of a gigabyte each.
_MEASURED = {"cpu": (384, 2**16), "gpu": (4096, 2**26)}


class _Exact(torch.autograd.Function):
    """Losses whose gradients are known with their values; the gradient of the output scales them.

    The last arguments are the inputs, and after them a link to each (`_Link`), unless all is being compiled.
    """

    @staticmethod
    def forward(
        ctx: Any,
        scheme: Callable[..., tuple[Tensor, Gradients]],
        relations: tuple[Relation, ...],
        block: int,
        temperatures: Sequence[float] | Tensor,
        count: int,
        *tensors: Tensor | None,
    ) -> Tensor:
        inputs, links = tensors[:count], tensors[count:]
        contrasts = [Contrast(relation, t) for relation, t in zip(relations, temperatures)]
        wanted = schemes.Wanted(ctx.needs_input_grad[5 : 5 + count], ctx.needs_input_grad[3])
        losses, gradients = scheme(contrasts, block, wanted, *inputs)
        ctx.places = [(g.input, g.contrast, g.column) for g in gradients.inputs]
        ctx.shapes = [None if z is None else z.shape for z in inputs]
        ctx.links = len(links)
        learned = temperatures if isinstance(temperatures, Tensor) else None
        ctx.save_for_backward(gradients.temperatures, learned, *links, *(g.value for g in gradients.inputs))
        return losses

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        slopes, learned, *rest = ctx.saved_tensors
        links, gradients = rest[: ctx.links], rest[ctx.links :]
        known = (ctx.places, ctx.shapes, slopes, gradients)
        if torch.is_grad_enabled() and links:  # somebody wants a graph of the gradient
            found = _NoSecondDerivative.apply(known, grad_output, learned, *links)
        else:
            found = _scaled(known, grad_output)
        return None, None, None, found[0], None, *found[1:], *(None for _ in links)


def _scaled(known: tuple[Any, ...], grad_output: Tensor) -> tuple[Tensor | None, ...]:
    """The gradients of the temperatures and of each input, each contrast's times that of its loss."""
    places, shapes, slopes, gradients = known
    out: list[Tensor | None] = [None] * len(shapes)
    for (number, contrast, column), g in zip(places, gradients):
        whole = out[number]
        if whole is None:
            whole = out[number] = g.new_zeros(shapes[number])
        whole[:, column : column + g.shape[1]].addcmul_(g, grad_output[contrast])
    return None if slopes is None else slopes * grad_output, *out


class _NoSecondDerivative(torch.autograd.Function):
    """`_scaled`, where somebody may differentiate the gradient: refused by name, not silently taken for zero."""

    @staticmethod
    def forward(
        ctx: Any, known: tuple[Any, ...], grad_output: Tensor, *links: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        return _scaled(known, grad_output)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor | None) -> tuple[Tensor | None, ...]:
        raise RuntimeError(
            "the losses by blocks know no second derivative: their gradient is computed with their value, and not "
            'recorded. Pass block=None for the plain form, which has all derivatives ("auto" takes blocks for many '
            "pairs)."
        )


class _Link(torch.autograd.Function):
    """Nothing, made of an input: by it a second derivative finds the way to the input without holding its memory."""

    @staticmethod
    def forward(ctx: Any, z: Tensor) -> Tensor:
        return z.new_empty(0)

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> Tensor | None:
        return None


def _exact(
    scheme: Callable[..., tuple[Tensor, Gradients]],
    contrasts: Sequence[tuple[Relation, float | Tensor]],
    block: int,
    *inputs: Tensor | None,
) -> Tensor:
    like = inputs[-1]  # the first may be labels
    assert like is not None
    relations = tuple(relation for relation, _ in contrasts)
    temperatures = _temperatures(contrasts, like)
    links = [] if torch.compiler.is_compiling() else [_Link.apply(z) for z in inputs if z is not None]
    return _Exact.apply(scheme, relations, block, temperatures, len(inputs), *inputs, *links)


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
        block: the rows of a block; None for the plain form; or "auto": the plain form for few pairs, else blocks.
        relations: what compares; the plain form serves those that write their pairs themselves, or are trained.
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
    served = all(relation.follows_forms() and width % relation.spaces == 0 for relation in relations)
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
    why = "" if served else " (a relation that says no forms)"
    log.info("contrast of %s: %s%s", ", ".join(relations), how if blocks else "plain, all pairs at once", why)


def _temperatures(contrasts: Sequence[tuple[Relation, float | Tensor]], like: Tensor) -> tuple[float, ...] | Tensor:
    """Numbers as they are; with a learned one among them all as one tensor, through which its gradient flows."""
    given = [temperature for _, temperature in contrasts]
    numbers = tuple(t for t in given if not isinstance(t, Tensor))
    if len(numbers) == len(given):
        return numbers
    return torch.stack([torch.as_tensor(t, dtype=like.dtype, device=like.device) for t in given])


@full_precision
def among_each_other(
    parts: tuple[Float[Tensor, "_ d"], ...],
    labels: Int[Tensor, " n"] | None,
    contrasts: Sequence[tuple[Relation, float | Tensor]],
    block: int,
) -> Float[Tensor, " t"]:
    """The contrasts of anchors that are each other's keys; each anchor's own key is left out.

    Args:
        parts: the anchors, one row a view: n in all parts, which are put one below the other here, where the whole
            can be given up once it is read.
        labels: rows that share one are positives (`supcon_loss`). Without labels, rows i and i + n / 2 are the two
            views of an image (`nt_xent`).
        contrasts: relations, which `size` must have accepted, and temperatures; they share one pass over the pairs.
        block: the rows and columns of a tile.
    """
    return _exact(schemes.among, contrasts, block, labels, *parts)


@full_precision
def with_keys(
    query: Float[Tensor, "n d"],
    positive: Float[Tensor, "n d"],
    negatives: Float[Tensor, "m d"],
    contrasts: Sequence[tuple[Relation, float | Tensor]],
    block: int,
) -> Float[Tensor, " t"]:
    """The contrasts of queries with a key of their own and negatives that all share (`query_key_loss`).

    Args:
        query, positive, negatives: what of them is detached costs no gradient.
        contrasts: relations, which `size` must have accepted, and temperatures; they share one pass over the pairs.
        block: the rows of a block.
    """
    return _exact(schemes.with_keys, contrasts, block, query, positive, negatives)


@full_precision
def with_target(
    target: targets.Target,
    inputs: tuple[Float[Tensor, "_ d"], ...],
    contrasts: Sequence[tuple[Relation, float | Tensor]],
    block: int,
) -> Float[Tensor, " t"]:
    """The contrasts of queries with keys that all share, where a target says which of them they are to meet.

    Args:
        target: of a block of rows, in float32 at least.
        inputs: the queries, the keys and, where the target has a share for it, a key of each query's own; what of them
            is detached costs no gradient.
        contrasts: relations, which `size` must have accepted, and temperatures; they share one pass over the pairs.
        block: the rows of a block.
    """
    return _exact(partial(targets.with_target, target), contrasts, block, *inputs)
