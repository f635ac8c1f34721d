"""Every command, path and program of the README exists and runs; its tables are what the Records say."""

import json
import os
import re
import shlex
import tomllib
from pathlib import Path

import pytest

import redraw
from commands import make_photos, run, shortened
from relatum import cli
from relatum.methods import METHODS
from relatum.reports.records import find_records

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
RESULTS = (ROOT / "results" / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.S)


LINES = [line for block in blocks("bash") for line in block.strip().splitlines()]
COMMANDS = [part.strip().removeprefix(".venv/bin/") for line in LINES for part in line.split("&&")]


def test_the_quick_start_is_two_lines_that_make_and_use_their_own_environment():
    first, second = (block.strip() for block in blocks("bash")[:2])
    assert first == "python3 -m venv .venv && .venv/bin/pip install . && .venv/bin/relatum train demo"
    assert second == "python3 -m venv .venv && .venv/bin/pip install -e '.[test]' && .venv/bin/pytest"
    assert second in README.split("\n")
    assert 'grep -m 1 "pip install -e" README.md' in (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    for page in ("index.md", "quickstart.md"):
        assert first in (ROOT / "docs" / page).read_text(encoding="utf-8").split("\n")
    assert ".venv/" in (ROOT / ".gitignore").read_text(encoding="utf-8").split("\n")


def test_what_pip_installs_is_there():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for command in COMMANDS:
        if command.startswith("pip"):
            for extra in re.findall(r"\[(.*?)\]", command):
                assert extra in project["optional-dependencies"]
        else:
            assert command.split()[0] in {"relatum", "pytest"} or command == "python3 -m venv .venv"
    assert project["scripts"] == {"relatum": "relatum.cli:main"}


def test_the_commands_run_one_after_the_other(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_photos(tmp_path / "my-photos")
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    ran = 0
    for command in COMMANDS:
        if command.startswith("relatum"):
            run(shortened(command), monkeypatch)
            ran += 1
    assert ran >= 7
    assert {path.name for path in (tmp_path / "runs").iterdir()} == {"demo", "simclr-jaccard", "whitened"}
    assert (tmp_path / "my-photos.npz").exists()
    assert (tmp_path / "runs" / "demo" / "export" / "encoder.onnx").exists()


def test_the_programs_run(capsys):
    names: dict = {}
    for block in blocks("python"):
        exec(compile(block, "README.md", "exec"), names)
    assert names["loss"].isfinite()
    printed = capsys.readouterr().out
    top1 = float(re.search(r"'top1': ([\d.]+)", printed).group(1))
    assert top1 > 20, "one pass over the digits is more than chance"


@pytest.mark.parametrize("path", re.findall(r"`((?:[\w.-]+/)*[\w-]+\.md)`|\]\(([^)#:]+)\)", README))
def test_paths_exist(path):
    assert (ROOT / "".join(path)).exists()


@pytest.mark.parametrize("path", re.findall(r"\]\(([^)#:]+)\)", RESULTS))
def test_paths_of_the_results_exist(path):
    assert (ROOT / "results" / path).exists()


def test_the_pictures_are_those_that_a_command_redraws_and_the_texts_say_its_numbers(tmp_path):
    texts = [README, (ROOT / "docs" / "quickstart.md").read_text(encoding="utf-8")]
    measured = {"knn_top1": 88.8, "pixels_knn_top1": 65.0, "untrained_knn_top1": 35.6}
    assert redraw.stale(measured, *texts) == []
    assert redraw.stale(measured | {"knn_top1": 87.6}, *texts) == [
        *("README.md does not say 88 %", "docs/quickstart.md does not say 87.6 %"),
    ]
    pictures = {path.name for path in (ROOT / "docs" / "pictures").iterdir()}
    assert pictures == set(redraw.PICTURES.values())
    pages = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "docs").glob("*.md"))
    assert all(f"pictures/{name}" in README + pages for name in pictures)
    other = {"recipe": {"name": "photos", "train": {"epochs": 30}}, "seed": 0}
    (tmp_path / "record.json").write_text(json.dumps(other), encoding="utf-8")
    with pytest.raises(ValueError, match="is no run of the demo as it is"):
        redraw.main(tmp_path)


def test_recipes_that_are_named_exist():
    from relatum.recipes.catalog import RECIPES

    named = re.findall(r"relatum (?:train|show) ([a-z][\w-]*)(?! --plugin)\b", README)
    assert set(named) <= set(RECIPES)
    assert "corsd" in METHODS


TABLES = re.findall(r"<!-- relatum (table|study) (.+?) -->\n(.*?)<!-- end -->", RESULTS, re.S)


@pytest.mark.parametrize(("verb", "args", "table"), TABLES, ids=[f"{verb} {args}" for verb, args, _ in TABLES])
def test_tables_are_what_the_records_say(verb, args, table, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    own = [] if verb == "table" else ["--runs", str(tmp_path), *([] if "--verdicts" in args else ["--answer"])]
    monkeypatch.setattr("sys.argv", ["relatum", verb, *shlex.split(args), *own])
    cli.main()
    assert table == capsys.readouterr().out


def test_every_record_was_made_from_a_commit():
    for record in find_records([ROOT / "results"]):
        assert re.fullmatch(r"[0-9a-f]{40}", record.commit), f"{record.recipe['name']}: {record.commit!r}"


def test_help_answers_without_the_heavy_libraries():
    import subprocess
    import sys

    code = (
        "import sys; sys.argv = ['relatum', '--help']\n"
        "from relatum.cli import main; main()\n"
        "heavy = {'torch', 'timm', 'numpy', 'tyro', 'pydantic', 'matplotlib'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    for verb in cli.VERBS:
        assert f"  {verb}" in done.stdout
