"""Teachers of another world: what they see of a student's views, what their logits are good for, and timm's."""

from dataclasses import replace

import pytest
import timm
import torch
from torch.nn import functional as F

import relatum
from relatum import METHODS, Backbone, Batch, save_encoder
from relatum.data import sources
from relatum.evaluation.knn import KNN
from relatum.networks import backbones
from relatum.networks.teachers import Preparation, Teacher, timm_teacher
from relatum.recipes.recipe import Data, Evaluation, Recipe, Train, options
from relatum.recipes.trained import load_teacher
from relatum.reports.records import read_record

VIEWS = Preparation((0.5, 0.4, 0.3), (0.2, 0.25, 0.3), 16)
OWN = Preparation((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), 24)


def normalized(pixels, preparation):
    mean, std = (torch.tensor(numbers).view(-1, 1, 1) for numbers in (preparation.mean, preparation.std))
    return (pixels - mean) / std


def network(classes: int = 0, channels: int = 3) -> Backbone:
    return Backbone("resnet8", stem="cifar", num_classes=classes, in_channels=channels).eval()


@pytest.mark.parametrize("size", [16, 24])
def test_a_teacher_sees_views_as_its_own_images(size):
    plain, pixels = network(5), torch.rand(3, 3, 16, 16)
    own = replace(OWN, size=size)
    teacher = Teacher(plain, VIEWS, own)
    large = pixels if size == 16 else F.interpolate(pixels, (24, 24), mode="bilinear", antialias=True)
    expected = plain(normalized(large, own))
    found = teacher(normalized(pixels, VIEWS))
    torch.testing.assert_close(found.logits, expected.logits, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(teacher.embed(normalized(pixels, VIEWS)), expected.embedding, rtol=1e-4, atol=1e-5)
    assert teacher.stage_strides == tuple(16 / maps.shape[2] for maps in found.stages)
    assert (teacher.num_classes, teacher.embedding_dim) == (5, plain.embedding_dim)


def test_a_teacher_of_colors_sees_gray_views_thrice():
    plain, pixels = network(), torch.rand(2, 1, 16, 16)
    views = Preparation((0.5,), (0.2,), 16)
    own = replace(OWN, size=16)
    found = Teacher(plain, views, own).embed(normalized(pixels, views))
    expected = plain.embed(normalized(pixels.expand(-1, 3, -1, -1), own))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match=r"sees 1 channel.*have 3; choose a teacher of color images"):
        Teacher(network(channels=1), VIEWS, Preparation((0.5,), (0.2,), 16))


def source(classes=("lies", "stands")):
    images = torch.randint(0, 256, (8, 3, 16, 16), dtype=torch.uint8)
    return sources.from_tensors(images, torch.arange(8) % len(classes), classes=classes)


def written(folder, classes, of, size=16):
    plain = network(len(classes) if classes else 0)
    save_encoder(plain, folder, mean=of.mean, std=of.std, size=size, classes=classes)
    return str(folder)


def test_a_teacher_of_the_same_world_is_left_alone(tmp_path):
    data = source()
    assert type(load_teacher(written(tmp_path, data.classes, data), data, 16)) is Backbone
    assert type(load_teacher(str(tmp_path), data, 24)) is Teacher
    assert load_teacher(str(tmp_path), data, 24).num_classes == 2
    dark = replace(data, mean=(0.1, 0.1, 0.1))
    assert type(load_teacher(str(tmp_path), dark, 16)) is Teacher
    assert type(load_teacher(str(tmp_path), dark, 16, decoded=False)) is Backbone


FOREIGN = {
    "selfsupervised": (None, "has no classifier"),
    "more": (("a", "b", "c"), "knows 3 classes, and the data has 2"),
    "others": (("stands", "lies"), "class 0 is 'stands' to the teacher .* and 'lies' in the data of its student"),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_features_are_learned_from_any_teacher_and_logits_from_one_of_the_same_classes(kind, tmp_path):
    data = source()
    classes, why = FOREIGN[kind]
    teacher = load_teacher(written(tmp_path, classes, data), data, 16)
    batch = Batch((torch.rand(6, 3, 16, 16),), (torch.arange(6) % 2)[None], torch.arange(6)[None])
    for name in ("fitnet", "at", "sp", "rkd", "cc"):
        student = network(2).train()
        sum(METHODS[name](student, teacher=teacher).losses(batch).values()).backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in student.parameters())
    for name, chosen in (("kd", {}), ("dkd", {}), ("fitnet", {"kd_weight": 1.0})):
        with pytest.raises(ValueError, match=f"{why}.*logits compare only .*features alone, such as fitnet"):
            METHODS[name](network(2), teacher=teacher, **chosen)


@pytest.fixture
def no_download(monkeypatch):
    """timm's networks with weights of chance in the place of those that it would download; what was asked for."""
    asked, create = [], timm.create_model

    def made(name, pretrained=False, **chosen):
        asked.append((name, pretrained))
        torch.manual_seed(7)
        return create(name, pretrained=False, **chosen)

    monkeypatch.setattr(backbones.timm, "create_model", made)
    return asked


def test_timm_s_teacher_has_timm_s_normalization_size_and_classes(no_download):
    teacher, own, classes = timm_teacher("resnet10t")
    assert no_download == [("resnet10t", True)]
    assert own == Preparation((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), 176)
    assert teacher.num_classes == 1000
    assert (classes[0], classes[1], classes[-1]) == ("n01440764", "n01443537", "n15075141")  # tench, goldfish, tissue


def test_a_run_learns_features_from_timm_s_network_and_goes_on_with_the_same(no_download, tmp_path):
    recipe = Recipe(
        name="student",
        method=options("at", teacher="timm:test_resnet"),
        model=replace(relatum.RECIPES["at"]().model, name="resnet8"),
        data=Data(validation=0.0, batch_size=8, view=relatum.ClassifierView(size=16, crop="resized")),
        train=Train(epochs=1, accelerator="cpu", precision="32-true", threads=1),
        evaluation=Evaluation(run=("knn",), knn=KNN(k=1), figures=False),
    )
    data = source()
    record = relatum.fit(recipe, tmp_path / "run", data=data, quiet=True)
    assert record.teacher["path"] == "timm:test_resnet"
    assert len(record.teacher["sha256"]) == 64
    assert record.history[-1]["attention"] > 0
    (tmp_path / "run" / "record.json").unlink()
    relatum.fit(recipe, tmp_path / "run", data=data, resume=True, quiet=True)
    assert read_record(tmp_path / "run").teacher == record.teacher


def test_weights_that_cannot_be_had_are_said(monkeypatch):
    def fails(name, **chosen):
        raise OSError("no route to host")

    monkeypatch.setattr(backbones.timm, "create_model", fails)
    with pytest.raises(OSError, match=r"weights of timm:test_resnet are not here.*no route to host.*name a run"):
        timm_teacher("test_resnet")
    with pytest.raises(ValueError, match=r"unknown backbone 'resnet_18'"):
        timm_teacher("resnet_18")
    monkeypatch.undo()
    with pytest.raises(ValueError, match=r"needs a teacher; name a run folder, a file of an encoder, or timm:NAME"):
        relatum.fit(Recipe(name="x", method=options("kd")), "never", data=source(), quiet=True)
