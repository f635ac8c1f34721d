"""What is measured of an encoder, and which images training counts."""

import dataclasses
from contextlib import nullcontext
from functools import partial

import pytest
import torch
from torch import nn

from relatum.core.types import Embeddings
from relatum.data.loading import evaluation_batches
from relatum.data.views import ClassifierView, ContrastiveView, EvaluationView
from relatum.evaluation.geometry import alignment
from relatum.evaluation.knn import KNN
from relatum.evaluation.linear import LinearProbe, Probed, Regressions
from relatum.evaluation.tsne import tsne
from relatum.measurement.evaluators import DEFAULT_RUN
from relatum.measurement.measurer import Measurements, Measurer, evaluating
from relatum.measurement.reading import Reader
from relatum.networks.backbones import Backbone
from relatum.recipes import building
from relatum.recipes.recipe import Data, Evaluation, Model, Optim, Recipe, Train, options
from relatum.reports import figures
from relatum.training import loop as training

CPU = torch.device("cpu")
TINY = Recipe(
    name="tiny",
    method=options("supervised"),
    model=Model(name="resnet8"),
    data=Data(
        source="digits",
        train_images=300,
        validation=0.2,
        batch_size=24,
        view=ClassifierView(size=16, crop="resized", min_scale=0.5, flip=0.0),
    ),
    optim=Optim(name="adam", lr=3e-3, weight_decay=0.0),
    train=Train(epochs=1, accelerator="cpu", threads=1, precision="32-true"),
    evaluation=Evaluation(
        every=0, knn=KNN(k=5), linear=LinearProbe(epochs=5, batch_size=60), figures=False, batch_size=70
    ),
)
CONTRASTIVE = dataclasses.replace(
    TINY, method=options("simclr"), data=dataclasses.replace(TINY.data, view=ContrastiveView(size=16))
)


def changed(recipe: Recipe, **parts) -> Recipe:
    return dataclasses.replace(recipe, **{k: dataclasses.replace(getattr(recipe, k), **v) for k, v in parts.items()})


def measurer(recipe: Recipe, prepared: building.Prepared, precision=nullcontext) -> Measurer:
    return building.measurer_of(recipe, prepared, CPU, precision)


def alignment_of(backbone: Backbone, recipe: Recipe, prepared: building.Prepared) -> Measurements:
    return measurer(changed(recipe, evaluation={"run": ("alignment",)}), prepared).final(backbone)


@pytest.fixture(scope="module")
def prepared() -> building.Prepared:
    return building.prepare(TINY)


@pytest.fixture(scope="module")
def backbone(prepared) -> Backbone:
    """A classifier whose batch statistics have seen the images, so that its features are not all alike."""
    torch.manual_seed(0)
    backbone = building.build(TINY, prepared).backbone
    for batch in building.build_loader(TINY, prepared, CPU).epoch(0):
        backbone(batch.views[0])
    return backbone


# Stages


def test_stage_features_are_the_pooled_maps(backbone, prepared):
    reader = Reader(backbone, {"stages", "embedding", "logits"})
    with evaluating(backbone):
        seen = reader.parts(measurer(TINY, prepared).embed(reader, prepared.train))
    assert list(seen) == ["embedding", "logits", "stage1", "stage2", "stage3"]
    stages = [seen[f"stage{i}"] for i in (1, 2, 3)]
    assert [stage.features.shape for stage in stages] == [(240, c) for c in backbone.stage_channels]
    source = prepared.source
    images, labels = zip(
        *evaluation_batches(
            prepared.train, EvaluationView(size=16), mean=source.mean, std=source.std, batch_size=240, device=CPU
        )
    )
    with torch.no_grad(), evaluating(backbone):
        maps = backbone(images[0]).stages
    for stage, expected in zip(stages, maps):
        assert torch.equal(stage.labels, labels[0])
        torch.testing.assert_close(stage.features, expected.flatten(2).sum(2) / expected[0, 0].numel())


def test_stages_are_in_the_measurements_only_if_asked(backbone, prepared):
    plain = measurer(TINY, prepared).final(backbone)
    recipe = changed(TINY, evaluation={"run": (*DEFAULT_RUN, "stages")})
    asked = measurer(recipe, prepared).final(backbone)
    assert set(asked.metrics) - set(plain.metrics) == {f"stage{i}_knn_top{k}" for i in (1, 2, 3) for k in (1, 5)}
    assert set(asked.protocols) - set(plain.protocols) == {"stages"}
    assert "k=5" in asked.protocols["stages"]
    assert "240 training against 500 test images" in asked.protocols["stages"]
    for name, value in plain.metrics.items():  # asking for more changes nothing
        assert asked.metrics[name] == value
    # The deepest map is what the embedding is the mean of.
    assert asked.metrics["stage3_knn_top1"] == pytest.approx(asked.metrics["knn_top1"])
    assert asked.metrics["stage1_knn_top1"] != asked.metrics["stage3_knn_top1"]
    assert all(asked.metrics[f"stage{i}_knn_top1"] > 20 for i in (1, 2, 3))  # chance is 10


