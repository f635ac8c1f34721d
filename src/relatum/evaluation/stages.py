"""k-NN on the features of every stage: at what depth classes come apart."""

from dataclasses import dataclass
from typing import ClassVar

from relatum.evaluation.evaluator import Encoders, Evaluator, Measured, Reading, Subject
from relatum.evaluation.knn import KNN


@dataclass(frozen=True)
class Stages(Evaluator):
    """k-NN, as `evaluation.knn` says, on the mean of each stage's map (Yu et al. 2023, Fig. 2, in numbers)."""

    reads_train: ClassVar[tuple[Reading, ...]] = ("stages",)
    reads_test: ClassVar[tuple[Reading, ...]] = ("stages",)
    encoders: ClassVar[Encoders] = "staged"
    like: ClassVar[str] = "knn"
    prefix: ClassVar[str | None] = ""

    def measure(self, subject: Subject) -> Measured:
        """`stage1_knn_top1`, ... in percent, shallow to deep."""
        knn = subject.evaluators["knn"]
        assert isinstance(knn, KNN)
        metrics: dict[str, float] = {}
        for name in (name for name in subject.train if name.startswith("stage")):
            found = knn(subject.train[name], subject.test[name])
            metrics |= {f"{name}_knn_{metric}": value for metric, value in found.items()}
        protocol = (
            f"{knn} on the mean over the positions of each stage's map, shallow to deep, clean views, {subject.sets}, "
            "last epoch"
        )
        return Measured(metrics, protocol)
