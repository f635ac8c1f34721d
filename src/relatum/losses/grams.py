"""Products of coordinates over a batch, by whichever of two matrices is smaller."""

from jaxtyping import Float
from torch import Tensor

__all__ = ["apart"]


def apart(a: Float[Tensor, "n d"], b: Float[Tensor, "n d"]) -> tuple[Float[Tensor, " d"], Float[Tensor, ""]]:
    """The diagonal of `C = a^T b`, and the sum of the squares beside it, `sum_{i != j} C_ij^2`.

    The sum is one over pairs of coordinates, d x d, or over pairs of images, n x n, for `|a^T b|^2 = <a a^T, b b^T>`.
    From twice as many coordinates as images on, which is usual for projectors of 2048 and more, the second is taken: it
    costs `n / d` of the first. There the squares beside the diagonal outweigh those on it, as n images cannot keep 2 n
    coordinates of like size apart, so that taking the diagonal from the whole cancels nothing.

    Args:
        a, b: one row an image; the same tensor for the products of coordinates with each other.
    """
    n, d = a.shape
    if 2 * n <= d:
        diagonal = (a * b).sum(0)
        images = a @ a.T
        others = images if a is b else b @ b.T
        return diagonal, (images * others).sum() - diagonal.square().sum()
    products = a.T @ b
    diagonal = products.diagonal().clone()
    products.diagonal().zero_()
    return diagonal, products.square().sum()
