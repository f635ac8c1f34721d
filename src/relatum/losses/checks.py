"""What every loss refuses: shapes that do not belong together, and numbers out of range.

Only shapes, types and Python numbers are looked at, never the values of tensors: on a GPU that would wait for it.
"""

import math
from typing import Any

import torch
from torch import Tensor

__all__ = ["alike", "keys", "labels", "number", "temperature", "views"]


def temperature(value: Any, name: str = "temperature") -> None:
    """A positive number, or a floating 0-d tensor (a learned one; that it is positive is up to its owner)."""
    if isinstance(value, Tensor):
        if value.ndim or not value.is_floating_point():
            raise ValueError(
                f"the {name} is a tensor of shape {tuple(value.shape)} and type {value.dtype}; expected a number, or a "
                "floating tensor without dimensions: make it by log_temperature.exp(), which is positive."
            )
    elif not _is_number(value) or not 0 < value < math.inf:
        raise ValueError(f"the {name} is {value!r}; expected a positive number such as 0.2.")


def number(value: Any, name: str, low: float = -math.inf, high: float = math.inf) -> None:
    """A finite number in [low, high)."""
    if not _is_number(value) or not math.isfinite(value) or not low <= value < high:
        limits = "" if (low, high) == (-math.inf, math.inf) else f" in [{low:g}, {high:g})"
        raise ValueError(f"{name} is {value!r}; expected a finite number{limits}.")


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def alike(dimensions: int | None, **tensors: Tensor) -> None:
    """Floating tensors of one shape, with so many dimensions."""
    (first, reference), *others = tensors.items()
    for name, tensor in tensors.items():
        if not tensor.is_floating_point():
            raise ValueError(f"{name} holds {tensor.dtype}; expected floating numbers.")
    if dimensions is not None and reference.ndim != dimensions:
        expected = {1: "(n,)", 2: "(n, d)"}[dimensions]
        raise ValueError(f"{first} has the shape {tuple(reference.shape)}; expected {expected}.")
    for name, tensor in others:
        if tensor.shape != reference.shape:
            raise ValueError(
                f"{name} has the shape {tuple(tensor.shape)}, but {first} {tuple(reference.shape)}: expected the same, "
                "row by row."
            )


def views(a: Tensor, b: Tensor) -> None:
    """The embeddings of two views of at least two images."""
    alike(2, a=a, b=b)
    if len(a) < 2:
        raise ValueError(f"a batch of {len(a)} image has no negatives; expected at least 2 images.")


def keys(query: Tensor, positive: Tensor, negatives: Tensor) -> None:
    """Queries, a key for each, and keys of the same width for all."""
    alike(2, query=query, positive=positive)
    alike(2, negatives=negatives)
    if negatives.shape[1] != query.shape[1]:
        raise ValueError(
            f"negatives have the width {negatives.shape[1]}, but query {query.shape[1]}: expected the same."
        )
    if not len(query) or not len(negatives):
        raise ValueError(
            f"{len(query)} queries and {len(negatives)} negatives contrast nothing; expected at least one of each."
        )


def labels(given: Tensor, z: Tensor) -> Tensor:
    """The class of each embedding as an integer; truth values are classes 0 and 1.

    Raises:
        ValueError: for labels that are no integers, or not one for each embedding, or on another device.
    """
    alike(2, z=z)
    if given.is_floating_point() or given.is_complex():
        raise ValueError(f"labels hold {given.dtype}; expected the integer class of each embedding.")
    if given.shape != z.shape[:1]:
        raise ValueError(f"labels have the shape {tuple(given.shape)}; expected ({len(z)},), one for each embedding.")
    if given.device != z.device:
        raise ValueError(f"labels are on {given.device}, the embeddings on {z.device}; expected one device.")
    return given.long() if given.dtype == torch.bool else given
