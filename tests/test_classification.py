"""Accuracy and calibration against loops written from their definitions."""

import math

import pytest
import torch
from torchmetrics.functional.classification import multiclass_calibration_error

from relatum.evaluation import accuracy, expected_calibration_error
from relatum.evaluation.classification import classes_before


def naive_rank(scores, label):
    order = sorted(range(len(scores)), key=lambda c: (-scores[c], c))
    return order.index(label)


@pytest.mark.parametrize("levels", [3, 10**6], ids=["many-draws", "no-draws"])
def test_accuracy_is_the_sorted_list(levels):
    logits, labels = torch.randint(levels, (50, 8)).double(), torch.randint(8, (50,))
    rank = [naive_rank(row, label) for row, label in zip(logits.tolist(), labels.tolist())]
    assert classes_before(logits, labels).tolist() == rank
    expected = {f"top{k}": 100 * sum(r < k for r in rank) / 50 for k in (1, 2, 5)}
    assert accuracy(logits, labels, (1, 2, 5)) == pytest.approx(expected)


def test_places_of_many_classifiers_at_once():
    logits, labels = torch.randn(20, 3, 6), torch.randint(6, (20,))
    together = classes_before(logits, labels[:, None])
    assert torch.equal(together, torch.stack([classes_before(logits[:, i], labels) for i in range(3)], 1))


@pytest.mark.parametrize(("classes", "keys"), [(2, ["top1"]), (5, ["top1"]), (6, ["top1", "top5"])])
def test_top5_is_said_only_where_it_says_something(classes, keys):
    assert list(accuracy(torch.randn(4, classes), torch.zeros(4, dtype=torch.long))) == keys


def test_minus_infinity_is_never_found():
    logits = torch.tensor([[0.0, -torch.inf, -torch.inf]])
    assert classes_before(logits, torch.tensor([1])).item() == 3
    assert classes_before(logits, torch.tensor([0])).item() == 0


def naive_calibration(logits, labels, bins):
    n, total = len(labels), 0.0
    for b in range(bins):
        inside = []
        for row, label in zip(logits.tolist(), labels.tolist()):
            p = [math.exp(v - max(row)) for v in row]
            confidence = max(p) / sum(p)
            if b / bins < confidence <= (b + 1) / bins:
                inside.append((confidence, row.index(max(row)) == label))
        if inside:
            gap = sum(c for c, _ in inside) / len(inside) - sum(hit for _, hit in inside) / len(inside)
            total += len(inside) / n * abs(gap)
    return 100 * total


@pytest.mark.parametrize("bins", [1, 2, 15, 100])
@pytest.mark.parametrize("scale", [0.1, 1.0, 5.0])
def test_calibration_error_is_the_double_loop(bins, scale):
    logits, labels = scale * torch.randn(80, 7, dtype=torch.double), torch.randint(7, (80,))
    assert expected_calibration_error(logits, labels, bins) == pytest.approx(naive_calibration(logits, labels, bins))


def test_calibration_error_is_that_of_torchmetrics():
    logits, labels = 2 * torch.randn(300, 10), torch.randint(10, (300,))
    peer = multiclass_calibration_error(logits, labels, 10, n_bins=15)
    assert expected_calibration_error(logits, labels) == pytest.approx(100 * peer.item(), rel=1e-4)


def test_calibration_error_at_its_extremes():
    sure, labels = torch.eye(4)[[0, 1, 2, 3]] * 1000, torch.arange(4)
    assert expected_calibration_error(sure, labels) == 0
    assert expected_calibration_error(sure, labels.flip(0)) == pytest.approx(100)
    uniform = torch.zeros(4, 4)  # a quarter sure, a quarter right
    assert expected_calibration_error(uniform, labels) == pytest.approx(0)


@pytest.mark.parametrize("measure", [accuracy, expected_calibration_error])
@pytest.mark.parametrize(
    ("logits", "labels", "message"),
    [
        (torch.zeros(2, 3), torch.tensor([0, 3]), "labels run from 0 to 3"),
        (torch.zeros(2, 3), torch.tensor([-1, 0]), "unlabeled"),
        (torch.zeros(0, 3), torch.zeros(0, dtype=torch.long), "no sample"),
        (torch.tensor([[0.0, torch.nan]]), torch.tensor([0]), "NaN"),
    ],
    ids=["too-large", "unlabeled", "empty", "nan"],
)
def test_unusable_logits_are_refused(measure, logits, labels, message):
    with pytest.raises(ValueError, match=message):
        measure(logits, labels)


def test_no_bins_are_refused():
    with pytest.raises(ValueError, match="bins=0"):
        expected_calibration_error(torch.zeros(1, 2), torch.tensor([0]), 0)
