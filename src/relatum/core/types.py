"""The nouns that every module shares: what a method takes, and what a backbone gives."""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor


class Batch(NamedTuple):
    """What one training step sees. A triple is three views: one type serves both papers.

    Attributes:
        views: `v` tensors of normalized images. Two views of the same images for contrastive methods, or more with
            multi-crop, the large ones first; (anchor, positive, negative) for relational distillation; one view for
            classifiers.
        labels: the class of each image in each view, -1 where the data has no labels.
        index: the sample number of each image in each view, counted in the training set.
        small: how many of the views, the last ones, are small crops of multi-crop.
    """

    views: tuple[Float[Tensor, "n c _h _w"], ...]
    labels: Int[Tensor, "v n"]
    index: Int[Tensor, "v n"]  # type: ignore[assignment]  # tuple.index, which nobody calls on a batch
    small: int = 0

    @property
    def large(self) -> int:
        """How many of the views, the first ones, are no small crops."""
        return len(self.views) - self.small

    @staticmethod
    def unlabeled(*views: Float[Tensor, "n c _h _w"], small: int = 0) -> "Batch":
        """Views without classes, their images numbered from 0: enough for methods that need no labels.

        Args:
            views: of the same images, small crops last.
            small: how many are small crops.
        """
        shape = (len(views), len(views[0]))
        device = views[0].device
        classes = torch.full(shape, -1, device=device)
        return Batch(views, classes, torch.arange(shape[1], device=device).expand(shape), small)


class Features(NamedTuple):
    """What a backbone says of a batch of images.

    Attributes:
        stages: the output of every stage, shallow to deep; channels and size differ from stage to stage.
        embedding: the pooled features that feed the classifier: what the user keeps.
        logits: the classifier's output, or None for a backbone without classes.
    """

    stages: tuple[Float[Tensor, "n _c _h _w"], ...]
    embedding: Float[Tensor, "n d"]
    logits: Float[Tensor, "n k"] | None


class Embeddings(NamedTuple):
    """A set of images as an evaluator sees it: features and classes, nothing else."""

    features: Float[Tensor, "n d"]
    labels: Int[Tensor, " n"]
