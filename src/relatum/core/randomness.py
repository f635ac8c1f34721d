"""Randomness as a function of what it is for, so that a resumed run draws what the first one would have drawn."""

from hashlib import blake2b

import torch


def seed_of(*parts: int) -> int:
    """A seed that is a function of `parts` alone: BLAKE2b of them, so that near parts give unrelated seeds.

    Sums such as `seed + epoch` would give run 1 in epoch 0 the draws of run 0 in epoch 1.

    Args:
        parts: what the draw is for, e.g. (seed, epoch, step, rank, view); each in [-2^63, 2^63).

    Returns:
        an integer in [0, 2^63).
    """
    digest = blake2b(b"".join(part.to_bytes(8, "little", signed=True) for part in parts), digest_size=8)
    return int.from_bytes(digest.digest(), "little") >> 1


def generator_of(*parts: int, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator on `device`, seeded with `seed_of(*parts)`."""
    return torch.Generator(device).manual_seed(seed_of(*parts))
