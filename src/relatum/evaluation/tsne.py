"""A map of the features in the plane, for people who look before they read."""

import torch
import torch.nn.functional as F

from relatum.core.types import Embeddings
from relatum.evaluation.checks import refuse_features


@torch.no_grad()
def tsne(embeddings: Embeddings, *, max_samples: int = 2000, seed: int = 0, perplexity: float = 30.0) -> Embeddings:
    """t-SNE of the L2-normalized features, from their principal components: points in the plane with their labels.

    Source: van der Maaten & Hinton 2008, as scikit-learn computes it.

    Args:
        embeddings: features of at least two dimensions; labels may be -1, they are only carried along.
        max_samples: a random part of this size is mapped where there are more.
        seed: what that part depends on.
        perplexity: effective number of neighbors, below the number of points.

    Returns:
        Points "n 2" and their labels.

    Raises:
        ValueError: for empty or non-finite features, features of one dimension, or too few points.
    """
    from sklearn.manifold import TSNE  # a second of import that k-NN need not pay

    refuse_features(embeddings.features, "embeddings")
    order = torch.randperm(len(embeddings.labels), generator=torch.Generator().manual_seed(seed))
    chosen = order[:max_samples].sort().values
    features = F.normalize(embeddings.features.cpu()[chosen].float())
    n, d = features.shape
    if not 0 < perplexity < n:
        raise ValueError(
            f"perplexity={perplexity} for {n} points; expected 0 < perplexity < {n}: lower it, or map more images"
        )
    if d < 2:
        raise ValueError("t-SNE of 1-dimensional features; expected at least 2 dimensions: plot them as they are")
    collapsed = bool((features == features[0]).all())  # no principal component to start from
    start = "random" if collapsed else "pca"
    points = TSNE(perplexity=perplexity, init=start, random_state=seed).fit_transform(features.numpy())
    return Embeddings(torch.from_numpy(points).float(), embeddings.labels.cpu()[chosen])
