"""The runs of a study: what each trains, where its folder is, what it waits for, in an order that tells early.

A run folder is `runs/STUDY/SCALE/ROW--COLUMN/SEED`. A whole `record.json` in it means done, and nothing else does:
there is no list of what was run, and nobody writes a file that others write too.
"""

import fnmatch
import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from relatum.core import plugins
from relatum.recipes.index import did_you_mean
from relatum.studies import trees
from relatum.studies.study import Changes, Grid, Selection, Trained, slug

if TYPE_CHECKING:
    from relatum.reports.records import Record

INCIDENTAL = ("train.threads", "train.log_every", "train.tracker", "data.root", "data.workers", "evaluation.figures")
"""Fields in which a Record may differ from what the plan would train."""


@dataclass(frozen=True, eq=False)
class Cell:
    """One run of a study.

    Attributes:
        row, column, seed: where it stands.
        folder: the run folder.
        recipe: the recipe that it starts from.
        changes: fields of this recipe that differ, by dotted names, the seed among them; what is chosen
            first is not yet there.
        needs: the runs that must be done before: teachers, and the trials of `choice`.
        choice: what the trials choose among: changes -> their trials.
        kind: a run of the grid, a teacher, or a trial.
    """

    row: str
    column: str
    seed: int
    folder: Path
    recipe: str
    changes: dict[str, Any]
    needs: tuple["Cell", ...] = ()
    choice: "Choice | None" = None
    kind: str = "run"

    @property
    def name(self) -> str:
        """How people call it: row, column and seed."""
        return f"{self.folder.parent.name} seed {self.seed}"


@dataclass(frozen=True)
class Choice:
    """The candidates of a cell, each with its trials, and how they are compared."""

    selection: Selection
    trials: tuple[tuple[Changes, tuple[Cell, ...]], ...]


@dataclass
class Plan:
    """All runs of a grid, those that others wait for first.

    Attributes:
        grid: what is asked.
        runs: the folder of run folders.
        results: a folder of Records that were collected, which count as done too; none for none.
        cells: in the order in which they are run.
    """

    grid: Grid
    runs: Path
    results: Path | None
    cells: list[Cell] = field(default_factory=list)

    def record_file(self, cell: Cell) -> Path | None:
        """Where the Record of a cell is: in its run folder, or among the collected ones.

        Raises:
            ValueError: for two Records for one seed that are not the same.
        """
        own, collected = cell.folder / "record.json", self.collected(cell)
        if collected is None or not collected.is_file():
            return own if own.is_file() else None
        if own.is_file() and own.read_bytes() != collected.read_bytes():
            raise ValueError(
                f"there are two Records for one seed, {own} and {collected}, and they differ; each run counts once. "
                "Remove the one that is wrong."
            )
        return collected

    def collected(self, cell: Cell) -> Path | None:
        """The place of the cell's Record among the collected ones."""
        if self.results is None:
            return None
        inside = cell.folder.relative_to(self.runs)
        return self.results / inside.with_name(f"{inside.name}.json")

    def done(self, cell: Cell) -> bool:
        """Whether the cell has a whole Record."""
        return self.record_file(cell) is not None

    def usable(self, cell: Cell) -> bool:
        """Whether others can go on from the cell: a teacher needs its encoder, a trial its Record alone."""
        return self.done(cell) if cell.kind == "trial" else (cell.folder / "record.json").is_file()

    def record(self, cell: Cell) -> "Record | None":
        """The Record of a cell, if it is done.

        Raises:
            ValueError: for a Record of another recipe than the cell's.
        """
        from relatum.reports.records import flat, read_record

        path = self.record_file(cell)
        if path is None:
            return None
        record = read_record(path)
        changes = cell.changes if cell.choice is None else self.resolved(cell).changes
        # An evaluator that is new since then measures more, and changes nothing of what the others have measured.
        wanted = {k: v for k, v in trees.tree(cell.recipe).items() if k != "evaluation.run"} | changes
        found = flat(record.recipe)
        odd = [
            f"{name}: {found[name]!r}, expected {value!r}"
            for name, value in wanted.items()
            if name in found and name not in INCIDENTAL and name != "method.teacher" and found[name] != value
        ]
        if odd:
            raise ValueError(
                f"{path} is a Record of another recipe than this cell's:\n  " + "\n  ".join(odd) + "\n"
                "Move it away, and the cell is run anew."
            )
        return record

    def resolved(self, cell: Cell) -> Cell:
        """The cell with what its trials chose; the cell itself where nothing is chosen.

        Raises:
            ValueError: where trials are missing, or have not measured what they are compared by.
        """
        if cell.choice is None:
            return cell
        changes = cell.changes | trees.changed(cell.recipe, {**self.chosen(cell)})
        return Cell(cell.row, cell.column, cell.seed, cell.folder, cell.recipe, changes, cell.needs, None, cell.kind)

    def chosen(self, cell: Cell) -> Changes:
        """The candidate whose trials did best on held-out images."""
        if cell.choice is None:
            return {}
        selection, scores = cell.choice.selection, []
        for candidate, trials in cell.choice.trials:
            values = []
            for trial in trials:
                record = self.record(trial)
                if record is None:
                    raise ValueError(f"{cell.name} waits for its trial {trial.folder}.")
                measured = [entry[selection.metric] for entry in record.history if selection.metric in entry]
                if not measured:
                    raise ValueError(
                        f"{trial.folder} has not measured {selection.metric!r}, by which trials are compared; "
                        f"it has {', '.join(k for k in (record.history or [{}])[-1] if k.startswith('validation'))}."
                    )
                values.append(measured[-1])
            scores.append((fmean(values), candidate))
        best = max if selection.largest else min
        return best(scores, key=lambda scored: scored[0])[1]


