"""Losses: pure functions of tensors, each named after what the papers call it.

A temperature is a positive number, or a tensor without dimensions that is learned: its gradient flows, in the plain
form and by blocks. Every loss refuses shapes and numbers that make no sense with a `ValueError`, without a look at the
values of tensors. By blocks (many pairs, or `block=N`) there are first derivatives only; `block=None` has all.

None of them talks to other ranks: a method gathers what it compares, then calls one of these. Similarities are
those of `relatum.relations`: larger is more alike. All softmaxes subtract their maximum, so that temperatures down
to 0.01 are safe, and all are averaged over the anchors.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from relatum.core.precision import full_precision
from relatum.losses import blocks, checks
from relatum.losses.blocks import Block
from relatum.relations import Cosine, Jaccard, Relation, Within

__all__ = [
    "Term",
    "contrast_terms",
    "contrastive_loss",
    "debiased_loss",
    "jaccard_contrastive_loss",
    "jaccard_loss",
    "jaccard_triplet_loss",
    "kl_divergence",
    "nt_xent",
    "query_key_contrast",
    "query_key_loss",
    "soft_cross_entropy",
    "supcon_loss",
    "triplet_loss",
    "two_view_contrast",
]


Temperature = float | int | Float[Tensor, ""]


class Term(NamedTuple):
    """One weighted softmax contrast: `weight * L(relation / temperature)`, logged as `name`."""

    name: str
    relation: Relation
    temperature: Temperature
    weight: float = 1.0


def contrast_terms(
    relation: Relation,
    temperature: Temperature,
    alphas: Sequence[float | int] = (),
    cosine_temperature: Temperature | None = None,
) -> tuple[Term, ...]:
    """What a contrastive method compares: one relation, or one relation joined by the cosine of each space.

    With `alphas = (alpha_1, alpha_2)` and the Jaccard relation these are the three terms of "Beyond Linear Metric",
    Eq. (4): `alpha_j` weighs the cosine contrast inside space j, and `1 - sum(alphas)` weighs `relation`. A term of
    weight 0 is left out: `alphas = (0.5, 0.5)` is two cosine heads without the Jaccard index, at no cost of it.

    Args:
        relation: how two embeddings compare.
        temperature: the temperature of the softmax over `relation`, and of the cosine terms unless they have their own.
        alphas: one weight in [0, 1] for each space of `relation`, or none.
        cosine_temperature: the temperature of the cosine terms; None is the one `tau` of Eq. (4). Cosines and
            indices differ in range.

    Raises:
        ValueError: for a temperature that is not positive, or weights that do not fit the relation.
    """
    cosine_temperature = temperature if cosine_temperature is None else cosine_temperature
    checks.temperature(temperature)
    checks.temperature(cosine_temperature, "cosine_temperature")
    if alphas and len(alphas) != relation.spaces:
        raise ValueError(
            f"alphas {tuple(alphas)} do not fit {relation}: expected one weight for each of its {relation.spaces} "
            "space(s), or none for the relation alone."
        )
    rest = 1 - sum(alphas)
    if abs(rest) < 1e-9:  # (0.1, 0.2, 0.7) sum to one but for rounding
        rest = 0
    if not all(alpha >= 0 for alpha in alphas) or not rest >= 0:
        raise ValueError(f"alphas {tuple(alphas)} are no weights: expected numbers >= 0 with a sum of at most 1.")
    terms = [
        Term(f"cosine{j + 1}", Within(Cosine(), j, relation.spaces), cosine_temperature, alpha)
        for j, alpha in enumerate(alphas)
        if alpha > 0
    ]
    if rest > 0:
        terms.append(Term(type(relation).__name__.lower(), relation, temperature, rest))
    return tuple(terms)


@full_precision
def contrastive_loss(
    positive: Float[Tensor, " n"], negatives: Float[Tensor, "n m"], temperature: Temperature = 1.0
) -> Float[Tensor, ""]:
    """`-log(e^{s+/t} / (e^{s+/t} + sum_j e^{s-_j/t}))`, "Beyond Linear Metric", Section 2.2 (InfoNCE).

    Args:
        positive: the similarity of each query with its positive key.
        negatives: the query's similarities with the negative keys.
        temperature: `t > 0`.
    """
    checks.temperature(temperature)
    checks.alike(1, positive=positive)
    checks.alike(2, negatives=negatives)
    if len(positive) != len(negatives) or not negatives.numel():
        raise ValueError(
            f"{len(positive)} positives and negatives of the shape {tuple(negatives.shape)}; expected a row of "
            "at least one negative for each positive."
        )
    logits = torch.cat([positive[:, None], negatives], dim=1) / temperature
    return (logits.logsumexp(1) - logits[:, 0]).mean()


@full_precision
def triplet_loss(
    positive: Float[Tensor, "*n"], negative: Float[Tensor, "*n"], margin: float | int = 0.0
) -> Float[Tensor, ""]:
    """`max(0, s- - s+ + m)`, averaged; Schroff et al. 2015, with the distances `d = -s`.

    Theorem 1 of "Beyond Linear Metric": at margin 0 and `s` divided by the temperature, its mean over the negatives
    of a query is at most the contrastive loss.
    """
    checks.alike(None, positive=positive, negative=negative)
    checks.number(margin, "margin")
    return (negative - positive + margin).clamp(min=0).mean()


def jaccard_triplet_loss(
    query: Float[Tensor, "n d"],
    positive: Float[Tensor, "n d"],
    negative: Float[Tensor, "n d"],
    relation: Relation | None = None,
) -> Float[Tensor, ""]:
    """`-J(x, x+) + J(x, x-)`, "Beyond Linear Metric", Eq. (2), first line (the second has lost a sign)."""
    checks.alike(2, query=query, positive=positive, negative=negative)
    relation = relation or Jaccard()
    return (relation.matched(query, negative) - relation.matched(query, positive)).mean()


def jaccard_contrastive_loss(
    query: Float[Tensor, "n d"],
    positive: Float[Tensor, "n d"],
    negatives: Float[Tensor, "m d"],
    temperature: Temperature = 1.0,
    relation: Relation | None = None,
) -> Float[Tensor, ""]:
    """The smooth form of the Jaccard triplet loss, "Beyond Linear Metric", Eq. (3); printed with temperature 1."""
    return query_key_loss(query, positive, negatives, relation or Jaccard(), temperature)


def jaccard_loss(
    query: Float[Tensor, "n d"],
    positive: Float[Tensor, "n d"],
    negatives: Float[Tensor, "m d"],
    alpha1: float | int,
    alpha2: float | int,
    temperature: Temperature,
    relation: Relation | None = None,
) -> dict[str, Tensor]:
    """The proposed loss of "Beyond Linear Metric", Eq. (4): its three weighted terms, to be summed.

    Eq. (4) is printed with mixed spaces in the second term; the sentence before it says that each hidden space is
    contrasted with itself, and that is what is computed.

    Args:
        query, positive, negatives: embeddings `[h^(1) | h^(2)]`; all queries share the negatives.
        alpha1, alpha2: the weights of the cosine contrast in space 1 and 2; the Jaccard term has the rest.
        temperature: `tau`, of all three terms.
        relation: the Jaccard relation; by default the clamped one.
    """
    return query_key_contrast(
        query, positive, negatives, contrast_terms(relation or Jaccard(), temperature, (alpha1, alpha2))
    )


def two_view_contrast(
    a: Float[Tensor, "n d"], b: Float[Tensor, "n d"], terms: Sequence[Term], block: Block = "auto"
) -> dict[str, Float[Tensor, ""]]:
    """`nt_xent` of each term, weighted and named; by blocks, one pass over the pairs serves all terms."""
    checks.views(a, b)
    check_terms(terms)
    size = blocks.size(block, [t.relation for t in terms], a, views=2)
    if size is None:
        return {t.name: t.weight * nt_xent(a, b, t.relation, t.temperature, block) for t in terms}
    losses = blocks.among_each_other((a, b), None, [(t.relation, t.temperature) for t in terms], size)
    return {t.name: t.weight * loss for t, loss in zip(terms, losses.unbind())}


def query_key_contrast(
    query: Float[Tensor, "n d"],
    positive: Float[Tensor, "n d"],
    negatives: Float[Tensor, "m d"],
    terms: Sequence[Term],
    block: Block = "auto",
) -> dict[str, Float[Tensor, ""]]:
    """`query_key_loss` of each term, weighted and named; by blocks, one pass over the pairs serves all terms."""
    checks.keys(query, positive, negatives)
    check_terms(terms)
    size = blocks.size(block, [t.relation for t in terms], query, negatives)
    if size is None:
        return {
            t.name: t.weight * query_key_loss(query, positive, negatives, t.relation, t.temperature, block)
            for t in terms
        }
    losses = blocks.with_keys(query, positive, negatives, [(t.relation, t.temperature) for t in terms], size)
    return {t.name: t.weight * loss for t, loss in zip(terms, losses.unbind())}


@full_precision
def nt_xent(
    a: Float[Tensor, "n d"],
    b: Float[Tensor, "n d"],
    relation: Relation | None = None,
    temperature: Temperature = 0.5,
    block: Block = "auto",
) -> Float[Tensor, ""]:
    """The contrastive loss of 2N views: 2N anchors, each with 2N - 1 keys (Chen et al. 2020, Algorithm 1).

    Args:
        a, b: the embeddings of the two views of N images; row i of both shows image i.
        relation: how two embeddings compare; the cosine by default.
        temperature: the temperature of the softmax.
        block: how many rows of pairs to hold at once (`relatum.losses.blocks`); None holds all of them.

    Raises:
        ValueError: for views of unlike shape, fewer than two images, which leave no negative, or a temperature that is
            not positive.
    """
    relation = relation or Cosine()
    checks.views(a, b)
    checks.temperature(temperature)
    if (size := blocks.size(block, [relation], a, views=2)) is not None:
        return blocks.among_each_other((a, b), None, [(relation, temperature)], size)[0]
    z = torch.cat([a, b])
    logits = _without_self(relation.all_pairs(z, z) / temperature)
    partner = torch.arange(len(z), device=z.device).roll(len(a))
    return F.cross_entropy(logits, partner)


def check_terms(terms: Sequence[Term]) -> None:
    """At least one term, each with a temperature that can be one."""
    if not terms:
        raise ValueError("no terms: expected at least one, as `contrast_terms` makes them.")
    for term in terms:
        checks.temperature(term.temperature, f"temperature of {term.name}")


@full_precision
def query_key_loss(
    query: Float[Tensor, "n d"],
    positive: Float[Tensor, "n d"],
    negatives: Float[Tensor, "m d"],
    relation: Relation | None = None,
    temperature: Temperature = 0.2,
    block: Block = "auto",
) -> Float[Tensor, ""]:
    """The contrastive loss of queries against their own key and a set of negatives that all share (He et al. 2020).

    Args:
        query: embeddings that carry the gradient.
        positive: row i is the key of query i.
        negatives: a queue, or the keys of other images.
        relation: how two embeddings compare; the cosine by default.
        temperature: the temperature of the softmax.
        block: how many rows of pairs to hold at once (`relatum.losses.blocks`); None holds all of them.
    """
    relation = relation or Cosine()
    checks.keys(query, positive, negatives)
    checks.temperature(temperature)
    if (size := blocks.size(block, [relation], query, negatives)) is not None:
        return blocks.with_keys(query, positive, negatives, [(relation, temperature)], size)[0]
    return contrastive_loss(relation.matched(query, positive), relation.all_pairs(query, negatives), temperature)


@full_precision
def supcon_loss(
    z: Float[Tensor, "n d"],
    labels: Int[Tensor, " n"] | Bool[Tensor, " n"],
    relation: Relation | None = None,
    temperature: Temperature = 0.1,
    block: Block = "auto",
) -> Float[Tensor, ""]:
    """`L_out` of Khosla et al. 2020, Eq. (2): the mean log-probability of all positives, outside the logarithm.

    Anchors without a positive are left out of the mean. There is no factor `t / t_base`, which only the authors'
    code has.

    Args:
        z: one row a view.
        labels: the class of each row, an integer or a truth value; views of one image share theirs.
        block: how many rows of pairs to hold at once (`relatum.losses.blocks`); None holds all of them.
    """
    relation = relation or Cosine()
    labels = checks.labels(labels, z)
    checks.temperature(temperature)
    if (size := blocks.size(block, [relation], z)) is not None:
        return blocks.among_each_other((z,), labels, [(relation, temperature)], size)[0]
    logits = _without_self(relation.all_pairs(z, z) / temperature)
    positives = labels[:, None] == labels
    positives = positives & ~torch.eye(len(z), dtype=torch.bool, device=z.device)
    count = positives.sum(1)
    log_probability = logits - logits.logsumexp(1, keepdim=True)
    loss = -torch.where(positives, log_probability, 0).sum(1) / count.clamp(min=1)
    return loss.sum() / (count > 0).sum().clamp(min=1)


@full_precision
def debiased_loss(
    a: Float[Tensor, "n d"],
    b: Float[Tensor, "n d"],
    class_prior: float | int = 0.1,
    relation: Relation | None = None,
    temperature: Temperature = 0.5,
) -> Float[Tensor, ""]:
    """The debiased contrastive loss of Chuang et al. 2020, Eq. (7) and (8), with one positive, in the 2N-view form.

    Of the M = 2N - 2 negatives a share `class_prior` is expected to be of the anchor's own class; it is estimated
    by the positive and taken out:

        g = max((mean_j e^{s-_j/t} - class_prior e^{s+/t}) / (1 - class_prior), e^{low/t}),
        L = -log(e^{s+/t} / (e^{s+/t} + M g)),

    `low` being the least value of the relation (-1 for the cosine, as in the paper).

    Args:
        a, b: the embeddings of the two views of N images.
        class_prior: the probability `tau+` in [0, 1) that two images share a class; 0 gives `nt_xent`.
    """
    checks.views(a, b)
    checks.number(class_prior, "class_prior", 0.0, 1.0)
    checks.temperature(temperature)
    relation = relation or Cosine()
    n = len(a)
    z = torch.cat([a, b])
    logits = relation.all_pairs(z, z) / temperature
    rows = torch.arange(2 * n, device=z.device)
    positive = logits[rows, rows.roll(n)]
    others = _without_self(logits).scatter(1, rows.roll(n)[:, None], -torch.inf)
    shift = torch.maximum(positive, others.amax(1)).detach()  # of the exponents: exact, and safe at any temperature
    attraction = (positive - shift).exp()
    repulsion = (others - shift[:, None]).exp().sum(1)
    count = 2 * n - 2
    floor = count * (relation.low / temperature - shift).exp()
    debiased = torch.maximum((repulsion - class_prior * count * attraction) / (1 - class_prior), floor)
    return ((attraction + debiased).log() + shift - positive).mean()


def _without_self(logits: Tensor) -> Tensor:
    """An anchor is no key of itself."""
    return logits.masked_fill(torch.eye(len(logits), dtype=torch.bool, device=logits.device), -torch.inf)


@full_precision
def soft_cross_entropy(logits: Float[Tensor, "n k"], target: Float[Tensor, "n k"]) -> Float[Tensor, ""]:
    """`-sum_c target_c log softmax(logits)_c`, the mean over the batch; each row of `target` sums to one."""
    checks.alike(2, logits=logits, target=target)
    return -(target * logits.log_softmax(1)).sum(1).mean()


@full_precision
def kl_divergence(
    student: Float[Tensor, "n k"], teacher: Float[Tensor, "n k"], temperature: Temperature = 1.0
) -> Float[Tensor, ""]:
    """`T^2 KL(softmax(teacher / T) || softmax(student / T))`, the mean over the batch (Hinton et al. 2015).

    The factor `T^2` keeps the size of the gradient independent of the temperature. No gradient flows into `teacher`.
    """
    checks.alike(2, student=student, teacher=teacher)
    checks.temperature(temperature)
    teacher = teacher.detach()
    log_p = (student / temperature).log_softmax(1)
    log_q = (teacher / temperature).log_softmax(1)
    return temperature**2 * F.kl_div(log_p, log_q, reduction="batchmean", log_target=True)
