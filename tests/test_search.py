"""What one does with an encoder: nearest images, duplicates, classes for a folder; on small generated images."""

import csv
import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from relatum import cli
from relatum.core.types import Embeddings
from relatum.data import sources
from relatum.evaluation.duplicates import groups_of, pairs_within
from relatum.evaluation.knn import KNN
from relatum.networks.export import load_encoder
from relatum.recipes.options import options
from relatum.recipes.recipe import Data, Model
from relatum.training import loop as training
from test_training import TINY


def call(monkeypatch, *args: object) -> None:
    monkeypatch.setattr("sys.argv", ["relatum", *map(str, args)])
    cli.main()


def refused(monkeypatch, capsys, *args: object) -> str:
    with pytest.raises(SystemExit) as stop:
        call(monkeypatch, *args)
    assert stop.value.code == 2
    return capsys.readouterr().err


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A run without labels, on scikit-learn's digits."""
    folder = tmp_path_factory.mktemp("search") / "run"
    training.fit(TINY, folder, quiet=True)
    return folder


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    """Twelve pictures of two sizes; copy.png shows the same as 3.png, and near.jpg nearly the same."""
    folder = tmp_path_factory.mktemp("photos")
    random = np.random.RandomState(0)
    for i in range(10):
        image = Image.new("RGB", (40, 30) if i % 2 else (30, 44), tuple(random.randint(0, 256, 3)))
        draw = ImageDraw.Draw(image)
        for _ in range(4):
            box = np.sort(random.randint(0, 30, (2, 2)), axis=0).ravel()
            draw.ellipse(tuple(box), fill=tuple(random.randint(0, 256, 3)))
        image.save(folder / f"{i}.png")
    copied = Image.open(folder / "3.png")
    copied.save(folder / "copy.png")
    copied.save(folder / "near.jpg", quality=95)
    return folder


def features_of(run: Path, folder: Path) -> tuple[list[str], torch.Tensor]:
    """Written out anew: what the encoder says of each file, on one image at a time."""
    backbone, info = load_encoder(run / "encoder.safetensors")
    backbone.eval()
    files = sorted(folder.iterdir())
    rows = []
    for file in files:
        image = Image.open(file).convert("RGB")
        scale = info.size / min(image.size)
        width, height = (round(side * scale) for side in image.size)
        resized = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float()
        resized = torch.nn.functional.interpolate(resized, (height, width), mode="bilinear", antialias=True)
        top, left = round((height - info.size) / 2), round((width - info.size) / 2)
        pixels = resized[..., top : top + info.size, left : left + info.size] / 255
        mean, std = (torch.tensor(v).view(3, 1, 1) for v in (info.mean, info.std))
        with torch.no_grad():
            rows.append(backbone.embed((pixels - mean) / std)[0])
    return [str(file) for file in files], torch.nn.functional.normalize(torch.stack(rows))


def listed(text: str) -> list[tuple[float, str]]:
    lines = [line.split(maxsplit=1) for line in text.splitlines() if line.startswith("  ")]
    return [(float(distance), name) for distance, name in lines]


def test_the_nearest_are_found_with_their_distances(monkeypatch, capsys, run, photos):
    call(monkeypatch, "search", run, "--query", photos / "3.png", "--in", photos, "--k", 11)
    printed = capsys.readouterr().out
    assert printed.splitlines()[0] == str(photos / "3.png")
    found = listed(printed)
    assert found[0] == (0.0, str(photos / "copy.png"))
    assert found[1][1] == str(photos / "near.jpg")
    assert len(found) == 11
    assert str(photos / "3.png") not in [name for _, name in found], "a query is no neighbor of itself"
    names, features = features_of(run, photos)
    own = dict(zip(names, (1 - features @ features[names.index(str(photos / "3.png"))]).tolist()))
    for distance, name in found:  # ours resizes 8-bit pixels, the test's exact ones
        assert distance == pytest.approx(own[name], abs=5e-3), name
    assert found == sorted(found)


