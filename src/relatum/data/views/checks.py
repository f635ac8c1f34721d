"""Checks of what a user gives to a view: each error names the value, what was expected, and the remedy."""

import torch
from torch import Tensor


def require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(f"{message}.")


def require_bytes(images: Tensor) -> None:
    require(images.dtype == torch.uint8, f"images are {images.dtype}: expected uint8, 0 to 255; convert them before")


def require_probability(name: str, value: float) -> None:
    require(0 <= value <= 1, f"{name} is {value}: expected a probability, 0 to 1")


def require_scale(value: float, name: str = "min_scale") -> None:
    require(
        0 < value <= 1,
        f"{name} is {value}: expected a share of the image's area, above 0 and up to 1; 0.08 is usual",
    )
