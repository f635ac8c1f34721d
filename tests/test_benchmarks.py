"""The benchmarks' harness, and the report as a pure function of JSON."""

import copy
import importlib
import json
import sys
import time
from argparse import ArgumentParser
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))  # the benchmarks are no part of the package

from benchmarks import harness, report  # noqa: E402

MODULES = sorted(path.stem for path in (ROOT / "benchmarks").glob("*.py") if path.stem not in ("harness", "report"))


def entry(seconds: list[float], **more: object) -> dict:
    return {"seconds": seconds, "cpu_seconds": [s / 2 for s in seconds], "quantities": {}, "facts": {}, **more}


@pytest.fixture
def result() -> dict:
    """What a benchmark writes: ratios 2, 4 and 3 in time, 10 in memory, and a side that failed."""
    target = {"side": "peer", "what": "time", "at_most": None, "at_least": 3.0, "paper": 1.65}
    ours = entry([1.0, 1.0, 2.0], name="ours", quantities={"peak MiB": 2.0})
    peer = entry([2.0, 4.0, 6.0], name="peer", quantities={"peak MiB": 20.0}, facts={"share": 0.25})
    sides = [ours, peer, {"name": "broken", "error": "out | of memory"}]
    targets = [target, {**target, "what": "peak MiB", "at_least": 11.0, "paper": None}, {**target, "side": "broken"}]
    return {
        "name": "toy",
        "question": "Which is faster?",
        "work": "the same",
        "limits": "much",
        "settings": {"sizes": [1, 2]},
        "machine": {"processor": "abacus", "cores": 2, "threads": 1, "gpu": None, "load": 0.5},
        "versions": {"torch": "2", "absent": ""},
        "commit": "0123456789abcdef+",
        "cases": [{"name": "a case", "sides": sides, "targets": targets}],
    }


def test_memory_alone_has_no_seconds(result: dict) -> None:
    for side in result["cases"][0]["sides"]:
        side |= {"seconds": [], "cpu_seconds": []}
    text = report.render([result])
    assert "| ours |  | 1 | 1 | 2.00 | 1 |" in text
    assert "| peer |  |  |  | 20.00 | 10.00 |" in text


def test_turns_alternate() -> None:
    assert harness.turns(("a", "b", "c"), 3) == [["a", "b", "c"], ["c", "b", "a"], ["a", "b", "c"]]


def test_sides_take_turns_after_one_that_is_not_counted() -> None:
    calls: list[str] = []

    def job(name: str, seconds: float) -> harness.Job:
        def run() -> harness.Outcome:
            calls.append(name)
            time.sleep(seconds)
            return lambda: {"calls": len(calls)}

        return run

    found = harness.time_in_turns({"fast": job("fast", 0.0), "slow": job("slow", 0.02)}, repeats=2)
    assert calls == ["fast", "slow", "slow", "fast", "fast", "slow"]
    assert [len(side["seconds"]) for side in found.values()] == [2, 2]
    assert min(found["slow"]["seconds"]) >= 0.02 > max(found["slow"]["cpu_seconds"])  # sleep takes no processor time
    assert found["fast"]["outcome"] == {"calls": 1}  # that of the first run


def test_a_side_that_raises_is_reported_and_the_others_go_on() -> None:
    def broken() -> None:
        raise MemoryError("no room\nat all")

    found = harness.time_in_turns({"broken": broken, "whole": lambda: None}, repeats=3)
    assert found["broken"] == {"error": "MemoryError: no room"}
    assert len(found["whole"]["seconds"]) == 3


@pytest.mark.parametrize(("value", "same"), [(1.0009, True), (1.002, False), (float("nan"), False)])
def test_disagreement(value: float, same: bool) -> None:
    found = harness.disagreement({"loss": value, "only here": 1.0}, {"loss": 1.0}, 1e-3)
    assert (found is None) == same


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="resident memory is read from Linux's /proc")
def test_peak_is_that_of_the_run_alone() -> None:
    size = 64 * 2**20
    before = torch.ones(size, dtype=torch.uint8)  # not of the run

    def run() -> None:
        torch.ones(size, dtype=torch.uint8)

    found = harness.peak_bytes(run, "cpu")
    assert size * 0.95 < found < size * 1.3
    assert harness.peak_bytes(lambda: None, "cpu") < size * 0.1
    del before


