"""Pictures of embeddings: what an encoder holds to be alike, and maps of its features."""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from jaxtyping import UInt8
from torch import Tensor

from relatum.core.types import Embeddings
from relatum.evaluation.retrieval import nearest
from relatum.evaluation.tsne import tsne
from relatum.reports import figures


def draw_neighbors(
    test: Embeddings, thumbnail: Callable[[int], UInt8[Tensor, "s s c"]], classes: Sequence[str], path: Path
) -> None:
    """A few images, evenly spread over the set, and the images whose features are nearest to each.

    Args:
        test: the embeddings of the images; of a single image nothing is drawn.
        thumbnail: the image of a number.
        classes: the name of each label.
        path: the PNG.
    """
    count = len(test.labels)
    shown = min(count - 1, figures.NEIGHBORS)
    if shown < 1:
        return
    queries = torch.linspace(0, count - 1, min(figures.QUERIES, count)).long()
    found = nearest(test.features[queries], test.features, shown + 1).indices[:, 1:]
    rows = torch.cat([queries[:, None], found], dim=1).tolist()
    figures.neighbors(
        [[thumbnail(i) for i in row] for row in rows],
        [[int(test.labels[i]) for i in row] for row in rows],
        classes,
        path,
    )


def draw_maps(test: Embeddings, stages: Sequence[Embeddings], classes: Sequence[str], folder: Path, seed: int) -> None:
    """tsne.png, and stages.png where there are `stages`: maps in which alike features lie close.

    Args:
        test: the embeddings of the images; of fewer than `figures.LEAST_MAPPED` nothing is drawn.
        stages: the features of each stage for the same images, shallow to deep; none for no picture of them.
        classes: the name of each label.
        folder: of the pictures.
        seed: of the maps.
    """
    count = len(test.labels)
    if count < figures.LEAST_MAPPED:
        return

    def mapped(features: Embeddings) -> Embeddings:
        return tsne(features, seed=seed, perplexity=min(30.0, (count - 1) / 3))

    figures.feature_map(mapped(test), classes, folder / "tsne.png")
    if stages:
        figures.stage_maps([mapped(stage) for stage in stages], classes, folder / "stages.png")
