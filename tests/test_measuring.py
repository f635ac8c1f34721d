"""Evaluators as data: what runs, what is left out and said, what two processes measure, and what a Record keeps."""

import base64
import dataclasses
import pickle
import subprocess
import sys
import textwrap
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from PIL import Image

from ranks import Ranks
from relatum.core.types import Embeddings
from relatum.data.views import ClassifierView, ContrastiveView
from relatum.evaluation.classification import classes_before
from relatum.evaluation.evaluator import Labels
from relatum.evaluation.knn import KNN
from relatum.evaluation.linear import LinearProbe
from relatum.evaluation.retrieval import Retrieval
from relatum.measurement.evaluators import DEFAULT_RUN, EVALUATORS
from relatum.measurement.measurer import Measurements, Measurer, evaluating
from relatum.measurement.reading import Reader
from relatum.networks.backbones import Backbone
from relatum.recipes import building
from relatum.recipes.recipe import Data, Evaluation, Model, Optim, Recipe, Train, from_dict, options, to_dict, to_yaml
from relatum.training import loop as training

CPU = torch.device("cpu")
TINY = Recipe(
    name="tiny",
    method=options("supervised"),
    model=Model(name="resnet8"),
    data=Data(
        source="digits",
        train_images=250,
        validation=0.2,
        batch_size=24,
        view=ClassifierView(size=16, crop="resized", min_scale=0.5, flip=0.0),
    ),
    optim=Optim(name="adam", lr=3e-3, weight_decay=0.0),
    train=Train(epochs=1, accelerator="cpu", threads=1, precision="32-true"),
    evaluation=Evaluation(
        every=0, knn=KNN(k=5), linear=LinearProbe(epochs=3, batch_size=60), figures=False, batch_size=48
    ),
)
CONTRASTIVE = dataclasses.replace(
    TINY, method=options("simclr"), data=dataclasses.replace(TINY.data, view=ContrastiveView(size=16))
)
EVERYTHING = tuple(EVALUATORS)


def changed(recipe: Recipe, **parts) -> Recipe:
    return dataclasses.replace(recipe, **{k: dataclasses.replace(getattr(recipe, k), **v) for k, v in parts.items()})


def measurer_of(recipe: Recipe, prepared: building.Prepared) -> Measurer:
    return building.measurer_of(recipe, prepared, CPU)


def encoder(recipe: Recipe, prepared: building.Prepared) -> Backbone:
    """Fresh weights, and batch statistics that have seen the images, so that features are not all alike."""
    backbone = building.build(recipe, prepared).backbone
    for batch in building.build_loader(recipe, prepared, CPU).epoch(0):
        backbone.embed(batch.views[0])
    return backbone


@pytest.fixture(scope="module")
def prepared() -> building.Prepared:
    return building.prepare(TINY)


@pytest.fixture(scope="module")
def backbone(prepared) -> Backbone:
    return encoder(TINY, prepared)


# Evaluators are data


@pytest.mark.parametrize("name", [name for name in EVALUATORS if name != "heads"])  # those: test_trained_heads
def test_every_evaluator_runs_alone_and_says_how(name, prepared, backbone):
    recipe, network = (TINY, backbone) if name != "alignment" else (CONTRASTIVE, None)
    recipe = changed(recipe, evaluation={"run": (name,)})
    found = measurer_of(recipe, prepared).final(network or encoder(recipe, prepared))
    assert found.metrics
    assert list(found.protocols) == [name]
    assert found.notices == ()
    assert set(found.columns) <= set(found.metrics)
    assert list(found.columns.values()) == list(EVALUATORS[name].columns.values())
    with pytest.raises(dataclasses.FrozenInstanceError):
        EVALUATORS[name]().anything = 1


def test_one_loop_gives_what_each_evaluator_gives_alone(prepared, backbone):
    beside = (
        "alignment",
        "heads",
        "pixels",
    )  # the first needs views, the second a method, and baselines measure pixels too
    run = tuple(name for name in EVALUATORS if name not in beside)
    together = measurer_of(changed(TINY, evaluation={"run": run}), prepared).final(backbone)
    alone = [measurer_of(changed(TINY, evaluation={"run": (name,)}), prepared).final(backbone) for name in run]
    assert together.metrics == {k: v for found in alone for k, v in found.metrics.items()}
    assert together.correct == {k: v for found in alone for k, v in found.correct.items()}
    assert list(together.protocols) == list(run)


