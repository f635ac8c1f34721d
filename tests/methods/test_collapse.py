"""No method without labels collapses: its embeddings keep more directions than those of attraction alone.

Attraction alone, with the same networks, images and steps, is what each method would be without what holds images apart
(negatives; or the predictor and the stopped gradient; or the decorrelation). Each method is also planted with that very
defect, and must then be found.
"""

from collections.abc import Callable
from functools import cache

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from cases import build, keywords_of
from relatum.core.types import Batch
from relatum.evaluation.geometry import effective_rank
from relatum.methods import METHODS, Method
from relatum.methods.contrastive import barlow_twins, debiased, lejepa, moco, mocov3, nnclr, ressl, simclr, swav, vicreg

STEPS, IMAGES, SIZE = 40, 16, 16
LEAST = 1.4
"""How many times the directions of attraction alone; the methods have at least 1.5 times."""

RATE = {"vicreg": 0.02, "dino": 0.1}
"""The learning rate of a method, 0.5 unless it weighs its attraction by another number than 1: the least temperature of
DINO's copy is a factor of 25."""

OPTIONS = {"swav": {"prototypes": 12}}
"""Options of a method that the small one has less of than directions need."""

TWIN_RATE = {"dino": 0.1}
"""That of attraction alone, 0.5 unless it has to go as slowly as the method to be fair."""

WITHOUT_LABELS = [
    name for name, method in METHODS.items() if not method.needs_labels and "teacher" not in keywords_of(name)
]
"""Those that follow a fixed teacher keep as many directions as it has: `test_seed` says so of SEED."""


def images() -> torch.Tensor:
    """Smooth random patterns, of which noise makes the views."""
    generator = torch.Generator().manual_seed(5)
    return F.interpolate(torch.randn(IMAGES, 3, 4, 4, generator=generator), size=(SIZE, SIZE), mode="bilinear")


def attraction(a: torch.Tensor, b: torch.Tensor) -> dict[str, torch.Tensor]:
    return {"attraction": -F.cosine_similarity(a, b).mean()}


def directions(method: Method, losses: Callable[[Batch], dict[str, torch.Tensor]], rate: float = 0.5) -> float:
    """The effective rank of the embeddings that some steps of `losses` leave."""
    optimizer = torch.optim.SGD((p for p in method.parameters() if p.requires_grad), rate, momentum=0.9)
    method.train()
    for step in range(STEPS):
        generator = torch.Generator().manual_seed(step)
        torch.manual_seed(step)
        views = (images() + 0.3 * torch.randn(IMAGES, 3, SIZE, SIZE, generator=generator) for _ in range(2))
        sum(losses(Batch.unlabeled(*views)).values()).backward()
        optimizer.step()
        optimizer.zero_grad()
        method.after_step((step + 1) / STEPS)
    with torch.no_grad():
        return effective_rank(F.normalize(method.projector(method.backbone.embed(images()))))


def bare(name: str) -> Method:
    """A method whose projector ends without batch norm, which by itself holds images apart."""
    method = build(name, **OPTIONS.get(name, {}))
    for projector in (method.projector, *(list(method.copy.networks)[1:] if hasattr(method, "copy") else ())):
        for branch in projector.branches if name in ("nnclr", "mocov3") else ():
            branch[-1] = nn.Identity()
    return method


@cache
def directions_of_attraction(name: str) -> float:
    twin = bare(name)

    def attract(batch: Batch) -> dict[str, torch.Tensor]:
        return attraction(*(twin.projector(twin.backbone.embed(view)) for view in batch.views))

    return directions(twin, attract, TWIN_RATE.get(name, 0.5))


def require_no_collapse(name: str, method: Method) -> None:
    assert directions(method, method.losses, RATE.get(name, 0.5)) > LEAST * directions_of_attraction(name)


@pytest.mark.parametrize("name", WITHOUT_LABELS)
def test_embeddings_keep_apart(name):
    require_no_collapse(name, bare(name))


