"""Losses that tell each query which keys of a memory it is to meet: the one of its image, or those of its teacher.

As in `relatum.losses.objectives`: pure functions, larger relations are more alike, many pairs go by blocks.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from relatum.core.precision import full_precision
from relatum.losses import blocks, checks
from relatum.losses.blocks import Block
from relatum.losses.objectives import Temperature
from relatum.losses.readings import Contrast
from relatum.losses.targets import FromTeacher, OneKey
from relatum.relations import Cosine, Relation

__all__ = ["bank_loss", "matching_loss"]


@full_precision
def bank_loss(
    query: Float[Tensor, "n d"],
    bank: Float[Tensor, "m d"],
    own: Int[Tensor, " n"],
    relation: Relation | None = None,
    temperature: Temperature = 0.07,
    classes: tuple[Int[Tensor, " n"], Int[Tensor, " m"]] | None = None,
    block: Block = "auto",
) -> Float[Tensor, ""]:
    """`-log(e^{v_i,own / t} / sum_j e^{v_ij / t})` over the whole bank: each image is a class of its own.

    It is what noise-contrastive estimation approximates with a sample of the bank (Wu et al. 2018, Eq. 2).

    Args:
        query: one embedding for each image of the batch.
        bank: one for each training image.
        own: the row of each query's image in the bank.
        relation: how two embeddings compare; the cosine by default.
        temperature: of the softmax.
        classes: those of the queries and of the bank: rows of a query's class are left out of its sum, but for its own.
            None leaves nothing out.
        block: how many rows of pairs to hold at once (`relatum.losses.blocks`); None holds all of them.

    Raises:
        ValueError: for embeddings of other widths, or a temperature that is not positive.
    """
    relation = relation or Cosine()
    checks.temperature(temperature)
    checks.keys(query, query, bank)
    target = OneKey(own, classes)
    if (size := blocks.size(block, [relation], query, bank)) is not None:
        return blocks.with_target(target, (query, bank), [(relation, temperature)], size)[0]
    logits = relation.all_pairs(query, bank) / temperature
    hidden = target.rows(slice(None)).hidden
    return F.cross_entropy(logits if hidden is None else logits.masked_fill(hidden, -torch.inf), own)


@full_precision
def matching_loss(
    student: Float[Tensor, "n d"],
    teacher: Float[Tensor, "n d"],
    keys: Float[Tensor, "m d"],
    relation: Relation | None = None,
    temperature: Temperature = 0.2,
    teacher_temperature: float | int = 0.01,
    block: Block = "auto",
) -> Float[Tensor, ""]:
    """`-sum_j p_ij log s_ij`: a student's relations to a set of keys, beside the teacher's (Fang et al. 2021, Eq. 4).

    p_i is the softmax of the teacher's relations to the keys and to itself, s_i that of the student's to the keys and
    to the teacher. No gradient flows into teacher and keys.

    Args:
        student: embeddings that carry the gradient.
        teacher: the teacher's, of the same images.
        keys: the teacher's, of other images.
        relation: how two embeddings compare; the cosine by default.
        temperature: of the student's softmax.
        teacher_temperature: of the teacher's; near 0 its target is itself alone.
        block: how many rows of pairs to hold at once (`relatum.losses.blocks`); None holds all of them.

    Raises:
        ValueError: for embeddings of other widths, or a temperature that is not positive.
    """
    relation = relation or Cosine()
    checks.temperature(temperature)
    checks.temperature(teacher_temperature, "teacher_temperature")
    checks.keys(student, teacher, keys)
    teacher, keys = teacher.detach(), keys.detach()
    target = FromTeacher(Contrast(relation, teacher_temperature), teacher, keys)
    if (size := blocks.size(block, [relation], student, keys)) is not None:
        return blocks.with_target(target, (student, keys, teacher), [(relation, temperature)], size)[0]
    with torch.no_grad():
        rows = target.rows(slice(None))
        assert rows.share is not None
        assert isinstance(rows.own_share, torch.Tensor)
        goal = torch.cat([rows.own_share[:, None], rows.share], dim=1)
    logits = torch.cat([relation.matched(student, teacher)[:, None], relation.all_pairs(student, keys)], dim=1)
    return -(goal * (logits / temperature).log_softmax(1)).sum(1).mean()
