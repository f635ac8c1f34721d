"""Is it a difference? Paired over common seeds, with an interval that counts how many questions a table asks.

With two seeds a 95 % interval is nine standard deviations wide to each side, and a bootstrap over so few covers half of
what it promises; so: the paired t, n printed, and nothing called a difference below `LEAST_SEEDS`.
"""

import base64
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

Verdict: TypeAlias = Literal["better", "worse", "not told apart", "too few seeds"]

LEAST_SEEDS = 6
"""Below, no difference is called one: the paired t interval is wider than 1.24 standard deviations to each side."""


@dataclass(frozen=True)
class Difference:
    """A mean difference over common seeds, ours less the baseline's.

    Attributes:
        n: how many seeds both have.
        mean: the mean of the differences.
        spread: their standard deviation (n - 1); NaN below two seeds.
        p: two-sided, of the paired t test; NaN below two seeds.
        low, high: the interval; NaN below two seeds.
        level: which share of such intervals hold the true mean, 0.95 unless corrected.
        told_apart: whether the interval excludes 0 after the correction, with enough seeds.
    """

    n: int
    mean: float
    spread: float
    p: float
    low: float
    high: float
    level: float
    told_apart: bool = False

    @property
    def verdict(self) -> Verdict:
        """What may be said of it."""
        if self.n < LEAST_SEEDS:
            return "too few seeds"
        if not self.told_apart:
            return "not told apart"
        return "better" if self.mean > 0 else "worse"


def paired(ours: Mapping[int, float], baseline: Mapping[int, float], level: float = 0.95) -> Difference | None:
    """The difference of two arms on their common seeds; None where they have none.

    Args:
        ours: seed -> number.
        baseline: seed -> number.
        level: of the interval, in (0, 1).
    """
    differences = [ours[seed] - baseline[seed] for seed in sorted(ours.keys() & baseline.keys())]
    if not differences:
        return None
    n, mean = len(differences), statistics.fmean(differences)
    if n < 2:
        return Difference(n, mean, math.nan, math.nan, math.nan, math.nan, level)
    spread = statistics.stdev(differences)
    p = 2 * _t_below(-abs(mean) / (spread / math.sqrt(n)), n - 1) if spread else float(mean == 0)
    return _with_interval(Difference(n, mean, spread, p, math.nan, math.nan, level), level)


def corrected(differences: Sequence[Difference], alpha: float = 0.05) -> list[Difference]:
    """The differences with Holm's correction: the chance that any of a table's calls is wrong is at most `alpha`.

    The k-th smallest of m p-values is held against alpha / (m - k + 1), until one fails; from there on the level stays.
    Each interval has the level that its difference was held to, so that it excludes 0 where that was passed.

    Source: Holm, "A simple sequentially rejective multiple test procedure" (1979).
    """
    tested = sorted((i for i, d in enumerate(differences) if d.n > 1), key=lambda i: differences[i].p)
    found, passed, held = list(differences), True, alpha
    for rank, i in enumerate(tested):
        held = alpha / (len(tested) - rank) if passed else held
        passed = passed and differences[i].p < held
        enough = differences[i].n >= LEAST_SEEDS
        found[i] = replace(_with_interval(differences[i], 1 - held), told_apart=passed and enough)
    return found


def detectable(spread: float, n: int, *, comparisons: int = 1, power: float = 0.8, alpha: float = 0.05) -> float:
    """The smallest mean difference that n paired seeds find with this power.

    Args:
        spread: the standard deviation of the differences.
        n: seeds, at least 2.
        comparisons: how many the table has; Holm's correction holds the first of them against alpha / comparisons.
        power: how often it is found.
        alpha: the error that the whole table may have.

    Raises:
        ValueError: for fewer than two seeds.
    """
    if n < 2:
        raise ValueError(f"n is {n}; a difference needs at least 2 seeds to have a spread.")
    from scipy.special import nctdtr

    critical = _t_quantile(1 - alpha / comparisons / 2, n - 1)
    low, high = 0.0, 100.0 * critical
    for _ in range(80):
        middle = (low + high) / 2
        found = 1 - float(nctdtr(n - 1, middle, critical)) + float(nctdtr(n - 1, middle, -critical))
        low, high = (middle, high) if found < power else (low, middle)
    return spread * high / math.sqrt(n)


def mcnemar(ours: str, other: str) -> tuple[int, int, float]:
    """Two runs on the same test images: how many only we, and only the other, got right, and the exact p.

    This is the noise of the images, given these two networks; that of seeds is in the differences over seeds.

    Args:
        ours: bits of a Record's `correct`, packed and in base64.
        other: of the other Record.

    Raises:
        ValueError: for bits of test sets of different sizes.

    Source: McNemar, "Note on the sampling error of the difference between correlated proportions" (1947), exact form.
    """
    a, b = (base64.b64decode(text) for text in (ours, other))
    if len(a) != len(b):
        raise ValueError(f"the runs were tested on {8 * len(a)} and {8 * len(b)} images; expected the same test set.")
    ones, others = int.from_bytes(a, "big"), int.from_bytes(b, "big")
    only_ours, only_other = (ones & ~others).bit_count(), (others & ~ones).bit_count()
    from scipy.special import bdtr

    total = only_ours + only_other
    p = min(1.0, 2 * float(bdtr(min(only_ours, only_other), total, 0.5))) if total else 1.0
    return only_ours, only_other, p


def _with_interval(difference: Difference, level: float) -> Difference:
    half = _t_quantile((1 + level) / 2, difference.n - 1) * difference.spread / math.sqrt(difference.n)
    return replace(difference, low=difference.mean - half, high=difference.mean + half, level=level)


def _t_quantile(share: float, freedom: int) -> float:
    from scipy.special import stdtrit  # scipy.stats takes a second to import

    return float(stdtrit(freedom, share))


def _t_below(t: float, freedom: int) -> float:
    from scipy.special import stdtr

    return float(stdtr(freedom, t))
