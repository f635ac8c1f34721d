"""Every loss equals naive float64 loops written from its paper's equation."""

import json
import math
import re
import subprocess
import sys

import pytest
import torch

import nonsense
from relatum.losses import objectives
from relatum.losses.objectives import (
    contrast_terms,
    contrastive_loss,
    debiased_loss,
    jaccard_contrastive_loss,
    jaccard_loss,
    jaccard_triplet_loss,
    kl_divergence,
    nt_xent,
    query_key_loss,
    soft_cross_entropy,
    supcon_loss,
    triplet_loss,
)
from relatum.relations import Cosine, Euclidean, Jaccard, Relation, Tanimoto, Within, unit

RELATIONS = {
    "cosine": Cosine(),
    "euclidean": Euclidean(),
    "jaccard": Jaccard(),
    "jaccard-signed": Jaccard("signed"),
    "jaccard-softplus": Jaccard("softplus"),
    "tanimoto": Tanimoto(),
}
relations = pytest.mark.parametrize("relation", RELATIONS.values(), ids=RELATIONS)
temperatures = pytest.mark.parametrize("temperature", [0.01, 0.1, 0.5, 1.0])


def random_unit(n: int, spaces: int = 2) -> torch.Tensor:
    return unit(torch.randn(n, 8, dtype=torch.float64), spaces)


def similarity(relation: Relation, x: torch.Tensor, y: torch.Tensor) -> float:
    return relation.matched(x[None], y[None]).item()


def naive_softmax_loss(positive: float, negatives: list[float], temperature: float) -> float:
    """Section 2.2, in logarithms: log(1 + sum_j e^{(s_j - s+)/t})."""
    exponents = [0.0, *((s - positive) / temperature for s in negatives)]
    top = max(exponents)
    return top + math.log(sum(math.exp(e - top) for e in exponents))


@relations
@temperatures
def test_nt_xent(relation, temperature):
    a, b = random_unit(5), random_unit(5)
    z = [*a, *b]
    losses = []
    for i in range(10):
        partner = (i + 5) % 10
        negatives = [similarity(relation, z[i], z[j]) for j in range(10) if j not in (i, partner)]
        losses.append(naive_softmax_loss(similarity(relation, z[i], z[partner]), negatives, temperature))
    assert nt_xent(a, b, relation, temperature).item() == pytest.approx(sum(losses) / 10, rel=1e-9)


@relations
@temperatures
def test_query_key_loss(relation, temperature):
    query, key, queue = random_unit(4), random_unit(4), random_unit(6)
    losses = [
        naive_softmax_loss(similarity(relation, q, k), [similarity(relation, q, n) for n in queue], temperature)
        for q, k in zip(query, key)
    ]
    assert query_key_loss(query, key, queue, relation, temperature).item() == pytest.approx(sum(losses) / 4, rel=1e-9)


def test_contrastive_loss_closed_forms():
    same = torch.full((3,), 0.7, dtype=torch.float64)
    # All similarities equal: the loss is log(1 + m), whatever the temperature.
    assert contrastive_loss(same, same[:, None].expand(3, 6), 0.1).item() == pytest.approx(math.log(7))
    n = 6
    alike = torch.ones(n, 4, dtype=torch.float64)
    assert nt_xent(alike, alike).item() == pytest.approx(math.log(2 * n - 1))


@relations
@temperatures
def test_supcon_is_l_out_and_nt_xent_for_labels_of_images(relation, temperature):
    z = random_unit(9)
    labels = [0, 1, 0, 2, 1, 0, 3, 2, 1]  # class 3 has one view: no positive, left out
    losses = []
    for i in range(9):
        positives = [p for p in range(9) if p != i and labels[p] == labels[i]]
        if not positives:
            continue
        others = [similarity(relation, z[i], z[j]) / temperature for j in range(9) if j != i]
        top = max(others)
        normalizer = top + math.log(sum(math.exp(s - top) for s in others))
        terms = [similarity(relation, z[i], z[p]) / temperature - normalizer for p in positives]
        losses.append(-sum(terms) / len(positives))
    found = supcon_loss(z, torch.tensor(labels), relation, temperature)
    assert found.item() == pytest.approx(sum(losses) / len(losses), rel=1e-9)
    a, b = random_unit(4), random_unit(4)
    images = torch.arange(4).repeat(2)
    torch.testing.assert_close(
        supcon_loss(torch.cat([a, b]), images, relation, temperature), nt_xent(a, b, relation, temperature)
    )


