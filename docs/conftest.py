"""The examples of the pages run under pytest, so that nothing in them can rot.

Python blocks run by default, those of a page one after the other in one namespace. Commands run with the marker `docs`,
made short as those of the README are. `<!-- skip: next -->` before a block leaves it out.
"""

import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
from sybil import Example, Region, Sybil
from sybil.parsers.abstract import AbstractCodeBlockParser
from sybil.parsers.markdown.lexers import FencedCodeBlockLexer
from sybil.parsers.markdown.skip import SkipParser
from sybil.parsers.myst import PythonCodeBlockParser

from commands import make_photos, run, shortened
from relatum.core import plugins
from relatum.methods import METHODS
from relatum.recipes.catalog import RECIPES
from relatum.recipes.options import forget

torch.set_num_threads(1)

ADDED_TO: tuple[dict[str, Any], ...] = (METHODS, RECIPES)
"""What pages add to."""

PROGRAMS = {"relatum", "pip", "pytest", "python", "python3", "sphinx-build", "ruff", "mypy"}
"""What a command of a page may start with; only those of `relatum` are run."""


class Commands(AbstractCodeBlockParser):
    """Blocks of commands, a line each."""

    language = "bash"

    def __init__(self) -> None:
        lexer = FencedCodeBlockLexer(language=r".+", mapping={"language": "arguments", "source": "source"})
        super().__init__([lexer])

    def evaluate(self, example: Example) -> None:
        """Run the lines."""
        for line in str(example.parsed).replace("\\\n", " ").strip().splitlines():
            for command in (part.strip() for part in line.split("&&")):
                if command and not command.startswith("#"):
                    command = command.removeprefix(".venv/bin/")
                    assert command.split()[0] in PROGRAMS, f"{command!r}: no page shows this program"
                    if command.startswith("relatum "):
                        with pytest.MonkeyPatch.context() as patch:
                            patch.setenv(plugins.VARIABLE, "")  # `--plugin` is of one command
                            run(shortened(command), patch)


def enter(namespace: dict[str, Any]) -> None:
    """A page's examples share a folder of their own, with photos in it, and a cache that is no user's."""
    namespace["_before"], namespace["_kept"] = os.getcwd(), [dict(registry) for registry in ADDED_TO]
    folder = namespace["_folder"] = Path(tempfile.mkdtemp(prefix="relatum-page-"))
    os.environ.setdefault("RELATUM_CACHE", str(folder / "cache"))
    make_photos(folder / "my-photos")
    (folder / "examples").symlink_to(Path(__file__).parent.parent / "examples")
    os.chdir(folder)
    torch.manual_seed(0)


def leave(namespace: dict[str, Any]) -> None:
    """Back to where pytest was started, with what was known there."""
    os.chdir(namespace["_before"])
    for registry, kept in zip(ADDED_TO, namespace["_kept"], strict=True):  # a page may have added something
        registry.clear()
        registry.update(kept)
    forget()
    plugins._loaded.clear()
    sys.modules.pop("my_method", None)
    shutil.rmtree(namespace["_folder"], ignore_errors=True)


_PAGES = {"pattern": "*.md", "excludes": ["methods/*", "api/*"], "setup": enter, "teardown": leave}

pytest_collect_file = Sybil([PythonCodeBlockParser(), Commands(), SkipParser()], **_PAGES).pytest()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Commands take longer than the default tests may."""
    for item in items:
        region: Region | None = getattr(getattr(item, "example", None), "region", None)
        if region is not None and isinstance(getattr(region.evaluator, "__self__", None), Commands):
            item.add_marker(pytest.mark.docs)
