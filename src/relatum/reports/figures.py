"""Figures of Records and of features, as PNG."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import matplotlib
import matplotlib.patheffects as effects
import numpy as np
import torch
from jaxtyping import Float, UInt8
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from relatum.core.types import Embeddings
from relatum.reports.records import BESIDE_LOSSES, Record, is_measurement

LEAST_MAPPED = 10  # images that a t-SNE map needs at least
BASELINES = {"pixels_knn_top1": "k-NN on pixels", "untrained_knn_top1": "k-NN, untrained encoder"}
LEGEND = 20  # classes that a legend can name
FEW = 10  # points that are too few for a curve
THUMBNAILS = 70  # on a map at most
SIDE, APART = 0.045, 0.06  # of the map's width: a thumbnail, and two of them from middle to middle
NAMED = 12  # of the map's nearest points around a class's middle, half must be of the class for it to be named there


def curves(record: Record, path: Path) -> None:
    """The loss terms, and what was measured, epoch by epoch; with the numbers that training has to beat as lines."""
    history = record.history
    names = list(dict.fromkeys(name for entry in history for name in entry if name not in BESIDE_LOSSES))
    panels = {
        "loss": [name for name in names if _panel_of(name) == "loss"],
        "top-1, in percent": [name for name in names if _panel_of(name) == "top1"],
        "top-5, in percent": [name for name in names if _panel_of(name) == "top5"],
        "other measurements": [name for name in names if _panel_of(name) == "other"],
    }
    shown = {title: chosen for title, chosen in panels.items() if chosen}
    figure = Figure(figsize=(max(5.6 * len(shown), 5.6), 4.4), layout="constrained")
    for axes, (title, chosen) in zip(figure.subplots(1, max(len(shown), 1), squeeze=False)[0], shown.items()):
        longest = 0
        for name in chosen:
            points = [(entry["epoch"], entry[name]) for entry in history if name in entry]
            longest = max(longest, len(points))
            few = len(points) < FEW
            axes.plot(*zip(*points), label=name.replace("_", " "), marker="o" if few else None, lw=1 if few else 1.8)
        if title.startswith("top-1"):
            _baselines(axes, record.metrics)
        counted = f" ({longest} point{'s' * (longest > 1)})" if longest < FEW else ""
        axes.set(title=title + counted, xlabel="epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(fontsize=8, framealpha=0.9, edgecolor="none")
    figure.suptitle(f"{record.recipe['name']}, seed {record.seed}")
    figure.savefig(path, dpi=120)


def _panel_of(name: str) -> str:
    if not is_measurement(name):
        return "loss"
    return next((panel for panel in ("top1", "top5") if name.endswith(panel)), "other")


def _baselines(axes: Axes, metrics: Mapping[str, float]) -> None:
    """What is known without training, as lines; they are measured on the test set, and say so."""
    for (name, text), style in zip(BASELINES.items(), ((0, (4, 3)), (0, (1, 2)))):
        if name in metrics:
            axes.axhline(metrics[name], color="0.35", ls=style, lw=1.3, label=f"{text} (test): {metrics[name]:.1f}")


class Map(NamedTuple):
    """A map of images.

    Attributes:
        title: the space.
        points: places in the plane, and classes, -1 for none.
    """

    title: str
    points: Embeddings


def feature_maps(
    maps: Sequence[Map],
    thumbnails: Sequence[UInt8[Tensor, "_h _w _c"]],
    classes: Sequence[str],
    path: Path,
    *,
    title: str = "",
) -> None:
    """Maps of the same images side by side, one color a class, with some of the images where they lie.

    A class is named at its middle where its images are together there. Each axis is stretched to fill the square:
    the lengths of a t-SNE map mean nothing, only what is near what.

    Args:
        maps: places of the same images in each space.
        thumbnails: the images.
        classes: names; none for images without classes.
        path: the PNG.
        title: of the picture.
    """
    figure = Figure(figsize=(8 * len(maps), 8.6), layout="constrained")
    for axes, one in zip(figure.subplots(1, len(maps), squeeze=False)[0], maps):
        points = one.points._replace(features=_in_unit_square(one.points.features))
        _scatter(axes, points, classes, size=26)
        axes.set_title(one.title, fontsize=13, loc="left")
        axes.set_aspect("equal")
        for spine in axes.spines.values():
            spine.set_color("0.85")
        _thumbnails(axes, points, thumbnails, classes)
        _names(axes, points, classes)
    if 0 < len(classes) <= LEGEND:
        handles, names = figure.axes[0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside lower center", ncols=10, markerscale=2, fontsize=10, frameon=False)
    figure.suptitle(title, fontsize=15, x=0.012, ha="left", weight="bold")
    figure.savefig(path, dpi=110)


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


def _color(label: int, classes: Sequence[str]) -> tuple[float, ...]:
    if label < 0:
        return (0.45, 0.5, 0.6, 1.0)
    colors = matplotlib.colormaps["tab10" if len(classes) <= 10 else "tab20" if len(classes) <= LEGEND else "hsv"]
    return colors(label if len(classes) <= LEGEND else label / len(classes))


def _scatter(axes: Axes, points: Embeddings, classes: Sequence[str], size: float = 6) -> None:
    for label in range(-1 if bool((points.labels < 0).any()) else 0, len(classes)):
        x, y = points.features[points.labels == label].T.numpy()
        name = classes[label] if label >= 0 and len(classes) <= LEGEND else None
        axes.scatter(x, y, s=size, color=[_color(label, classes)], label=name, linewidths=0)
    axes.set(xticks=[], yticks=[])


def _thumbnails(
    axes: Axes, points: Embeddings, images: Sequence[UInt8[Tensor, "_h _w _c"]], classes: Sequence[str]
) -> None:
    """Images at their places, those left out that would cover another."""
    places, taken = points.features.numpy(), np.empty((0, 2))
    for i in torch.randperm(len(places), generator=torch.Generator().manual_seed(0)).tolist():
        if len(taken) == THUMBNAILS or (len(taken) and np.abs(taken - places[i]).max(1).min() < APART):
            continue
        taken = np.concatenate([taken, places[i : i + 1]])
        h, w = images[i].shape[:2]
        dx, dy = SIDE / 2 * w / max(h, w), SIDE / 2 * h / max(h, w)
        x, y = places[i]
        small = max(h, w) <= 64
        axes.imshow(
            images[i].numpy().squeeze(),
            cmap="gray",
            vmin=0,
            vmax=255,
            extent=(x - dx, x + dx, y - dy, y + dy),
            interpolation="nearest" if small else "antialiased",
            zorder=3,
        )
        frame = _color(int(points.labels[i]), classes)
        axes.add_patch(Rectangle((x - dx, y - dy), 2 * dx, 2 * dy, fill=False, edgecolor=frame, lw=1.8, zorder=4))
    axes.set(xlim=(-SIDE, 1 + SIDE), ylim=(-SIDE, 1 + SIDE))


def _in_unit_square(points: Float[Tensor, "n 2"]) -> Float[Tensor, "n 2"]:
    low, high = points.amin(0), points.amax(0)
    return (points - low) / (high - low).clamp(min=1e-9)


def _names(axes: Axes, points: Embeddings, classes: Sequence[str]) -> None:
    near = min(NAMED, len(points.labels))
    for label, name in enumerate(classes):
        own = points.features[points.labels == label]
        if len(own) < 3:
            continue
        middle = own[torch.cdist(own, own).sum(1).argmin()]
        around = (points.features - middle).norm(dim=1).topk(near, largest=False).indices
        if (points.labels[around] == label).float().mean() >= 0.5:
            halo = [effects.withStroke(linewidth=4, foreground="white")]
            x, y = middle.tolist()
            axes.text(
                x,
                y,
                name[:24],
                color=_color(label, classes),
                fontsize=19 if len(name) < 3 else 12,
                weight="bold",
                ha="center",
                va="center",
                zorder=5,
                path_effects=halo,
            )
