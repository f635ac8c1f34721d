"""Color operations and occlusions of a batch of crops in [0, 1], every parameter per image; torchvision's values."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from relatum.core.precision import full_precision
from relatum.data.views.checks import require
from relatum.data.views.pixels import constants, integers, slices

LUMA = (0.2989, 0.587, 0.114)  # ITU-R BT.601, in torchvision's digits
CONTRAST, SATURATION, HUE = 1, 2, 3  # brightness is 0


def luma(images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n 1 h w"]:
    """Gray value 0.2989 r + 0.587 g + 0.114 b; images of one channel are gray already."""
    if images.shape[1] == 1:
        return images
    require(
        images.shape[1] == 3,
        f"images have {images.shape[1]} channels: expected 1 or 3. Convert them to RGB or to gray",
    )
    red, green, blue = images.split(1, 1)
    return (LUMA[0] * red).add_(green, alpha=LUMA[1]).add_(blue, alpha=LUMA[2])


def jitter_parameters(
    strength: float, probability: float, uniforms: Float[Tensor, "n 9"]
) -> tuple[Float[Tensor, "n 4"], Int[Tensor, "n 4"]]:
    """Factors of (brightness, contrast, saturation, hue), and the order in which the four are applied.

    Returns:
        factors: uniform in [max(0, 1 - 0.8 s), 1 + 0.8 s], the hue's in [-0.2 s, 0.2 s]; for the share
            `1 - probability` of the images 1, 1, 1, 0.
        order: a uniform permutation of 0 to 3 for each image.
    """
    low, high = max(0.0, 1 - 0.8 * strength), 1 + 0.8 * strength
    blends = low + (high - low) * uniforms[:, 1:4]
    hue = 0.2 * strength * (2 * uniforms[:, 4:5] - 1)
    applied = uniforms[:, :1] < probability
    factors = torch.cat((torch.where(applied, blends, 1.0), torch.where(applied, hue, 0.0)), 1)
    return factors, uniforms[:, 5:].argsort(1)


def color_jitter(
    images: Float[Tensor, "n c h w"], factors: Float[Tensor, "n 4"], order: Int[Tensor, "n 4"]
) -> Float[Tensor, "n c h w"]:
    """Brightness, contrast, saturation and hue, in an order of each image's own.

    The first three are blends, of which factor 1 is the exact identity. So three blends before the hue and three after
    it, each with the identity for the images that are not due, give every image its own order in one fixed sequence
    of operations: no sorting, no waiting for the device, and the hue only once.

    Args:
        factors: brightness, contrast, saturation (1 is the identity) and hue (in turns, 0 is the identity).
        order: the operations in the order of their application.
    """
    reached = (order == HUE).cumsum(1)
    early = reached == 0
    late = (reached == 1) & (order != HUE)
    operation = torch.cat((order[:, :3], order[:, 1:]), 1)
    due = torch.cat((early[:, :3], late[:, 1:]), 1)
    factor = _pixelwise(torch.where(due, factors.gather(1, operation), 1.0))
    gray = _pixelwise((operation == SATURATION).float())
    average = _pixelwise((operation == CONTRAST).float())
    turns = factors[:, HUE]
    out = torch.empty_like(images)
    for part in slices(images):
        x = images[part]
        for step in range(6):
            if step == 3:
                x = shift_hue(x, turns[part])
            x = blend(x, factor[step, part], gray[step, part], average[step, part])
        out[part] = x
    return out


def blend(
    images: Float[Tensor, "n c h w"],
    factor: Float[Tensor, "n 1 1 1"],
    gray: Float[Tensor, "n 1 1 1"],
    average: Float[Tensor, "n 1 1 1"],
) -> Float[Tensor, "n c h w"]:
    """`f x + (1 - f) (gray * luma(x) + average * mean luma(x))`, cut to [0, 1].

    (gray, average) = (0, 0) is brightness, (0, 1) contrast and (1, 0) saturation.
    """
    shade = luma(images)
    mean = shade.mean((2, 3), keepdim=True)
    target = (shade * gray).add_(mean * average)
    return torch.lerp(target, images, factor).clamp_(0, 1)


def shift_hue(images: Float[Tensor, "n c h w"], turns: Float[Tensor, " n"]) -> Float[Tensor, "n c h w"]:
    """Images with their hue turned by `turns` of the circle, in [-1/2, 1/2]; value and saturation stay.

    With M and m the largest and the least channel, h = sign(g - b) (1 + (g + b - r - m) / (M - m)) is the hue in
    sixths of the circle. After the turn, modulo 6, red is m + (M - m) T(|h - 3| - 1), green m + (M - m) T(2 - |h - 2|)
    and blue m + (M - m) T(2 - |h - 4|), with T(u) = min(max(u, 0), 1): Smith's hexagon without a case distinction.
    """
    if images.shape[1] == 1:
        return images
    red, green, blue = images.unbind(1)
    least = torch.minimum(torch.minimum(red, green), blue)
    chroma = torch.maximum(torch.maximum(red, green), blue).sub_(least)
    hue = (green + blue).sub_(red).sub_(least).div_(chroma.clamp(min=1e-12)).add_(1)
    hue.copysign_(green - blue).add_(6 * turns[:, None, None])
    hue.sub_((hue / 6).floor_(), alpha=6)
    weights = (hue[:, None] - constants((3.0, 2.0, 4.0), hue)).abs_()
    weights[:, 0].neg_().add_(3)
    return weights.neg_().add_(2).clamp_(0, 1).mul_(chroma[:, None]).add_(least[:, None])


@full_precision
def gaussian_blur(
    images: Float[Tensor, "n c s s"], sigma: Float[Tensor, " n"], kernel: int
) -> Float[Tensor, "n c s s"]:
    """Each image convolved with a Gaussian of its own standard deviation; the border is reflected.

    Both axes are one banded matrix B: Y = B X B'.

    Args:
        sigma: standard deviation in pixels; 0 leaves the image unchanged.
        kernel: width of the kernel in pixels, odd.
    """
    size, radius = images.shape[2], kernel // 2
    offset = torch.arange(-radius, radius + 1, device=images.device)
    exponent = -0.5 * (offset / sigma.clamp(min=1e-3)[:, None]) ** 2  # e^(-1/2 10^6) is 0: the identity
    weights = exponent.softmax(1)
    pixel = torch.arange(size, device=images.device)
    source = (pixel[:, None] + offset).abs()
    source = size - 1 - (size - 1 - source).abs()
    taps = (source[:, :, None] == pixel).float()  # output, offset, input
    band = torch.einsum("nk,oki->noi", weights, taps)[:, None]
    return band @ images @ band.mT


def cutout_mask(size: int, side: int, uniforms: Float[Tensor, "n 2"]) -> Bool[Tensor, "n size size"]:
    """True in a square of `side` pixels around a center that is uniform over the pixels of the image."""
    pixel = torch.arange(size, device=uniforms.device)
    start = integers(uniforms, size - 1)[:, :, None] - side // 2
    hidden = (pixel >= start) & (pixel < start + side)
    return hidden[:, 0, :, None] & hidden[:, 1, None, :]


def _pixelwise(values: Float[Tensor, "n k"]) -> Float[Tensor, "k n 1 1 1"]:
    """Numbers of each image, against its channels and pixels."""
    return values.T[:, :, None, None, None]
