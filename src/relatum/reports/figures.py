"""Figures of Records, images and features, as PNG."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib
from jaxtyping import UInt8
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from relatum.core.types import Embeddings
from relatum.reports.records import Record

QUERIES = 10  # rows of the picture of neighbors
NEIGHBORS = 9  # images beside each query
LEAST_MAPPED = 10  # images that a t-SNE map needs at least
BESIDE_LOSSES = ("epoch", "seconds", "learning_rate")  # what else a history holds, measurements apart
LEGEND = 20  # classes that a legend can name


def curves(record: Record, path: Path) -> None:
    """The loss terms, and what was measured, epoch by epoch."""
    history = record.history
    names = list(dict.fromkeys(name for entry in history for name in entry if name not in BESIDE_LOSSES))
    measured = [name for name in names if name.startswith("validation") or name == "effective_rank"]
    losses = [name for name in names if name not in measured]
    figure = Figure(figsize=(10, 4), layout="constrained")
    for axes, title, chosen in zip(figure.subplots(1, 2), ("loss terms", "measurements"), (losses, measured)):
        for name in chosen:
            points = [(entry["epoch"], entry[name]) for entry in history if name in entry]
            axes.plot(*zip(*points), label=name, marker="." if len(points) < 30 else None)
        axes.set(title=title, xlabel="epoch")
        axes.grid(alpha=0.3)
        if chosen:
            axes.legend()
    figure.suptitle(f"{record.recipe['name']}, seed {record.seed}")
    figure.savefig(path, dpi=120)


def neighbors(
    images: Sequence[Sequence[UInt8[Tensor, "s s c"]]],
    labels: Sequence[Sequence[int]],
    classes: Sequence[str],
    path: Path,
) -> None:
    """A row for each query: the image, then those whose features are nearest to it, framed by their class.

    Args:
        images: rows of images, the query first.
        labels: the class of each; green frames share the query's.
        classes: names.
        path: where to write.
    """
    figure = Figure(figsize=(1.1 * len(images[0]), 1.1 * len(images)), layout="constrained")
    grid = figure.subplots(len(images), len(images[0]), squeeze=False)
    for row, pictures, marks in zip(grid, images, labels):
        for axes, picture, label in zip(row, pictures, marks):
            axes.imshow(picture.numpy().squeeze(), cmap="gray")
            axes.set(xticks=[], yticks=[])
            for spine in axes.spines.values():
                spine.set(color="tab:green" if label == marks[0] else "tab:red", linewidth=2)
        row[0].set_ylabel(classes[marks[0]][:12], fontsize=7)
        for spine in row[0].spines.values():
            spine.set(color="black", linewidth=2)
    figure.suptitle("queries (left) and their nearest neighbors; green: the same class", fontsize=9)
    figure.savefig(path, dpi=120)


def feature_map(points: Embeddings, classes: Sequence[str], path: Path) -> None:
    """A scatter plot of two-dimensional features, one color a class."""
    figure = Figure(figsize=(7, 6), layout="constrained")
    axes = figure.subplots()
    _scatter(axes, points, classes)
    axes.set_title("t-SNE of the test set's features")
    if len(classes) <= LEGEND:
        axes.legend(markerscale=2, fontsize=8)
    figure.savefig(path, dpi=120)


def stage_maps(points: Sequence[Embeddings], classes: Sequence[str], path: Path) -> None:
    """A row of scatter plots of two-dimensional features, one for each stage, one color a class.

    Args:
        points: a map of each stage, shallow to deep.
        classes: names.
        path: where to write.
    """
    figure = Figure(figsize=(4 * len(points), 4.3), layout="constrained")
    row = figure.subplots(1, len(points), squeeze=False)[0]
    for number, (axes, stage) in enumerate(zip(row, points), 1):
        _scatter(axes, stage, classes)
        axes.set_title(f"stage {number}")
    figure.suptitle("t-SNE of the test set's features at every stage, shallow to deep")
    if len(classes) <= LEGEND:
        row[-1].legend(markerscale=2, fontsize=8)
    figure.savefig(path, dpi=120)


def _scatter(axes: Axes, points: Embeddings, classes: Sequence[str]) -> None:
    colors = matplotlib.colormaps["tab10" if len(classes) <= 10 else "tab20" if len(classes) <= LEGEND else "hsv"]
    for label, name in enumerate(classes):
        x, y = points.features[points.labels == label].T.numpy()
        color = colors(label if len(classes) <= LEGEND else label / len(classes))
        axes.scatter(x, y, s=6, color=[color], label=name if len(classes) <= LEGEND else None)
    axes.set(xticks=[], yticks=[])
