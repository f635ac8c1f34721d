"""The small networks of the CIFAR benchmarks by name, and the files that define them, each of PyTorch only."""

from collections.abc import Callable, Mapping
from types import ModuleType

from torch import nn

from relatum.networks import small_convnets, small_resnets

_FILES: Mapping[ModuleType, tuple[str, Mapping[str, Callable[..., nn.Module]]]] = {
    small_resnets: ("SMALL_RESNETS", small_resnets.SMALL_RESNETS),
    small_convnets: ("SMALL_CONVNETS", small_convnets.SMALL_CONVNETS),
}
SMALL_NETWORKS: dict[str, Callable[..., nn.Module]] = {
    name: make for _, makers in _FILES.values() for name, make in makers.items()
}
"""Each takes `num_classes` (0: no classifier) and `in_channels`."""


def defined_in(name: str) -> tuple[ModuleType, str]:
    """The file that defines a small network, and what its dictionary of them is called there."""
    return next((file, called) for file, (called, makers) in _FILES.items() if name in makers)
