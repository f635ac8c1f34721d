"""Raw pixels beside every encoder that is read on few images, and a plain word where they are not beaten."""

import pytest
import torch
import torch.nn.functional as F

from relatum.core.types import Embeddings
from relatum.data.loading import evaluation_batches
from relatum.data.views import EvaluationView
from relatum.evaluation.baselines import CHEAP, Pixels, not_beaten
from relatum.evaluation.evaluator import Labels
from relatum.evaluation.knn import KNN
from relatum.measurement.reading import shrunk
from relatum.recipes.building import prepare
from relatum.reports.records import read_record
from relatum.training.loop import fit
from test_measuring import CONTRASTIVE, TINY, changed, encoder, measurer_of


def read(images, source, size: int) -> Embeddings:
    batches = evaluation_batches(
        images, EvaluationView(size=size), mean=source.mean, std=source.std, batch_size=300, device="cpu"
    )
    return Embeddings(torch.cat([views for views, _ in batches]), images.labels)


@pytest.mark.parametrize("size", [16, 48])
def test_pixels_are_read_by_the_same_neighbors_as_features(size):
    recipe = changed(TINY, evaluation={"run": ("pixels",)})
    recipe = changed(recipe, data={"view": recipe.data.view.__class__(size=size, crop="resized", flip=0.0)})
    prepared = prepare(recipe)
    found = measurer_of(recipe, prepared).final(encoder(recipe, prepared))
    train, test = (read(images, prepared.source, size) for images in (prepared.train, prepared.source.test))
    if size == 48:  # averaged to 32 x 32 by hand: each of 32 bins covers one pixel and a half
        weights = torch.zeros(32, 48)
        for i in range(32):
            start, stop = 48 * i // 32, -(-48 * (i + 1) // 32)
            weights[i, start:stop] = 1 / (stop - start)
        train, test = (e._replace(features=weights @ e.features @ weights.T) for e in (train, test))
        assert torch.allclose(F.adaptive_avg_pool2d(torch.ones(1, 1, 48, 48), 32), torch.ones(1, 1, 32, 32))
    expected = KNN(k=5)(*(e._replace(features=e.features.flatten(1)) for e in (train, test)))
    assert found.metrics["pixels_knn_top1"] == pytest.approx(expected["top1"], abs=0.2)
    assert list(found.columns.values()) == ["k-NN, pixels"]


def test_small_images_are_read_as_they_are():
    images = torch.rand(2, 3, 32, 20)
    assert shrunk(images) is images
    assert shrunk(torch.rand(2, 3, 64, 20)).shape == (2, 3, 32, 20)


def test_pixels_are_compared_by_default_where_that_is_cheap_and_once():
    plan = measurer_of(TINY, prepare(TINY)).plan
    assert "pixels" in plan.run
    both = changed(TINY, evaluation={"run": ("baselines", *TINY.evaluation.run)})
    plan = measurer_of(both, prepare(both)).plan
    assert "baselines" in plan.run
    assert "pixels" not in plan.run
    few, many = torch.zeros(5_000), torch.zeros(CHEAP // 5_000 + 1)
    assert Pixels().fitted(Labels(few.long(), few[:10_000].long()))[0] is not None
    assert Pixels().fitted(Labels(few.long(), many.long())) == (None, "")


def test_what_does_not_beat_pixels_says_so():
    assert not_beaten({"knn_top1": 60.0}) == []
    assert not_beaten({"knn_top1": 60.0, "pixels_knn_top1": 59.5}) == []
    (said,) = not_beaten({"knn_top1": 50.0, "pixels_knn_top1": 59.5})
    assert said.startswith("the encoder reads 50.0 % (k-NN), raw pixels 59.5 % (k-NN): ")
    (said,) = not_beaten({"knn_top1": 70.0, "top1": 59.5, "pixels_knn_top1": 59.5})
    assert said.startswith("the encoder reads 59.5 % (its classifier), raw pixels 59.5 % (k-NN): ")


def test_a_run_that_does_not_beat_pixels_says_so_in_log_and_record(tmp_path, capsys):
    recipe = changed(CONTRASTIVE, optim={"lr": 0.0}, evaluation={"run": ("knn", "pixels")})  # it learns nothing
    record = fit(recipe, tmp_path / "run")
    assert record is not None
    expected = not_beaten(record.metrics)
    assert len(expected) == 1
    assert expected[0] in record.notices
    assert read_record(tmp_path / "run" / "record.json").notices == record.notices
    assert f"note: {expected[0]}" in capsys.readouterr().out
