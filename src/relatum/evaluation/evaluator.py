"""What an evaluator is: frozen data that measures an encoder, says how, and says which columns a table gets."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from relatum.core.types import Batch, Embeddings
from relatum.data.images import Images
from relatum.data.views import View

Reading = Literal["embedding", "logits", "stages", "pixels", "untrained", "heads"]
"""What is read of an image: the features of the backbone; its classifier's scores; the mean of each stage's map over
the positions (as "stage1", "stage2", ...); the normalized pixels; the features before training; the scores of each
classifier that is trained beside the backbone's (as "head:NAME")."""

Encoders = Literal["any", "two-views", "classifier", "heads", "staged"]
"""Which encoders an evaluator is for: all, those that learned from two views of an image, those that classify,
those that just were trained with classifiers beside their own, those that have stages."""


class Labels(NamedTuple):
    """What is known of the images before anything is measured.

    Attributes:
        train: classes of the training images, -1 for none.
        test: classes of the test images; None without any.
        outputs: classes that the backbone's classifier knows; 0 without one.
    """

    train: Int[Tensor, " n"]
    test: Int[Tensor, " m"] | None
    outputs: int = 0


class Measured(NamedTuple):
    """What an evaluator found.

    Attributes:
        metrics: each in its own unit; accuracies in percent.
        protocol: how they were measured, in words.
        correct: whether the first guess was right, for each test image; None where nothing is guessed.
        columns: those of a table, where they depend on what was found; None for the evaluator's.
    """

    metrics: dict[str, float]
    protocol: str
    correct: Bool[Tensor, " m"] | None = None
    columns: Mapping[str, str] | None = None


@dataclass(frozen=True)
class Subject:
    """An encoder as evaluators see it.

    Attributes:
        train: the training images by what was read of them, in their order.
        test: the test images likewise.
        sets: how many images are compared with how many, in words.
        against: the test images, in words.
        evaluators: the options of all evaluators, by name: some measure as another does.
        images: the training images.
        view: what training saw of an image; a square of `view.size` pixels.
        encode: images on the device to features, in the precision of training.
        draw: (images, epoch -> sample numbers "steps rows n", view, views of each image, seed) -> epoch -> batches on
            the device.
        batch_size: images of a forward pass.
        device: where the encoder is.
    """

    train: Mapping[str, Embeddings]
    test: Mapping[str, Embeddings]
    sets: str
    against: str
    evaluators: Mapping[str, "Evaluator"]
    images: Images
    view: View
    encode: Callable[[Tensor], Float[Tensor, "n d"]]
    draw: Callable[[Images, Callable[[int], Tensor], View, int, int], Callable[[int], Iterable[Batch]]]
    batch_size: int
    device: torch.device


class Evaluator(ABC):
    """Base of all evaluators: a frozen dataclass whose fields are the whole protocol.

    Attributes:
        reads_train: what it needs of the training images.
        reads_test: what it needs of the test images.
        labeled: whether it needs the classes of both.
        encoders: which encoders it is for.
        like: the evaluator whose options it shares; "" for none.
        part_of: the evaluator that measures this too, and in its place where both are asked for; "" for none.
        prefix: what precedes the name of each metric; None for its own name and "_".
        columns: the metrics that a table shows, in this order, and their headings.
    """

    reads_train: ClassVar[tuple[Reading, ...]] = ("embedding",)
    reads_test: ClassVar[tuple[Reading, ...]] = ("embedding",)
    labeled: ClassVar[bool] = True
    encoders: ClassVar[Encoders] = "any"
    like: ClassVar[str] = ""
    part_of: ClassVar[str] = ""
    prefix: ClassVar[str | None] = None
    columns: ClassVar[Mapping[str, str]] = {}

    @abstractmethod
    def measure(self, subject: Subject) -> Measured:
        """The measurement.

        Raises:
            ValueError: for features or labels that cannot be used.
        """

    def fitted(self, labels: Labels) -> "tuple[Evaluator | None, str]":
        """Itself as far as the images allow it, and in words what had to change ("" for nothing).

        Returns:
            the evaluator, with other options where the images are few; None, and why, where nothing can be measured.
            None and "" where nothing needs to be said.
        """
        return (None, why) if self.labeled and (why := lacking(labels, train=bool(self.reads_train))) else (self, "")


def lacking(labels: Labels, *, train: bool = True) -> str:
    """Why nothing can be measured that compares classes; "" where it can.

    Args:
        labels: what there is.
        train: whether the classes of the training images matter.
    """
    if labels.test is None:
        return "there are no test images, and nothing is held out"
    for images, what, matters in ((labels.train, "training", train), (labels.test, "test", True)):
        unlabeled = int((images < 0).sum())
        if matters and unlabeled:
            return f"{unlabeled:,} of {len(images):,} {what} images have no class"
    return ""
