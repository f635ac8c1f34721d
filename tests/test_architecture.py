"""Imports only point down, and the heavy libraries have one door each. The test is tested: planted violations fail."""

import ast
import re
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "src" / "relatum"

FLOORS = (
    {"core"},
    {"relations"},
    {"losses"},
    {"networks"},
    {"evaluation", "data"},
    {"methods"},
    {"measurement"},
    {"recipes", "reports"},
    {"training"},
    {"studies"},
    {"cli", "__main__"},
)
"""From the ground up. A room may import its own floor and those below; `relatum` itself holds only lazy names."""

DOORS = {
    "timm": {"networks", "training"},
    "lightning_fabric": {"training"},
    "lightning": set(),
    "torch.distributed": {"core"},
    "datasets": {"data"},
    "tyro": {"cli", "recipes"},
    "matplotlib": {"reports"},
    "submitit": {"studies"},
    "ray": {"studies"},
    "scipy": {"studies"},
}
"""Which rooms may import a library."""


def imports(source: str) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def floor(room: str) -> int:
    return next(i for i, rooms in enumerate(FLOORS) if room in rooms)


def violations(room: str, source: str) -> list[str]:
    found = []
    for name in imports(source):
        parts = name.split(".")
        ours = parts[0] == "relatum" and len(parts) > 1 and any(parts[1] in rooms for rooms in FLOORS)
        if ours and floor(parts[1]) > floor(room):
            found.append(f"{room} imports {name}, which is above it")
        found += [
            f"{room} imports {name}: only {', '.join(sorted(rooms)) or 'nobody'} may"
            for library, rooms in DOORS.items()
            if f"{name}.".startswith(f"{library}.") and room not in rooms
        ]
    return found


FILES = [path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_down(path):
    room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    assert violations(room, path.read_text()) == []


@pytest.mark.parametrize(
    ("room", "planted"),
    [
        ("losses", "import torch.distributed"),
        ("losses", "from torch import distributed"),
        ("losses", "def f():\n    import torch.distributed as d"),
        ("relations", "from relatum.methods import METHODS"),
        ("evaluation", "from relatum import training"),
        ("methods", "from relatum.measurement.measurer import Measurer"),
        ("methods", "import timm"),
        ("measurement", "from lightning_fabric import Fabric"),
        ("training", "import lightning"),
    ],
)
def test_planted_violations_are_found(room, planted):
    assert len(violations(room, planted)) == 1


def test_every_room_has_a_floor():
    rooms = {path.relative_to(PACKAGE).parts[0].removesuffix(".py") for path in FILES}
    assert rooms == set().union(*FLOORS)


def named(text: str) -> set[str]:
    """The files that the section "Every file" of ARCHITECTURE.md has lines for."""
    section = text.partition("## Every file")[2].partition("\n## ")[0]
    heads = re.findall(r"^- (.*?): ", section, re.MULTILINE)
    return {file for head in heads for file in re.findall(r"`([^`]+)`", head)}


def there() -> set[str]:
    """The files of the package, but for an `__init__.py` without content, and for what Python leaves there."""
    files = (path for path in PACKAGE.rglob("*") if path.is_file() and path.suffix != ".pyc")
    return {str(path.relative_to(PACKAGE)) for path in files if path.name != "__init__.py" or path.read_text().strip()}


def test_every_file_is_named_and_every_named_file_exists():
    """A planted line, a file without one and a line without a file, are found."""
    text = (PACKAGE.parent.parent / "ARCHITECTURE.md").read_text()
    assert named(text) == there()
    line = "- `core/types.py`: "
    assert there() - named(text.replace(line, "- ")) == {"core/types.py"}
    assert named(text.replace(line, f"- `core/gone.py`: gone.\n{line}")) - there() == {"core/gone.py"}
