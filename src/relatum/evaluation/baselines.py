"""What training has to beat: k-NN on raw pixels, and on the encoder before training."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from relatum.evaluation.evaluator import Evaluator, Labels, Measured, Reading, Subject
from relatum.evaluation.knn import KNN

CHEAP = 50_000_000  # comparisons of a test image with a training image: some seconds of a processor core
PIXELS = "pixels_knn_top1"
READ_BY = {"knn_top1": "k-NN", "top1": "its classifier"}  # the metrics that pixels are compared with


def not_beaten(metrics: Mapping[str, float]) -> list[str]:
    """For each way of reading an encoder that is no better than k-NN on raw pixels, a sentence that says so.

    Args:
        metrics: of a run, in percent.
    """
    pixels = metrics.get(PIXELS)
    if pixels is None:
        return []
    return [
        f"the encoder reads {metrics[name]:.1f} % ({by}), raw pixels {pixels:.1f} % (k-NN): training has not beaten "
        "what was there without it. Train longer (--train.epochs), use more images, or start from trained weights "
        "(--model.initial)."
        for name, by in READ_BY.items()
        if name in metrics and metrics[name] <= pixels
    ]


@dataclass(frozen=True)
class Pixels(Evaluator):
    """k-NN, as `evaluation.knn` says, on raw pixels: normalized, and averaged to at most 32 x 32."""

    reads_train: ClassVar[tuple[Reading, ...]] = ("pixels",)
    reads_test: ClassVar[tuple[Reading, ...]] = ("pixels",)
    like: ClassVar[str] = "knn"
    prefix: ClassVar[str | None] = ""
    part_of: ClassVar[str] = "baselines"
    columns: ClassVar[Mapping[str, str]] = {PIXELS: "k-NN, pixels"}

    def measure(self, subject: Subject) -> Measured:
        """`pixels_knn_top1`, ... in percent."""
        return _compared(subject, ("pixels",), "normalized pixels, averaged to at most 32 x 32")

    def fitted(self, labels: Labels) -> tuple[Evaluator | None, str]:
        """Itself where there are few images; where there are many, `baselines` measures it for those who ask."""
        fitting, why = super().fitted(labels)
        costly = fitting is not None and labels.test is not None and len(labels.train) * len(labels.test) > CHEAP
        return (None, "") if costly else (fitting, why)


def _compared(subject: Subject, names: Sequence[Reading], what: str) -> Measured:
    knn = subject.evaluators["knn"]
    assert isinstance(knn, KNN)
    metrics: dict[str, float] = {}
    for name in names:
        train, test = subject.train[name], subject.test[name]
        metrics |= {f"{name}_knn_{metric}": value for metric, value in knn(train, test).items()}
    return Measured(metrics, f"{knn} on {what}")


@dataclass(frozen=True)
class Baselines(Evaluator):
    """k-NN, as `evaluation.knn` says, on normalized pixels and on the features of the encoder before training."""

    reads_train: ClassVar[tuple[Reading, ...]] = ("pixels", "untrained")
    reads_test: ClassVar[tuple[Reading, ...]] = ("pixels", "untrained")
    like: ClassVar[str] = "knn"
    prefix: ClassVar[str | None] = ""
    columns: ClassVar[Mapping[str, str]] = {PIXELS: "k-NN, pixels", "untrained_knn_top1": "k-NN, untrained"}

    def measure(self, subject: Subject) -> Measured:
        """`pixels_knn_top1`, `untrained_knn_top1`, ... in percent."""
        what = "normalized pixels, averaged to at most 32 x 32, and on the encoder before training"
        return _compared(subject, ("pixels", "untrained"), what)