def test_the_default_run_leaves_out_silently_what_the_encoder_is_not_for(prepared, backbone):
    assert list(measurer_of(TINY, prepared).plan.run) == ["geometry", "knn", "linear", "classifier", "pixels"]
    assert measurer_of(TINY, prepared).plan.notices == ()
    assert list(measurer_of(CONTRASTIVE, prepared).plan.run) == ["geometry", "alignment", "knn", "linear", "pixels"]
    named = changed(CONTRASTIVE, evaluation={"run": ("classifier", "knn")})
    assert measurer_of(named, prepared).plan.notices == ("classifier left out: the encoder has no classifier.",)
    named = changed(TINY, evaluation={"run": ("alignment", "knn")})
    assert measurer_of(named, prepared).plan.notices == (
        "alignment left out: training did not compare two views of an image.",
    )


def test_retrieval_is_reached_from_a_recipe(prepared, backbone):
    recipe = changed(TINY, evaluation={"run": ("retrieval",), "retrieval": Retrieval(recall=(1, 4))})
    recipe = from_dict(to_dict(recipe))
    measurer = measurer_of(recipe, prepared)
    found = measurer.final(backbone)
    with evaluating(backbone):
        seen = measurer.embed(backbone.embed, measurer.test)
    expected = Retrieval(recall=(1, 4))(seen, seen)
    assert found.metrics == {f"retrieval_{name}": value for name, value in expected.items()}
    assert set(found.metrics) == {"retrieval_recall@1", "retrieval_recall@4", "retrieval_map@r"}
    assert found.columns == {"retrieval_recall@1": "recall@1", "retrieval_map@r": "MAP@R"}


def test_only_what_is_asked_for_is_read(prepared, backbone, monkeypatch):
    """One forward pass of an image for all evaluators together; none of a set that nobody asked for."""
    passes = []
    forward, embed = Backbone.forward, Backbone.embed
    monkeypatch.setattr(Backbone, "forward", lambda self, x: passes.append(len(x)) or forward(self, x))
    monkeypatch.setattr(Backbone, "embed", lambda self, x: passes.append(len(x)) or embed(self, x))
    train, test = len(prepared.train), len(prepared.source.test)
    for run, expected in (
        (("classifier",), test),
        (("retrieval",), train + test),
        (DEFAULT_RUN, train + test),
        ((*DEFAULT_RUN, "stages", "retrieval"), train + test),
    ):
        passes.clear()
        measurer_of(changed(TINY, evaluation={"run": run}), prepared).final(backbone)
        assert sum(passes) == expected, run


@pytest.mark.parametrize("name", ["resnet8", "wrn_16_2", "resnet18", "preact_resnet18", "mobilenetv1"])
@pytest.mark.parametrize("bf16", [False, True], ids=["float32", "bf16"])
def test_one_pass_reads_the_same_features_as_each_alone(name, bf16):
    network = Backbone(name, stem="cifar", num_classes=7).eval()
    images = torch.randn(4, 3, 32, 32)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        reader = Reader(network, {"embedding", "logits", "stages"})
        seen = reader.parts(Embeddings(reader(images), torch.zeros(4, dtype=torch.long)))
        assert torch.equal(seen["embedding"].features, network.embed(images).float())
        assert torch.equal(seen["logits"].features, network(images).logits.float())


PLANTED = textwrap.dedent('''
    """How many classes the training images have."""
    from collections.abc import Mapping
    from dataclasses import dataclass
    from typing import ClassVar
    from relatum.evaluation.evaluator import Evaluator, Measured, Subject

    @dataclass(frozen=True)
    class Census(Evaluator):
        """Counts classes.

        Attributes:
            least: images of a class that counts.
        """

        least: int = 1
        columns: ClassVar[Mapping[str, str]] = {"classes": "classes seen"}

        def measure(self, subject: Subject) -> Measured:
            counts = subject.train["embedding"].labels.bincount()
            return Measured({"classes": float((counts >= self.least).sum())}, f"of at least {self.least} images")
''')


def test_a_new_evaluator_is_one_file_and_one_line(tmp_path):
    """It is an option of the recipe and of the command line, is measured, and stands in the Record and its table."""
    (tmp_path / "census.py").write_text(PLANTED)
    (tmp_path / "tiny.yaml").write_text(to_yaml(TINY))
    script = textwrap.dedent("""
        import sys
        from census import Census
        from relatum.measurement.evaluators import EVALUATORS
        EVALUATORS["census"] = Census
        from relatum import cli
        sys.argv = "relatum train tiny.yaml --run run --data.train-images 60 --data.batch-size 12".split()
        sys.argv += "--evaluation.run knn census --evaluation.census.least 5".split()
        cli.main()
        from relatum.reports.records import read_record
        from relatum.reports.tables import comparison
        from pathlib import Path
        record = read_record(Path("run"))
        counts = [5] * 8 + [4] * 2  # 48 of 60 images, as equal as may be
        assert record.metrics["census_classes"] == sum(n >= 5 for n in counts), record.metrics
        assert record.recipe["evaluation"]["census"] == {"least": 5}
        assert record.protocols["census"] == "of at least 5 images"
        assert record.columns == {"knn_top1": "k-NN", "census_classes": "classes seen"}, record.columns
        assert "classes seen" in comparison([record])
    """)
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_evaluation_can_be_pickled_and_written():
    chosen = Evaluation(knn=KNN(k=7), run=("knn", "retrieval"))
    assert pickle.loads(pickle.dumps(chosen)) == chosen
    assert from_dict(to_dict(dataclasses.replace(TINY, evaluation=chosen))).evaluation == chosen


