"""What several processes share. The only file that imports torch.distributed.

Losses never call this: a method gathers what it compares, then calls a pure function. With the gradient summed over
ranks in `gather`, and averaged over ranks by DistributedDataParallel, W ranks that each compute the loss of the whole
gathered batch give the gradient of one process on that batch, exactly.
"""

from typing import Any

import torch
from jaxtyping import Shaped
from torch import Tensor
from torch import distributed as dist


def world_size() -> int:
    """The number of processes that train together, 1 outside distributed training."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """The number of this process, counted from 0."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        parts = [torch.empty_like(tensor) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, tensor.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        total = grads[0].contiguous()
        # Every rank has used this rank's rows: what they all have to say of them is the sum.
        dist.all_reduce(total)
        return total.chunk(dist.get_world_size())[dist.get_rank()]


def gather(tensor: Shaped[Tensor, "n ..."]) -> Shaped[Tensor, "m ..."]:
    """The rows of all ranks in the order of the ranks, m = n times the world size; gradients flow back to each.

    Every rank must give the same number of rows. With one process it returns its argument.
    """
    if world_size() == 1:
        return tensor
    return _Gather.apply(tensor) if tensor.is_floating_point() else _Gather.forward(None, tensor)


def rows_of_all(rows: Shaped[Tensor, "n ..."] | None) -> Shaped[Tensor, "m ..."] | None:
    """The rows of all processes in the order of the ranks, on the first process; None on the others.

    Args:
        rows: of this process, on the CPU, as many as it has; None for none.

    Raises:
        ValueError: if no process has any.
    """
    parts: list[Tensor | None] = [rows]
    if world_size() > 1:
        found: list[Any] | None = [None] * world_size() if rank() == 0 else None
        dist.gather_object(rows, found)
        if found is None:
            return None
        parts = found
    given = [part for part in parts if part is not None]
    if not given:
        raise ValueError("no process has a row to give; expected at least one: is the data set empty?")
    return given[0] if len(given) == 1 else torch.cat(given)