def test_a_query_from_elsewhere_and_a_threshold(monkeypatch, capsys, run, photos, tmp_path):
    Image.open(photos / "3.png").save(tmp_path / "asked.png")
    words = ("search", run, "--query", tmp_path / "asked.png", "--in", photos)
    call(monkeypatch, *words, "--k", 2)
    assert {name for _, name in listed(capsys.readouterr().out)} == {str(photos / "3.png"), str(photos / "copy.png")}
    call(monkeypatch, *words, "--threshold", 1e-5)
    assert len(listed(capsys.readouterr().out)) == 2
    call(monkeypatch, *words, "--k", 99)
    printed = capsys.readouterr().out
    assert printed.startswith("12 images to search in, fewer than --k 99: all are listed.")
    assert len(listed(printed)) == 12


def test_several_queries_make_a_gallery(monkeypatch, capsys, run, photos, tmp_path):
    out = tmp_path / "gallery.html"
    call(monkeypatch, "search", run, "--query", photos / "[0-2].png", "--in", photos, "--k", 3, "--out", out)
    page = out.read_text(encoding="utf-8")
    assert page.count('class="row"') == 3
    assert page.count("data:image/jpeg;base64,") == 3 * (1 + 3)
    assert page.count('<figure class="query">') == 3
    assert "http" not in page.replace("http-equiv", "")
    for distance, name in listed(capsys.readouterr().out):
        shown = re.findall(rf"<figcaption>{re.escape(Path(name).name)}, ([0-9.]+)</figcaption>", page)
        assert min(abs(float(value) - distance) for value in shown) <= 0.000555, "rounded to three digits"


def test_duplicates(monkeypatch, capsys, run, photos, tmp_path):
    call(monkeypatch, "search", run, "--in", photos, "--threshold", 0, "--out", tmp_path / "same.html")
    printed = capsys.readouterr().out
    assert "12 images, 1 group within 0 of each other, 2 images in them" in printed
    assert f"  {photos / '3.png'}\n    0.0000  {photos / 'copy.png'}\n" in printed
    assert (tmp_path / "same.html").read_text().count("data:image/jpeg") == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "needs --in DIR, where to search"),
        (("--in", "PHOTOS"), "needs --query IMAGE, to find what is like it, or --threshold 0.05"),
        (("--in", "PHOTOS", "--query", "PHOTOS/0.png", "--k", "0"), "--k is 0; expected at least 1"),
        (("--in", "PHOTOS", "--threshold", "3"), "--threshold is 3; expected a distance between 0"),
        (("--in", "PHOTOS", "--query", "PHOTOS/none.png"), "none.png"),
        (("--in", "PHOTOS/none", "--query", "PHOTOS/0.png"), "no data set"),
        (("--in", "PHOTOS/0.png", "--query", "PHOTOS/0.png"), "is the query and the only image"),
        (("--in", "PHOTOS", "--query", "PHOTOS/0.png", "--out", "x.png"), "a gallery is written as .html"),
    ],
)
def test_what_search_refuses(monkeypatch, capsys, run, photos, words, message):
    assert message in refused(monkeypatch, capsys, "search", run, *(w.replace("PHOTOS", str(photos)) for w in words))


