"""DIST (Huang et al. 2022)."""

import pytest
import torch

import reference
from distilling import CLASSES, batch, compared, network, student, teacher, values
from relatum.methods.distill.dist import DIST, correlation_gaps


def test_dist_equals_the_loop():
    options = {"beta": 0.7, "gamma": 3.0, "temperature": 2.0, "task_weight": 0.9}
    method = DIST(student().double(), teacher=teacher().double(), **options)
    given = batch(dtype=torch.float64)
    s, t, y = compared(method, given)
    classes, images = reference.correlation_gaps(s.logits, t.logits, 2.0)
    expected = {
        "task": 0.9 * reference.cross_entropy(s.logits, y),
        "classes": 0.7 * 4 * classes,
        "images": 3.0 * 4 * images,
    }
    assert values(method.losses(given)) == pytest.approx(expected, rel=1e-9)


def test_dist_of_standardized_logits_equals_the_loop():
    method = DIST(student().double(), teacher=teacher().double(), standardize=True)
    given = batch(dtype=torch.float64)
    s, t, _ = compared(method, given)
    expected = reference.correlation_gaps(reference.standardized(s.logits), reference.standardized(t.logits), 1.0)
    terms = values(method.losses(given))
    assert [terms["classes"], terms["images"]] == pytest.approx(expected, rel=1e-6)


def test_a_positive_linear_map_of_the_probabilities_is_all_that_is_asked_of_an_image():
    """Half of the teacher's certainty correlates with it in full, where the divergence is not 0."""
    teacher_logits = torch.randn(6, CLASSES, dtype=torch.float64)
    half = (0.5 * teacher_logits.softmax(1) + 0.5 / CLASSES).log()
    classes, images = correlation_gaps(half, teacher_logits)
    assert [classes.item(), images.item()] == pytest.approx([0, 0], abs=1e-12)
    reverse, _ = correlation_gaps((0.5 - 0.5 * teacher_logits.softmax(1)).log(), teacher_logits)
    assert reverse.item() == pytest.approx(2, rel=1e-12)


def test_a_class_that_is_never_likely_gives_finite_gradients():
    zs, zt = torch.randn(2, 4, CLASSES)
    zt[:, 0] = -1e4
    zs.requires_grad_()
    sum(correlation_gaps(zs, zt)).backward()
    assert zs.grad.isfinite().all()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: DIST(student(), teacher=teacher(num_classes=7)), "7 classes .* 5"),
        (lambda: DIST(student(), teacher=teacher(), beta=-1), "beta is -1;"),
        (lambda: DIST(student(), teacher=teacher(), gamma=-1), "gamma is -1;"),
        (lambda: DIST(network(1), teacher=network(1)), "has 1 class.* expected at least 2"),
        (lambda: DIST(student(), teacher=teacher()).losses(batch(1)), "1 image has no correlation"),
    ],
)
def test_what_cannot_work_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
