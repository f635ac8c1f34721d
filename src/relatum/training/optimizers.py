"""Optimizers by name, from timm, which has torch's too."""

from typing import TYPE_CHECKING

import torch
from timm.optim import create_optimizer_v2
from torch import nn

if TYPE_CHECKING:
    from relatum.recipes.recipe import Optim

# The plain form, and Nesterov's: timm's "sgd" is Nesterov's already.
NAMES = {
    "sgd": ("momentum", "sgd"),
    "adam": ("adam", "adam"),
    "adamw": ("adamw", "adamw"),
    "lars": ("lars", "nlars"),
}


def build_optimizer(module: nn.Module, optim: "Optim") -> torch.optim.Optimizer:
    """The optimizer of all trainable parameters of `module`.

    LARS adapts the rate of each weight by the ratio of its norm to its gradient's (You et al. 2017); biases and
    normalization parameters, which have no weight decay, are left to plain SGD, as in SimCLR.
    """
    if optim.name not in NAMES:
        raise ValueError(f"the optimizer is {optim.name!r}; expected {', '.join(NAMES)}.")
    return create_optimizer_v2(
        module,
        opt=NAMES[optim.name][optim.nesterov],
        lr=optim.lr,
        momentum=optim.momentum,
        weight_decay=optim.weight_decay,
        filter_bias_and_bn=optim.name == "lars" or not optim.decay_all,
    )
