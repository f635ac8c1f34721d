"""What the frozen features are worth: functions of `Embeddings` that know no trainer and no backbone.

An evaluator is a frozen dataclass whose fields are its whole protocol and whose `str` states it, so that no number
stands without its k, temperature or learning rates: `KNN(k=200)(train, test) -> {"top1": 83.1, "top5": 98.9}`.
"""

from relatum.evaluation.classification import accuracy, expected_calibration_error
from relatum.evaluation.evaluator import Evaluator, Labels, Measured, Subject
from relatum.evaluation.extract import extract
from relatum.evaluation.geometry import alignment, effective_rank, uniformity
from relatum.evaluation.knn import KNN
from relatum.evaluation.linear import LinearProbe
from relatum.evaluation.retrieval import Retrieval, nearest
from relatum.evaluation.tsne import tsne

__all__ = [
    "KNN",
    "Evaluator",
    "Labels",
    "LinearProbe",
    "Measured",
    "Retrieval",
    "Subject",
    "accuracy",
    "alignment",
    "effective_rank",
    "expected_calibration_error",
    "extract",
    "nearest",
    "tsne",
    "uniformity",
]