@pytest.mark.parametrize(
    ("run", "message"),
    [(("knnn",), "evaluation.run names 'knnn'.*did you mean knn"), (("knn", "knn"), "names an evaluator twice")],
    ids=["unknown", "twice"],
)
def test_names_of_evaluators_are_checked(run, message):
    with pytest.raises(ValueError, match=message):
        Evaluation(run=run)


# What the images do not allow


def labels_of(counts: list[int]) -> torch.Tensor:
    return torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))


TEN = labels_of([5, 5])


@pytest.mark.parametrize(
    ("evaluator", "labels", "expected", "said"),
    [
        (KNN(), Labels(TEN, TEN), KNN(k=10), "k=200 neighbors were asked for, and 10 training images give k=10"),
        (KNN(k=10), Labels(TEN, TEN), KNN(k=10), ""),
        (KNN(), Labels(TEN, None), None, "there are no test images, and nothing is held out"),
        (KNN(), Labels(torch.full((9,), -1), TEN), None, "9 of 9 training images have no class"),
        (KNN(), Labels(TEN, torch.tensor([0, -1])), None, "1 of 2 test images have no class"),
        (LinearProbe(), Labels(torch.arange(4), TEN), None, "no class of 4 training images has two"),
        (LinearProbe((0.1,)), Labels(torch.arange(4), TEN), LinearProbe((0.1,)), ""),
        (Retrieval(), Labels(TEN, labels_of([3, 3])), Retrieval((1, 5)), "recall is measured at (1, 5) alone"),
        (Retrieval(), Labels(TEN, torch.arange(4)), None, "none of 4 test images has another of its class"),
        (EVALUATORS["classifier"](), Labels(TEN, TEN, 1), None, "knows 1 classes, and the images are of others"),
        (EVALUATORS["geometry"](), Labels(torch.full((9,), -1), None), EVALUATORS["geometry"](), ""),
    ],
)  # fmt: skip
def test_an_evaluator_is_fitted_to_the_images_or_says_why_not(evaluator, labels, expected, said):
    found, why = evaluator.fitted(labels)
    assert found == expected
    assert why.startswith(said) if said == why[: len(said)] else said in why
    assert bool(why) is bool(said)


