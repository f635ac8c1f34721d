"""Label distributions, and what tests of pairing ask of an epoch's indices."""

from collections import Counter

import pytest
import torch
from scipy.stats import chi2


def mixed(*counts, names=None):
    """Labels with the given class sizes, in an order that has nothing to do with the classes."""
    names = names or range(len(counts))
    labels = torch.tensor([name for name, count in zip(names, counts) for _ in range(count)])
    return labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(5))]


LABELS = {
    "balanced": mixed(*[50] * 20),
    "one more than threes": mixed(*[16] * 10),
    "two more than threes": mixed(*[17] * 10),
    "two classes": mixed(40, 40),
    "two classes of three": mixed(3, 3),
    "two against three": mixed(2, 3),
    "long tail": mixed(*[round(300 * 0.8**k) for k in range(20)]),
    "exactly half": mixed(60, 25, 20, 15),
    "almost all in one": mixed(900, 4, 5, 2),
    "names with gaps": mixed(9, 12, 10, names=(3, 70, 1000)),
    "int32": mixed(9, 12, 10).int(),
    "sorted": torch.arange(90) // 15,
}
EPOCHS = range(3)

over_labels = pytest.mark.parametrize("labels", LABELS.values(), ids=LABELS.keys())


def rows_of(indices):
    """The whole epoch as one list of images for each row."""
    return indices.transpose(0, 1).flatten(1)


def sizes(labels):
    return Counter(labels.tolist())


def uniform(counts):
    """The chi-squared test that all counts have one expectation, at the level of one in ten thousand."""
    counts = torch.as_tensor(counts, dtype=torch.float64)
    statistic = ((counts - counts.mean()) ** 2 / counts.mean()).sum()
    return statistic < chi2.ppf(1 - 1e-4, counts.numel() - 1)
