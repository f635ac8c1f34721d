"""The backbone's own classifier: how often it is right, and whether it knows."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from relatum.evaluation.classification import accuracy, classes_before, expected_calibration_error
from relatum.evaluation.evaluator import Encoders, Evaluator, Labels, Measured, Reading, Subject


@dataclass(frozen=True)
class Classifier(Evaluator):
    """Accuracy and calibration error (Guo et al. 2017) of the classifier that was trained with the backbone.

    Attributes:
        bins: equal parts of the confidence's range, for the calibration error.
    """

    bins: int = 15

    reads_train: ClassVar[tuple[Reading, ...]] = ()
    reads_test: ClassVar[tuple[Reading, ...]] = ("logits",)
    encoders: ClassVar[Encoders] = "classifier"
    prefix: ClassVar[str | None] = ""
    columns: ClassVar[Mapping[str, str]] = {"top1": "top-1", "top5": "top-5", "calibration_error": "ECE"}

    def __post_init__(self) -> None:
        if self.bins < 1:
            raise ValueError(f"bins={self.bins}; expected at least 1 (15 is usual)")

    def measure(self, subject: Subject) -> Measured:
        """Top-1, top-5 and calibration error, in percent."""
        logits, labels = subject.test["logits"]
        error = expected_calibration_error(logits, labels, self.bins)
        calibration = f"calibration error of {self.bins} bins, in percent"
        protocol = f"the backbone's classifier, {subject.against}, last epoch; {calibration}"
        return Measured(
            accuracy(logits, labels) | {"calibration_error": error}, protocol, classes_before(logits, labels) == 0
        )

    def fitted(self, labels: Labels) -> tuple[Evaluator | None, str]:
        """Itself, unless the test set has classes that the classifier does not know."""
        fitting, why = super().fitted(labels)
        if fitting is not None and labels.test is not None and int(labels.test.max()) >= labels.outputs:
            return None, f"the classifier knows {labels.outputs} classes, and the images are of others"
        return fitting, why
