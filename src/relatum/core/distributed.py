"""What several processes share. The only file that imports torch.distributed.

Losses never call this: a method gathers what it compares, then calls a pure function. With the gradient summed over
ranks in `gather`, and averaged over ranks by DistributedDataParallel, W ranks that each compute the loss of the whole
gathered batch give the gradient of one process on that batch, exactly.
"""

from collections.abc import Callable, Set
from datetime import timedelta
from functools import cache
from typing import Any, TypeVar, cast

import torch
from jaxtyping import Shaped
from torch import Tensor, nn
from torch import distributed as dist

PATIENCE = timedelta(days=30)
"""How long `patient_group` waits: a measurement or a download of the first process may take hours."""

T = TypeVar("T")


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
        rows: the rows of this process, on the CPU, as many as it has; None for none.

    Raises:
        ValueError: if no process has any.
    """
    parts: list[Tensor | None] = [rows]
    if world_size() > 1:
        found: list[Any] | None = [None] * world_size() if rank() == 0 else None
        dist.gather_object(rows, found, group=patient_group())
        if found is None:
            return None
        parts = found
    given = [part for part in parts if part is not None]
    if not given:
        raise ValueError("no process has a row to give; expected at least one: is the data set empty?")
    return given[0] if len(given) == 1 else torch.cat(given)


def mean_over_ranks(values: Shaped[Tensor, "*shape"]) -> Shaped[Tensor, "*shape"]:
    """The mean over all processes of what each has, on all of them. No gradient flows; with one process it is `values`.

    Args:
        values: floating-point numbers, of the same shape in each process.
    """
    if world_size() == 1:
        return values
    return sum_over_ranks(values) / world_size()


def sum_over_ranks(values: Shaped[Tensor, "*shape"]) -> Shaped[Tensor, "*shape"]:
    """The sum over all processes of what each has, on all of them. No gradient flows; with one process it is `values`.

    Args:
        values: of the same shape in each process.
    """
    if world_size() == 1:
        return values
    total = values.detach().clone()
    dist.all_reduce(total)
    return total


def of_first(tensor: Shaped[Tensor, "*shape"]) -> Shaped[Tensor, "*shape"]:
    """The tensor that the first process has, on all of them; of the same shape in each. No gradient flows.

    For random numbers that all must share: each process has a generator of its own.
    """
    if world_size() == 1:
        return tensor
    shared = tensor.detach().clone(memory_format=torch.contiguous_format)
    dist.broadcast(shared, src=0)
    return shared


@torch.no_grad()
def take_buffers_of_first(module: nn.Module, but: Set[str] = frozenset()) -> None:
    """Give `module` the buffers that it has in the first process, such as running statistics.

    DistributedDataParallel does so before each forward pass: after the last one each process has its own.

    Args:
        module: the same in each process, but for what its buffers hold.
        but: names of buffers that stay as they are.
    """
    if world_size() == 1:
        return
    for name, buffer in module.named_buffers():
        if name in but:
            continue
        value = buffer.contiguous()
        dist.broadcast(value, src=0)
        buffer.copy_(value)


def patient_group() -> dist.ProcessGroup:
    """All processes once more, by way of the processors, with `PATIENCE` in the place of torch's half hour.

    For whatever one process may do for long while others wait. All must call it for the first time together.
    """
    world = dist.group.WORLD
    assert world is not None
    return _patient(world)


@cache
def _patient(world: dist.ProcessGroup) -> dist.ProcessGroup:
    group = dist.new_group(backend="gloo", timeout=PATIENCE)
    assert isinstance(group, dist.ProcessGroup)
    return group


def wait_for_all() -> None:
    """Return when every process has come here, however long that takes."""
    if world_size() > 1:
        dist.barrier(group=patient_group())


def told_by_first(value: T) -> T:
    """The value that the first process gives; what the others give is ignored. It is pickled, tensors on the CPU."""
    if world_size() == 1:
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0, group=patient_group(), device=torch.device("cpu"))
    return box[0]


def first_does(work: Callable[[], T]) -> T:
    """What `work` returns or raises on the first process, on all of them; the others wait for it, however long."""
    if world_size() == 1:
        return work()
    result: T | None = None
    error: Exception | None = None
    if rank() == 0:
        try:
            result = work()
        except Exception as raised:
            error = raised
    done, refusal = told_by_first((result, error))
    if refusal is not None:
        raise refusal
    return cast(T, done)