@pytest.mark.parametrize("prior", [0.0, 0.1, 0.6])
@pytest.mark.parametrize("temperature", [0.05, 0.5])
@pytest.mark.parametrize("relation", [Cosine(), Jaccard(), Tanimoto()], ids=["cosine", "jaccard", "tanimoto"])
def test_debiased(relation, temperature, prior):
    a, b = random_unit(4), random_unit(4)
    z, count = [*a, *b], 6
    losses = []
    for i in range(8):
        positive = similarity(relation, z[i], z[(i + 4) % 8]) / temperature
        negatives = [similarity(relation, z[i], z[j]) / temperature for j in range(8) if j not in (i, (i + 4) % 8)]
        mean = sum(map(math.exp, negatives)) / count
        g = max((mean - prior * math.exp(positive)) / (1 - prior), math.exp(relation.low / temperature))
        losses.append(-math.log(math.exp(positive) / (math.exp(positive) + count * g)))
    assert debiased_loss(a, b, prior, relation, temperature).item() == pytest.approx(sum(losses) / 8, rel=1e-9)


def test_debiased_without_a_prior_is_nt_xent():
    a, b = random_unit(6), random_unit(6)
    torch.testing.assert_close(debiased_loss(a, b, 0.0, Cosine(), 0.01), nt_xent(a, b, Cosine(), 0.01))


def test_triplet_loss_of_distances():
    positive, negative = torch.tensor([-0.2, -1.0, -0.5]), torch.tensor([-0.3, -0.4, -3.0])
    expected = (max(0, 0.2 - 0.3 + 0.5) + max(0, 1.0 - 0.4 + 0.5) + max(0, 0.5 - 3.0 + 0.5)) / 3
    assert triplet_loss(positive, negative, margin=0.5).item() == pytest.approx(expected)


@pytest.mark.parametrize("relation", [Jaccard(), Jaccard("signed")], ids=["clamped", "signed"])
def test_jaccard_triplet_is_eq_2_and_jaccard_contrastive_is_eq_3(relation):
    query, positive, negative = random_unit(5), random_unit(5), random_unit(5)
    expected = [-similarity(relation, q, p) + similarity(relation, q, n) for q, p, n in zip(query, positive, negative)]
    assert jaccard_triplet_loss(query, positive, negative, relation).item() == pytest.approx(sum(expected) / 5)
    smooth = [
        naive_softmax_loss(similarity(relation, q, p), [similarity(relation, q, n) for n in negative], 1.0)
        for q, p in zip(query, positive)
    ]
    found = jaccard_contrastive_loss(query, positive, negative, relation=relation)
    assert found.item() == pytest.approx(sum(smooth) / 5)


def test_proposed_loss_is_eq_4_with_its_three_terms_apart():
    query, positive, negatives = random_unit(4), random_unit(4), random_unit(7)
    alpha1, alpha2, tau = 0.2, 0.3, 0.25

    def mean_loss(score):
        losses = [
            naive_softmax_loss(score(q, p), [score(q, n) for n in negatives], tau) for q, p in zip(query, positive)
        ]
        return sum(losses) / len(losses)

    found = jaccard_loss(query, positive, negatives, alpha1, alpha2, tau)
    # The halves of the random embeddings have length one already: inner products are cosines.
    assert found.keys() == {"cosine1", "cosine2", "jaccard"}
    assert found["cosine1"].item() == pytest.approx(alpha1 * mean_loss(lambda x, y: (x[:4] @ y[:4]).item()))
    assert found["cosine2"].item() == pytest.approx(alpha2 * mean_loss(lambda x, y: (x[4:] @ y[4:]).item()))
    assert found["jaccard"].item() == pytest.approx(0.5 * mean_loss(lambda x, y: similarity(Jaccard(), x, y)))


@relations
@pytest.mark.parametrize("seed", range(5))
def test_theorem_1(relation, seed):
    """The mean zero-margin triplet loss is at most the contrastive loss, for any similarities and temperatures."""
    generator = torch.Generator().manual_seed(seed)
    temperature = 10 ** torch.empty(()).uniform_(-2, 1, generator=generator).item()
    query, positive, negatives = (
        unit(torch.randn(n, 8, generator=generator, dtype=torch.float64), 2) for n in (6, 6, 11)
    )
    alike = relation.matched(query, positive) / temperature
    others = relation.all_pairs(query, negatives) / temperature
    bound = contrastive_loss(alike, others)
    triplet = triplet_loss(alike[:, None].expand_as(others), others)
    assert triplet <= bound
    # Eq. (1) has the maximum between them, and the logarithm of n + 1 is all that separates it from the loss.
    hardest = (others - alike[:, None]).amax(1).clamp(min=0).mean()
    assert triplet <= hardest <= bound <= hardest + math.log(12)


def test_soft_cross_entropy_and_kl_divergence():
    student, teacher = torch.randn(5, 4, dtype=torch.float64), torch.randn(5, 4, dtype=torch.float64)

    def softmax(row, t):
        e = [math.exp(x / t) for x in row]
        return [x / sum(e) for x in e]

    target = torch.tensor([softmax(row, 1.0) for row in teacher.tolist()], dtype=torch.float64)
    expected = -sum(
        t * math.log(p) for row, goal in zip(student.tolist(), target.tolist()) for p, t in zip(softmax(row, 1), goal)
    )
    assert soft_cross_entropy(student, target).item() == pytest.approx(expected / 5)
    for t in (1.0, 4.0):
        divergence = sum(
            q * math.log(q / p)
            for s, z in zip(student.tolist(), teacher.tolist())
            for p, q in zip(softmax(s, t), softmax(z, t))
        )
        assert kl_divergence(student, teacher, t).item() == pytest.approx(t**2 * divergence / 5)
    teacher.requires_grad_()
    student.requires_grad_()
    kl_divergence(student, teacher).backward()
    assert teacher.grad is None


