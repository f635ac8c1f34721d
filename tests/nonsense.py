"""Calls of losses that make no sense, and what each says: run in a process of its own, without the shape checks."""

import json
import sys

import torch

from relatum.losses import objectives as o
from relatum.losses import queries as q
from relatum.relations import Cosine, Jaccard

A, B = torch.randn(2, 20, 8)
QUEUE = torch.randn(30, 8)
LABELS = torch.arange(20) % 3
S, M = torch.randn(20), torch.randn(20, 5)
TERMS = o.contrast_terms(Jaccard(), 0.2, (0.3, 0.3))

LOSSES = {
    "nt_xent": lambda t: o.nt_xent(A, B, temperature=t),
    "nt_xent by blocks": lambda t: o.nt_xent(A, B, temperature=t, block=4),
    "query_key_loss": lambda t: o.query_key_loss(A, B, QUEUE, temperature=t),
    "query_key_loss by blocks": lambda t: o.query_key_loss(A, B, QUEUE, temperature=t, block=4),
    "supcon_loss": lambda t: o.supcon_loss(A, LABELS, temperature=t),
    "supcon_loss by blocks": lambda t: o.supcon_loss(A, LABELS, temperature=t, block=4),
    "debiased_loss": lambda t: o.debiased_loss(A, B, temperature=t),
    "contrastive_loss": lambda t: o.contrastive_loss(S, M, t),
    "jaccard_loss": lambda t: o.jaccard_loss(A, B, QUEUE, 0.3, 0.3, t),
    "jaccard_contrastive_loss": lambda t: o.jaccard_contrastive_loss(A, B, QUEUE, t),
    "kl_divergence": lambda t: o.kl_divergence(A, B, t),
    "contrast_terms": lambda t: o.contrast_terms(Cosine(), t),
    "contrast_terms, of the cosines": lambda t: o.contrast_terms(Jaccard(), 0.2, (0.3, 0.3), t),
    "in_batch_loss": lambda t: q.in_batch_loss(A, B, temperature=t),
    "in_batch_loss by blocks": lambda t: q.in_batch_loss(A, B, temperature=t, block=4),
    "relation_consistency": lambda t: q.relation_consistency(A, B, QUEUE, temperature=t, block=4),
    "relation_consistency, of the targets": lambda t: q.relation_consistency(A, B, QUEUE, target_temperature=t),
    "two_view_contrast": lambda t: o.two_view_contrast(A, B, [o.Term("x", Cosine(), t)]),
    "query_key_contrast": lambda t: o.query_key_contrast(A, B, QUEUE, [o.Term("x", Cosine(), t)], block=4),
}
BAD_TEMPERATURES = [0, -1, float("nan"), float("inf"), "0.2", True, torch.ones(2), torch.tensor(1)]
CALLS = {
    f"{name}, temperature {t!r}": (lambda loss=loss, t=t: loss(t), "temperature.* is .*expected a")
    for name, loss in LOSSES.items()
    for t in BAD_TEMPERATURES
}
for block in (None, 4):
    CALLS |= {
        f"{name}, block={block}": (call, message)
        for name, (call, message) in {
            "nt_xent of 20 and 19": (
                lambda block=block: o.nt_xent(A, B[:19], block=block),
                r"b has the shape \(19, 8\), but a \(20, 8\)",
            ),
            "nt_xent of other widths": (lambda block=block: o.nt_xent(A, B[:, :7], block=block), r"b has the shape"),
            "nt_xent of one image": (lambda block=block: o.nt_xent(A[:1], B[:1], block=block), "no negatives"),
            "nt_xent of no matrix": (lambda block=block: o.nt_xent(S, S, block=block), r"expected \(n, d\)"),
            "nt_xent of integers": (
                lambda block=block: o.nt_xent(A.long(), B.long(), block=block),
                "expected floating",
            ),
            "two views, 20 and 19": (
                lambda block=block: o.two_view_contrast(A, B[:19], TERMS, block),
                "b has the shape",
            ),
            "two views, no term": (lambda block=block: o.two_view_contrast(A, B, (), block), "no terms"),
            "one positive for all": (
                lambda block=block: o.query_key_loss(A, B[:1], QUEUE, block=block),
                r"positive has the shape \(1, 8\), but query \(20, 8\)",
            ),
            "one positive for all, three terms": (
                lambda block=block: o.query_key_contrast(A, B[:1], QUEUE, TERMS, block),
                "positive has the shape",
            ),
            "negatives of another width": (
                lambda block=block: o.query_key_loss(A, B, QUEUE[:, :7], block=block),
                "negatives have the width 7, but query 8",
            ),
            "no negatives": (lambda block=block: o.query_key_loss(A, B, QUEUE[:0], block=block), "0 negatives"),
            "no queries": (lambda block=block: o.query_key_loss(A[:0], B[:0], QUEUE, block=block), "0 queries"),
            "keys of 19 images": (
                lambda block=block: q.in_batch_loss(A, B[:19], block=block),
                r"keys has the shape \(19, 8\), but query \(20, 8\)",
            ),
            "keys in the batch, no term": (lambda block=block: q.in_batch_contrast(A, B, (), block), "no terms"),
            "targets of 19 images": (
                lambda block=block: q.relation_consistency(A, B[:19], QUEUE, block=block),
                "positive has the shape",
            ),
            "a queue of another width": (
                lambda block=block: q.relation_consistency(A, B, QUEUE[:, :7], block=block),
                "negatives have the width 7, but query 8",
            ),
            "19 labels": (
                lambda block=block: o.supcon_loss(A, LABELS[:19], block=block),
                r"labels have the shape \(19,\); expected \(20,\)",
            ),
            "labels in columns": (lambda block=block: o.supcon_loss(A, LABELS[:, None], block=block), "labels have"),
            "float labels": (
                lambda block=block: o.supcon_loss(A, LABELS.float(), block=block),
                "labels hold torch.float",
            ),
            "a width that is no multiple": (
                lambda block=block: o.nt_xent(A[:, :7], B[:, :7], Jaccard(), block=block),
                "width 7 cannot be split",
            ),
            "three terms of a width that is no multiple": (
                lambda block=block: o.two_view_contrast(A[:, :7], B[:, :7], TERMS, block),
                "width 7 cannot be split",
            ),
        }.items()
    }
