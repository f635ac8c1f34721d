"""Relatum trains image encoders from how images relate.

The names below are loaded when they are first used: torch and timm cost seconds, and `relatum --help` must not wait.
"""

from importlib import import_module
from typing import Any

_HOMES = {
    "relatum.networks.backbones": ("Backbone",),
    "relatum.data.sources": ("load",),
    "relatum.data.views": ("ClassifierView", "ContrastiveView", "EvaluationView"),
    "relatum.evaluation.knn": ("KNN",),
    "relatum.evaluation.linear": ("LinearProbe",),
    "relatum.networks.export": ("load_encoder", "save_encoder", "save_onnx"),
    "relatum.methods": ("METHODS", "Method"),
    "relatum.methods.contrastive.byol": ("BYOL",),
    "relatum.methods.contrastive.debiased": ("Debiased",),
    "relatum.methods.contrastive.moco": ("MoCo",),
    "relatum.methods.contrastive.simclr": ("SimCLR",),
    "relatum.methods.contrastive.simsiam": ("SimSiam",),
    "relatum.methods.contrastive.supcon": ("SupCon",),
    "relatum.methods.distill.corsd": ("CORSD",),
    "relatum.losses.objectives": (
        "jaccard_loss",
        "nt_xent",
        "query_key_loss",
        "supcon_loss",
    ),
    "relatum.recipes.options": ("options",),
    "relatum.recipes.recipe": ("Recipe",),
    "relatum.recipes.catalog": ("RECIPES",),
    "relatum.relations": ("Cosine", "Euclidean", "Jaccard", "Relation", "Tanimoto"),
    "relatum.training.loop": ("fit",),
    "relatum.core.types": ("Batch", "Embeddings", "Features"),
}
_MODULES = {name: module for module, names in _HOMES.items() for name in names}

__all__ = sorted(_MODULES)


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'relatum' has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return __all__
