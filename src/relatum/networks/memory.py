"""What a method remembers between steps. All of it is buffers: in the checkpoint, never in the optimizer.

Queues and banks are written from what all processes have gathered, so that each process has the same, or its own part
of one: `agreed` names such buffers, which DistributedDataParallel would otherwise send in every step.
"""

import copy
from collections.abc import Callable
from typing import Any, ClassVar, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from relatum.core.distributed import gather, rank, sum_over_ranks, world_size
from relatum.core.precision import at_least_float32
from relatum.relations import unit

__all__ = ["Bank", "Clock", "Frozen", "MomentumCopy", "Queue", "agreed_buffers", "own_parts"]


def agreed_buffers(module: nn.Module) -> set[str]:
    """The names of the buffers that are no matter of the first process: see `agreed` of its children."""
    return {
        f"{path}.{name}" if path else name
        for path, child in module.named_modules()
        for name in getattr(child, "agreed", ())
    }


def own_parts(module: nn.Module) -> dict[str, Tensor]:
    """The buffers of which each process has another part, by their names; empty where all processes have the same."""
    banks = ((path, child) for path, child in module.named_modules() if isinstance(child, Bank) and child.parts > 1)
    return {f"{path}.rows" if path else "rows": bank.rows for path, bank in banks}


class Clock(nn.Module):
    """The share of training that is done: in the checkpoint, and read without waiting for the device."""

    done: Float[Tensor, ""]

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("done", torch.zeros((), dtype=torch.float64))
        self._known: float | None = 0.0
        self.register_load_state_dict_post_hook(_forget)

    @property
    def share(self) -> float:
        """In [0, 1]."""
        if self._known is None:
            self._known = float(self.done)
        return self._known

    def update(self, progress: float) -> None:
        """Set the share."""
        self._known = progress
        self.done.fill_(progress)


def _forget(clock: Any, incompatible: Any) -> None:
    clock._known = None


