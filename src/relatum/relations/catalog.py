"""Relations by the names that recipes and the command line use."""

from collections.abc import Callable
from functools import partial

from relatum.core.plugins import Registry
from relatum.relations.base import Relation
from relatum.relations.cosine import Cosine
from relatum.relations.euclidean import Euclidean
from relatum.relations.jaccard import Jaccard
from relatum.relations.tanimoto import Tanimoto

__all__ = ["RELATIONS"]

_RELATIONS: dict[str, Callable[..., Relation]] = {
    "cosine": Cosine,
    "euclidean": Euclidean,
    "jaccard": partial(Jaccard, "clamped"),
    "jaccard-signed": partial(Jaccard, "signed"),
    "jaccard-softplus": partial(Jaccard, "softplus"),
    "tanimoto": Tanimoto,
}
RELATIONS: Registry[Callable[..., Relation]] = Registry("relation", _RELATIONS)
"""Every relation by its name. Its keywords are options of a recipe: `relation_eps`, `relation_sharpness`."""
