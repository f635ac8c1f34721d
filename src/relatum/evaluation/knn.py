"""The weighted k-nearest-neighbor classifier: what the features know without any training."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import isfinite
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from relatum.core.types import Embeddings
from relatum.evaluation.checks import count_classes, refuse_pair
from relatum.evaluation.classification import classes_before, hit_rates
from relatum.evaluation.evaluator import Evaluator, Labels, Measured, Subject
from relatum.evaluation.retrieval import nearest

LEAST_TEMPERATURE = 1e-6  # single precision cannot tell a smaller one from 0


@dataclass(frozen=True)
class KNN(Evaluator):
    """Each of the k nearest training images votes for its class with weight `exp(cos / T)`.

    Source: Wu et al. 2018, "Unsupervised Feature Learning via Non-Parametric Instance Discrimination", section 3.4;
    k = 200, T = 0.1 on L2-normalized backbone features of clean views as in MoCo's CIFAR demonstration.

    Attributes:
        k: neighbors that vote. Measured after training, it is lowered to the number of training images, and said.
        temperature: T of the weights; none gives every neighbor the same weight.
    """

    k: int = 200
    temperature: float | None = 0.1

    columns: ClassVar[Mapping[str, str]] = {"top1": "k-NN"}

    def __post_init__(self) -> None:
        if self.k < 1:
            raise ValueError(f"k={self.k} neighbors; expected at least 1")
        usable = self.temperature is None or (isfinite(self.temperature) and self.temperature >= LEAST_TEMPERATURE)
        if not usable:
            raise ValueError(
                f"temperature={self.temperature}; expected a finite number > 0, at least {LEAST_TEMPERATURE:g}, "
                "or none for equal votes"
            )

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
        return hit_rates(self.classes_before(train, test), count_classes(train, test))

    @torch.no_grad()
    def classes_before(self, train: Embeddings, test: Embeddings) -> Int[Tensor, " n"]:
        """How many classes have more votes than the true one, for each test image: 0 is a hit. Raises: as the call."""
        refuse_pair(train, test)
        votes = self.votes(train, test.features, count_classes(train, test))
        return classes_before(votes.masked_fill(votes == 0, -torch.inf), test.labels)

    @torch.no_grad()
    def votes(self, train: Embeddings, queries: Float[Tensor, "n d"], classes: int) -> Float[Tensor, "n {classes}"]:
        """The weight that each class has among the neighbors of each query, up to a factor of the query's own.

        Args:
            train: labeled embeddings, at least k.
            queries: features.
            classes: their number.

        Raises:
            ValueError: for empty or non-finite features, and if k exceeds the training images.
        """
        similarities, indices = nearest(queries, train.features, self.k)
        if self.temperature is None:
            weights = torch.ones_like(similarities)
        else:  # less the row's largest: the order of the classes stays, and no temperature overflows
            weights = ((similarities - similarities[:, :1]) / self.temperature).exp()
        return weights.new_zeros(len(weights), classes).scatter_add_(1, train.labels[indices], weights)

    def measure(self, subject: Subject) -> Measured:
        """The classifier on backbone features."""
        train, test = subject.train["embedding"], subject.test["embedding"]
        before = self.classes_before(train, test)
        protocol = f"{self}; backbone features, clean views, {subject.sets}, last epoch"
        return Measured(hit_rates(before, count_classes(train, test)), protocol, before == 0)

    def fitted(self, labels: Labels) -> tuple[Evaluator | None, str]:
        """With k lowered to the number of training images where they are fewer."""
        fitting, why = super().fitted(labels)
        if fitting is None or self.k <= len(labels.train):
            return fitting, why
        n = len(labels.train)
        return replace(self, k=n), f"k={self.k} neighbors were asked for, and {n} training images give k={n}"