class MomentumCopy(nn.Module):
    """An exact copy of networks that then follows them: `copy = m copy + (1 - m) network` (He et al. 2020, Eq. 2).

    Parameters follow; buffers (batch statistics) are the copy's own, from its own forward passes. No gradient
    reaches it. timm's ModelEmaV3 averages or copies buffers too, and so gives a key the statistics of queries.

    Args:
        networks: what is copied.
        groups: `project` reads images in random order and in so many groups, each with batch statistics of its own
            (shuffled batch norm): otherwise the statistics tell a query which key is its own. 1 turns that off.

    Raises:
        ValueError: for fewer than one group.
    """

    def __init__(self, *networks: nn.Module, groups: int = 1) -> None:
        super().__init__()
        if groups < 1:
            raise ValueError(f"key_splits is {groups}; expected a positive number of groups, 1 for no shuffling.")
        self.groups = groups
        self.networks = nn.ModuleList(copy.deepcopy(network) for network in networks).requires_grad_(False)

    @torch.no_grad()
    def project(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d"]:
        """The projections of images, by a copied backbone and projector.

        Raises:
            ValueError: for images that cannot be split in as many equal groups.
        """
        backbone, projector = cast(tuple[Any, Any], tuple(self.networks))
        if self.groups == 1:
            return projector(backbone.embed(images))
        if len(images) % self.groups:
            raise ValueError(
                f"a batch of {len(images)} images cannot be split in key_splits={self.groups} equal groups; choose "
                "a divisor of the batch size, or 1 to turn the shuffling off."
            )
        order = torch.randperm(len(images), device=images.device)
        keys = torch.cat([projector(backbone.embed(group)) for group in images[order].chunk(self.groups)])
        return torch.empty_like(keys).index_copy_(0, order, keys)

    @torch.no_grad()
    def update(self, *networks: nn.Module, momentum: float) -> None:
        """Move towards `networks`; `momentum` in [0, 1], 1 stands still."""
        source: list[Tensor] = [parameter for network in networks for parameter in network.parameters()]
        torch._foreach_lerp_(list[Tensor](self.networks.parameters()), source, 1 - momentum)


class Queue(nn.Module):
    """The last `size` keys, first in first out (He et al. 2020); it starts as random unit vectors.

    Args:
        size: how many keys.
        width: width of one key.
        spaces: the parts of a key, each of length one: a queue holds what the relation compares.
    """

    keys: Float[Tensor, "k d"]
    position: Int[Tensor, ""]
    agreed: ClassVar[tuple[str, ...]] = ("keys", "position")

    def __init__(self, size: int, width: int, spaces: int = 1) -> None:
        super().__init__()
        if size < 1:
            raise ValueError(f"a queue of {size} keys holds no negatives; expected a positive size such as 4096.")
        self.register_buffer("keys", unit(torch.randn(size, width), spaces))
        self.register_buffer("position", torch.zeros((), dtype=torch.long))

    def refuse_fewer_than(self, batch: int) -> None:
        """Refuse a queue that does not hold the keys of a whole batch, of which all but the last would be lost.

        Raises:
            ValueError: for a batch of more images than the queue has keys.
        """
        if len(self.keys) < batch:
            raise ValueError(
                f"queue_size is {len(self.keys)}, less than the {batch} images of a batch (of all processes); expected "
                "at least as many, and better several batches."
            )

    @torch.no_grad()
    def update(self, keys: Float[Tensor, "n d"]) -> None:
        """Put `keys` in the place of the oldest, around the end for any n; of n > size only the last stay."""
        size = len(self.keys)
        kept = keys[-size:]
        at = self.position + (len(keys) - len(kept)) + torch.arange(len(kept), device=keys.device)
        self.keys.index_copy_(0, at % size, kept.to(self.keys.dtype))
        self.position.copy_((self.position + len(keys)) % size)


class Bank(nn.Module):
    """One row for each training image, addressed by its number.

    Args:
        size: the number of training images.
        width: width of a row.
        start: the first rows; None for zeros.
        dtype: what rows are kept in; those that are read are float32 at least.
        sharded: process r of W holds the rows of the images r, r + W, ..., and the rows that a step needs are
            exchanged: exactly, since all processes but one add zeros to a row.

    Attributes:
        parts: of how many the rows here are one; 1 where all are here.
    """

    rows: Float[Tensor, "_r d"]
    agreed: ClassVar[tuple[str, ...]] = ("rows",)

    def __init__(
        self,
        size: int,
        width: int,
        start: Float[Tensor, "s d"] | None = None,
        *,
        dtype: torch.dtype = torch.float32,
        sharded: bool = False,
    ) -> None:
        super().__init__()
        if min(size, width) < 1:
            raise ValueError(f"a bank of {size} rows of {width} is empty; expected positive numbers.")
        self.size, self.parts = size, world_size() if sharded else 1
        whole = torch.zeros(size, width) if start is None and self.parts == 1 else start
        if self.parts > 1:
            # As many on each process, and one more, which takes what is written of others' images.
            own = torch.zeros(-(-size // self.parts) + 1, width)
            if whole is not None:
                given = whole[rank() :: self.parts]
                own[: len(given)] = given
            whole = own
        assert whole is not None
        self.register_buffer("rows", whole.to(dtype, copy=start is not None))
        self._looked = False

    def checked(self, index: Int[Tensor, " n"]) -> Int[Tensor, " n"]:
        """`index`, which are numbers of rows: on a GPU, which would wait, only the first time is looked at.

        Raises:
            ValueError: for a number that no row has.
        """
        if index.device.type == "cpu" or not self._looked:
            self._looked = True
            low, high = int(index.min()), int(index.max())
            if low < 0 or high >= self.size:
                raise ValueError(
                    f"the images of a batch have the numbers {low} to {high}, and the bank has rows 0 to "
                    f"{self.size - 1}: expected the number of each image in the training set (Batch.index)."
                )
        return index

    def forward(self, index: Int[Tensor, " n"]) -> Float[Tensor, "n d"]:
        if self.parts == 1:
            return at_least_float32(self.rows[index])
        asked = gather(index)
        mine = (asked % self.parts == rank())[:, None]
        found = sum_over_ranks(at_least_float32(self.rows[asked // self.parts]) * mine)
        return found[rank() * len(index) :][: len(index)]

    @torch.no_grad()
    def update(self, index: Int[Tensor, " n"], rows: Float[Tensor, "n d"]) -> None:
        """Write `rows` at `index`: with several processes, those of all of them, the same in each."""
        if self.parts == 1:
            self.rows.index_copy_(0, index, rows.to(self.rows.dtype))
            return
        place = torch.where(index % self.parts == rank(), index // self.parts, len(self.rows) - 1)
        self.rows.index_copy_(0, place, rows.to(self.rows.dtype))
        self.rows[-1].zero_()


class Frozen(nn.Module):
    """A teacher: always in evaluation mode, without gradients, and no part of the state of its student.

    Its batch statistics do not move, no optimizer sees it, and checkpoints do not carry it: the recipe names where it
    comes from. It follows its owner to other devices.
    """

    network: nn.Module

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        # Not an attribute of a module: it must not be registered as a child.
        self.__dict__["network"] = network.eval().requires_grad_(False)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Frozen":
        self.network._apply(fn, recurse)
        return super()._apply(fn, recurse)

    @torch.no_grad()
    def forward(self, images: Tensor) -> Any:
        return self.network(images)