def test_spread_is_median_and_range() -> None:
    assert report.spread([5.0, 1.0, 2.0]) == (2.0, 1.0, 5.0)
    assert str(report.spread([5.0, 1.0, 2.0])) == "2.00 (1.00 to 5.00)"
    assert str(report.spread([1234.5])) == "1,234"


def test_ratios_are_paired_by_turn(result: dict) -> None:
    first, peer, broken = result["cases"][0]["sides"]
    assert report.ratio(peer, first, "time") == (3.0, 2.0, 4.0)  # not the ratio of the medians, 4
    assert report.ratio(peer, first, "peak MiB") == (10.0, 10.0, 10.0)
    assert report.ratio(peer, first, "saved MiB") is None
    assert report.ratio(broken, first, "time") is None


def test_the_report_is_a_function_of_json(result: dict) -> None:
    before = copy.deepcopy(result)
    page = report.render([result])
    assert result == before
    assert page == report.render([json.loads(json.dumps(result))])
    assert "| peer | 4.00 (2.00 to 6.00) | 3.00 (2.00 to 4.00) |" in page
    assert "| 20.00 | 10.00 | 0.25 |" in page
    assert "out \\| of memory" in page
    assert "commit 0123456789ab+" in page
    assert "abacus" in page
    assert "absent" not in page


def test_verdicts(result: dict) -> None:
    found = [row[2:] for row in report.verdicts([result])]
    assert found == [
        ["3.00 (2.00 to 4.00)", "at least 3", "1.65", "yes"],
        ["10.00", "at least 11", "", "no"],
        ["failed", "at least 3", "1.65", "no"],
    ]


def test_a_target_without_a_measurement_has_no_verdict(result: dict) -> None:
    for side in result["cases"][0]["sides"][:2]:
        side["quantities"] = {}
    assert len(report.verdicts([result])) == 2


def test_report_command(result: dict, tmp_path: Path) -> None:
    arguments = ["--results", str(tmp_path), "--out", str(tmp_path / "page.md")]
    with pytest.raises(FileNotFoundError, match="run a benchmark first"):
        report.main(arguments)
    (tmp_path / "toy.json").write_text(json.dumps(result))
    report.main(arguments)
    assert (tmp_path / "page.md").read_text() == report.render([result])


@pytest.mark.parametrize("name", MODULES)
def test_every_target_is_of_a_side(name: str) -> None:
    benchmark = importlib.import_module(f"benchmarks.{name}").BENCHMARK
    parser = ArgumentParser()
    benchmark.arguments(parser)
    parser.add_argument("--device", default="cpu")
    cases = benchmark.cases(parser.parse_args([]))
    assert benchmark.name == name
    assert benchmark.work
    assert benchmark.limits
    for case in cases.values():
        assert len(case.sides) > 1
        assert {target.side for target in case.targets} <= set(list(case.sides)[1:])


def test_a_benchmark_from_its_command_line_to_its_report(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    from benchmarks.losses import BENCHMARK

    out = tmp_path / "losses.json"
    options = ["--tasks", "cosine-keys", "--sizes", "64", "--repeats", "2", "--no-memory", "--out", str(out)]
    harness.run(BENCHMARK, options)
    (case,) = json.loads(out.read_text())["cases"]
    assert [side["name"] for side in case["sides"]] == ["blocks", "plain"]
    for side in case["sides"]:
        assert len(side["seconds"]) == 2
        assert min(side["seconds"]) > 0
    loss = [side["outcome"]["loss"] for side in case["sides"]]
    assert loss[0] == pytest.approx(loss[1], rel=1e-5)
    assert "cosine-keys, 64 rows" in capsys.readouterr().out
