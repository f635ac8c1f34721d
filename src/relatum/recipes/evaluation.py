"""What a recipe says of measuring: which evaluators run, and the options of each."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any

import docstring_parser
import pydantic
import tyro

from relatum.evaluation.evaluator import Evaluator
from relatum.measurement.evaluators import DEFAULT_RUN, EVALUATORS, refuse_unknown


def evaluator_options(evaluators: Mapping[str, type[Evaluator]]) -> type:
    """A frozen dataclass with a field for each evaluator that has options, its options the default."""
    return dataclasses.make_dataclass("EvaluatorOptions", _members(evaluators), frozen=True)


def _members(evaluators: Mapping[str, type[Evaluator]]) -> list[Any]:
    members: list[Any] = []
    for name, kind in evaluators.items():
        if dataclasses.fields(kind):  # type: ignore[arg-type]  # all evaluators are dataclasses
            said = docstring_parser.parse(kind.__doc__ or "").short_description
            made = dataclasses.field(default_factory=kind)
            members.append((name, Annotated[kind, tyro.conf.arg(help=said)], made))
    return members


_OURS = dict(EVALUATORS)
_EvaluatorOptions: Any = evaluator_options(_OURS)


@dataclass(frozen=True)
class Evaluation(_EvaluatorOptions):  # its base is made of the evaluators
    """What is measured. During training on the held-out part; on the test set once, after the last epoch."""

    run: tuple[str, ...] = DEFAULT_RUN
    """Names of what is measured at the end: classifier, knn, linear, linear_augmented, retrieval, pixels, baselines,
    stages, geometry, alignment. What the images do not allow is left out, and the Record says so."""
    every: int = 1
    """Epochs between two measurements; 0 for none before the end."""
    online: bool = False
    """Train a linear probe on the features of the training batches, and measure it with the others between epochs: a
    curve of what the encoder knows, which it never feels. Its learning rates are those of `linear`."""
    figures: bool = True
    """Draw neighbors.png and tsne.png, stages.png where the stages are measured, and attention.png of a transformer."""
    batch_size: int = 500
    """Images of one forward pass."""

    def __post_init__(self) -> None:
        refuse_unknown(self.run)


def evaluation_of() -> type[Evaluation]:
    """What a recipe's part about measuring is now: `Evaluation`, with the options of evaluators that were added."""
    added = tuple((name, kind) for name, kind in EVALUATORS.items() if _OURS.get(name) is not kind)
    return _with(added) if added else Evaluation


@cache
def _with(added: tuple[tuple[str, type[Evaluator]], ...]) -> type[Evaluation]:
    made = dataclasses.make_dataclass("Evaluation", _members(dict(added)), bases=(Evaluation,), frozen=True)
    made.__doc__ = Evaluation.__doc__
    return made


def current(chosen: Evaluation) -> Evaluation:
    """The same, with the options of evaluators that were added since it was made."""
    kind = evaluation_of()
    if type(chosen) is kind:
        return chosen
    known = {field.name for field in dataclasses.fields(kind)}
    return kind(**{f.name: getattr(chosen, f.name) for f in dataclasses.fields(chosen) if f.name in known})


def _read(given: Any) -> Evaluation:
    if isinstance(given, Evaluation):
        return given
    read: Evaluation = pydantic.TypeAdapter(evaluation_of()).validate_python(given)
    return read


def _plain(made: Evaluation) -> Any:
    return pydantic.TypeAdapter(type(made)).dump_python(made, mode="json")


READING = (pydantic.PlainValidator(_read), pydantic.PlainSerializer(_plain))
"""How pydantic reads and writes an `Evaluation`, whatever evaluators there are."""
