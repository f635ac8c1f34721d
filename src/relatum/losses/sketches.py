"""How far embeddings are from an isotropic Gaussian, tested on random lines through them.

    EP(x_1 .. x_n) = n int |1/n sum_j e^{i t x_j} - e^{-t^2 / 2}|^2 e^{-t^2 / 2} dt

is the statistic of Epps and Pulley (1983) for n numbers against the standard normal distribution, its integral a
trapezoidal sum over equal steps of t. On such a grid the powers of `u_j = e^{i step x_j}` are all that is needed: one
sine and one cosine a number instead of one of each a point, and the derivative is a polynomial in `u_j`. Both are
computed together, some lines at a time, so that nothing of n x lines x points exists.
"""

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from relatum.core.precision import full_precision

__all__ = ["gaussian_distance", "random_lines"]

# Numbers at a time. CPU: their powers stay in the cache of a core. GPU: as many as keep it busy.
_AT_ONCE = {"cpu": 2**16, "gpu": 2**24}


def random_lines(count: int, z: Float[Tensor, "n d"]) -> Float[Tensor, "{count} d"]:
    """Directions that are uniform on the sphere, of the kind of `z`."""
    lines = torch.randn(count, z.shape[1], dtype=z.dtype, device=z.device)
    return lines / torch.linalg.vector_norm(lines, dim=1, keepdim=True)


@full_precision
def gaussian_distance(
    z: Float[Tensor, "n d"], lines: Float[Tensor, "k d"], limit: float = 5.0, points: int = 17
) -> Float[Tensor, ""]:
    """The mean over the lines of `EP(<z_1, line> .. <z_n, line>)`.

    First derivatives only: a backward pass that is recorded itself (`create_graph=True`) is refused.

    Args:
        z: one row an image.
        lines: directions of length one; no gradient reaches them.
        limit: the integral is over `|t| <= limit`.
        points: an odd number of points of the trapezoidal sum, both limits and 0 among them.
    """
    return _GaussianDistance.apply(z, lines, limit, points)


class _GaussianDistance(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, z: Tensor, lines: Tensor, limit: float, points: int) -> Tensor:
        step = 2 * limit / (points - 1)
        steps = points // 2  # that of 0 is left out, where both functions are 1; those below 0 are mirror images
        numbers = lines @ z.T
        slopes = torch.empty_like(numbers) if ctx.needs_input_grad[0] else None
        total = z.new_zeros(())
        at_once = max(1, _AT_ONCE["cpu" if z.device.type == "cpu" else "gpu"] // len(z))
        for start in range(0, len(numbers), at_once):
            part = slice(start, start + at_once)
            value, slope = _distances(numbers[part], step, steps, slopes is not None)
            total = total + value
            if slopes is not None and slope is not None:
                slopes[part] = slope
        ctx.save_for_backward(None if slopes is None else (slopes.T @ lines).div_(len(lines)))
        return total / len(lines)

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            raise RuntimeError(
                "gaussian_distance knows no second derivative: its gradient is computed with its value, and not "
                "recorded. Leave out create_graph=True."
            )
        (gradient,) = ctx.saved_tensors
        return None if gradient is None else gradient * grad_output, None, None, None


def _distances(x: Tensor, step: float, steps: int, wanted: bool) -> tuple[Tensor, Tensor | None]:
    """The sum of EP over the rows of `x`, and its derivative."""
    n = x.shape[1]
    angle = x * step
    u = torch.complex(angle.cos(), angle.sin())
    total, power, factors = x.new_zeros(()), u, []
    for k in range(1, steps + 1):
        normal = math.exp(-((k * step) ** 2) / 2)
        weight = normal * step * (1 if k == steps else 2)  # the limits count half, and each point has its mirror image
        gap = power.mean(1) - normal
        total = total + n * weight * gap.abs().square().sum()
        factors.append(2 * weight * k * step * gap.conj())
        if k < steps:
            power = power * u
    if not wanted:
        return total, None
    slope = factors[-1][:, None].expand_as(u)
    for factor in reversed(factors[:-1]):
        slope = torch.addcmul(factor[:, None], slope, u)
    return total, -(slope * u).imag