def test_no_stages_of_unlabeled_images(backbone, prepared):
    images = dataclasses.replace(prepared.train, labels=torch.full_like(prepared.train.labels, -1))
    only = changed(TINY, evaluation={"run": ("stages",)})
    measured = measurer(only, prepared._replace(train=images)).final(backbone)
    assert measured.metrics == {}
    assert measured.notices == ("stages left out: 240 of 240 training images have no class.",)


def test_without_test_images_the_held_out_part_is_measured(backbone, prepared):
    alone = prepared._replace(source=dataclasses.replace(prepared.source, test=None))
    measured = measurer(changed(TINY, evaluation={"run": ("stages",)}), alone).final(backbone)
    assert "240 training against 60 held-out training images" in measured.protocols["stages"]


def test_stage_maps_draw_a_panel_for_each_stage(monkeypatch, tmp_path):
    drawn = []
    monkeypatch.setattr(figures.Figure, "savefig", lambda figure, path, dpi: drawn.append((figure, path)), raising=True)
    generator = torch.Generator().manual_seed(0)
    points = [
        tsne(Embeddings(torch.randn(40, 5, generator=generator), torch.arange(40) % 4), perplexity=5.0)
        for _ in range(3)
    ]
    figures.stage_maps(points, ["a", "b", "c", "d"], tmp_path / "stages.png")
    (figure, path), *rest = drawn
    assert not rest
    assert path == tmp_path / "stages.png"
    assert [axes.get_title() for axes in figure.axes] == ["stage 1", "stage 2", "stage 3"]
    for axes, stage in zip(figure.axes, points):
        shown = torch.cat([torch.as_tensor(c.get_offsets().data) for c in axes.collections])
        by_class = torch.cat([stage.features[stage.labels == label] for label in range(4)])
        torch.testing.assert_close(shown.float(), by_class)


def test_evaluating_goes_back_to_the_mode_before():
    module = nn.Linear(1, 1)
    for mode in (True, False):
        module.train(mode)
        with evaluating(module):
            assert not module.training
        assert module.training is mode


# Linear probe on augmented images


def test_augmented_probe_is_measured_if_asked(backbone, prepared):
    recipe = changed(TINY, evaluation={"run": (*DEFAULT_RUN, "linear_augmented")})
    before = {k: v.clone() for k, v in backbone.state_dict().items()}
    measured = measurer(recipe, prepared).final(backbone)
    again = measurer(recipe, prepared).final(backbone)
    assert measured.metrics == again.metrics
    assert all(torch.equal(v, before[k]) for k, v in backbone.state_dict().items())
    assert {"linear_augmented_top1", "linear_augmented_top5", "linear_augmented_learning_rate"} <= set(measured.metrics)
    assert measured.metrics["linear_augmented_top1"] > 20
    assert measured.metrics["linear_augmented_top1"] != measured.metrics["linear_top1"]
    protocol = measured.protocols["linear_augmented"]
    assert "8% to 100% of the area" in protocol
    assert "probability 0," in protocol
    assert "240 training against clean views of 500 test images" in protocol
    assert "linear_augmented_top1" not in measurer(TINY, prepared).final(backbone).metrics


def test_augmented_probe_sees_augmented_training_images(backbone, prepared, monkeypatch):
    seen = []

    def record(probe, embed, batches, train, test):
        seen.extend(batches(epoch) for epoch in (0, 1))
        assert torch.equal(train.labels, prepared.train.labels)
        return Probed(torch.zeros(500, dtype=torch.long), 10, {})

    monkeypatch.setattr(LinearProbe, "augmented", record)
    measurer(changed(TINY, evaluation={"run": (*DEFAULT_RUN, "linear_augmented")}), prepared).final(backbone)
    batches = [batch for epoch in seen for batch in epoch]
    assert [batch.index.shape for batch in batches] == [(1, 60)] * 8  # two epochs of all images
    assert all(torch.equal(batch.labels[0], prepared.train.labels[batch.index[0]]) for batch in batches)
    orders = [torch.cat([batch.index[0] for batch in part]).argsort() for part in (batches[:4], batches[4:])]
    views = [torch.cat([batch.views[0] for batch in part]) for part in (batches[:4], batches[4:])]
    first, second = (view[order] for view, order in zip(views, orders))  # by the number of the sample
    assert first.shape == (240, 3, 16, 16)
    assert not torch.equal(*orders)
    assert (first != second).flatten(1).any(1).float().mean() > 0.9  # crops drawn anew


# Alignment


