"""What is measured of an encoder, between epochs and at the end: a loop over evaluators."""

import base64
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from PIL import Image
from torch import Generator, Tensor, nn

from relatum.core.distributed import rank, rows_of_all, world_size
from relatum.core.types import Batch, Embeddings
from relatum.data.images import Images
from relatum.data.loading import Loader, evaluation_batches
from relatum.data.sources import Source
from relatum.data.views import EvaluationView, View
from relatum.evaluation.baselines import not_beaten
from relatum.evaluation.classification import accuracy
from relatum.evaluation.evaluator import Evaluator, Labels, Reading, Subject
from relatum.evaluation.extract import extract
from relatum.evaluation.geometry import effective_rank
from relatum.evaluation.knn import KNN
from relatum.evaluation.online import OnlineProbe
from relatum.measurement.evaluators import DEFAULT_RUN, EVALUATORS
from relatum.measurement.reading import Reader
from relatum.methods import Method
from relatum.networks.backbones import Backbone

T = TypeVar("T")

FEW = 5_000  # images of a set without test images, up to which the accuracy on those that train is told as well

MISSING = {
    "two-views": "training did not compare two views of an image",
    "classifier": "the encoder has no classifier",
    "heads": "there is no classifier that was trained beside the backbone's, as right after training by sd or dml",
    "staged": "the encoder has no stages",
}
"""Why an encoder is none that an evaluator is for."""

PrecisionContext = Callable[[], AbstractContextManager]
"""Makes the context in which an encoder runs, such as autocast."""


class Measurements(NamedTuple):
    """Numbers, and how they were measured.

    Attributes:
        metrics: each in its own unit; accuracies in percent.
        protocols: for each evaluator, how it measured, in words.
        columns: the metrics that a table shows, in this order, and their headings.
        correct: for each evaluator that guesses classes, whether its first guess was right, image by image of the test
            set: `numpy.packbits` of it, in base64.
        notices: what was adapted or left out, in words.
        embeddings: those of the test images; None where no evaluator read them.
        stages: the features of each stage for the test images, shallow to deep, where an evaluator read them.
    """

    metrics: dict[str, float]
    protocols: dict[str, str]
    columns: dict[str, str]
    correct: dict[str, str]
    notices: Sequence[str]
    embeddings: Embeddings | None = None
    stages: Sequence[Embeddings] = ()


class Plan(NamedTuple):
    """What is measured of the images that there are.

    Attributes:
        run: evaluators by name, in their order.
        options: all evaluators that can measure, as far as the images allow them.
        notices: what had to change, in words.
    """

    run: dict[str, Evaluator]
    options: dict[str, Evaluator]
    notices: tuple[str, ...]


