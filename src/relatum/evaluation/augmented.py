"""The linear probe on augmented images, as is usual on ImageNet."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from relatum.core.types import Embeddings
from relatum.data.pairing import shuffled
from relatum.data.views import ClassifierView
from relatum.evaluation.evaluator import Evaluator, Measured, Subject
from relatum.evaluation.linear import LinearProbe


@dataclass(frozen=True)
class AugmentedProbe(Evaluator):
    """The linear probe on random resized crops and mirror images: as many passes through the images as it has epochs.

    Attributes:
        min_scale: the smallest crop, as a share of the image's area.
    """

    min_scale: float = 0.08

    like: ClassVar[str] = "linear"
    columns: ClassVar[Mapping[str, str]] = {"top1": "linear, augmented"}

    def __post_init__(self) -> None:
        if not 0 < self.min_scale <= 1:
            raise ValueError(f"min_scale={self.min_scale}; expected a share of the image in (0, 1], 0.08 is usual")

    def measure(self, subject: Subject) -> Measured:
        """The metrics of the linear probe."""
        probe, images = subject.evaluators["linear"], subject.images
        assert isinstance(probe, LinearProbe)
        flip = getattr(subject.view, "flip", 0.0)  # mirrored as in training: some images must not be
        view = ClassifierView(size=subject.view.size, crop="resized", min_scale=self.min_scale, flip=flip)
        rows = min(probe.batch_size, len(images))
        batches = subject.draw(
            images,
            lambda epoch: shuffled(len(images), batch_size=rows, seed=probe.seed, epoch=epoch),
            view,
            1,
            probe.seed,
        )
        features, labels = subject.train["embedding"]
        train = Embeddings(features.to(subject.device), labels.to(subject.device))
        found = probe.augmented(subject.encode, batches, train, subject.test["embedding"])
        protocol = (
            f"{probe}; backbone features of crops of {view.min_scale:.0%} to 100% of the area, mirrored with "
            f"probability {view.flip:g}, drawn anew in each epoch; {len(images)} training against clean views of "
            f"{subject.against}, last epoch"
        )
        return Measured(found.metrics, protocol, (found.before == 0).cpu())