def test_a_run_without_labels_guesses_from_its_training_images(monkeypatch, capsys, run, tmp_path):
    digits = sources.load("digits")
    for i in range(20):
        pixels = digits.test.read(i).permute(1, 2, 0).numpy()
        (tmp_path / "in").mkdir(exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / "in" / f"{i:02}.png")
    call(monkeypatch, "predict", run, "--images", tmp_path / "in", "--out", tmp_path / "labels.csv")
    printed = capsys.readouterr().out
    assert "by k-NN (k=10, T=0.1, cosine) among the 128 labeled training images of the run" in printed
    assert "20 images in" in printed
    with (tmp_path / "labels.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [Path(row["file"]).name for row in rows] == [f"{i:02}.png" for i in range(20)]
    assert all(0 < float(row["confidence"]) <= 1 for row in rows)
    assert {row["label"] for row in rows} <= set("0123456789")
    table = sources.load(str(tmp_path / "in"), labels=str(tmp_path / "labels.csv"))
    named = [table.classes[i] for i in table.train.labels.tolist()]
    assert named == [row["label"] for row in rows], "--data.labels takes the table back"


def test_a_classifier_is_asked_for_its_classes(monkeypatch, capsys, photos, tmp_path):
    run = tmp_path / "run"
    recipe = dataclasses.replace(TINY, method=options("supervised"), model=Model("resnet8"))
    training.fit(recipe, run, quiet=True)
    call(monkeypatch, "predict", run, "--images", photos, "--out", tmp_path / "labels.csv")
    assert "by the run's classifier; confidence: its softmax" in capsys.readouterr().out
    with (tmp_path / "labels.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    backbone, info = load_encoder(run / "encoder.safetensors")
    from relatum.training.encoding import RunEncoder

    logits = RunEncoder(backbone.eval(), info, recipe, torch.device("cpu")).logits(sources.load(str(photos)).train)
    assert [row["label"] for row in rows] == [info.classes[i] for i in logits.argmax(1).tolist()]
    expected = torch.softmax(logits, 1).amax(1).tolist()
    assert [float(row["confidence"]) for row in rows] == pytest.approx(expected, abs=1e-3)


def test_without_any_labels_there_is_no_guess(monkeypatch, capsys, photos, tmp_path):
    run = tmp_path / "run"
    data = Data(source=str(photos), batch_size=4, validation=0.0, view=TINY.data.view)
    training.fit(dataclasses.replace(TINY, data=data), run, quiet=True)
    said = refused(monkeypatch, capsys, "predict", run, "--images", photos)
    assert "has no classifier, and its training images" in said
    assert "relatum search" in said


def test_a_table_is_a_csv(monkeypatch, capsys, run, photos):
    assert "ends in .csv" in refused(monkeypatch, capsys, "predict", run, "--images", photos, "--out", "labels.txt")


def test_pairs_within_are_those_of_a_double_loop():
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(40, 3, generator=generator, dtype=torch.float64)
    unit = torch.nn.functional.normalize(features)
    for distance in (0.0, 0.05, 0.5, 2.0):
        expected = {
            (i, j): 1 - float(unit[i] @ unit[j])
            for i in range(40)
            for j in range(i + 1, 40)
            if 1 - float(unit[i] @ unit[j]) <= distance
        }
        for budget in (1, 2**20):  # a row at a time, and all at once
            found = pairs_within(features, distance, budget=budget)
            assert dict(zip(map(tuple, found.rows.tolist()), found.distances.tolist())) == pytest.approx(expected)
    with pytest.raises(ValueError, match="more than 100 pairs of 40 images are within 2; lower"):
        pairs_within(features, 2, most=100)
    with pytest.raises(ValueError, match=r"the distance is 2\.5; expected 0"):
        pairs_within(features, 2.5)


def test_groups_are_joined_through_others():
    pairs = torch.tensor([[7, 9], [1, 4], [4, 7], [2, 3], [0, 5]])
    assert groups_of(pairs) == [[0, 5], [1, 4, 7, 9], [2, 3]]
    assert groups_of(torch.empty(0, 2, dtype=torch.long)) == []


def test_votes_are_the_weights_of_the_equation():
    bank = Embeddings(torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]), torch.tensor([0, 1, 1]))
    query = torch.tensor([[1.0, 0.0]])
    votes = KNN(k=2, temperature=0.5).votes(bank, query, 3)
    share = (votes / votes.sum()).squeeze()
    weights = torch.exp(torch.tensor([1.0, 0.5**0.5]) / 0.5)
    torch.testing.assert_close(share, torch.tensor([*(weights / weights.sum()).tolist(), 0.0]))
