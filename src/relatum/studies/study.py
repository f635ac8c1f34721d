"""A study is a question asked as a grid of runs: rows x columns x seeds, one baseline; its answer is made of Records.

A declaration says what is changed along the rows and the columns, and each scale says in one change how large the runs
are. Changes are dotted fields of a recipe and their values, such as `{"method.temperature": 0.1}`, and two words more:
`recipe` names the recipe to start from, and `teacher` says whose run folder a method that takes a teacher gets.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from relatum.recipes.index import did_you_mean
from relatum.studies.trees import tree

Changes: TypeAlias = Mapping[str, Any]

TRIAL: Changes = {"evaluation.every": 1_000_000, "evaluation.run": (), "evaluation.figures": False}
"""A trial measures the held-out images after the last epoch, and the test set never."""

SCALES = ("paper", "gpu", "cpu")
"""paper: the paper's protocol to the letter. gpu: an hour of one GPU a cell. cpu: minutes of one core a cell."""


@dataclass(frozen=True)
class Trained:
    """The run folder of something that must be trained before: the value of a field in `Changes`.

    Attributes:
        name: a teacher of the study, or a row of it (in the same column and with the same seed).
    """

    name: str


@dataclass(frozen=True)
class Teacher:
    """What is trained before the grid.

    Attributes:
        changes: what differs from the study's base, applied after the scale's.
        per_column: one for each column (after the column's changes), or one for all.
        seed: one teacher for all seeds, of this seed, as published tables have it.
    """

    changes: Changes
    per_column: bool = False
    seed: int = 0


@dataclass(frozen=True)
class Selection:
    """What is chosen on held-out training images before the runs that count: every arm gets as many trials.

    The trials train without the held-out part and are compared by a measurement of that part alone; the test set plays
    no role. The runs of the grid then train on all images with what was chosen. A tie goes to the earlier candidate.

    Attributes:
        candidates: for each row the changes to choose from; all rows have equally many.
        metric: a measurement of the held-out part in a Record's history, such as `validation_knn_top1`.
        seeds: the trials' seeds; a candidate counts by its mean.
        changes: what a trial changes in addition, such as the share that is held out.
        largest: the largest value of the metric wins, or the smallest.
    """

    candidates: Mapping[str, Sequence[Changes]]
    metric: str = "validation_knn_top1"
    seeds: tuple[int, ...] = (100,)
    changes: Changes = field(default_factory=lambda: {**TRIAL, "data.validation": 0.1})
    largest: bool = True

    def __post_init__(self) -> None:
        counts = {row: len(candidates) for row, candidates in self.candidates.items()}
        if len(set(counts.values())) > 1 or 0 in counts.values():
            raise ValueError(f"a selection gives every arm as many trials, at least one; found {counts}.")
        if not self.metric.startswith("validation"):
            raise ValueError(
                f"a selection looks at held-out images only, and {self.metric!r} is not measured on them; expected "
                "a metric such as validation_knn_top1 or validation_top1."
            )


@dataclass(frozen=True)
class Published:
    """Numbers that others have printed, to stand beside ours at the scale `paper`.

    Attributes:
        source: where they are printed.
        protocol: how they were measured, as far as is known, and what differs from ours.
        numbers: row -> column -> metric -> number.
    """

    source: str
    protocol: str
    numbers: Mapping[str, Mapping[str, Mapping[str, float]]]


@dataclass(frozen=True)
class Scale:
    """How large the runs of a study are: one change, said once.

    Attributes:
        about: what it is, in words, for people who read the table.
        changes: what it changes in every recipe of the study.
        rows, columns, teachers, baseline: those in the place of the study's, where the scale cannot have those.
        seeds: the seeds of the grid.
        selection: what is chosen on held-out images first.
    """

    about: str
    changes: Changes = field(default_factory=dict)
    rows: Mapping[str, Changes] | None = None
    columns: Mapping[str, Changes] | None = None
    teachers: Mapping[str, Teacher] | None = None
    baseline: str | Mapping[str, str] | None = None
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4, 5)
    selection: Selection | None = None