@dataclass(frozen=True)
class Measurer:
    """The images, the place, the precision and the evaluators of a run, held once.

    With several processes all of them call `between_epochs` and `final`: each encodes its part of the images; the
    first then measures, alone, and the others return without numbers and wait for nobody.

    Attributes:
        source: the data set; its mean and deviation normalize every image.
        train: the images that training sees.
        held_out: the part of the training images that it does not see; None where nothing is held out.
        view: that of training; evaluation sees images of its size.
        two_views: whether training compares two views of an image.
        outputs: classes that the backbone's classifier knows; 0 without one.
        heads: whether the method trains classifiers beside the backbone's.
        device: where the encoder is.
        precision: makes the context in which it runs.
        batch_size: images of a forward pass.
        workers: processes that decode streamed images.
        evaluators: options by name; those left out have their defaults.
        run: names of what is measured at the end.
        untrained: makes the encoder before training.
        staged: whether the encoder has stages.
        adapted: what else had to change for these images, in words.
    """

    source: Source
    train: Images
    held_out: Images | None
    view: View
    two_views: bool
    outputs: int
    device: torch.device
    precision: PrecisionContext = nullcontext
    batch_size: int = 500
    workers: int = 0
    evaluators: Mapping[str, Evaluator] = field(default_factory=dict)
    run: tuple[str, ...] = DEFAULT_RUN
    untrained: Callable[[], Backbone] | None = None
    heads: bool = False
    staged: bool = True
    adapted: tuple[str, ...] = ()

    @property
    def labeled(self) -> bool:
        """Whether all training images have a class."""
        return bool((self.train.labels >= 0).all())

    @property
    def test(self) -> Images | None:
        """What is measured at the end: held-out images where the set has no test images."""
        return self.held_out if self.source.test is None else self.source.test

    @property
    def against(self) -> str:
        """What `test` is called in a protocol."""
        kind = "held-out training images" if self.source.test is None else "test images"
        return f"{len(self.test)} {kind}" if self.test is not None else ""

    @cached_property
    def plan(self) -> Plan:
        """Known before anything is trained: what of `run` can be measured, and with which options."""
        test = self.test
        labels = Labels(self.train.labels, None if test is None else test.labels, self.outputs)
        options: dict[str, Evaluator] = {}
        said: dict[str, str] = {}
        for name, kind in EVALUATORS.items():
            fitting, said[name] = self.evaluators.get(name, kind()).fitted(labels)
            if fitting is not None:
                options[name] = fitting
        kinds = {"any", *(["two-views"] if self.two_views else []), *(["classifier"] if self.outputs else [])}
        kinds |= {"heads"} if self.heads else set()
        kinds |= {"staged"} if self.staged else set()
        run: dict[str, Evaluator] = {}
        notices = list(self.adapted)
        left_out: dict[str, list[str]] = {}
        for name in self.run:
            kind, shared = EVALUATORS[name], EVALUATORS[name].like
            if kind.part_of in self.run:
                continue
            if kind.encoders not in kinds:
                if name not in DEFAULT_RUN or not set(DEFAULT_RUN) <= set(self.run):
                    left_out.setdefault(MISSING[kind.encoders], []).append(name)
            elif name not in options or (shared and shared not in options):
                if why := said[shared or name] or said[name]:
                    left_out.setdefault(why, []).append(name)
            else:
                run[name] = options[name]
                notices += [f"{part}: {said[part]}." for part in (name, shared) if part and said[part]]
        notices += [f"{', '.join(names)} left out: {why}." for why, names in left_out.items()]
        return Plan(run, options, tuple(dict.fromkeys(notices)))

    def embed(self, encode: Callable[[Tensor], Float[Tensor, "n d"]], images: Images) -> Embeddings | None:
        """`encode` of clean views of `images`, normalized as in training, on the CPU.

        Returns:
            the embeddings, in the order of the images; with several processes None on all but the first.
        """
        world, batches = world_size(), -(-len(images) // self.batch_size)
        # Whole batches: every image is encoded beside the same others as in one process, so that numbers agree.
        share = -(-batches // world) * self.batch_size
        part = images if world == 1 else images.subset(torch.arange(len(images))[rank() * share :][:share])
        own = None
        if len(part):
            views = evaluation_batches(
                part,
                EvaluationView(size=self.view.size),
                mean=self.source.mean,
                std=self.source.std,
                batch_size=self.batch_size,
                device=self.device,
                workers=self.workers,
            )
            with self.precision():
                own = extract(encode, views).features
        features = rows_of_all(own)
        return None if features is None else Embeddings(features, images.labels.cpu())

    def between_epochs(self, method: Method, probe: OnlineProbe | None = None) -> dict[str, float]:
        """What can be said of the encoder between two epochs, from the training images alone; {} but on rank 0.

        Accuracies where there are classes, and the effective rank of the features: of the held-out images, or of those
        of training where nothing is held out.

        Args:
            method: its backbone is measured.
            probe: what has learned from its features beside it; only with labels and held-out images.
        """
        compared = self.labeled and self.held_out is not None
        classifies = self.labeled and method.backbone.num_classes > 0
        with evaluating(method):
            reader = Reader(method.backbone, {"embedding", "logits"} if classifies else {"embedding"})
            seen = self.embed(reader, self.held_out or self.train)
            bank = self.embed(method.embed, self.train) if compared and not classifies else None
            few = compared and classifies and self.source.test is None and len(self.train) <= FEW
            fitted = self.embed(reader, self.train) if few else None
        if seen is None:
            return {}
        read, found = reader.parts(seen), dict[str, float]()
        if classifies:
            found = _prefix("validation_" if compared else "training_", accuracy(*read["logits"]))
            if fitted is not None:
                found |= _prefix("training_", accuracy(*reader.parts(fitted)["logits"]))
        elif bank is not None and self.held_out is not None:
            knn, _ = self.evaluators.get("knn", KNN()).fitted(Labels(self.train.labels, self.held_out.labels))
            assert isinstance(knn, KNN)
            found = _prefix("validation_knn_", knn(bank, read["embedding"]))
        if probe is not None:
            found |= _prefix("validation_online_", probe.measure(*read["embedding"]))
        return found | {"effective_rank": effective_rank(read["embedding"].features)}

    def final(self, method: Method | Backbone) -> Measurements:
        """The final measurements: on the test set, against all training images.

        With several processes all but the first get no metrics.
        """
        columns: dict[str, str] = {}
        shown: dict[str, Mapping[str, str]] = {}
        correct: dict[str, str] = {}
        metrics: dict[str, float] = {}
        protocols: dict[str, str] = {}
        with evaluating(method):
            subject = self._subject(method)
            for name, evaluator in self.plan.run.items() if rank() == 0 else ():
                found = evaluator.measure(subject)
                metrics |= _prefix(_prefix_of(name), found.metrics)
                protocols[name] = found.protocol
                shown[name] = EVALUATORS[name].columns if found.columns is None else found.columns
                if found.correct is not None:
                    correct[name] = packed(found.correct)
        for name in (name for name in EVALUATORS if name in protocols):
            headings = _prefix(_prefix_of(name), shown[name])
            columns |= {metric: heading for metric, heading in headings.items() if metric in metrics}
        stages = [seen for name, seen in subject.test.items() if name.startswith("stage")]
        notices = (*self.plan.notices, *not_beaten(metrics))
        embeddings = subject.test.get("embedding")
        return Measurements(metrics, protocols, columns, correct, notices, embeddings, stages)

    def _subject(self, method: Method | Backbone) -> Subject:
        """All that the evaluators need, read in one pass through each set of images."""
        backbone, predictions = (
            (method, None) if isinstance(method, Backbone) else (method.backbone, method.predictions)
        )
        chosen = self.plan.run.values()
        untrained = None
        if any("untrained" in (*e.reads_train, *e.reads_test) for e in chosen):
            assert self.untrained is not None
            untrained = self.untrained().to(self.device).eval()
        read: list[dict[str, Embeddings]] = []
        for images, wanted in ((self.train, "reads_train"), (self.test, "reads_test")):
            readings: set[Reading] = {reading for evaluator in chosen for reading in getattr(evaluator, wanted)}
            read.append({})
            if readings and images is not None:
                reader = Reader(backbone, readings, untrained, predictions)
                seen = self.embed(reader, images)
                read[-1] = {} if seen is None else reader.parts(seen)
        return Subject(
            train=read[0],
            test=read[1],
            sets=f"{len(self.train)} training against {self.against}",
            against=self.against,
            evaluators=self.plan.options,
            images=self.train,
            view=self.view,
            encode=_under(self.precision, backbone.embed),
            draw=self._draw,
            batch_size=self.batch_size,
            device=self.device,
        )

    def _draw(
        self, images: Images, rows: Callable[[int], Tensor], view: View, views_per_image: int, seed: int
    ) -> Callable[[int], Iterable[Batch]]:
        loader = Loader(
            images,
            rows,
            view,
            mean=self.source.mean,
            std=self.source.std,
            views_per_image=views_per_image,
            seed=seed,
            device=self.device,
            workers=self.workers,
        )
        return loader.epoch

    def thumbnail(self, images: Images, i: int) -> UInt8[Tensor, "s s c"]:
        """Image number `i` as people look at it."""
        picture = EvaluationView(size=self.view.size).crop_image(
            Image.fromarray(images.read(i).permute(1, 2, 0).numpy()), Generator()
        )
        return picture.permute(1, 2, 0)


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Evaluation mode, and back to the mode before it."""
    before = module.training
    module.eval()
    try:
        yield
    finally:
        module.train(before)


def packed(correct: Bool[Tensor, " n"]) -> str:
    """One bit an image: `numpy.packbits`, in base64."""
    return base64.b64encode(np.packbits(correct.cpu().numpy()).tobytes()).decode("ascii")


def _under(precision: PrecisionContext, embed: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """`embed` in a precision of its own: what is made of its features is computed in full precision."""

    def run(images: Tensor) -> Tensor:
        with precision():
            return embed(images)

    return run


def _prefix_of(name: str) -> str:
    prefix = EVALUATORS[name].prefix
    return f"{name}_" if prefix is None else prefix


def _prefix(prefix: str, values: Mapping[str, T]) -> dict[str, T]:
    return {f"{prefix}{name}": value for name, value in values.items()}
