"""Images that lie close to each other in a set: duplicates, and nearly so."""

from collections import defaultdict
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from relatum.core.precision import at_least_float32
from relatum.evaluation.checks import refuse_features
from relatum.evaluation.retrieval import BUDGET

MOST = 1_000_000  # pairs: a distance that joins more of them joins nearly everything


class Pairs(NamedTuple):
    """Pairs of rows, the first below the second, and their distances 1 - cosine."""

    rows: Int[Tensor, "n 2"]
    distances: Float[Tensor, " n"]


@torch.no_grad()
def pairs_within(features: Float[Tensor, "n d"], distance: float, *, budget: int = BUDGET, most: int = MOST) -> Pairs:
    """All pairs of rows with 1 - cosine of at most `distance`, exactly and in bounded memory.

    Args:
        features: one row an image.
        distance: in [0, 2].
        budget: bytes of similarities held at once.
        most: pairs.

    Raises:
        ValueError: for a distance out of range, features that are empty or not finite, or more pairs than `most`.
    """
    if not 0 <= distance <= 2:
        raise ValueError(f"the distance is {distance}; expected 0 (the same) to 2 (opposite)")
    refuse_features(features, "features")
    unit = F.normalize(at_least_float32(features))
    rounding = 4 * torch.finfo(unit.dtype).eps  # the cosine of a vector with itself is 1 but for it
    step = max(1, budget // (unit.element_size() * len(unit)))
    rows, distances, count = [], [], 0
    for start in range(0, len(unit), step):
        apart = 1 - unit[start : start + step] @ unit[start:].T
        close = (apart <= distance + rounding).triu(1).nonzero()
        count += len(close)
        if count > most:
            raise ValueError(
                f"more than {most:,} pairs of {len(unit):,} images are within {distance:g}; lower the distance"
            )
        rows.append(close + start)
        distances.append(apart[close[:, 0], close[:, 1]].clamp(min=0))
    return Pairs(torch.cat(rows), torch.cat(distances))


def groups_of(pairs: Int[Tensor, "n 2"]) -> list[list[int]]:
    """Rows that pairs join, directly or through others: each group rising, the groups by their first rows."""
    parent: dict[int, int] = {}

    def top(row: int) -> int:
        while (above := parent.setdefault(row, row)) != row:
            parent[row] = parent[above]  # halves the way for the next who asks
            row = parent[row]
        return row

    for a, b in pairs.tolist():
        first, second = sorted((top(a), top(b)))
        parent[second] = first
    members = defaultdict(list)
    for row in sorted(parent):
        members[top(row)].append(row)
    return [members[row] for row in sorted(members)]