@dataclass(frozen=True)
class Study:
    """A question asked as a grid of runs.

    Attributes:
        name: what the command line calls it.
        question: what it asks, a sentence.
        recipe: the recipe that rows and columns change, unless they name another.
        rows: the arms that are compared: name -> changes, applied after the column's.
        columns: the settings in which they are compared: name -> changes.
        baseline: the row that the others are compared with; a mapping where each row has its own. None compares none.
        scales: by the names of `SCALES`.
        metrics: metric of a Record -> heading; accuracies in percent, a larger number is better.
        teachers: what must be trained before.
        published: numbers of others.
        smaller: smaller numbers are better, as of seconds.
        curve: a measurement in the history of each run that the study follows over the epochs.
        plot: fields of which each row changes one, for studies that are shown as curves of sensitivity.
        pictures: the picture of each run that is the answer, such as `stages.png`.
        notes: what a reader of the answer must know.
    """

    name: str
    question: str
    recipe: str
    rows: Mapping[str, Changes]
    columns: Mapping[str, Changes]
    baseline: str | Mapping[str, str] | None
    scales: Mapping[str, Scale]
    metrics: Mapping[str, str] = field(default_factory=lambda: {"top1": "top-1"})
    teachers: Mapping[str, Teacher] = field(default_factory=dict)
    published: tuple[Published, ...] = ()
    smaller: bool = False
    curve: str = ""
    plot: tuple[str, ...] = ()
    pictures: str = ""
    notes: tuple[str, ...] = ()

    def at(self, scale: str) -> "Grid":
        """The grid of one scale.

        Raises:
            ValueError: for a scale that the study does not have.
        """
        if scale not in self.scales:
            raise ValueError(f"the study {self.name!r} has no scale {scale!r}; {did_you_mean(scale, self.scales)}")
        found = self.scales[scale]
        return Grid(
            study=self,
            scale=scale,
            changes=found.changes,
            rows=self.rows if found.rows is None else found.rows,
            columns=self.columns if found.columns is None else found.columns,
            teachers=self.teachers if found.teachers is None else found.teachers,
            baseline=self.baseline if found.baseline is None else found.baseline,
            seeds=found.seeds,
            selection=found.selection,
        )


@dataclass(frozen=True)
class Grid:
    """A study at one scale: what `relatum.studies.plan` turns into runs. The attributes are those of `Scale`."""

    study: Study
    scale: str
    changes: Changes
    rows: Mapping[str, Changes]
    columns: Mapping[str, Changes]
    teachers: Mapping[str, Teacher]
    baseline: str | Mapping[str, str] | None
    seeds: tuple[int, ...]
    selection: Selection | None = None

    def __post_init__(self) -> None:
        for kind, names in (("row", self.rows), ("column", self.columns)):
            slugs = [slug(name) for name in names]
            twice = sorted({s for s in slugs if slugs.count(s) > 1})
            if twice or not slugs:
                raise ValueError(f"the {kind}s of {self.study.name} need folders of their own; {twice} occur twice.")
        baselines = set(filter(None, map(self.baseline_of, self.rows)))
        unknown = [
            *(baselines - set(self.rows)),
            *(set(self.selection.candidates if self.selection else ()) - set(self.rows)),
        ]
        if unknown:
            raise ValueError(f"{self.study.name} has no row {unknown[0]!r}; {did_you_mean(unknown[0], self.rows)}")

    def baseline_of(self, row: str) -> str | None:
        """The row that `row` is compared with; None for a baseline itself."""
        given = self.baseline
        found = given if isinstance(given, str) or given is None else given.get(row)
        return None if found == row else found

    def sensitivity(self, name: str) -> dict[Any, str]:
        """For a field of the study's `plot`: its values in ascending order, and the row of each.

        The baseline stands at the value of the recipe.
        """
        found = {row: changes[name] for row, changes in self.rows.items() if name in changes}
        if isinstance(self.baseline, str):
            recipe = self.rows[self.baseline].get("recipe", self.study.recipe)
            found.setdefault(self.baseline, tree(recipe)[name])
        return {value: row for row, value in sorted(found.items(), key=lambda item: item[1])}

    def published(self, row: str, column: str, metric: str) -> tuple[float, Published] | None:
        """The number that others printed for a cell of the paper's scale."""
        for source in self.study.published if self.scale == "paper" else ():
            number = source.numbers.get(row, {}).get(column, {}).get(metric)
            if number is not None:
                return number, source
        return None


def slug(name: str) -> str:
    """A name as part of a path: lower case, and a hyphen for everything but letters, digits and points."""
    return re.sub(r"[^a-z0-9.]+", "-", name.lower().replace("+", " plus ")).strip("-")