def folder(root, *, labeled: bool, images: int, size: int = 16, start: int = 0) -> None:
    generator = np.random.default_rng(start)
    for name in ("a", "b", "c") if labeled else ("",):
        (root / name).mkdir(parents=True, exist_ok=True)
        for i in range(images):
            pixels = generator.integers(0, 256, (size, size, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / name / f"{start + i}.png")


def photos(source: str, **parts) -> Recipe:
    data = {"source": source, "train_images": None, "validation": 0.0, "workers": 0}
    return changed(dataclasses.replace(CONTRASTIVE, name="photos"), data=data, **parts)


def test_class_folders_with_one_image_each_are_trained_on_and_the_probe_is_left_out(tmp_path):
    folder(tmp_path / "set" / "train", labeled=True, images=1)
    folder(tmp_path / "set" / "test", labeled=True, images=2, start=50)
    record = training.fit(photos(str(tmp_path / "set")), tmp_path / "run", quiet=True)
    assert "knn_top1" in record.metrics
    assert "linear_top1" not in record.metrics
    assert any(notice.startswith("linear left out: no class of 3 training images has two") for notice in record.notices)
    assert any(notice.startswith("knn: k=5 neighbors were asked for, and 3 training") for notice in record.notices)
    assert any(notice.startswith("data.batch_size: 24 was asked for") for notice in record.notices)


def test_labeled_training_folders_beside_a_flat_test_folder(tmp_path):
    folder(tmp_path / "set" / "train", labeled=True, images=9)
    folder(tmp_path / "set" / "test", labeled=False, images=4, start=50)
    record = training.fit(photos(str(tmp_path / "set")), tmp_path / "run", quiet=True)
    assert {"effective_rank", "uniformity", "alignment"} <= set(record.metrics)
    assert "knn, linear, pixels left out: 4 of 4 test images have no class." in record.notices


@pytest.mark.parametrize(
    ("method", "data", "labels", "expected"),
    [
        ("simclr", {"batch_size": 512}, labels_of([70] * 6), 416),  # 420 images: a multiple of 8
        ("simclr", {"batch_size": 64}, labels_of([70] * 6), 64),
        ("simclr", {"batch_size": 512}, labels_of([5]), 5),
        ("corsd", {"batch_size": 129}, labels_of([10, 10, 11]), 24),  # 9 triples: a multiple of 8 of these
        ("corsd", {"batch_size": 129}, labels_of([10, 10]), 18),  # 6 triples
        ("corsd", {"batch_size": 129, "triples": "anchor"}, labels_of([10, 10, 11]), 72),  # 31 triples
        ("cs-kd", {"batch_size": 128}, labels_of([50, 50]), 96),
    ],
)
def test_the_batch_is_what_the_images_fill(method, data, labels, expected):
    recipe = changed(dataclasses.replace(TINY, method=options(method)), data=data)
    assert building.batch_size_for(recipe, labels) == expected
    batches = building.batches_of(recipe, labels, expected)(0)
    assert batches.shape[0] >= 1
    if expected < recipe.data.batch_size:
        with pytest.raises(ValueError, match="batch_size"):
            building.batches_of(recipe, labels)(0)


def test_two_processes_share_the_smaller_batch():
    recipe = changed(TINY, data={"batch_size": 512}, train={"devices": 2})
    assert building.batch_size_for(recipe, labels_of([25, 26])) == 48
    assert building.batch_size_for(recipe, labels_of([2, 3])) == 4


@pytest.mark.parametrize("bad", [float("inf"), float("nan"), -1.0])
def test_probes_refuse_numbers_that_they_cannot_use(bad):
    for make, name in (
        (lambda: LinearProbe(learning_rates=(0.1, bad)), "learning_rates"),
        (lambda: LinearProbe(weight_decay=bad), "weight_decay"),
        (lambda: LinearProbe(validation=bad), "validation"),
        (lambda: KNN(temperature=bad), "temperature"),
    ):
        with pytest.raises(ValueError, match=rf"{name}=.*{bad}.*expected"):
            make()


def test_a_temperature_that_single_precision_takes_for_zero_is_refused():
    with pytest.raises(ValueError, match="temperature=1e-320; expected a finite number"):
        KNN(temperature=1e-320)


# One bit an image


def unpacked(text: str, n: int) -> torch.Tensor:
    return torch.from_numpy(np.unpackbits(np.frombuffer(base64.b64decode(text), np.uint8))[:n].astype(bool))


def test_the_record_keeps_one_bit_an_image(prepared, backbone):
    measurer = measurer_of(TINY, prepared)
    found = measurer.final(backbone)
    n = len(prepared.source.test)
    assert set(found.correct) == {"knn", "linear", "classifier"}
    for name, metric in (("knn", "knn_top1"), ("linear", "linear_top1"), ("classifier", "top1")):
        assert len(base64.b64decode(found.correct[name])) == -(-n // 8)
        right = unpacked(found.correct[name], n)
        assert 100 * right.double().mean().item() == pytest.approx(found.metrics[metric], abs=1e-9)
    with evaluating(backbone):
        logits, labels = measurer.embed(lambda images: backbone(images).logits, measurer.test)
    assert torch.equal(unpacked(found.correct["classifier"], n), classes_before(logits, labels) == 0)


# Two processes


@pytest.fixture(scope="module")
def ranks() -> Iterator[Ranks]:
    pool = Ranks()
    yield pool
    pool.close()


def measured_by(rank: int, tree: dict) -> tuple[Measurements, dict[str, float]]:
    """Both measurements of a recipe's fresh encoder; what rank 0 alone has been told is not told to the others."""
    recipe = from_dict(tree)
    prepared = building.prepare(recipe)
    torch.manual_seed(0)
    method = building.build(recipe, prepared)
    measurer = building.measurer_of(recipe, prepared, CPU)
    return measurer.final(method), measurer.between_epochs(method)


@pytest.mark.parametrize(
    ("method", "size"), [("supervised", 48), ("simclr", 300)], ids=["eleven batches", "fewer batches than processes"]
)
def test_two_ranks_measure_what_one_process_measures(ranks, method, size):
    recipe = TINY if method == "supervised" else CONTRASTIVE
    recipe = changed(recipe, evaluation={"run": EVERYTHING, "batch_size": size})
    first, second = ranks.run(measured_by, to_dict(recipe))
    alone = measured_by(0, to_dict(recipe))
    assert first[0].metrics == alone[0].metrics
    assert first[0].correct == alone[0].correct
    assert first[1] == alone[1] != {}
    assert torch.equal(first[0].embeddings.features, alone[0].embeddings.features)
    assert second[0].metrics == second[1] == {}
