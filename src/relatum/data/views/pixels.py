"""Arithmetic that all views share: bytes to [0, 1], normalization, and slices of a batch that fit a cache."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from relatum.data.views.checks import require

CACHE = 2**16  # pixels of a slice of the batch that stays in a core's cache from operation to operation


def to_unit(images: UInt8[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
    """0 to 255 as [0, 1]."""
    return images.float().mul_(1 / 255)


def normalize(
    images: Float[Tensor, "n c h w"],
    mean: Sequence[float],
    std: Sequence[float],
    dtype: torch.dtype = torch.float32,
) -> Float[Tensor, "n c h w"]:
    """`(images - mean) / std`, in channels_last.

    Raises:
        ValueError: mean or std that does not have a number for each channel, or a std that is not positive.
    """
    channels = images.shape[1]
    require(
        len(mean) == len(std) == channels,
        f"mean has {len(mean)} and std {len(std)} numbers: expected one for each of the {channels} channels",
    )
    require(
        all(s > 0 for s in std),
        f"std is {tuple(std)}: expected positive numbers; give 1 to a channel that is constant",
    )
    center, spread = constants(mean, images), constants(std, images)
    out = torch.empty_like(images, dtype=dtype, memory_format=torch.channels_last)
    for part in slices(images):
        out[part] = (images[part] - center).div_(spread)
    return out


def constants(values: Sequence[float], like: Tensor) -> Float[Tensor, "c 1 1"]:
    """A number for each channel, filled in on the device: a copy from the host would wait for it."""
    return torch.stack([like.new_full((1, 1), value) for value in values])


def integers(uniforms: Float[Tensor, "*n"], highest: Float[Tensor, "*n"] | int) -> Float[Tensor, "*n"]:
    """Uniform whole numbers from 0 to `highest`; the product may round up to `highest + 1`."""
    return torch.minimum((uniforms * (highest + 1)).floor(), torch.zeros_like(uniforms) + highest)


def chosen(uniforms: Float[Tensor, " n"], probability: float) -> Float[Tensor, "n 1 1 1"]:
    """1 with the given probability, else 0: a weight with which `lerp` is exact, and faster than `where`."""
    return (uniforms < probability).float()[:, None, None, None]


def slices(images: Tensor) -> list[slice]:
    """The parts of a batch to be worked on in turn: on a CPU what its cache holds, elsewhere everything."""
    if images.is_cuda or torch.compiler.is_compiling():
        return [slice(None)]
    step = max(1, CACHE // images.shape[2:].numel())
    return [slice(start, start + step) for start in range(0, len(images), step)]