def test_alignment_is_that_of_two_training_views(prepared, monkeypatch):
    method = building.build(CONTRASTIVE, prepared)
    seen = []
    embed = method.backbone.embed
    monkeypatch.setattr(method.backbone, "embed", lambda views: seen.append(views) or embed(views))
    measured = alignment_of(method.backbone, CONTRASTIVE, prepared)
    assert [len(views) for views in seen] == [60] * 8  # 4 steps of at most 70 images, two views of each
    with torch.no_grad(), evaluating(method.backbone):
        a, b = (torch.cat([embed(views) for views in seen[i::2]]) for i in (0, 1))
    assert not torch.equal(torch.cat(seen[::2]), torch.cat(seen[1::2]))
    assert measured.metrics == {"alignment": pytest.approx(alignment(a, b))}
    assert "240 training images" in measured.protocols["alignment"]
    unit_a, unit_b = (x.double() / x.double().square().sum(1, keepdim=True).sqrt() for x in (a, b))
    expected = sum(float(((p - q) ** 2).sum()) for p, q in zip(unit_a, unit_b)) / 240
    assert measured.metrics["alignment"] == pytest.approx(expected, rel=1e-4)


def test_precision_is_that_of_the_encoder_alone(backbone, prepared, monkeypatch):
    """The probe and the comparison of views multiply matrices too, which autocast would round to eight bits."""
    inside, outside = [], []
    cast = partial(torch.is_autocast_enabled, "cpu")
    embed, step = backbone.embed, Regressions.step
    monkeypatch.setattr(backbone, "embed", lambda views: inside.append(cast()) or embed(views))
    monkeypatch.setattr(Regressions, "step", lambda *args: outside.append(cast()) or step(*args))
    recipe = changed(TINY, evaluation={"run": (*DEFAULT_RUN, "linear_augmented")})
    measurer(recipe, prepared, partial(torch.autocast, "cpu", torch.bfloat16)).final(backbone)
    assert inside
    assert all(inside)
    assert outside
    assert not any(outside)


def test_views_without_randomness_are_perfectly_aligned(prepared):
    still = ContrastiveView(size=16, min_scale=1.0, flip=0.0, jitter_probability=0.0, grayscale=0.0)
    recipe = changed(CONTRASTIVE, data={"view": still})
    method = building.build(recipe, prepared)
    aligned = (
        measurer(changed(recipe, evaluation={"run": ("alignment",)}), prepared)
        .final(method.backbone)
        .metrics["alignment"]
    )
    loose = (
        measurer(changed(CONTRASTIVE, evaluation={"run": ("alignment",)}), prepared)
        .final(method.backbone)
        .metrics["alignment"]
    )
    assert aligned < 0.1 * loose


def test_alignment_belongs_to_methods_of_two_views(backbone, prepared):
    assert "alignment" not in measurer(TINY, prepared).final(backbone).metrics
    measured = measurer(CONTRASTIVE, prepared).final(building.build(CONTRASTIVE, prepared).backbone)
    assert measured.metrics["alignment"] >= 0
    assert "alignment" in measured.protocols


def test_alignment_looks_at_a_thousand_images_at_most(monkeypatch):
    recipe = changed(CONTRASTIVE, data={"train_images": 1200, "validation": 0.0}, evaluation={"batch_size": 500})
    everything = building.prepare(recipe)
    monkeypatch.setattr(Backbone, "embed", lambda self, views: views.flatten(1))
    measured = measurer(changed(recipe, evaluation={"run": ("alignment",)}), everything).final(
        Backbone("resnet8", stem="cifar")
    )
    assert " 1000 training images" in measured.protocols["alignment"]


# Images that pass the backbone


@pytest.mark.parametrize(
    ("method", "data", "expected"),
    [
        ("relation-l2", {}, 3 * 24),  # classes of 9 and 10 images give 30 triples, of which 3 batches of 8 are filled
        ("relation-l2", {"triples": "anchor"}, 12 * 24),  # 96 triples
        ("cs-kd", {}, 4 * 48),  # 24 anchors and 24 partners a step
        ("simclr", {"view": ContrastiveView(size=16)}, 4 * 48),  # 24 images, two views of each
    ],
    ids=["disjoint triples", "anchored triples", "pairs", "two views"],
)
def test_images_that_pass_the_backbone_are_counted(monkeypatch, tmp_path, method, data, expected):
    passed = []

    def counting(original):
        def count(self, images):
            if self.training:
                passed.append(len(images))
            return original(self, images)

        return count

    monkeypatch.setattr(Backbone, "forward", counting(Backbone.forward))
    monkeypatch.setattr(Backbone, "embed", counting(Backbone.embed))
    recipe = changed(
        dataclasses.replace(TINY, method=options(method)),
        data={"train_images": 120, **data},
        evaluation={"linear": LinearProbe(epochs=1)},
    )
    record = training.fit(recipe, tmp_path / "run", quiet=True)
    assert record.images_passed == sum(passed) == expected
