"""Tables of what the package holds: studies, verbs, recipes."""

from collections.abc import Callable

from generator.methods import table
from generator.prose import cell


def studies() -> str:
    """Every study, its question, and the runs of each scale."""
    from relatum.studies.catalog import studies as known

    rows = []
    for name, study in known().items():
        sizes = []
        for scale in study.scales:
            grid = study.at(scale)
            sizes.append(f"{scale} {len(grid.rows) * len(grid.columns) * len(grid.seeds)}")
        rows.append((f"`{name}`", cell(study.question), cell(", ".join(sizes))))
    return table(("study", "question", "runs a scale"), rows, "names")


def verbs() -> str:
    """Every verb of the command line and what it does."""
    from relatum import cli

    rows = []
    for name in cli.VERBS:
        module = cli.verb(name)
        usage = f"relatum {name} {module.USAGE}".strip()
        rows.append((f"`{usage}`".replace("|", "\\|"), cell((module.__doc__ or "").strip().splitlines()[0])))
    return table(("command", "what it does"), rows, "names")


def recipes() -> str:
    """Every recipe by task, and what it is."""
    from relatum.recipes.catalog import RECIPES

    tasks: dict[str, list[tuple[str, str]]] = {}
    for name, entry in RECIPES.items():
        page = f"[{entry.recipe.method.name}](methods/{entry.recipe.method.name}.md)"
        tasks.setdefault(entry.task, []).append((f"`{name}`", f"{cell(entry.about)} ({page})"))
    return "\n\n".join(
        f"**{task.capitalize()}**\n\n{table(('recipe', 'what it is'), rows, 'names')}" for task, rows in tasks.items()
    )


LISTINGS: dict[str, Callable[[], str]] = {"studies": studies, "verbs": verbs, "recipes": recipes}
"""Every listing by the name that pages ask for it."""
