"""Optimizers by name, from torch and timm."""

from typing import TYPE_CHECKING

import torch
from timm.optim import Lars
from torch import nn

if TYPE_CHECKING:
    from relatum.recipes.recipe import Optim


def build_optimizer(module: nn.Module, optim: "Optim") -> torch.optim.Optimizer:
    """The optimizer of all trainable parameters of `module`.

    LARS adapts the rate of each weight by the ratio of its norm to its gradient's (You et al. 2017); biases and
    normalization parameters, which have no weight decay, are left to plain SGD, as in SimCLR.
    """
    parameters = [p for p in module.parameters() if p.requires_grad]
    small = [p for p in parameters if p.ndim <= 1]
    large = [p for p in parameters if p.ndim > 1]
    decay_small = optim.weight_decay if optim.decay_all and optim.name != "lars" else 0.0
    groups = [
        {"params": large, "weight_decay": optim.weight_decay},
        {"params": small, "weight_decay": decay_small},
    ]
    match optim.name:
        case "sgd":
            return torch.optim.SGD(groups, lr=optim.lr, momentum=optim.momentum, nesterov=optim.nesterov)
        case "adam":
            return torch.optim.Adam(groups, lr=optim.lr)
        case "adamw":
            return torch.optim.AdamW(groups, lr=optim.lr)
        case "lars":
            return Lars(groups, lr=optim.lr, momentum=optim.momentum, nesterov=optim.nesterov)
    raise ValueError(f"the optimizer is {optim.name!r}; expected sgd, adam, adamw or lars.")
