"""The encoder of a finished run, for anybody's images: features, logits, and guesses from its training images."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from relatum.core.types import Embeddings
from relatum.data import sources
from relatum.data.images import Images
from relatum.data.loading import evaluation_batches
from relatum.data.residency import OnBadImage
from relatum.data.sources import Source
from relatum.data.views import EvaluationView
from relatum.evaluation.extract import extract
from relatum.methods.classifying import class_logits
from relatum.networks.backbones import Backbone
from relatum.networks.export import EncoderInfo
from relatum.recipes import building
from relatum.recipes.recipe import Recipe
from relatum.training.run_folder import encoder_of


@dataclass(frozen=True)
class RunEncoder:
    """The encoder of a run folder, ready to encode.

    Attributes:
        backbone: trained, in evaluation mode.
        info: its classes, size and normalization.
        recipe: of the run.
        device: where it is.
    """

    backbone: Backbone
    info: EncoderInfo
    recipe: Recipe
    device: torch.device

    def features(self, images: Images) -> Float[Tensor, "n d"]:
        """The embedding of each image, in float32 on the CPU."""
        return self._encoded(self.backbone.embed, images)

    def logits(self, images: Images) -> Float[Tensor, "n k"]:
        """What the classifier says of each image; only where `info.num_classes` is not 0."""
        return self._encoded(lambda views: class_logits(self.backbone(views)), images)

    def _encoded(self, encode: Callable[[Tensor], Tensor], images: Images) -> Tensor:
        views = evaluation_batches(
            images,
            EvaluationView(size=self.info.size),
            mean=self.info.mean,
            std=self.info.std,
            batch_size=self.recipe.evaluation.batch_size,
            device=self.device,
            workers=self.recipe.data.workers,
        )
        return extract(encode, views).features


class Guess(NamedTuple):
    """What an encoder says of images.

    Attributes:
        classes: the name of each class.
        labels: of each image.
        confidence: between 0 and 1, of each image.
        by: what guessed, in words.
    """

    classes: tuple[str, ...]
    labels: Int[Tensor, " n"]
    confidence: Float[Tensor, " n"]
    by: str


def encoder_in(run: Path, recipe: Recipe, device: torch.device) -> RunEncoder:
    """The encoder of a run folder.

    Args:
        run: the folder.
        recipe: of the run.
        device: where to encode.
    """
    backbone, info = encoder_of(run)
    return RunEncoder(backbone.to(device).eval(), info, recipe, device)


def images_in(name: str, *, root: str = ".data", on_bad_image: OnBadImage = "error") -> Source:
    """All images of a folder, archive, pattern or named set, streamed: so they keep the names of their files."""
    return sources.load(name, root=root, on_bad_image=on_bad_image, resident="no", together=True)


def guess(encoder: RunEncoder, images: Images) -> Guess:
    """A class for each image: by the encoder's classifier, or without one by k-NN in its labeled training images.

    The confidence is the softmax of the classifier, or the share that the class has of the neighbors' votes.

    Raises:
        ValueError: the encoder has no classifier, and its training images have no classes.
        FileNotFoundError: it has no classifier, and its training images are gone.
    """
    info = encoder.info
    if info.num_classes:
        confidence, labels = encoder.logits(images).softmax(1).max(1)
        names = info.classes or tuple(map(str, range(info.num_classes)))
        return Guess(names, labels, confidence, "the run's classifier; confidence: its softmax")
    prepared = building.prepare(replace(encoder.recipe, evaluation=replace(encoder.recipe.evaluation, run=())))
    if not prepared.labeled:
        raise ValueError(
            f"the run has no classifier, and its training images ({encoder.recipe.data.source}) have no classes to "
            "guess from: `relatum search` finds what is alike, and `--model.initial` fine-tunes it on labeled images."
        )
    knn = encoder.recipe.evaluation.knn
    knn = replace(knn, k=min(knn.k, len(prepared.train)))
    bank = Embeddings(encoder.features(prepared.train), prepared.train.labels)
    votes = knn.votes(bank, encoder.features(images), len(prepared.source.classes))
    confidence, labels = (votes / votes.sum(1, keepdim=True)).max(1)
    by = (
        f"{knn} among the {len(bank.labels):,} labeled training images of the run, which has no classifier; "
        "confidence: the share of the votes"
    )
    return Guess(prepared.source.classes, labels, confidence, by)