def plan(
    grid: Grid,
    runs: Path,
    *,
    results: Path | None = None,
    seeds: Sequence[int] | None = None,
    only: Sequence[str] = (),
    incidental: Mapping[str, Any] | None = None,
) -> Plan:
    """The runs of a grid: seed by seed, the baseline first, and before each run what it waits for.

    Args:
        grid: the study at a scale.
        runs: the folder of run folders.
        results: a folder of collected Records, `STUDY/SCALE/CELL/SEED.json`.
        seeds: seeds in the place of the grid's.
        only: names of rows or columns, or patterns of `ROW--COLUMN`; what they wait for is run too.
        incidental: fields of `INCIDENTAL` and their values, of every run: where the data is, how many workers read it.

    Raises:
        ValueError: for rows, columns, recipes or fields that do not exist, or values of another kind.
    """
    made = _Maker(grid, runs / slug(grid.study.name) / grid.scale, _checked(incidental or {}))
    rows = sorted(grid.rows, key=lambda row: grid.baseline_of(row) is not None)
    wanted = [
        made.run(row, column, seed)
        for seed in (grid.seeds if seeds is None else seeds)
        for row, column in itertools.product(rows, grid.columns)
        if not only or any(_matches(row, column, pattern) for pattern in only)
    ]
    for pattern in only:
        if not any(_matches(row, column, pattern) for row in grid.rows for column in grid.columns):
            names = [*grid.rows, *grid.columns]
            raise ValueError(
                f"--only {pattern}: {grid.study.name} has no such row, column or cell; {did_you_mean(pattern, names)}"
            )
    return Plan(grid, runs, results, list(dict.fromkeys(_with_needs(wanted))))


def _checked(incidental: Changes) -> Changes:
    for name in incidental:
        if name not in INCIDENTAL:
            raise ValueError(
                f"--set {name}: a study says itself what it trains, and only what numbers do not depend on is free "
                f"({', '.join(INCIDENTAL)}); {did_you_mean(name, INCIDENTAL)} To vary another field, give a recipe "
                "and --over."
            )
    return incidental


def _matches(row: str, column: str, pattern: str) -> bool:
    cells = (f"{row}--{column}", f"{slug(row)}--{slug(column)}")
    return pattern in (row, column, slug(row), slug(column)) or any(fnmatch.fnmatch(cell, pattern) for cell in cells)


def _with_needs(cells: Iterable[Cell]) -> Iterable[Cell]:
    for cell in cells:
        yield from _with_needs(cell.needs)
        yield cell


