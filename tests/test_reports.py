"""Records, tables and figures: pure functions of what happened."""

import dataclasses
import json
import re
import statistics
import subprocess
import time
from pathlib import Path

import pytest

from relatum.reports import records
from relatum.reports.records import Record, find_records, read_record, versions, write_record
from relatum.reports.tables import Bold, Table, comparison, filled, format_of, measured


def record(name: str, seed: int, **metrics: float) -> Record:
    return Record(
        recipe={"name": name},
        seed=seed,
        versions=versions(),
        commit="0" * 40,
        machine={"device": "a processor"},
        data={"train": 10},
        history=[{"epoch": 1, "seconds": 2.0, "loss": 3.0}, {"epoch": 2, "seconds": 2.0, "loss": 1.5}],
        metrics=metrics,
        protocols={"knn": "k-NN (k=5)"},
        images_passed=1000,
    )


def test_a_record_survives_its_file(tmp_path):
    written = record("a", 0, knn_top1=50.0)
    write_record(written, tmp_path / "record.json")
    assert read_record(tmp_path) == written
    assert read_record(tmp_path / "record.json") == written
    assert set(json.loads((tmp_path / "record.json").read_text())) == {f.name for f in dataclasses.fields(Record)}


def test_the_commit_is_that_of_a_checkout_or_none(tmp_path, monkeypatch):
    found = records.commit()
    assert found == "" or re.fullmatch(r"[0-9a-f]{40}\+?", found)
    installed = tmp_path / "site-packages" / "records.py"
    installed.parent.mkdir()
    installed.write_text("")
    for command in (
        ["init", "-q"],
        ["-c", "user.name=a", "-c", "user.email=b", "commit", "-q", "--allow-empty", "-m", "c"],
    ):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    monkeypatch.setattr(records, "__file__", str(installed))
    assert records.commit() == "", "the checkout around an installed copy is not ours"


def test_records_are_found_at_any_depth_and_once(tmp_path):
    for i in range(3):
        folder = tmp_path / "runs" / str(i)
        folder.mkdir(parents=True)
        write_record(record("a", i), folder / "record.json")
    (tmp_path / "runs" / "other.json").write_text('{"metrics": 3}')
    assert [r.seed for r in find_records([tmp_path, tmp_path / "runs" / "1"])] == [0, 1, 2]
    with pytest.raises(FileNotFoundError, match="no record in"):
        find_records([tmp_path / "nothing"])


def test_table_has_mean_spread_and_every_seed():
    values = (50.0, 53.0, 52.0)
    table = comparison([record("b", s, knn_top1=v) for s, v in enumerate(values)] + [record("a", 0, knn_top1=40.0)])
    rows = table.splitlines()
    assert rows[0] == "| recipe | seeds | k-NN | image passes | each seed |"
    spread = statistics.stdev(values)
    assert rows[2] == f"| b | 3 | 51.67 ± {spread:.2f} | 1,000 | 0: 50.00; 1: 53.00; 2: 52.00 |"
    assert rows[3] == "| a | 1 | 40.00 | 1,000 | 0: 40.00 |"
    assert "- knn: k-NN (k=5)" in rows


def test_runs_of_one_name_in_two_settings_are_not_averaged():
    found = []
    for seed, (epochs, threads) in enumerate([(12, 1), (12, 2), (36, 1)]):
        recipe = {"name": "a", "train": {"seed": seed, "epochs": epochs, "threads": threads}}
        found.append(dataclasses.replace(record("a", seed, knn_top1=50.0 + seed), recipe=recipe))
    rows = comparison([*found, record("b", 0, knn_top1=1.0)]).splitlines()
    assert [row.split(" | ")[:2] for row in rows[2:5]] == [
        ["| a (train.epochs 12)", "2"],
        ["| a (train.epochs 36)", "1"],
        ["| b", "1"],
    ]


def test_data_sets_are_never_mixed_without_a_column():
    found = []
    for name, source in (("a", "cifar10"), ("b", "cifar100")):
        recipe = {"name": name, "data": {"source": source}}
        found.append(dataclasses.replace(record(name, 0, knn_top1=50.0), recipe=recipe))
    rows = comparison(found).splitlines()
    assert rows[0].startswith("| recipe | data | seeds |")
    assert [row.split(" | ")[1] for row in rows[2:4]] == ["cifar10", "cifar100"]
    assert "data" not in comparison(found[:1]).splitlines()[0]


def test_seeds_with_a_teacher_each_are_one_row():
    def taught(seed: int, teacher: str) -> Record:
        recipe = {"name": "kd", "method": {"teacher": teacher}}
        return dataclasses.replace(record("kd", seed, top1=50.0 + seed), recipe=recipe)

    rows = comparison([taught(0, "runs/t/0"), taught(1, "runs/t/1")]).splitlines()
    assert rows[2].startswith("| kd | 2 | 50.50 ± 0.71 |")
    rows = comparison([taught(0, "runs/t"), taught(0, "runs/u")]).splitlines()
    assert [row.split(" | ")[0] for row in rows[2:4]] == [
        "| kd (method.teacher runs/t)",
        "| kd (method.teacher runs/u)",
    ]


