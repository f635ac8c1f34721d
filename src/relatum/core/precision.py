"""Where a sum over many pairs needs float32 although the encoder runs in bfloat16."""

from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor

P = ParamSpec("P")
R = TypeVar("R")


def at_least_float32(value: Any) -> Any:
    """`value` in float32 if it is a tensor of a smaller floating type, in a tuple or list too; else unchanged."""
    if isinstance(value, Tensor):
        small = value.is_floating_point() and value.dtype in (torch.float16, torch.bfloat16)
        return value.float() if small else value
    if isinstance(value, (tuple, list)) and not hasattr(value, "_fields"):
        return type(value)(at_least_float32(item) for item in value)
    return value


def full_precision(function: Callable[P, R]) -> Callable[P, R]:
    """Run `function` outside autocast, its half-precision tensor arguments cast to float32.

    Similarities and distances between embeddings cancel (`2 - 2 <a, b>`), so that bfloat16's three digits
    lose the gradient of all close pairs. The cost is that of two small matrices, not of the encoder.
    """

    @wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        given = (*args, *kwargs.values())
        nested = [t for a in given for t in (a if isinstance(a, (tuple, list)) else (a,))]
        devices = [t.device.type for t in nested if isinstance(t, Tensor)]  # a list: torch 2.8 compiles no `next`
        device = devices[0] if devices else "cpu"
        with torch.autocast(device, enabled=False):
            return function(
                *(at_least_float32(a) for a in args),
                **{k: at_least_float32(v) for k, v in kwargs.items()},
            )

    return wrapped
