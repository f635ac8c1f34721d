"""Classifiers that are trained beside the backbone's, and dropped when it is exported: heads, ensembles, peers."""

from dataclasses import dataclass
from typing import ClassVar

from relatum.evaluation.classification import accuracy
from relatum.evaluation.evaluator import Encoders, Evaluator, Labels, Measured, Reading, Subject


@dataclass(frozen=True)
class Heads(Evaluator):
    """Accuracy of each classifier that the method trains beside the backbone's own, as `Method.predictions` names them.

    The heads of self-distillation (`stage1` the shallowest) and their `ensemble`, the peers of mutual learning. Only
    right after training: the files of an encoder hold the backbone alone.
    """

    reads_train: ClassVar[tuple[Reading, ...]] = ()
    reads_test: ClassVar[tuple[Reading, ...]] = ("heads",)
    encoders: ClassVar[Encoders] = "heads"

    def measure(self, subject: Subject) -> Measured:
        """`stage1_top1`, `stage1_top5`, ... in percent, for each classifier in the order of the method."""
        metrics: dict[str, float] = {}
        columns: dict[str, str] = {}
        for reading in (name for name in subject.test if name.startswith("head:")):
            name = reading.removeprefix("head:")
            metrics |= {f"{name}_{metric}": value for metric, value in accuracy(*subject.test[reading]).items()}
            columns[f"{name}_top1"] = f"{name} top-1"
        protocol = f"classifiers that are trained beside the backbone's, and dropped, {subject.against}, last epoch"
        return Measured(metrics, protocol, columns=columns)

    def fitted(self, labels: Labels) -> tuple[Evaluator | None, str]:
        """Itself, unless the test set has classes that the classifiers do not know."""
        fitting, why = super().fitted(labels)
        if fitting is not None and labels.test is not None and int(labels.test.max()) >= labels.outputs:
            return None, f"the classifiers know {labels.outputs} classes, and the images are of others"
        return fitting, why