def test_records_name_their_columns_themselves():
    named = dataclasses.replace(record("a", 0, odd=1.5, knn_top1=2.0), columns={"odd": "an odd one"})
    assert comparison([named]).splitlines()[0] == "| recipe | seeds | k-NN | an odd one | image passes | each seed |"


def test_tables_in_other_formats():
    table = Table(["a_b", "c"], [["50 %", Bold("1 ± 2")], ["x|y", "#"]], ["a note"], title="T")
    assert (
        table.render("markdown")
        == "### T\n\n| a_b | c |\n| --- | --- |\n| 50 % | **1 ± 2** |\n| x\\|y | # |\n\n- a note\n"
    )
    assert table.render("csv") == "a_b,c\n50 %,1 ± 2\nx|y,#\n"
    assert table.render("latex").splitlines() == [
        "% T",
        r"\begin{tabular}{lr}",
        r"\toprule",
        r"a\_b & c \\",
        r"\midrule",
        r"50 \% & \textbf{1 $\pm$ 2} \\",
        r"x|y & \# \\",
        r"\bottomrule",
        r"\end{tabular}",
        "% a note",
    ]


@pytest.mark.parametrize(
    ("out", "asked", "found"),
    [(None, None, "markdown"), (None, "csv", "csv"), ("t.md", None, "markdown"), ("t.tex", "latex", "latex")],
)
def test_the_format_is_that_of_the_suffix(out, asked, found):
    assert format_of(Path(out) if out else None, asked) == found


@pytest.mark.parametrize(
    ("out", "asked", "message"),
    [("t.docx", None, ".docx is none"), ("t", None, "no suffix is none"), ("t.md", "csv", "would be markdown, and")],
)
def test_other_suffixes_are_refused(out, asked, message):
    with pytest.raises(ValueError, match=message):
        format_of(Path(out), asked)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("5", "Input should be an object"),
        ("null", "Input should be an object"),
        ("{", "Invalid JSON"),
        ("", "Invalid JSON"),
        ('{"recipe": {}}', "seed: Field required"),
        (
            '{"recipe": {}, "seed": "x", "versions": {}, "commit": "", "machine": {}, "data": {}}',
            "seed: Input should be a",
        ),
        (
            '{"recipe": {}, "seed": 0, "versions": {}, "commit": "", "machine": {}, "data": {}, "odd": 1}',
            "odd: Unexpected",
        ),
    ],
)
def test_other_json_is_no_record_and_says_why(tmp_path, caplog, text, message):
    path = tmp_path / "record.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=message) as refused:
        read_record(path)
    assert len(str(refused.value).splitlines()) == 1
    write_record(record("a", 0), tmp_path / "good.json")
    (tmp_path / "folder.json").mkdir()
    caplog.set_level("INFO")
    assert len(find_records([tmp_path])) == 1
    assert f"{path} is left out" in caplog.text
    assert f"{tmp_path / 'folder.json'} is left out" in caplog.text


def test_numbers_that_are_not_finite_are_read_back(tmp_path):
    write_record(record("a", 0, knn_top1=float("nan")), tmp_path / "record.json")
    assert str(read_record(tmp_path).metrics["knn_top1"]) == "nan"


def test_a_table_of_a_thousand_records_takes_less_than_two_seconds(tmp_path):
    history = [{"epoch": e, "seconds": 2.0, "loss": 3.0, "learning_rate": 0.1} for e in range(1, 101)]
    bits = {"top1": "A" * 1668, "knn": "A" * 1668}
    fields = {f"part{i}": {f"field{j}": j for j in range(12)} for i in range(6)}
    recipe = {"name": "NAME", **fields, "train": {"seed": 123456}}
    one = dataclasses.replace(record("r", 123456, top1=50.0), recipe=recipe, history=history, correct=bits)
    write_record(one, tmp_path / "one.json")
    text = (tmp_path / "one.json").read_text()
    (tmp_path / "one.json").unlink()
    for i in range(1000):
        (tmp_path / f"{i}.json").write_text(text.replace("NAME", f"r{i % 50}").replace("123456", str(i // 50)))
    start = time.process_time()
    table = comparison(find_records([tmp_path]))
    assert time.process_time() - start < 2.0
    assert len(table.splitlines()) == 2 + 50 + 2


def test_table_refuses_one_run_twice_and_nothing():
    with pytest.raises(ValueError, match=r"'a' occurs twice with one seed \(\[0, 0\]\)"):
        comparison([record("a", 0), record("a", 0)])
    with pytest.raises(ValueError, match="no records"):
        comparison([])


def test_table_goes_into_its_place():
    text = "x\n<!-- relatum table r -->\nold\n<!-- end -->\n<!-- relatum table s -->\nkept\n<!-- end -->\n"
    assert filled(text, "r", "new\n") == text.replace("old", "new")
    with pytest.raises(ValueError, match="no place for the table"):
        filled(text, "t", "new\n")


def test_measurements_stand_beside_their_protocols():
    text = measured({"knn_top1": 12.5, "linear_validation@0.1": 9.0}, {"knn": "k-NN (k=5)"})
    assert "knn_top1    12.500" in text
    assert "validation@" not in text
    assert "knn: k-NN (k=5)" in text