class _Maker:
    """Makes each run of a grid once."""

    def __init__(self, grid: Grid, folder: Path, incidental: Changes) -> None:
        self.grid, self.folder, self.incidental = grid, folder, incidental
        self.made: dict[Path, Cell] = {}

    def run(self, row: str, column: str, seed: int) -> Cell:
        """A run of the grid."""
        folder = self.folder / f"{slug(row)}--{slug(column)}" / str(seed)
        if folder not in self.made:
            changes = {**self.grid.changes, **self.grid.columns[column], **self.grid.rows[row]}
            choice = self._choice(row, column, changes)
            self.made[folder] = self._cell(row, column, seed, folder, changes, choice=choice)
        return self.made[folder]

    def _choice(self, row: str, column: str, changes: Changes) -> Choice | None:
        selection = self.grid.selection
        if selection is None or row not in selection.candidates:
            return None
        folder = self.folder / f"{slug(row)}--{slug(column)}" / "trials"
        trials = []
        for candidate in selection.candidates[row]:
            merged = {**changes, **selection.changes, **candidate}
            own = folder / slug(",".join(f"{k.rpartition('.')[2]}={v}" for k, v in candidate.items()))
            cells = []
            for seed in selection.seeds:
                if own / str(seed) not in self.made:
                    cell = self._cell(row, column, seed, own / str(seed), merged, kind="trial")
                    if cell.needs:
                        raise ValueError(f"{row} has a teacher, which has seen the held-out images of its trials.")
                    self.made[own / str(seed)] = cell
                cells.append(self.made[own / str(seed)])
            trials.append((candidate, tuple(cells)))
        return Choice(selection, tuple(trials))

    def _cell(
        self,
        row: str,
        column: str,
        seed: int,
        folder: Path,
        changes: Changes,
        kind: str = "run",
        choice: Choice | None = None,
    ) -> Cell:
        recipe = changes.get("recipe", self.grid.study.recipe)
        fields = {k: v for k, v in changes.items() if k not in ("recipe", "teacher")}
        if "teacher" in changes and "method.teacher" in trees.tree(recipe):
            fields = {"method.teacher": changes["teacher"], **fields}
        needs = list(itertools.chain(*(cells for _, cells in choice.trials))) if choice else []
        for name, value in fields.items():
            if isinstance(value, Trained):
                before = self._trained(value.name, column, seed)
                needs.append(before)
                fields[name] = str(before.folder)
        kept = trees.changed(recipe, {**fields, **self.incidental, "train.seed": seed})
        return Cell(row, column, seed, folder, recipe, kept, tuple(needs), choice, kind)

    def _trained(self, name: str, column: str, seed: int) -> Cell:
        """The run of a teacher, or of the row `name` in the same column and with the same seed."""
        teacher = self.grid.teachers.get(name)
        if teacher is None:
            if name not in self.grid.rows:
                known = [*self.grid.teachers, *self.grid.rows]
                raise ValueError(f"{self.grid.study.name} has no teacher or row {name!r}; {did_you_mean(name, known)}")
            return self.run(name, column, seed)
        where = f"{slug(name)}--{slug(column)}" if teacher.per_column else slug(name)
        folder = self.folder / "teachers" / where / str(teacher.seed)
        if folder not in self.made:
            of_column = self.grid.columns[column] if teacher.per_column else {}
            changes = {**self.grid.changes, **of_column, **teacher.changes}
            changes.pop("teacher", None) if "teacher" not in teacher.changes else None
            self.made[folder] = self._cell(name, column, teacher.seed, folder, changes, kind="teacher")
        return self.made[folder]


def command(cell: Cell) -> list[str]:
    """The command that trains a cell, goes on with it, or finds it done."""
    words = [*trees.words(cell.changes), *plugins.words()]
    return ["relatum", "train", cell.recipe, *words, "--run", str(cell.folder), "--resume"]


def measured_seconds(found: Plan) -> dict[Path, float]:
    """Seconds of training that cells are expected to take, by their folders: of their Records of any seed."""
    from relatum.reports.records import read_record

    known: dict[Path, list[float]] = {}
    for folder in dict.fromkeys(cell.folder.parent for cell in found.cells):
        files = {path.parent.name: path for path in folder.glob("*/record.json")}
        if found.results is not None:
            files |= {path.stem: path for path in (found.results / folder.relative_to(found.runs)).glob("*.json")}
        known[folder] = [read_record(path).seconds for path in files.values()]
    return {cell.folder: fmean(known[cell.folder.parent]) for cell in found.cells if known[cell.folder.parent]}