def simclr_without_negatives(method, monkeypatch):
    monkeypatch.setattr(simclr, "two_view_contrast", lambda a, b, terms: attraction(a, b))


def debiased_without_negatives(method, monkeypatch):
    monkeypatch.setattr(debiased, "debiased_loss", lambda a, b, *rest: attraction(a, b)["attraction"])


def barlow_twins_without_decorrelation(method, monkeypatch):
    monkeypatch.setattr(barlow_twins, "barlow_terms", lambda a, b: (*attraction(a, b).values(), torch.zeros(())))


def vicreg_without_variance(method, monkeypatch):
    nothing = torch.zeros(())
    monkeypatch.setattr(vicreg, "vicreg_terms", lambda a, b, eps: (*attraction(a, b).values(), nothing, nothing))


def lejepa_without_gaussian(method, monkeypatch):
    method.weight = 0.05  # attraction has nearly all of the weight
    monkeypatch.setattr(lejepa, "lejepa_terms", lambda z, *rest: (*attraction(z[0], z[1]).values(), torch.zeros(())))


def nnclr_without_negatives(method, monkeypatch):
    method.predictor = nn.Identity()
    method.neighbors = lambda own: own  # those of a queue of random keys would hold images apart for a while
    monkeypatch.setattr(nnclr, "in_batch_contrast", lambda neighbors, own, terms: attraction(neighbors, own))


def ressl_without_queue(method, monkeypatch):
    method.momentum = method.final_momentum = 0.0
    monkeypatch.setattr(ressl, "relation_consistency", lambda query, keys, *rest: attraction(query, keys)["attraction"])


def mocov3_without_negatives(method, monkeypatch):
    method.copy.project = lambda view: method.projector(method.backbone.embed(view))
    method.predictor = nn.Identity()
    monkeypatch.setattr(mocov3, "in_batch_contrast", lambda query, keys, terms: attraction(query, keys))


def moco_without_negatives(method, monkeypatch):
    method.momentum = method.final_momentum = 0.0  # a slow copy would only take longer
    monkeypatch.setattr(moco, "query_key_contrast", lambda query, keys, queue, terms: attraction(query, keys))


def byol_without_predictor(method, monkeypatch):
    method.predictor = nn.Identity()
    method.copy.project = lambda view: method.projector(method.backbone.embed(view))


def simsiam_without_predictor(method, monkeypatch):
    method.predictor = nn.Identity()
    monkeypatch.setattr(torch.Tensor, "detach", lambda tensor: tensor)


def swav_without_equal_shares(method, monkeypatch):
    everything = torch.eye(method.prototypes.weight.shape[0])[:1]
    monkeypatch.setattr(swav, "sinkhorn", lambda scores, *rest: everything.expand(len(scores), -1))


def dino_without_center(method, monkeypatch):
    method.momentum, method.center_momentum = 0.0, 1.0  # a slow copy would only take longer


COLLAPSED = {
    "swav": swav_without_equal_shares,
    "dino": dino_without_center,
    "simclr": simclr_without_negatives,
    "debiased": debiased_without_negatives,
    "barlow-twins": barlow_twins_without_decorrelation,
    "vicreg": vicreg_without_variance,
    "lejepa": lejepa_without_gaussian,
    "nnclr": nnclr_without_negatives,
    "ressl": ressl_without_queue,
    "mocov3": mocov3_without_negatives,
    "moco": moco_without_negatives,
    "byol": byol_without_predictor,
    "simsiam": simsiam_without_predictor,
}


@pytest.mark.parametrize("name", WITHOUT_LABELS)
def test_a_method_that_collapses_is_found(name, monkeypatch):
    directions_of_attraction(name)  # before anything is planted
    method = bare(name)
    COLLAPSED[name](method, monkeypatch)
    with pytest.raises(AssertionError):
        require_no_collapse(name, method)
