"""Every study by name, and grids of any recipe that the command line asks for."""

import hashlib
import itertools
import json
from collections.abc import Sequence

from relatum.recipes.index import did_you_mean
from relatum.studies import trees
from relatum.studies.study import Changes, Grid, Scale, Selection, Study, slug


def studies() -> dict[str, Study]:
    """Every study by the name that the command line uses."""
    from relatum.studies import corsd, corsd_parts, jaccard, relations, tian, unlabeled

    found = [
        *jaccard.STUDIES,
        *corsd.STUDIES,
        *corsd_parts.STUDIES,
        *tian.STUDIES,
        *relations.STUDIES,
        *unlabeled.STUDIES,
    ]
    return {study.name: study for study in found}


def grid_of(name: str, *, scale: str, over: Sequence[str], seeds: Sequence[int] | None, select: str = "") -> Grid:
    """The grid that a command line asks for: a study at a scale, or a recipe with its fields varied.

    Args:
        name: a study or a recipe.
        scale: a scale of the study.
        over: for a recipe, `FIELD=VALUE,VALUE,...`, each; the rows are all combinations.
        seeds: seeds in the place of those that the study, or the recipe, has.
        select: for a recipe: the rows are candidates, and this measurement of held-out images chooses one.

    Raises:
        ValueError: for a name or scale that does not exist, or options that do not go together.
    """
    known = studies()
    if name in known:
        if over or select:
            raise ValueError(f"{name} is a study, whose rows are declared: --over and --select vary a recipe.")
        return known[name].at(scale)
    if not over:
        if name in trees.recipes():
            raise ValueError(f"{name} is a recipe: say what is varied, such as --over optim.lr=0.03,0.1")
        raise ValueError(f"there is no study {name!r}; {did_you_mean(name, [*known, *trees.recipes()])}")
    return _recipe_grid(name, over, seeds, select)


def _recipe_grid(recipe: str, over: Sequence[str], seeds: Sequence[int] | None, select: str) -> Grid:
    trees.tree(recipe)  # refuses a name that is neither
    axes: list[list[tuple[str, object]]] = []
    for text in over:
        name, sign, values = text.partition("=")
        if not sign or not trees.parts(values):
            raise ValueError(f"--over {text}: expected a field and its values, such as --over optim.lr=0.03,0.1")
        axes.append([(name, trees.parsed(value)) for value in trees.parts(values)])
    fixed = dict(axis[0] for axis in axes if len(axis) == 1)
    trees.changed(recipe, fixed)
    axes = [axis for axis in axes if len(axis) > 1]
    candidates: list[Changes] = [dict(combination) for combination in itertools.product(*axes)]
    for candidate in candidates:
        trees.changed(recipe, candidate)
    varied = [axis[0][0] for axis in axes]
    named = {", ".join(f"{k} {_said(v)}" for k, v in candidate.items()): candidate for candidate in candidates}
    named = named if axes else {"as asked": {}}
    with_them = "".join(f", {k} {_said(v)}" for k, v in fixed.items())
    seeds = (0,) if seeds is None else tuple(seeds)
    if select:
        rows: dict[str, Changes] = {"chosen": {}}
        selection = Selection({"chosen": candidates}, metric=select, seeds=(min(seeds) + 100,))
        about = f"one of {len(candidates)} settings, chosen by {select}, then trained on all images{with_them}"
    else:
        rows, selection, about = dict(named), None, f"the recipe{with_them or ' as it is'}"
    study = Study(
        name=slug(" ".join([recipe, *(["over", *varied] if varied else []), *([_digest(fixed)] if fixed else [])])),
        question=f"What does {' and '.join(varied) or 'this'} change in {recipe}?",
        recipe=recipe,
        rows=rows,
        columns={recipe: {"data.validation": 0.0} if select else {}},
        baseline=None if select else next(iter(rows)),
        scales={"own": Scale(about, fixed, seeds=seeds, selection=selection)},
        metrics=METRICS,
    )
    return study.at("own")


def _digest(fixed: Changes) -> str:
    """Grids that fix other values have other folders, whose names stay short."""
    return hashlib.sha256(json.dumps(fixed, sort_keys=True).encode()).hexdigest()[:8]


def _said(value: object) -> str:
    if not isinstance(value, tuple):
        return str(value)
    return "/".join(f"{v:.4g}" if isinstance(v, float) else str(v) for v in value)


METRICS = {"top1": "top-1", "knn_top1": "k-NN", "linear_top1": "linear"}
"""What a grid of any recipe is compared by; a run without one of them has no number there."""
