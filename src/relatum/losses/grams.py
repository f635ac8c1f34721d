"""Products of coordinates over a batch, by whichever of two matrices is smaller."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["apart"]


def apart(a: Float[Tensor, "n d"], b: Float[Tensor, "n d"]) -> tuple[Float[Tensor, " d"], Float[Tensor, ""]]:
    """The diagonal of `C = a^T b`, and the sum of the squares beside it, `sum_{i != j} C_ij^2`.

    The sum is one over pairs of coordinates, d x d, or over pairs of images, n x n, for `|a^T b|^2 = <a a^T, b b^T>`.
    From twice as many coordinates as images on, which is usual for projectors of 2048 and more, the second is taken: it
    costs `n / d` of the first. There the squares beside the diagonal outweigh those on it, as n images cannot keep 2 n
    coordinates of like size apart, so that taking the diagonal from the whole cancels nothing.

    First derivatives only: a backward pass that is recorded itself (`create_graph=True`) is refused.

    Args:
        a, b: one row an image; the same tensor for the products of coordinates with each other, which saves a third.
    """
    if a is b:
        return _Apart.apply(a, None)
    return _Apart.apply(a, b)


class _Apart(torch.autograd.Function):
    """With a derivative by hand: autograd passes over d x d four times more, and multiplies once more for `a` alone."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor | None) -> tuple[Tensor, Tensor]:
        n, d = a.shape
        other = a if b is None else b
        ctx.by_images = 2 * n <= d
        ctx.alone = b is None
        if ctx.by_images:
            diagonal = (a * other).sum(0)
            images = a @ a.T
            others = images if b is None else b @ b.T
            ctx.save_for_backward(a, other, diagonal, images, others)
            return diagonal, (images * others).sum() - diagonal.square().sum()
        products = a.T @ other
        diagonal = products.diagonal().clone()
        products.fill_diagonal_(0)
        ctx.save_for_backward(a, other, products)
        return diagonal, torch.linalg.vector_norm(products).square()

    @staticmethod
    def backward(ctx: Any, on_diagonal: Tensor, on_total: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            raise RuntimeError(
                "products of coordinates know no second derivative: their gradient is not recorded. Leave out "
                "create_graph=True."
            )
        a, b, *rest = ctx.saved_tensors
        need_a, need_b = ctx.needs_input_grad
        if ctx.by_images:
            diagonal, images, others = rest
            scale = on_diagonal - 2 * on_total * diagonal
            slope_a = ((2 * on_total * others) @ a).addcmul_(b, scale) if need_a else None
            slope_b = ((2 * on_total * images) @ b).addcmul_(a, scale) if need_b else None
        else:
            slopes = rest[0] * (2 * on_total)
            slopes.diagonal().copy_(on_diagonal)
            slope_a = b @ slopes.T if need_a else None
            slope_b = a @ slopes if need_b else None
        if ctx.alone:  # both factors are `a`, and symmetric in it
            assert slope_a is not None
            return 2 * slope_a, None
        return slope_a, slope_b