CALLS |= {
    "debiased_loss of 20 and 19": (lambda: o.debiased_loss(A, B[:19]), "b has the shape"),
    "debiased_loss of one image": (lambda: o.debiased_loss(A[:1], B[:1]), "no negatives"),
    **{
        f"debiased_loss, class_prior {p}": (lambda p=p: o.debiased_loss(A, B, p), "class_prior is .*0, 1")
        for p in (-0.1, 1, float("nan"))
    },
    "contrastive_loss of 20 and 19": (lambda: o.contrastive_loss(S, M[:19]), "20 positives and negatives of the shape"),
    "contrastive_loss of no negatives": (lambda: o.contrastive_loss(S, M[:, :0]), "20 positives and negatives of"),
    "contrastive_loss of a matrix": (lambda: o.contrastive_loss(M, M), r"expected \(n,\)"),
    "triplet_loss that broadcasts": (lambda: o.triplet_loss(S, M[:, :1]), "negative has the shape"),
    "triplet_loss, margin nan": (lambda: o.triplet_loss(S, S, float("nan")), "margin is nan"),
    "jaccard_triplet_loss of one negative": (lambda: o.jaccard_triplet_loss(A, B, B[:1]), "negative has the shape"),
    "jaccard_loss, one positive": (lambda: o.jaccard_loss(A, B[:1], QUEUE, 0.3, 0.3, 0.2), "positive has the shape"),
    "jaccard_loss, alpha nan": (lambda: o.jaccard_loss(A, B, QUEUE, float("nan"), 0.3, 0.2), "no weights"),
    "jaccard_loss, alpha 1.5": (lambda: o.jaccard_loss(A, B, QUEUE, 1.5, 0.3, 0.2), "no weights"),
    "kl_divergence that broadcasts": (lambda: o.kl_divergence(A, B[:1]), "teacher has the shape"),
    "kl_divergence of a vector": (lambda: o.kl_divergence(S, S), r"expected \(n, d\)"),
    "soft_cross_entropy that broadcasts": (lambda: o.soft_cross_entropy(A, B[:, :1]), "target has the shape"),
    "soft_cross_entropy of class numbers": (lambda: o.soft_cross_entropy(A, A.long()), "expected floating numbers"),
}


def said(call):
    try:
        return f"returned {call()}"
    except ValueError as error:
        return f"ValueError: {error}"
    except Exception as error:
        return f"{type(error).__name__}: {error}"


if __name__ == "__main__":
    json.dump({name: [said(call), message] for name, (call, message) in CALLS.items()}, sys.stdout)
