"""What is measured of an encoder, between epochs and at the end."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from math import ceil
from typing import NamedTuple

import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Generator, Tensor, nn

from relatum.core.precision import at_least_float32
from relatum.core.randomness import generator_of
from relatum.core.types import Embeddings
from relatum.data import pairing
from relatum.data.images import Images, first
from relatum.data.loading import Loader, evaluation_batches
from relatum.data.sources import Source
from relatum.data.views import ClassifierView, ContrastiveView, EvaluationView
from relatum.evaluation.classification import accuracy, expected_calibration_error
from relatum.evaluation.extract import extract
from relatum.evaluation.geometry import alignment, effective_rank, uniformity
from relatum.evaluation.knn import KNN
from relatum.evaluation.linear import LinearProbe
from relatum.methods import Method
from relatum.networks.backbones import Backbone

Precision = Callable[[], AbstractContextManager]
"""Makes the context in which an encoder runs, such as autocast."""

UNIFORMITY_IMAGES = 10_000  # at most; it grows with the square
SPLIT_SEED = 0  # the held-out part, and the fixed part of a set, are the same in all runs, whatever their seed
ALIGNED = 1000  # training images whose two views are compared at most


class Measurements(NamedTuple):
    """Numbers, and how each group of them was measured.

    Attributes:
        metrics: each in its own unit; accuracies in percent.
        protocols: how each group was measured, in words.
        columns: the metrics that a table shows, in this order, and their headings.
        correct: for an evaluator that guesses classes, whether its first guess was right, image by image of the test
            set: `numpy.packbits` of it, in base64.
        notices: what was adapted or left out, in words.
        embeddings: of the test images; None where they were not needed.
        stages: the features of each stage for the test images, shallow to deep, where they were asked for.
    """

    metrics: dict[str, float]
    protocols: dict[str, str]
    columns: dict[str, str] = {}  # noqa: RUF012 - nobody changes it
    correct: dict[str, str] = {}  # noqa: RUF012
    notices: Sequence[str] = ()
    embeddings: Embeddings | None = None
    stages: Sequence[Embeddings] = ()


@dataclass(frozen=True)
class Measurer:
    """The images, the place and the precision of all measurements of a run.

    Attributes:
        source: the data set; its mean and deviation normalize every image.
        train: the images that training sees.
        held_out: the part of the training images that it does not see; None where nothing is held out.
        size: pixels of a view.
        view: of training.
        two_views: whether training compares two views of an image.
        device: where the encoder is.
        precision: makes the context in which it runs.
        batch_size: images of a forward pass.
        workers: processes that decode streamed images.
        knn, linear: the protocols of the two classifiers on frozen features.
        also: names of what is measured beside them.
        untrained: makes the encoder before training.
    """

    source: Source
    train: Images
    held_out: Images | None
    size: int
    view: ContrastiveView | ClassifierView
    two_views: bool
    device: torch.device
    precision: Precision = nullcontext
    batch_size: int = 500
    workers: int = 0
    knn: KNN = field(default_factory=KNN)
    linear: LinearProbe = field(default_factory=LinearProbe)
    also: frozenset[str] = frozenset()
    untrained: Callable[[], Backbone] | None = None

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

    @property
    def sets(self) -> str:
        """How many images are compared with how many, in a protocol."""
        return f"{len(self.train)} training against {self.against}"

    def embed(self, encode: Callable[[Tensor], Float[Tensor, "n d"]], images: Images) -> Embeddings:
        """`encode` of clean views of `images`, normalized as in training."""
        batches = evaluation_batches(
            images,
            EvaluationView(size=self.size),
            mean=self.source.mean,
            std=self.source.std,
            batch_size=self.batch_size,
            device=self.device,
            workers=self.workers,
        )
        with self.precision():
            return extract(encode, batches)

    def between_epochs(self, method: Method) -> dict[str, float]:
        """What can be said of the encoder between two epochs, from the training images alone."""
        with evaluating(method):
            if not self.labeled or self.held_out is None:
                look = self.held_out or self.train
                return {"effective_rank": effective_rank(self.embed(method.embed, look).features)}
            if method.backbone.num_classes:
                held_out = self.embed(logits_of(method.backbone), self.held_out)
                return _prefix("validation", accuracy(*held_out))
            bank = self.embed(method.embed, self.train)
            held_out = self.embed(method.embed, self.held_out)
        return _prefix("validation_knn", self.knn(bank, held_out))

    def final(self, backbone: Backbone) -> Measurements:
        """The final measurements: on the test set, against all training images."""
        metrics: dict[str, float] = {}
        protocols: dict[str, str] = {}
        test: Embeddings | None = None
        stages: Sequence[Embeddings] = ()

        def take(found: Measurements) -> None:
            metrics.update(found.metrics)
            protocols.update(found.protocols)

        with evaluating(backbone):
            bank = self.embed(backbone.embed, self.train)
            metrics |= {"effective_rank": effective_rank(bank.features), "uniformity": uniformity(_some(bank.features))}
            protocols["geometry"] = (
                f"backbone features of {len(self.train)} training images (uniformity: {UNIFORMITY_IMAGES:,} at most)"
            )
            if self.two_views:
                take(self.alignment(backbone))
            if self.labeled and self.test is not None:
                test = self.embed(backbone.embed, self.test)
                shared = f"backbone features, clean views, {self.sets}, last epoch"
                for name, evaluator in (("knn", self.knn), ("linear", self.linear)):
                    metrics |= _prefix(name, evaluator(bank, test))
                    protocols[name] = f"{evaluator}; {shared}"
                if "linear_augmented" in self.also:
                    take(self.augmented(backbone, bank, test))
                if "stages" in self.also:
                    found = self.stages(backbone)
                    take(found)
                    stages = found.stages
                if backbone.num_classes:
                    logits, labels = self.embed(logits_of(backbone), self.test)
                    metrics |= accuracy(logits, labels)
                    metrics["calibration_error"] = expected_calibration_error(logits, labels)
                    protocols["classifier"] = (
                        f"the backbone's classifier, {self.against}, last epoch; calibration error of 15 bins, in "
                        "percent"
                    )
                if "baselines" in self.also:
                    take(self.baselines())
        return Measurements(metrics, protocols, embeddings=test, stages=stages)

    def alignment(self, backbone: Backbone) -> Measurements:
        """How close two training views of an image lie, on a fixed part of the training images."""
        images = first(self.train, min(ALIGNED, len(self.train)), seed=SPLIT_SEED)
        steps = ceil(len(images) / self.batch_size)
        batches = torch.arange(len(images) // steps * steps).view(steps, 1, -1)
        loader = Loader(
            images,
            lambda epoch: batches,
            self.view,
            mean=self.source.mean,
            std=self.source.std,
            copies=2,
            seed=SPLIT_SEED,
            device=self.device,
            workers=self.workers,
        )
        embed = _under(self.precision, backbone.embed)
        with evaluating(backbone), torch.no_grad():
            views = [[embed(view).float().cpu() for view in batch.views] for batch in loader.epoch(0)]
        a, b = (torch.cat(view) for view in zip(*views))
        protocol = (
            f"mean squared distance of the normalized backbone features of two training views, {len(a)} training "
            "images, last epoch"
        )
        return Measurements({"alignment": alignment(a, b)}, {"alignment": protocol})

    def augmented(self, backbone: Backbone, bank: Embeddings, test: Embeddings) -> Measurements:
        """The linear probe on random resized crops and mirror images, as is usual on ImageNet.

        Args:
            backbone: the encoder.
            bank: clean features of the training images, in their order.
            test: clean features of the test images.
        """
        linear = self.linear
        view = ClassifierView(size=self.size, crop="resized", min_scale=0.08, flip=self.view.flip)
        rows = min(linear.batch_size, len(self.train))
        loader = Loader(
            self.train,
            lambda epoch: pairing.shuffled(len(self.train), batch_size=rows, seed=linear.seed, epoch=epoch),
            view,
            mean=self.source.mean,
            std=self.source.std,
            seed=linear.seed,
            device=self.device,
            workers=self.workers,
        )
        features, labels = bank
        placed = Embeddings(features.to(self.device), labels.to(self.device))
        with evaluating(backbone):
            metrics = linear.augmented(_under(self.precision, backbone.embed), loader.epoch, placed, test)
        protocol = (
            f"{linear}; backbone features of crops of {view.min_scale:.0%} to 100% of the area, mirrored with "
            f"probability {view.flip:g}, drawn anew in each epoch; {len(self.train)} training against clean views of "
            f"{self.against}, last epoch"
        )
        return Measurements(_prefix("linear_augmented", metrics), {"linear_augmented": protocol})

    def stage_embeddings(self, backbone: Backbone, images: Images) -> list[Embeddings]:
        """The features of every stage, shallow to deep: the mean of its map over the positions, in one pass."""

        def pooled(views: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d"]:
            return torch.cat([at_least_float32(maps).mean((2, 3)) for maps in backbone(views).stages], dim=1)

        with evaluating(backbone):
            features, labels = self.embed(pooled, images)
        return [Embeddings(stage, labels) for stage in features.split(backbone.stage_channels, dim=1)]

    def stages(self, backbone: Backbone) -> Measurements:
        """k-NN on the features of every stage: at what depth classes part (Yu et al. 2023, Fig. 2, in numbers)."""
        if self.test is None or not self.labeled:
            return Measurements({}, {})
        banks, tests = (self.stage_embeddings(backbone, images) for images in (self.train, self.test))
        metrics: dict[str, float] = {}
        for number, (bank, test) in enumerate(zip(banks, tests), 1):
            metrics |= _prefix(f"stage{number}_knn", self.knn(bank, test))
        protocol = (
            f"{self.knn} on the mean over the positions of each stage's map, shallow to deep, clean views, "
            f"{self.sets}, last epoch"
        )
        return Measurements(metrics, {"stages": protocol}, stages=tests)

    def baselines(self) -> Measurements:
        """k-NN on raw pixels and on the untrained encoder: what training has to beat."""
        assert self.test is not None
        assert self.untrained is not None
        untrained = self.untrained().to(self.device).eval()
        metrics: dict[str, float] = {}
        for name, embed in (("pixels", lambda images: images.flatten(1)), ("untrained", untrained.embed)):
            bank, test = (self.embed(embed, images) for images in (self.train, self.test))
            metrics |= _prefix(f"{name}_knn", self.knn(bank, test))
        return Measurements(
            metrics, {"baselines": f"{self.knn} on normalized pixels, and on the encoder before training"}
        )

    def thumbnail(self, images: Images, i: int) -> UInt8[Tensor, "s s c"]:
        """Image number `i` as people look at it."""
        picture = EvaluationView(size=self.size).crop_image(
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


def logits_of(backbone: Backbone) -> Callable[[Tensor], Float[Tensor, "n k"]]:
    """The classifier as a function of images."""
    return lambda images: backbone(images).logits


def _under(precision: Precision, embed: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """`embed` in a precision of its own: what is made of its features is computed in full precision."""

    def run(images: Tensor) -> Tensor:
        with precision():
            return embed(images)

    return run


def _some(features: Float[Tensor, "n d"]) -> Float[Tensor, "m d"]:
    """All of few features, or a fixed random part of many: uniformity compares every pair."""
    order = torch.randperm(len(features), generator=generator_of(SPLIT_SEED))
    return features[order[:UNIFORMITY_IMAGES]]


def _prefix(prefix: str, metrics: dict[str, float]) -> dict[str, float]:
    return {f"{prefix}_{name}": value for name, value in metrics.items()}
