"""What a recipe says of measuring: which evaluators run, and the options of each."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import docstring_parser
import tyro

from relatum.evaluation.evaluator import Evaluator
from relatum.measurement.evaluators import DEFAULT_RUN, EVALUATORS, refuse_unknown


def evaluator_options(evaluators: Mapping[str, type[Evaluator]]) -> type:
    """A frozen dataclass with a field for each evaluator that has options, its options the default."""
    members: list[Any] = []
    for name, kind in evaluators.items():
        if dataclasses.fields(kind):  # type: ignore[arg-type]  # all evaluators are dataclasses
            said = docstring_parser.parse(kind.__doc__ or "").short_description
            made = dataclasses.field(default_factory=kind)
            members.append((name, Annotated[kind, tyro.conf.arg(help=said)], made))
    return dataclasses.make_dataclass("EvaluatorOptions", members, frozen=True)


_EvaluatorOptions: Any = evaluator_options(EVALUATORS)


@dataclass(frozen=True)
class Evaluation(_EvaluatorOptions):  # its base is made of the evaluators
    """What is measured. During training on the held-out part; on the test set once, after the last epoch."""

    run: tuple[str, ...] = DEFAULT_RUN
    """Names of what is measured at the end: classifier, knn, linear, linear_augmented, retrieval, pixels, baselines,
    stages, geometry, alignment. What the images do not allow is left out, and the Record says so."""
    every: int = 1
    """Epochs between two measurements; 0 for none before the end."""
    figures: bool = True
    """Draw neighbors.png and tsne.png, and stages.png where the stages are measured."""
    batch_size: int = 500
    """Images of one forward pass."""

    def __post_init__(self) -> None:
        refuse_unknown(self.run)
