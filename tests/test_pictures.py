"""Pictures of a run: what is drawn, of which images, and what stands beside it."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from relatum.core.types import Embeddings
from relatum.data import sources
from relatum.measurement.measurer import Measurements
from relatum.recipes.building import Prepared, build, measurer_of, prepare
from relatum.reports import figures, pictures, tiles
from relatum.reports.records import Record
from relatum.reports.tiles import Column, Tile
from test_training import TINY, changed

CPU = torch.device("cpu")


class Seen(list):
    """Takes the place of a function that draws, and keeps what it is given."""

    def __call__(self, *args, **named):
        self.append((args, named))


@pytest.fixture
def drawn(monkeypatch) -> dict[str, Seen]:
    found = {name: Seen() for name in ("neighbors", "feature_maps", "stage_maps")}
    monkeypatch.setattr(tiles, "neighbors", found["neighbors"])
    for name in ("feature_maps", "stage_maps"):
        monkeypatch.setattr(figures, name, found[name])
    return found


def draw(prepared: Prepared, metrics: dict[str, float] | None = None, **more) -> None:
    method = build(TINY, prepared)
    found = Measurements(metrics or {}, {}, {}, {}, (), **more)
    pictures.draw(Path("x"), measurer_of(TINY, prepared, CPU), method.backbone, found, name="tiny", seed=0)


def test_neighbors_before_and_after_in_the_training_set(drawn):
    prepared = prepare(TINY)
    draw(prepared, {"knn_top1": 61.04, "untrained_knn_top1": 31.2})
    ((queries, columns, path), named) = drawn["neighbors"][0]
    assert path == Path("x/neighbors.png")
    assert [tile.caption for tile in queries] == list("0123456789"), "one of each class"
    assert [(c.title, c.subtitle) for c in columns] == [
        ("before training", "k-NN 31.2 % of 500 test images"),
        ("after training", "k-NN 61.0 % of 500 test images"),
    ]
    assert named["title"] == "tiny: nearest of 128 training images"
    assert "queries: test images, the first of each class" in named["note"]
    test, train = prepared.source.test, prepared.train
    first = [int((test.labels == c).nonzero()[0]) for c in range(10)]
    assert all(np.array_equal(t.pixels, test.images[i].permute(1, 2, 0).numpy()) for t, i in zip(queries, first))
    known = {train.images[i].numpy().tobytes(): i for i in range(len(train))}
    for row, c in zip(columns[1].rows, range(10)):
        found = [known[tile.pixels.transpose(2, 0, 1).tobytes()] for tile in row]
        assert len(set(found)) == pictures.NEIGHBORS
        for tile, i in zip(row, found):
            assert tile.same == (int(train.labels[i]) == c)
            assert tile.caption.split(" · ")[0] == str(int(train.labels[i]))
        distances = [float(tile.caption.split(" · ")[1]) for tile in row]
        assert distances == sorted(distances)


def test_maps_name_the_part_that_is_shown(drawn, monkeypatch):
    monkeypatch.setattr(pictures, "MAPPED", 60)
    draw(prepare(TINY), {"knn_top1": 61.04})
    ((maps, thumbnails, classes, path), named) = drawn["feature_maps"][0]
    assert (path, named["title"]) == (Path("x/tsne.png"), "tiny: t-SNE of the features of 60 of 500 test images")
    assert [one.title for one in maps] == ["before training", "after training: k-NN 61.0 % of 500 test images"]
    assert [len(one.points.labels) for one in maps] == [60, 60]
    assert (len(thumbnails), len(classes)) == (60, 10)
    assert not drawn["stage_maps"]


def test_stages_have_maps_where_they_were_measured(drawn):
    features = Embeddings(torch.randn(20, 4, generator=torch.Generator().manual_seed(0)), torch.arange(20) % 10)
    draw(prepare(TINY), stages=[features, features])
    ((points, _, path), _) = drawn["stage_maps"][0]
    assert (len(points), path) == (2, Path("x/stages.png"))


def test_images_without_labels_have_pictures_too(drawn):
    """Of the training images, where there are no others: none is its own neighbor."""
    images = torch.randint(0, 256, (30, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    source = sources.from_tensors(images)
    draw(Prepared(source, source.train, None))
    ((queries, columns, _), named) = drawn["neighbors"][0]
    assert len(queries) == pictures.QUERIES
    assert len({tile.pixels.tobytes() for tile in queries}) == pictures.QUERIES, "different images"
    for column in columns:
        assert column.subtitle == ""
        for query, row in zip(queries, column.rows):
            assert len(row) == pictures.NEIGHBORS
            assert all(tile.same is None for tile in row)
            assert query.pixels.tobytes() not in {tile.pixels.tobytes() for tile in row}
    assert named["note"].startswith("queries: training images, evenly spread")
    assert drawn["feature_maps"][0][1]["title"] == "tiny: t-SNE of the features of 30 training images"


def test_held_out_images_are_called_so(drawn):
    prepared = prepare(changed(TINY, data={"validation": 0.2}))
    draw(prepared._replace(source=dataclasses.replace(prepared.source, test=None)))
    assert drawn["feature_maps"][0][1]["title"] == "tiny: t-SNE of the features of 32 held-out images"


def test_queries_are_distinct_and_of_all_classes():
    labels = torch.tensor([2, 2, 2, 0, 1, 1, 2, 2, 2, 2, 2, 2, 2])
    assert pictures.queries_of(labels).tolist() == [3, 4, 5, 0, 1, 2, 6, 7, 8, 9]
    many = torch.arange(100).repeat(2)
    found = pictures.queries_of(many)
    assert found.tolist() == sorted(set(found.tolist()))
    assert (len(found), int(found.max())) == (10, 99)
    assert pictures.queries_of(torch.full((4,), -1)).tolist() == [0, 1, 2, 3]


def test_tiles_show_every_pixel(tmp_path):
    """Small images are enlarged by a whole factor, so that each of their pixels is a square of one color."""
    random = np.random.RandomState(0)
    pixels = random.randint(0, 2, (16, 16, 1)).astype(np.uint8) * 255
    row = [Tile(pixels, "a · 0.0100", True), Tile(pixels, "b · 0.0200", False)]
    tiles.neighbors([Tile(pixels, "a")], [Column("before", "", [row])], tmp_path / "n.png", title="t", note="n")
    with Image.open(tmp_path / "n.png") as written:
        gray, color = np.asarray(written.convert("L")), np.asarray(written.convert("RGB"))
    factor = tiles.TILE * tiles.SCALE // 16
    large = pixels[:, :, 0].repeat(factor, 0).repeat(factor, 1)
    windows = np.lib.stride_tricks.sliding_window_view(gray, large.shape)
    corners = np.argwhere((windows[:, :, 0, 0] == large[0, 0]) & (windows[:, :, -1, -1] == large[-1, -1]))
    assert sum(np.array_equal(windows[y, x], large) for y, x in corners) == 3
    assert {tiles.SAME, tiles.OTHER, tiles.INK} <= {tuple(c) for c in color.reshape(-1, 3).tolist()}


def test_large_images_keep_their_proportions():
    assert tiles.enlarged(np.zeros((300, 600, 3), np.uint8), 100).size == (100, 50)
    assert tiles.enlarged(np.zeros((30, 20, 3), np.uint8), 100).size == (60, 90)


def record(**more) -> Record:
    history = [
        {"epoch": e, "seconds": 1.0, "learning_rate": 0.1, "cosine": 3.0 / e}
        | ({"validation_knn_top1": 40.0 + e, "validation_knn_top5": 80.0 + e} if e % 2 == 0 else {})
        for e in (1, 2, 3, 4)
    ]
    return Record({"name": "a"}, 0, {}, "", {}, {}, history=history, **more)


@pytest.fixture
def shown(monkeypatch):
    """The axes of the next figure that is saved, by their titles."""
    found: dict[str, object] = {}

    def keep(figure, path, dpi):
        figure.canvas.draw()
        found.update({axes.get_title(): axes for axes in figure.axes})

    monkeypatch.setattr(figures.Figure, "savefig", keep)
    return found


def test_curves_have_whole_epochs_and_baselines_as_lines(shown, tmp_path):
    figures.curves(record(metrics={"pixels_knn_top1": 47.2, "untrained_knn_top1": 31.0}), tmp_path / "c.png")
    assert list(shown) == ["loss (4 points)", "top-1, in percent (2 points)", "top-5, in percent (2 points)"]
    for axes in shown.values():
        assert all(tick == round(tick) for tick in axes.get_xticks())
        assert {line.get_marker() for line in axes.lines if len(line.get_xdata()) > 2} <= {"o"}
    (top1,) = (axes for title, axes in shown.items() if title.startswith("top-1"))
    assert list(top1.lines[0].get_xdata()) == [2, 4]
    assert list(top1.lines[0].get_ydata()) == [42.0, 44.0]
    assert [line.get_ydata()[0] for line in top1.lines[1:]] == [47.2, 31.0]
    labels = [text.get_text() for text in top1.get_legend().get_texts()]
    assert labels[1:] == ["k-NN on pixels (test): 47.2", "k-NN, untrained encoder (test): 31.0"]


def test_curves_of_a_long_run_have_no_markers(shown, tmp_path):
    long = record()
    long = dataclasses.replace(long, history=[{"epoch": e, "cosine": 1.0 / e} for e in range(1, 40)])
    figures.curves(long, tmp_path / "c.png")
    (axes,) = shown.values()
    assert axes.get_title() == "loss"
    assert axes.lines[0].get_marker() == "None"


def test_a_class_is_named_where_its_images_are_together(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(40) % 2
    apart = torch.randn(40, 2, generator=generator) + 20 * labels[:, None]
    mixed = torch.randn(40, 2, generator=generator)
    mixed[labels == 1] = mixed[labels == 0]  # every place belongs to both
    images = [torch.zeros(8, 8, 1, dtype=torch.uint8)] * 40
    found = []
    monkeypatch.setattr(figures.Figure, "savefig", lambda figure, path, dpi: found.append(figure))
    maps = [figures.Map("apart", Embeddings(apart, labels)), figures.Map("mixed", Embeddings(mixed, labels % 2))]
    figures.feature_maps(maps, images, ("cat", "dog"), Path("x.png"), title="t")
    assert [text.get_text() for text in found[0].axes[0].texts] == ["cat", "dog"]
    squares = [np.array(image.get_extent()) for image in found[0].axes[0].images]
    assert 2 <= len(squares) <= figures.THUMBNAILS
    middles = np.array([[(a + b) / 2, (c + d) / 2] for a, b, c, d in squares])
    gaps = np.abs(middles[:, None] - middles[None]).max(2) + np.eye(len(middles))
    assert gaps.min() >= figures.APART


@pytest.mark.parametrize("classes", [0, 3, 15, 40])
def test_maps_are_written(tmp_path, classes):
    labels = torch.arange(80) % classes if classes else torch.full((80,), -1)
    points = Embeddings(torch.randn(80, 2, generator=torch.Generator().manual_seed(0)), labels)
    images = [torch.full((8, 12, 3), i, dtype=torch.uint8) for i in range(80)]
    figures.feature_maps([figures.Map("m", points)], images, [str(c) for c in range(classes)], tmp_path / "m.png")
    with Image.open(tmp_path / "m.png") as written:
        assert written.size == (880, 946)
