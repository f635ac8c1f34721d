"""Three people at the door: the walks that a page of the site shows, run from an empty folder as they stand there."""

import re
import tomllib
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from commands import make_photos, run, shortened
from relatum import METHODS, RECIPES, cli
from relatum.reports.page import LIMIT
from relatum.reports.records import find_records, read_record

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "walks.md").read_text(encoding="utf-8")
PRACTITIONER, RESEARCHER = (block.strip().splitlines() for block in re.findall(r"```(?:ba)?sh\n(.*?)```", PAGE, re.S))
(ENGINEER,) = re.findall(r"```python\n(.*?)```", PAGE, re.S)
LIGHTLY = 49
"""Lines of lightly's examples/pytorch/simclr.py, counted as `counted` does, in the state 2abf921 of its repository."""


def counted(program: str) -> int:
    """Lines that are neither empty nor comments nor part of a docstring."""
    lines = re.sub(r'""".*?"""', "", program, flags=re.S).splitlines()
    return sum(bool(line.strip()) and not line.strip().startswith("#") for line in lines)


def test_the_page_counts_the_lines_that_stand_on_it():
    plain = (ROOT / "examples" / "plain_pytorch.py").read_text(encoding="utf-8")
    assert f"| a folder of photos | {len(PRACTITIONER)} commands |" in PAGE
    assert f"| a question | {len(RESEARCHER)} commands |" in PAGE
    assert f"| {counted(ENGINEER)} of Python |" in PAGE
    assert f"has {LIGHTLY} lines that are neither empty" in PAGE
    assert f"or the {counted(plain)} lines of" in PAGE
    assert counted(plain) < LIGHTLY
    assert counted('"""Doc.\n\nMore."""\n# a\nx = 1\n\ny = 2  # b\n') == 2


@pytest.mark.installed  # by default, the README's commands do most of it
def test_a_practitioner_with_a_folder_of_photos(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    make_photos(tmp_path / "my-photos")
    for line in PRACTITIONER:
        run([*shortened(line), *(["--evaluation.run", "knn"] if " train " in line else [])], monkeypatch)
    said = capsys.readouterr().out
    record = read_record(Path("runs/photos"))
    assert (record.data["train"], record.data["held_out"]) == (32, 8)  # of the 40 that are enough here
    assert f"{record.metrics['knn_top1']:.3f}" in said
    rows = Path("labels.csv").read_text(encoding="utf-8").splitlines()
    assert len(rows) == 1 + 48
    assert {row.split(",")[1] for row in rows[1:]} <= {"cats", "dogs"}
    assert "cats/0.png" in Path("alike.html").read_text(encoding="utf-8")
    page = Path("runs/photos/report.html").read_text(encoding="utf-8")
    assert 20_000 < len(page) < LIMIT
    assert page.count('<figure class="query"') == 8
    assert page.count(' apart">') == 8, "after training beside before training"
    assert re.search(r"then those before training.*on the right those after training", page)
    assert Path("features.npz").is_file()
    assert Path("runs/photos/export/encoder.onnx").is_file()


def test_an_engineer_with_a_loop_a_network_a_dataset_and_a_method(tmp_path, monkeypatch, capsys):
    """As the page has it, but for two epochs on one thread."""
    monkeypatch.chdir(tmp_path)
    words = ["--train.epochs", "2", "--train.threads", "1", "--evaluation.run", "knn", "--evaluation.no-figures"]
    kept = dict(METHODS), dict(RECIPES)
    short = ENGINEER.replace('RECIPES["spread"]()', f"shortened(RECIPES['spread'](), {words})")
    assert short != ENGINEER
    names: dict = {"shortened": changed}
    try:
        exec(compile(short, "walks.md", "exec"), names)
        recipe = names["record"].recipe
        assert (recipe["method"]["name"], recipe["data"]["source"], recipe["model"]["name"]) == (
            *("spread", "python:dataset", "wrapped:Sequential"),
        )
        assert set(names["record"].history[-1]) > {"together", "apart"}
        saved = load_file(tmp_path / "runs" / "mine" / "encoder.safetensors")
        found = names["trained"].model.state_dict()
        assert all(torch.equal(found[name], tensor) for name, tensor in saved.items())
        assert not torch.equal(found[next(iter(saved))], names["method"].backbone.model.state_dict()[next(iter(saved))])
    finally:
        for registry, before in zip((METHODS, RECIPES), kept):
            registry.clear()
            registry.update(before)


def changed(recipe, words):
    """A recipe with fields changed, as the command line changes them."""
    from relatum.cli.arguments import parse

    return parse(type(recipe), "train", words, default=recipe)


@pytest.mark.installed  # a process for each run
def test_a_researcher_with_a_question(tmp_path, monkeypatch, capsys):
    """As the page has it, but for one epoch on few images and two seeds."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "results").mkdir()
    for line in RESEARCHER:
        words = line.split()[1:]
        if words[0] == "study":
            words[words.index("--seeds") + 1] = "0-1"
            for field in ("train.epochs=1", "data.train_images=64", "evaluation.figures=false"):
                words += ["--over", field]
        run(words, monkeypatch)
    said = Path("answer.md").read_text(encoding="utf-8")
    assert "What does method.relation change in demo?" in said
    assert "too few seeds" in said
    records = find_records([Path("runs")])
    assert sorted((record.recipe["method"]["relation"], record.seed) for record in records) == [
        *(("cosine", 0), ("cosine", 1), ("jaccard", 0), ("jaccard", 1)),
    ]
    accuracy = sum(record.metrics["knn_top1"] for record in records if record.recipe["method"]["relation"] == "cosine")
    assert f"| method.relation cosine | {accuracy / 2:.2f} " in said
    assert "jaccard" in capsys.readouterr().out
    assert Path("runs.html").stat().st_size > 20_000


def test_what_the_walks_need_is_installed():
    """The pages and the ONNX file need extras, which the README's second line has."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    assert "relatum[onnx,report" in extras["test"][0]
    assert set(cli.VERBS) >= {line.split()[1] for line in (*PRACTITIONER, *RESEARCHER)}
