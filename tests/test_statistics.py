"""Statistics of a comparison, against scipy.stats and against counting."""

import base64
import math

import numpy as np
import pytest
from scipy import stats

from relatum.studies.statistics import LEAST_SEEDS, Difference, corrected, detectable, mcnemar, paired


def seeds(values) -> dict[int, float]:
    return dict(enumerate(values))


@pytest.mark.parametrize("n", [2, 3, 6, 10])
def test_the_paired_t_is_scipys(n):
    random = np.random.default_rng(n)
    ours, baseline = random.normal(51, 1, n), random.normal(50, 1, n)
    found = paired(seeds(ours), seeds(baseline))
    expected = stats.ttest_rel(ours, baseline)
    interval = expected.confidence_interval(0.95)
    assert found.n == n
    assert found.mean == pytest.approx(np.mean(ours - baseline))
    assert found.spread == pytest.approx(np.std(ours - baseline, ddof=1))
    assert found.p == pytest.approx(expected.pvalue)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))


def test_only_common_seeds_are_compared():
    found = paired({0: 5.0, 1: 7.0, 9: 100.0}, {0: 4.0, 1: 5.0, 3: -100.0})
    assert (found.n, found.mean) == (2, 1.5)
    assert paired({0: 5.0}, {1: 4.0}) is None


def test_one_seed_has_no_interval():
    found = paired({0: 5.0}, {0: 4.0})
    assert (found.n, found.mean) == (1, 1.0)
    assert all(math.isnan(x) for x in (found.spread, found.p, found.low, found.high))
    assert corrected([found])[0].verdict == "too few seeds"


def test_equal_runs_are_no_difference_and_equal_differences_are_one():
    assert paired(seeds([1.0] * 6), seeds([1.0] * 6)).p == 1.0
    same = corrected([paired(seeds([2.0] * 6), seeds([1.0] * 6))])[0]
    assert (same.p, same.low, same.high, same.verdict) == (0.0, 1.0, 1.0, "better")


def difference(p: float, n: int = 6, mean: float = 1.0) -> Difference:
    """A difference of this p-value."""
    t = stats.t.isf(p / 2, n - 1)
    spread = mean * math.sqrt(n) / t
    return paired(seeds(mean + spread * stats.zscore(np.arange(n), ddof=1)), seeds([0.0] * n))


@pytest.mark.parametrize(
    ("ps", "told"),
    [
        ((0.01, 0.04, 0.03, 0.005), (True, False, False, True)),  # Holm's own kind of example: 0.0125, 0.0167, 0.025
        ((0.06, 0.001), (False, True)),
        ((0.03, 0.04), (False, False)),  # the second would pass at 0.05, but the first has failed
        ((0.049,), (True,)),
    ],
)
def test_holm_holds_each_against_its_share(ps, told):
    found = corrected([difference(p) for p in ps])
    assert [d.p for d in found] == pytest.approx(list(ps))
    assert tuple(d.told_apart for d in found) == told
    assert tuple(d.low > 0 for d in found) == told, "the interval says the same as the test"


def test_the_chance_of_any_wrong_call_is_what_it_says():
    """2,000 tables of five arms without a difference, six seeds: at most 5 % have a call (4 standard errors more)."""
    random = np.random.default_rng(0)
    wrong = 0
    for _ in range(2000):
        baseline = seeds(random.normal(0, 1, 6))
        table = [paired(seeds(random.normal(0, 1, 6)), baseline) for _ in range(5)]
        wrong += any(d.verdict in ("better", "worse") for d in corrected(table))
    assert wrong / 2000 < 0.05 + 4 * math.sqrt(0.05 * 0.95 / 2000)
    assert wrong / 2000 > 0.01, "nor is it so strict that nothing is ever called"


def test_below_six_seeds_nothing_is_called():
    assert LEAST_SEEDS == 6
    assert corrected([difference(1e-6, n=5)])[0].verdict == "too few seeds"
    assert corrected([difference(1e-6, n=6)])[0].verdict == "better"
    assert corrected([difference(1e-6, n=6, mean=-1.0)])[0].verdict == "worse"
    assert corrected([difference(0.5, n=6)])[0].verdict == "not told apart"


@pytest.mark.parametrize(("n", "comparisons"), [(6, 1), (6, 10), (20, 1)])
def test_what_can_be_seen_is_found_four_times_of_five(n, comparisons):
    effect = detectable(2.0, n, comparisons=comparisons)
    critical = stats.t.isf(0.05 / comparisons / 2, n - 1)
    shift = effect / 2.0 * math.sqrt(n)
    power = stats.nct.sf(critical, n - 1, shift) + stats.nct.cdf(-critical, n - 1, shift)
    assert power == pytest.approx(0.8, abs=1e-6)
    assert detectable(4.0, n, comparisons=comparisons) == pytest.approx(2 * effect)


def test_power_needs_two_seeds():
    with pytest.raises(ValueError, match="n is 1"):
        detectable(1.0, 1)


def packed(bits) -> str:
    return base64.b64encode(np.packbits(np.array(bits, dtype=bool)).tobytes()).decode()


def test_mcnemar_counts_the_images_that_only_one_got_right():
    random = np.random.default_rng(1)
    ours, other = random.random(1003) < 0.55, random.random(1003) < 0.5
    b, c, p = mcnemar(packed(ours), packed(other))
    assert (b, c) == (int((ours & ~other).sum()), int((other & ~ours).sum()))
    assert p == pytest.approx(stats.binomtest(b, b + c, 0.5).pvalue)
    assert mcnemar(packed(ours), packed(ours)) == (0, 0, 1.0)
    with pytest.raises(ValueError, match="expected the same test set"):
        mcnemar(packed(ours), packed(other[:500]))
