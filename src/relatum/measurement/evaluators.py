"""Every evaluator by the name that recipes and the command line use."""

from difflib import get_close_matches

from relatum.core.plugins import Registry
from relatum.evaluation.augmented import AugmentedProbe
from relatum.evaluation.baselines import Baselines, Pixels
from relatum.evaluation.classifier import Classifier
from relatum.evaluation.evaluator import Evaluator
from relatum.evaluation.geometry import Alignment, Geometry
from relatum.evaluation.heads import Heads
from relatum.evaluation.knn import KNN
from relatum.evaluation.linear import LinearProbe
from relatum.evaluation.retrieval import Retrieval
from relatum.evaluation.stages import Stages

_EVALUATORS: dict[str, type[Evaluator]] = {
    "classifier": Classifier,
    "heads": Heads,
    "knn": KNN,
    "linear": LinearProbe,
    "linear_augmented": AugmentedProbe,
    "retrieval": Retrieval,
    "pixels": Pixels,
    "baselines": Baselines,
    "stages": Stages,
    "geometry": Geometry,
    "alignment": Alignment,
}
EVALUATORS: Registry[type[Evaluator]] = Registry("evaluator", _EVALUATORS)
"""A name -> what it measures. The order is that of a table's columns."""

DEFAULT_RUN = ("geometry", "alignment", "knn", "linear", "classifier", "heads", "pixels")
"""What is measured unless a recipe says otherwise; what an encoder is not made for is left out without a word."""


def refuse_unknown(run: tuple[str, ...]) -> None:
    """Raise unless `run` names evaluators, each once."""
    for name in run:
        if name not in EVALUATORS:
            close = get_close_matches(name, EVALUATORS, n=1)
            hint = f"did you mean {close[0]}?" if close else f"expected some of {', '.join(EVALUATORS)}."
            raise ValueError(f"evaluation.run names {name!r}, and there is no such evaluator; {hint}")
    if len(set(run)) < len(run):
        raise ValueError(f"evaluation.run names an evaluator twice ({', '.join(run)}); expected each once.")
