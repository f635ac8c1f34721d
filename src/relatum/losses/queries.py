"""Losses of queries that `relatum.losses.objectives` has not: against keys of their batch, and as another sees a queue.

The rules of that file hold here: relations, temperatures, blocks, and no talk to other ranks.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from relatum.core.precision import full_precision
from relatum.losses import blocks, checks
from relatum.losses.blocks import Block
from relatum.losses.objectives import Temperature, Term, check_terms
from relatum.losses.readings import Contrast
from relatum.losses.targets import FromView, OneKey
from relatum.relations import Cosine, Relation

__all__ = ["in_batch_contrast", "in_batch_loss", "most_alike", "relation_consistency"]

_PAIRS_AT_ONCE = 2**24  # of a search: 64 MiB


def in_batch_contrast(
    query: Float[Tensor, "n d"], keys: Float[Tensor, "n d"], terms: Sequence[Term], block: Block = "auto"
) -> dict[str, Float[Tensor, ""]]:
    """`in_batch_loss` of each term, weighted and named; by blocks, one pass over the pairs serves all terms."""
    _check(query, keys)
    check_terms(terms)
    size = blocks.size(block, [t.relation for t in terms], query, keys)
    if size is None:
        return {t.name: t.weight * in_batch_loss(query, keys, t.relation, t.temperature, block) for t in terms}
    target = OneKey(_own(query), None)
    losses = blocks.with_target(target, (query, keys), [(t.relation, t.temperature) for t in terms], size)
    return {t.name: t.weight * loss for t, loss in zip(terms, losses.unbind())}


@full_precision
def in_batch_loss(
    query: Float[Tensor, "n d"],
    keys: Float[Tensor, "n d"],
    relation: Relation | None = None,
    temperature: Temperature = 0.2,
    block: Block = "auto",
) -> Float[Tensor, ""]:
    """The contrastive loss of queries, each with a key of its own, whose negatives are the other queries' keys.

        L = -1/n sum_i log(e^{r(q_i, k_i) / t} / sum_j e^{r(q_i, k_j) / t})

    It is that of MoCo v3 (Chen et al. 2021, Algorithm 1) and of NNCLR (Dwibedi et al. 2021, Eq. 3), and one direction
    of CLIP's. Gradients flow into both.

    Args:
        query: one row an image.
        keys: row i is the key of query i.
        relation: how two embeddings compare; the cosine by default.
        temperature: the temperature of the softmax.
        block: how many rows of pairs to hold at once (`relatum.losses.blocks`); None holds all of them.

    Raises:
        ValueError: for shapes that differ, fewer than two images, or a temperature that is not positive.
    """
    relation = relation or Cosine()
    _check(query, keys)
    checks.temperature(temperature)
    if (size := blocks.size(block, [relation], query, keys)) is not None:
        return blocks.with_target(OneKey(_own(query), None), (query, keys), [(relation, temperature)], size)[0]
    return F.cross_entropy(relation.all_pairs(query, keys) / temperature, _own(query))


def _own(query: Tensor) -> Tensor:
    """The row of each query's own key."""
    return torch.arange(len(query), device=query.device)


def _check(query: Tensor, keys: Tensor) -> None:
    checks.alike(2, query=query, keys=keys)
    if len(query) < 2:
        raise ValueError(f"a batch of {len(query)} image has no negatives; expected at least 2 images.")


@full_precision
def relation_consistency(
    query: Float[Tensor, "n d"],
    target: Float[Tensor, "n d"],
    keys: Float[Tensor, "m d"],
    relation: Relation | None = None,
    temperature: Temperature = 0.1,
    target_temperature: float = 0.04,
    block: Block = "auto",
) -> Float[Tensor, ""]:
    """How differently two views of an image relate to the same keys (ReSSL, Zheng et al. 2021).

        p_ij = softmax_j(r(target_i, k_j) / target_temperature),   q_ij = softmax_j(r(query_i, k_j) / temperature)
        L = -1/n sum_ij p_ij log q_ij

    Cross-entropy instead of the divergence, which differs by the entropy of p: the gradient is the same. None flows
    into `target` and `keys`.

    Args:
        query: embeddings that carry the gradient.
        target: row i shows the image of query i.
        keys: a queue of other images.
        relation: how two embeddings compare; the cosine by default.
        temperature: that of the queries' softmax.
        target_temperature: that of the targets'; a lower one sharpens what is asked for.
        block: how many rows of pairs to hold at once (`relatum.losses.blocks`); None holds all of them.

    Raises:
        ValueError: for shapes that do not fit, or a temperature that is not positive.
    """
    relation = relation or Cosine()
    checks.keys(query, target, keys)
    checks.temperature(temperature)
    checks.temperature(target_temperature, "target_temperature")
    target, keys = target.detach(), keys.detach()
    if (size := blocks.size(block, [relation], query, keys)) is not None:
        goal = FromView(Contrast(relation, target_temperature), target, keys)
        return blocks.with_target(goal, (query, keys), [(relation, temperature)], size)[0]
    wanted = (relation.all_pairs(target, keys) / target_temperature).softmax(1)
    return F.cross_entropy(relation.all_pairs(query, keys) / temperature, wanted)


@torch.no_grad()
@full_precision
def most_alike(
    query: Float[Tensor, "n d"], keys: Float[Tensor, "m d"], relation: Relation | None = None
) -> Int[Tensor, " n"]:
    """The row of `keys` that is most alike each query; of equal ones any. All pairs of some queries are held at once.

    Raises:
        ValueError: for no keys, or of another width.
    """
    checks.keys(query, query, keys)
    relation = relation or Cosine()
    rows = query.split(max(1, _PAIRS_AT_ONCE // len(keys)))
    return torch.cat([relation.all_pairs(part, keys).argmax(1) for part in rows])
