"""What is to be measured on a GPU: each step runs on a processor, tiny, so that no minute there is lost."""

import json
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))  # the benchmarks are no part of the package

from benchmarks.gpu import __main__ as gpu  # noqa: E402
from benchmarks.gpu.works import recipes  # noqa: E402

from relatum.methods import METHODS  # noqa: E402
from relatum.recipes.catalog import RECIPES  # noqa: E402


def run(step: str, out: Path) -> str:
    gpu.main([step, "--out", str(out), "--tiny", "--seeds", "0"])
    return (out / step / "0.log").read_text()


def test_every_recipe_works_is_asked_beside_the_processor(tmp_path):
    run("works", tmp_path)
    rows = json.loads((tmp_path / "works.json").read_text())["recipes"]
    assert set(rows) == {"simclr-jaccard", "corsd"}
    for row in rows.values():
        assert row["loss differs by"] == row["gradient differs by"] == 0.0  # the device is the processor
        assert 0 < row["bfloat16 differs by"] < 0.05
        assert row["float32, ms a step"] > 0


def test_no_method_is_left_out():
    asked = {RECIPES[name].recipe.method.name for name in recipes()}
    assert asked == set(METHODS)


def test_blocks(tmp_path):
    run("blocks", tmp_path)
    (case,) = json.loads((tmp_path / "losses.json").read_text())["cases"]
    assert [side["name"] for side in case["sides"]][:2] == ["blocks", "plain"]


def test_the_speedrun_ends_in_its_table(tmp_path):
    run("speedrun", tmp_path)
    assert "speedrun" in (tmp_path / "speedrun" / "1.log").read_text()
    record = json.loads((tmp_path / "runs" / "speedrun" / "0" / "record.json").read_text())
    assert set(record["metrics"]) >= {"knn_top1"}


@pytest.mark.parametrize(("step", "runs"), [("jaccard", 12), ("corsd", 16), ("tian", 10)])
def test_studies_plan(step, runs, tmp_path):
    assert f"# {runs} runs, 0 of them done" in run(step, tmp_path)


def test_what_runs_when_the_minutes_are_over_is_stopped(tmp_path, capsys):
    start = time.monotonic()
    sleeper = "import time; print('going on', flush=True); time.sleep(60)"
    commands = [[sys.executable, "-c", sleeper], [sys.executable, "-c", "1 / 0"]]
    assert not gpu.run(commands, tmp_path, seconds=1.0)
    assert time.monotonic() - start < 30
    assert "going on" in capsys.readouterr().out
    assert not (tmp_path / "1.log").exists()


def test_a_command_that_fails_says_why(tmp_path):
    with pytest.raises(RuntimeError, match="ZeroDivisionError"):
        gpu.run([[sys.executable, "-c", "1 / 0"]], tmp_path, seconds=60)
