"""The weighted k-nearest-neighbor classifier: what the features know without any training."""

from dataclasses import dataclass

import torch

from relatum.core.types import Embeddings
from relatum.evaluation.checks import count_classes, refuse_pair
from relatum.evaluation.classification import hit_rates, ranks
from relatum.evaluation.retrieval import nearest


@dataclass(frozen=True)
class KNN:
    """Each of the k nearest training images votes for its class with weight `exp(cos / T)`.

    Source: Wu et al. 2018, "Unsupervised Feature Learning via Non-Parametric Instance Discrimination", section 3.4;
    k = 200, T = 0.1 on L2-normalized backbone features of clean views as in MoCo's CIFAR demonstration.

    Attributes:
        k: neighbors that vote, at most the number of training images.
        temperature: T of the weights; none gives every neighbor the same weight.
    """

    k: int = 200
    temperature: float | None = 0.1

    def __post_init__(self) -> None:
        if self.k < 1:
            raise ValueError(f"k={self.k} neighbors; expected at least 1")
        if self.temperature is not None and not self.temperature > 0:
            raise ValueError(f"temperature={self.temperature}; expected > 0, or none for equal votes")

    def __str__(self) -> str:
        weights = "unweighted" if self.temperature is None else f"T={self.temperature:g}"
        return f"k-NN (k={self.k}, {weights}, cosine)"

    @torch.no_grad()
    def __call__(self, train: Embeddings, test: Embeddings) -> dict[str, float]:
        """`{"top1": ..., "top5": ...}` in percent; top-5 only with more than five classes.

        A class without a vote is never found, so that k below 5 gives no chance hits; a draw goes to the lower class.

        Raises:
            ValueError: for unlabeled, empty or non-finite embeddings, and if k exceeds the training images.
        """
        refuse_pair(train, test)
        similarities, indices = nearest(test.features, train.features, self.k)
        if self.temperature is None:
            weights = torch.ones_like(similarities)
        else:  # less the row's largest: the order of the classes stays, and no temperature overflows
            weights = ((similarities - similarities[:, :1]) / self.temperature).exp()
        classes = count_classes(train, test)
        votes = weights.new_zeros(len(weights), classes).scatter_add_(1, train.labels[indices], weights)
        return hit_rates(ranks(votes.masked_fill(votes == 0, -torch.inf), test.labels), classes)