def test_gradient_of_the_kl_divergence_is_free_of_the_temperature():
    student = (0.01 * torch.randn(5, 4, dtype=torch.float64)).requires_grad_()
    teacher = 0.01 * torch.randn(5, 4, dtype=torch.float64)
    norms = [
        torch.autograd.grad(kl_divergence(student, teacher, t), student)[0].norm().item() for t in (1.0, 4.0, 20.0)
    ]
    assert norms[1] == pytest.approx(norms[0], rel=0.02)
    assert norms[2] == pytest.approx(norms[0], rel=0.02)


@pytest.mark.parametrize(
    "loss",
    [
        lambda a, b: nt_xent(a, b, Jaccard(), 0.01),
        lambda a, b: query_key_loss(a, a, b, Jaccard(), 0.01),
        lambda a, b: supcon_loss(torch.cat([a, b]), torch.arange(4).repeat(2), Cosine(), 0.01),
        lambda a, b: debiased_loss(a, b, 0.1, Cosine(), 0.01),
    ],
    ids=["nt_xent", "query_key", "supcon", "debiased"],
)
def test_small_temperatures_are_safe_in_float32(loss):
    a = unit(torch.randn(4, 8), 2).requires_grad_()
    value = loss(a, unit(torch.randn(4, 8), 2))
    value.backward()
    assert value.isfinite()
    assert a.grad.isfinite().all()


def test_terms_of_one_relation_and_of_three():
    (only,) = contrast_terms(Jaccard(), 0.2)
    assert (only.name, only.weight, only.temperature) == ("jaccard", 1.0, 0.2)
    first, second, fused = contrast_terms(Jaccard(), 0.2, (0.1, 0.3), cosine_temperature=0.5)
    assert [(t.name, t.weight, t.temperature) for t in (first, second, fused)] == [
        ("cosine1", 0.1, 0.5),
        ("cosine2", 0.3, 0.5),
        ("jaccard", pytest.approx(0.6), 0.2),
    ]
    assert isinstance(second.relation, Within)


@pytest.mark.parametrize("alphas", [(0.5, 0.5), (1 / 3, 2 / 3), (0.1, 0.9), (0.7, 0.3), (0.58, 0.42)])
def test_two_cosine_heads_without_the_index(alphas):
    """The index has no weight, and is not computed; what the weights sum to may be off by rounding."""
    terms = contrast_terms(Jaccard(), 0.2, alphas)
    assert [(t.name, t.weight) for t in terms] == [("cosine1", alphas[0]), ("cosine2", alphas[1])]
    off = (alphas[0], alphas[1] + 1e-16), (alphas[0], alphas[1] - 1e-15)
    assert all(len(contrast_terms(Jaccard(), 0.2, weights)) == 2 for weights in off)


def test_one_temperature_for_all_three_terms_of_eq_4():
    assert [t.temperature for t in contrast_terms(Jaccard(), 0.25, (0.3, 0.3))] == [0.25] * 3


def test_debiased_loss_has_the_gradient_of_a_learned_temperature():
    a, b = random_unit(4), random_unit(4)
    temperature = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    torch.autograd.gradcheck(lambda t: debiased_loss(a, b, 0.1, Cosine(), t), temperature)
    torch.autograd.gradcheck(lambda t: kl_divergence(a, b, t), temperature)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: contrast_terms(Cosine(), 0.0), "temperature is 0.0"),
        (lambda: contrast_terms(Cosine(), 0.1, (0.2, 0.2)), "one weight for each"),
        (lambda: contrast_terms(Jaccard(), 0.1, (0.7, 0.6)), "sum of at most 1"),
        (lambda: contrast_terms(Jaccard(), 0.1, (-0.1, 0.6)), "no weights"),
        (lambda: nt_xent(torch.ones(1, 4), torch.ones(1, 4)), "no negatives"),
        (lambda: debiased_loss(torch.ones(3, 4), torch.ones(3, 4), 1.0), "class_prior is 1.0"),
    ],
)
def test_errors_say_what_was_expected(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.fixture(scope="module")
def sayings() -> dict[str, list[str]]:
    """In one process without the shape checks of the tests, which users do not have and which would come first."""
    done = subprocess.run([sys.executable, nonsense.__file__], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


@pytest.mark.parametrize("call", nonsense.CALLS)
def test_nonsense_is_refused(sayings, call):
    said, expected = sayings[call]
    assert re.search(f"^ValueError: .*{expected}", said), said


def test_public_names_exist():
    assert all(hasattr(objectives, name) for name in objectives.__all__)
