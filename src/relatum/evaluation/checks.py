"""What no evaluator can use, refused before the work begins."""

import torch
from torch import Tensor

from relatum.core.precision import at_least_float32
from relatum.core.types import Embeddings


def refuse_features(features: Tensor, name: str) -> None:
    """Raise unless `features` is a matrix of finite numbers with at least one row."""
    if features.ndim != 2 or features.shape[0] == 0:
        raise ValueError(
            f"{name} has features of shape {tuple(features.shape)}; expected (n, d) with n >= 1: "
            "give it at least one image, and pool feature maps to vectors"
        )
    bad = int((~at_least_float32(features).sum(1).isfinite()).sum())  # one pass: a sum keeps NaN and infinity
    if bad:
        raise ValueError(
            f"{name}: {bad} of {len(features)} feature vectors hold NaN or infinity; expected finite numbers: "
            "the encoder has diverged, evaluate an earlier checkpoint"
        )


def refuse_embeddings(embeddings: Embeddings, name: str) -> None:
    """Raise unless every image of `embeddings` has finite features and a class."""
    features, labels = embeddings
    refuse_features(features, name)
    if len(labels) != len(features):
        raise ValueError(f"{name} has {len(features)} feature vectors but {len(labels)} labels; expected one each")
    unlabeled = int((labels < 0).sum())
    if unlabeled:
        raise ValueError(
            f"{name}: {unlabeled} of {len(labels)} images have no label (-1); expected classes from 0: "
            "evaluate on labeled images, or use the measures without labels (uniformity, effective_rank, tsne)"
        )


def refuse_pair(train: Embeddings, test: Embeddings) -> None:
    """Raise unless `train` and `test` are labeled and of one width."""
    refuse_embeddings(train, "train")
    refuse_embeddings(test, "test")
    if train.features.shape[1] != test.features.shape[1]:
        raise ValueError(
            f"train features have {train.features.shape[1]} dimensions and test features "
            f"{test.features.shape[1]}; expected the same: embed both with one encoder"
        )


def count_classes(train: Embeddings, test: Embeddings) -> int:
    """One more than the largest label of both sets: a class that only `test` holds counts, and is never hit."""
    return int(torch.maximum(train.labels.max(), test.labels.max())) + 1
