"""What training has to beat: k-NN on raw pixels, and on the encoder before training."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from relatum.evaluation.evaluator import Evaluator, Measured, Reading, Subject
from relatum.evaluation.knn import KNN


@dataclass(frozen=True)
class Baselines(Evaluator):
    """k-NN, as `evaluation.knn` says, on normalized pixels and on the features of the encoder before training."""

    reads_train: ClassVar[tuple[Reading, ...]] = ("pixels", "untrained")
    reads_test: ClassVar[tuple[Reading, ...]] = ("pixels", "untrained")
    like: ClassVar[str] = "knn"
    prefix: ClassVar[str | None] = ""
    columns: ClassVar[Mapping[str, str]] = {"pixels_knn_top1": "k-NN, pixels", "untrained_knn_top1": "k-NN, untrained"}

    def measure(self, subject: Subject) -> Measured:
        """`pixels_knn_top1`, `untrained_knn_top1`, ... in percent."""
        knn = subject.evaluators["knn"]
        assert isinstance(knn, KNN)
        found = {name: knn(subject.train[name], subject.test[name]) for name in ("pixels", "untrained")}
        return Measured(
            {f"{name}_knn_{metric}": value for name, part in found.items() for metric, value in part.items()},
            f"{knn} on normalized pixels, and on the encoder before training",
        )
