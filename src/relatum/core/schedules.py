"""How a number moves during training: pure functions of the progress in [0, 1].

timm's schedulers hold an optimizer and a state of their own. These hold nothing, so that a run that goes on computes
the rate that it would have had, and momentum, copies and losses move by the same functions.
"""

import math
from typing import Literal

Schedule = Literal["constant", "cosine", "step", "one-cycle"]


def cosine(progress: float, start: float = 1.0, end: float = 0.0) -> float:
    """From `start` to `end` along half a cosine."""
    return end + (start - end) * 0.5 * (1 + math.cos(math.pi * progress))


def learning_rate(
    progress: float,
    schedule: Schedule,
    *,
    warmup: float = 0.0,
    milestones: tuple[float, ...] = (),
    gamma: float = 0.1,
) -> float:
    """The factor of the base learning rate at `progress`.

    Args:
        progress: the share of the steps that are done, in [0, 1).
        schedule: "constant"; "cosine" to zero; "step", times `gamma` at each milestone; "one-cycle", the 1cycle
            policy of Smith and Topin 2018 as in PyTorch: cosine from 1/25 to 1 in the first 30 %, then to 1/250,000.
        warmup: the share of the steps in which the factor rises linearly from (almost) zero to one.
        milestones: shares of the steps, rising.
        gamma: the factor of one milestone.
    """
    if schedule == "one-cycle":
        peak = 0.3
        if progress < peak:
            return cosine(progress / peak, 1 / 25, 1.0)
        return cosine((progress - peak) / (1 - peak), 1.0, 1 / 25e4)
    ramp = 1.0 if progress >= warmup else progress / warmup
    match schedule:
        case "constant":
            return ramp
        case "cosine":
            return ramp if progress < warmup else cosine((progress - warmup) / (1 - warmup))
        case "step":
            return ramp * gamma ** sum(progress >= m for m in milestones)
    raise ValueError(f"the schedule is {schedule!r}; expected constant, cosine, step or one-cycle.")
