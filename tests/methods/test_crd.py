"""Contrastive representation distillation (Tian et al. 2020)."""

import copy
import math

import pytest
import torch

import reference
from distilling import CLASSES, IMAGES, SAMPLES, batch, compared, lists, network, student, teacher, values
from relatum.methods.distill.crd import CRD, others
from relatum.relations import Jaccard


def crd(**chosen):
    return CRD(student().double(), teacher=teacher().double(), num_samples=SAMPLES, width=8, **chosen).double()


def embeddings(method, given):
    features = (network(given.views[0]) for network in (method.backbone, method.teacher))
    layers = (method.student_embed, method.teacher_embed)
    return [lists(layer.branches[0](f.embedding)) for layer, f in zip(layers, features)]


@pytest.mark.parametrize("negatives", ["other-classes", "other-images"])
def test_crd_equals_the_loop_over_two_steps(negatives):
    """The second step meets the rows and the classes that the first has left."""
    method = crd(weight=0.7, contrast_temperature=0.3, momentum=0.4, negatives=negatives)
    banks = [lists(bank.rows) for bank in (method.student_bank, method.teacher_bank)]
    known: dict[int, int] = {}
    for _ in range(2):
        given = batch(dtype=torch.float64)
        index, labels = given.index[0].tolist(), given.labels[0].tolist()
        known |= dict(zip(index, labels))
        _, _, y = compared(method, given)
        own, goal = embeddings(method, given)
        seen = [range(SAMPLES)] * IMAGES
        if negatives == "other-classes":
            seen = [[j for j in range(SAMPLES) if known.get(j, -1) != label] for label in labels]
        terms = values(method.losses(given))
        logits = method.backbone(given.views[0]).logits.detach().numpy()
        assert terms["task"] == pytest.approx(reference.cross_entropy(logits, y), rel=1e-9)
        for name, queries, bank in (("student", own, banks[1]), ("teacher", goal, banks[0])):
            expected = 0.7 * reference.bank_contrast(queries, bank, index, seen, 0.3)
            assert terms[name] == pytest.approx(expected, rel=1e-9)
        method.after_step(0.5)
        for bank, rows in zip(banks, (own, goal)):
            for i, row in zip(index, rows):
                length = math.sqrt(sum(x * x for x in row))
                moved = [0.4 * old + 0.6 * new / length for old, new in zip(bank[i], row)]
                length = math.sqrt(sum(x * x for x in moved))
                bank[i] = [x / length for x in moved]
    for bank, module in zip(banks, (method.student_bank, method.teacher_bank)):
        torch.testing.assert_close(module.rows, torch.tensor(bank, dtype=torch.float64))


def test_the_estimate_equals_the_loop(monkeypatch):
    method, given = crd(samples=7, contrast_temperature=0.3), batch(dtype=torch.float64)
    drawn = torch.randint(SAMPLES, (IMAGES, 7))
    monkeypatch.setattr("relatum.methods.distill.crd.others", lambda *given: drawn)
    own, goal = embeddings(method, given)
    terms = values(method.losses(given))
    for name, queries, bank in (("student", own, method.teacher_bank), ("teacher", goal, method.student_bank)):
        rows = lists(bank.rows)
        expected = 0.8 * reference.sampled_contrast(queries, rows, given.index[0].tolist(), drawn.tolist(), 0.3)
        assert terms[name] == pytest.approx(expected, rel=1e-9)


def test_the_constant_is_that_of_the_first_batch():
    method = crd(samples=7)
    method.losses(batch(dtype=torch.float64))
    first = method.scales.clone()
    method.after_step(0.1)
    method.losses(batch(dtype=torch.float64))
    assert torch.equal(method.scales, first)
    assert (first != 0).all()


def test_every_step_draws_anew_and_a_restored_one_draws_the_same():
    one = crd(samples=7, momentum=1.0)  # the banks stay, the draws go on
    two, given, found = copy.deepcopy(one), batch(dtype=torch.float64), []
    two.draws.zero_()
    two.load_state_dict(one.state_dict())
    for method in (one, two, one):
        found.append(values(method.eval().losses(given)))
        method.after_step(0.1)
    assert found[0] == found[1]
    assert found[0]["student"] != found[2]["student"]


@pytest.mark.parametrize("known", [True, False])
def test_others_are_drawn_evenly_from_other_classes(known):
    """Of 4 classes of 5 images each; where no class is known, from all images of another class than -1."""
    truth = torch.arange(20) % 4
    index = torch.arange(20)
    generator = torch.Generator().manual_seed(0)
    classes = truth if known else torch.where(index < 10, truth, -1)
    drawn = others(index, 6000, 20, (truth, classes), generator)
    for i in range(20):
        allowed = classes != truth[i]
        counts = torch.bincount(drawn[i], minlength=20)
        assert counts[~allowed].sum() == 0
        expected = 6000 / allowed.sum().item()
        assert (counts[allowed] - expected).abs().max() < 5 * math.sqrt(expected)


def test_others_are_all_but_the_image_itself():
    drawn = others(torch.arange(5), 4000, 5, None, torch.Generator().manual_seed(0))
    for i in range(5):
        counts = torch.bincount(drawn[i], minlength=5)
        assert counts[i] == 0
        assert (counts[counts > 0] - 1000).abs().max() < 5 * math.sqrt(1000)
        assert (counts > 0).sum() == 4


def test_a_relation_of_two_spaces_has_two_branches_and_rows_of_unit_parts():
    method = crd(relation=Jaccard())
    method.losses(batch(dtype=torch.float64))
    method.after_step(0.5)
    assert len(method.student_embed.branches) == 2
    parts = method.student_bank.rows.unflatten(1, (2, 8))
    torch.testing.assert_close(parts.norm(dim=2), torch.ones(SAMPLES, 2, dtype=torch.float64))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: crd(samples=SAMPLES), "samples is 40, and an image has 39 others"),
        (lambda: crd(samples=0), "samples is 0"),
        (lambda: crd(momentum=1.5), "momentum is 1.5"),
        (lambda: crd(weight=-1.0), "weight is -1.0"),
        (lambda: crd(contrast_temperature=0.0), "contrast_temperature is 0.0"),
        (lambda: CRD(network(1), teacher=network(1), num_samples=9), "has 1 class.* expected at least 2"),
        (lambda: CRD(student(), teacher=teacher(num_classes=7), num_samples=9, kd_weight=1.0), "7 classes .* 5"),
        (lambda: crd().losses(numbered(-1)), r"have the numbers -1 to -1, and the bank has rows 0 to 39"),
        (lambda: crd().losses(numbered(SAMPLES)), r"have the numbers 40 to 40, .*Batch.index"),
    ],
)
def test_what_cannot_work_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def numbered(number):
    given = batch(dtype=torch.float64)
    return given._replace(index=torch.full_like(given.index, number))


def test_a_teacher_without_classes_teaches_by_its_embeddings():
    method = CRD(student(), teacher=teacher(num_classes=0), num_samples=SAMPLES, width=8)
    terms = method.losses(batch())
    assert set(terms) == {"task", "student", "teacher"}
    assert method.backbone.num_classes == CLASSES
