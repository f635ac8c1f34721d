"""Pictures of a trained encoder: what it holds to be alike, before and after training, and maps of its features."""

import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from relatum.core.types import Embeddings
from relatum.data.images import Images, first
from relatum.data.loading import evaluation_batches
from relatum.data.views import EvaluationView
from relatum.evaluation.extract import extract
from relatum.evaluation.retrieval import nearest
from relatum.evaluation.tsne import tsne
from relatum.measurement.measurer import Measurements, Measurer, evaluating
from relatum.networks.backbones import Backbone
from relatum.networks.transformers import NoAttentionError
from relatum.reports import attention, figures, tiles
from relatum.reports.tiles import Column, Tile

log = logging.getLogger(__name__)

ATTENDED = 6  # images of the picture of attention
QUERIES = 10  # rows of the picture of neighbors
NEIGHBORS = 6  # images beside each query, before and after
BANK = 3_000  # training images that neighbors are looked for in
MAPPED = 1_000  # images of a map
PART = 0  # the seed of the part that is shown: the same for all runs


class Space(NamedTuple):
    """An encoder's view of the images.

    Attributes:
        name: of the encoder.
        said: what was measured of it, in words.
        shown: the features of the images that are looked at.
        bank: those of the images that neighbors are looked for in.
    """

    name: str
    said: str
    shown: Embeddings
    bank: Embeddings


def draw(folder: Path, measurer: Measurer, backbone: Backbone, found: Measurements, *, name: str, seed: int) -> None:
    """neighbors.png, tsne.png, stages.png where stages were measured, and attention.png where there is attention.

    The images are those of the test set, or held-out ones, or those of training where there are no others. One process
    draws alone: nothing here waits for the others.

    Args:
        folder: of the pictures.
        measurer: of the run.
        backbone: trained.
        found: what was measured of it.
        name: of the run, for the titles.
        seed: of the maps.
    """
    bank = _some(measurer.train, BANK)
    images, own = measurer.test, None
    if images is None:
        images, own = measurer.train, torch.linspace(0, len(bank) - 1, min(MAPPED, len(bank))).long()
    kind = "training" if own is not None else "held-out" if measurer.source.test is None else "test"
    shown = _some(images, MAPPED) if own is None else bank.subset(own)
    if len(shown) < 2:
        return
    spaces = _spaces(measurer, backbone, found, shown, bank)
    classes = measurer.source.classes
    draw_neighbors(spaces, shown, bank, classes, folder / "neighbors.png", name=name, kind=kind, own=own)
    draw_attention(measurer, backbone, shown, folder / "attention.png", name=name, kind=kind)
    if len(shown) >= figures.LEAST_MAPPED:
        maps = [figures.Map(f"{s.name}: {s.said}" if s.said else s.name, _mapped(s.shown, seed)) for s in spaces]
        part = f"{len(images):,}" if len(shown) == len(images) else f"{len(shown):,} of {len(images):,}"
        title = f"{name}: t-SNE of the features of {part} {kind} images"
        pictures = [pixels_of(shown, i) for i in range(len(shown))]
        figures.feature_maps(maps, pictures, classes, folder / "tsne.png", title=title)
        if found.stages:
            figures.stage_maps([_mapped(stage, seed) for stage in found.stages], classes, folder / "stages.png")


def draw_neighbors(
    spaces: Sequence[Space],
    shown: Images,
    bank: Images,
    classes: Sequence[str],
    path: Path,
    *,
    name: str,
    kind: str,
    own: Int[Tensor, " n"] | None = None,
) -> None:
    """A few of the images, and those of the bank that are nearest to each by the cosine, in every space.

    Args:
        spaces: encoders, in the order in which they are shown.
        shown: images; the first of each class are the queries, or evenly spread ones where there are no classes.
        bank: what is searched.
        classes: the name of each class.
        path: the PNG.
        name: of the run.
        kind: what `shown` are.
        own: where each of `shown` stands in the bank, if they are a part of it: no image is its own neighbor.
    """
    queries = queries_of(shown.labels)
    itself = {} if own is None else dict(enumerate(own.tolist()))
    count = min(NEIGHBORS, len(bank) - bool(itself))
    if count < 1:
        return
    columns = []
    for space in spaces:
        near = nearest(space.shown.features[queries], space.bank.features, count + bool(itself))
        rows = []
        for query, alike, found in zip(queries.tolist(), near.similarities.tolist(), near.indices.tolist()):
            pairs = [(i, cosine) for i, cosine in zip(found, alike) if i != itself.get(query)][:count]
            label = int(shown.labels[query])
            rows.append([_neighbor(bank, i, cosine, label, classes) for i, cosine in pairs])
        columns.append(Column(space.name, space.said, rows))
    asked = [Tile(pixels_of(shown, i).numpy(), _name(shown, i, classes)) for i in queries.tolist()]
    chosen = "the first of each class" if int(shown.labels.max()) >= 0 else "evenly spread"
    note = f"queries: {kind} images, {chosen}; below each neighbor its name and 1 - cosine"
    if int(bank.labels.max()) >= 0:
        note += "; green: the query's class, red: another"
    title = f"{name}: nearest of {len(bank):,} training images"
    tiles.neighbors(asked, columns, path, title=title, note=note)


def draw_attention(measurer: Measurer, backbone: Backbone, shown: Images, path: Path, *, name: str, kind: str) -> None:
    """What the class token of a vision transformer looks at in its last block, head by head, in a few of the images.

    After Caron et al. 2021 ("Emerging Properties in Self-Supervised Vision Transformers"), Figure 1. Networks without
    such attention have no such picture, which the log says.

    Args:
        measurer: of the run.
        backbone: trained.
        shown: images; the first of some classes are drawn, or evenly spread ones where there are no classes.
        path: the PNG.
        name: of the run.
        kind: what `shown` are.
    """
    chosen = queries_of(shown.labels)[:ATTENDED]
    try:
        with evaluating(backbone):
            maps = [backbone.attention(views).cpu() for views, _ in _views(measurer, shown.subset(chosen))]
    except NoAttentionError as error:
        log.info("%s is left out: %s", path.name, error)
        return
    seen = [measurer.thumbnail(shown, i) for i in chosen.tolist()]
    title = f"{name}: what the class token looks at"
    note = f"{kind} images; attention of the last block, each map from its least (dark) to its largest weight (light)"
    attention.attention_maps(seen, torch.cat(maps), path, title=title, note=note)


def queries_of(labels: Int[Tensor, " n"]) -> Int[Tensor, " m"]:
    """The first image of each class, then the second, until there are enough; classes are spread where many.

    Args:
        labels: of the images, -1 for none.

    Returns:
        numbers of different images.
    """
    count = min(QUERIES, len(labels))
    found = labels.unique()
    found = found[found >= 0]
    if not len(found):
        return torch.linspace(0, len(labels) - 1, count).long()
    chosen = found[torch.linspace(0, len(found) - 1, min(count, len(found))).long()]
    members = [(labels == label).nonzero().flatten().tolist() for label in chosen]
    turns = [[own[turn] for own in members if turn < len(own)] for turn in range(max(map(len, members)))]
    order = sorted([i for turn in turns for i in turn][:count], key=lambda i: (int(labels[i]), i))
    return torch.tensor(order)


def pixels_of(images: Images, i: int) -> UInt8[Tensor, "_h _w _c"]:
    """Image number `i` in its own resolution, as people look at it."""
    return images.read(i).permute(1, 2, 0).contiguous().cpu()


def _spaces(measurer: Measurer, backbone: Backbone, found: Measurements, shown: Images, bank: Images) -> list[Space]:
    encoders = [("after training", "knn_top1", backbone)]
    if measurer.untrained is not None:
        encoders.insert(0, ("before training", "untrained_knn_top1", measurer.untrained().to(measurer.device)))
    spaces = []
    for name, metric, encoder in encoders:
        said = f"k-NN {found.metrics[metric]:.1f} % of {measurer.against}" if metric in found.metrics else ""
        with evaluating(encoder):
            features = [_embedded(measurer, encoder.embed, images) for images in (shown, bank)]
        spaces.append(Space(name, said, *features))
    return spaces


def _embedded(measurer: Measurer, encode: Callable[[Tensor], Float[Tensor, "n d"]], images: Images) -> Embeddings:
    with measurer.precision():
        return extract(encode, _views(measurer, images))


def _views(measurer: Measurer, images: Images) -> Iterator[tuple[Float[Tensor, "n c s s"], Int[Tensor, " n"]]]:
    return evaluation_batches(
        images,
        EvaluationView(size=measurer.view.size),
        mean=measurer.source.mean,
        std=measurer.source.std,
        batch_size=measurer.batch_size,
        device=measurer.device,
        workers=measurer.workers,
    )


def _some(images: Images, most: int) -> Images:
    return images if len(images) <= most else first(images, most, seed=PART)


def _mapped(features: Embeddings, seed: int) -> Embeddings:
    return tsne(features, seed=seed, perplexity=min(30.0, (len(features.labels) - 1) / 3))


def _neighbor(bank: Images, i: int, cosine: float, query: int, classes: Sequence[str]) -> Tile:
    label = int(bank.labels[i])
    same = None if min(label, query) < 0 else label == query
    return Tile(pixels_of(bank, i).numpy(), f"{_name(bank, i, classes)} · {max(0.0, 1 - cosine):.4f}", same)


def _name(images: Images, i: int, classes: Sequence[str]) -> str:
    label = int(images.labels[i])
    return classes[label] if label >= 0 else Path(images.names[i]).name
