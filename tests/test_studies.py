"""Studies: what a declaration plans, what it refuses, and the answer that its Records give."""

import base64
import dataclasses
import functools
import json
import re
import resource
import shlex
import subprocess
import sys

import pytest

from relatum.cli import main
from relatum.cli.study import seeds_of
from relatum.recipes.catalog import RECIPES
from relatum.recipes.recipe import from_dict, to_dict
from relatum.reports.records import Record, flat, write_record
from relatum.studies import trees
from relatum.studies.answer import Evidence, Place, answer, collect, guesser
from relatum.studies.catalog import grid_of, studies
from relatum.studies.executor import lacking
from relatum.studies.plan import command, measured_seconds, plan
from relatum.studies.study import Scale, Selection, Study, Teacher, Trained

STUDIES = studies()
EVERY = [(name, scale) for name, study in STUDIES.items() for scale in study.scales]


def small(**changes) -> Study:
    """Two arms and a teacher, in two columns."""
    declared = {
        "name": "small",
        "question": "Which is better?",
        "recipe": "supervised",
        "rows": {"plain": {}, "smooth": {"recipe": "label-smoothing"}, "KD": {"recipe": "kd"}},
        "columns": {"A": {"data.source": "cifar10"}, "B": {}},
        "baseline": "plain",
        "teachers": {"big": Teacher({"recipe": "supervised", "model.name": "wrn_16_2"})},
        "scales": {"cpu": Scale("tiny", {"train.epochs": 2, "teacher": Trained("big")}, seeds=(0, 1))},
    }
    return Study(**(declared | changes))


def tree_of(cell) -> dict:
    """The whole recipe that a cell trains, as nested plain types."""
    return merged(to_dict(RECIPES[cell.recipe]()), cell.changes)


def merged(tree: dict, changes: dict) -> dict:
    for name, value in changes.items():
        *rooms, leaf = name.split(".")
        inner = tree
        for room in rooms:
            inner = inner[room]
        inner[leaf] = value
    return tree


def put(cell, top1: float, **other) -> Record:
    record = Record(
        recipe=tree_of(cell),
        seed=cell.seed,
        versions={},
        commit="",
        machine={"device": "a processor"},
        data={},
        metrics={"top1": top1},
        history=other.pop("history", []),
        seconds=other.pop("seconds", 60.0),
        **other,
    )
    cell.folder.mkdir(parents=True, exist_ok=True)
    write_record(record, cell.folder / "record.json")
    return record


@functools.cache
def base(recipe: str) -> str:
    return json.dumps(to_dict(RECIPES[recipe]()))


@functools.cache
def valid(recipe: str, changes: str) -> bool:
    """Whether a recipe with these changes can be trained; each is built once."""
    from_dict(merged(json.loads(base(recipe)), json.loads(changes)))
    return True


@pytest.mark.parametrize(("name", "scale"), EVERY)
def test_every_study_plans_recipes_that_exist_and_are_valid(tmp_path, name, scale):
    made = plan(STUDIES[name].at(scale), tmp_path)
    assert len({cell.folder for cell in made.cells}) == len(made.cells)
    before = set()
    for cell in made.cells:
        assert before.issuperset(cell.needs), "what is needed comes first"
        before.add(cell)
        # Neither its seed nor the folder of its teacher says whether it is valid.
        kept = {k: v for k, v in cell.changes.items() if k not in ("train.seed", "method.teacher")}
        assert valid(cell.recipe, json.dumps(kept))


@pytest.mark.parametrize("name", STUDIES)
def test_published_numbers_stand_in_cells_of_the_paper(name):
    study = STUDIES[name]
    for source in study.published:
        grid = study.at("paper")
        for row, columns in source.numbers.items():
            for column, metrics in columns.items():
                assert row in grid.rows
                assert column in grid.columns
                assert set(metrics) <= set(study.metrics)
                assert all(grid.published(row, column, metric) == (n, source) for metric, n in metrics.items())
                for other in set(study.scales) - {"paper"}:
                    assert study.at(other).published(row, column, next(iter(metrics))) is None


def test_published_numbers_are_those_of_the_papers():
    """Corners of each table, read in the papers."""

    def number(study, row, column, metric="top1"):
        return STUDIES[study].at("paper").published(row, column, metric)[0]

    assert number("jaccard-1", "SimCLR + Jaccard", "Tiny-ImageNet", "epoch_seconds") == 14 * 60 + 1
    assert number("jaccard-2", "SimCLR", "CIFAR-10", "knn_top1") == 88.6
    assert number("jaccard-2", "MoCo + Jaccard", "Tiny-ImageNet", "linear_top1") == 51.2
    assert number("corsd-1", "Baseline", "ResNet18") == 77.09
    assert number("corsd-1", "CORSD", "MobileNetV1") == 71.90
    assert number("corsd-1", "SD", "SEResNet50") == 80.56
    assert number("corsd-2", "CS-KD", "WideResNet50-2") == 78.76
    assert number("corsd-3", "RKD", "PreactResNet18") == 75.61
    assert number("corsd-4", "+LD", "ResNet18") == 77.6
    assert number("tian", "RKD", "wrn-40-2 to wrn-40-1") == 72.22
    assert number("tian", "CRD", "wrn-40-2 to ShuffleNetV1") == 76.05
    assert number("tian", "AT", "ResNet50 to MobileNetV2") == 58.58
    assert number("tian", "DKD", "resnet32x4 to ShuffleNetV2") == 77.07


def test_the_size_of_the_papers_tables():
    def runs(name):
        grid = STUDIES[name].at("paper")
        return len(grid.rows) * len(grid.columns)

    assert [runs(name) for name in ("corsd-1", "corsd-2", "corsd-3", "corsd-4", "jaccard-2")] == [130, 15, 18, 6, 12]


def test_a_command_trains_what_the_cell_is(tmp_path, monkeypatch, capsys):
    """The printed words, parsed by `relatum show`, give the cell's whole recipe."""
    import yaml

    made = plan(STUDIES["jaccard-arms"].at("cpu"), tmp_path, only=["eq.-4-weights-0.45--cifar-10"], seeds=[3])
    words = command(made.cells[0])
    assert words[:3] == ["relatum", "train", "simclr"]
    assert words[-3:] == ["--run", str(made.cells[0].folder), "--resume"]
    monkeypatch.setattr(sys, "argv", ["relatum", "show", *words[2:-3]])
    main()
    assert yaml.safe_load(capsys.readouterr().out) == tree_of(made.cells[0])


def test_the_order_tells_early_and_puts_what_is_needed_first(tmp_path):
    made = plan(small().at("cpu"), tmp_path)
    assert [str(cell.folder.relative_to(tmp_path / "small" / "cpu")) for cell in made.cells] == [
        *("plain--a/0", "plain--b/0", "smooth--a/0", "smooth--b/0", "teachers/big/0", "kd--a/0", "kd--b/0"),
        *("plain--a/1", "plain--b/1", "smooth--a/1", "smooth--b/1", "kd--a/1", "kd--b/1"),
    ]
    student = made.cells[5]
    assert student.changes["method.teacher"] == str(tmp_path / "small/cpu/teachers/big/0")
    assert student.needs == (made.cells[4],)


def test_a_row_can_be_the_teacher_of_another(tmp_path):
    rows = {"plain": {}, "again": {"recipe": "tf-kd", "teacher": Trained("plain")}}
    made = plan(small(rows=rows).at("cpu"), tmp_path, only=["again"])
    assert [cell.row for cell in made.cells] == ["plain", "again"] * 4
    assert all(
        cell.changes["method.teacher"] == str(before.folder) for before, cell in zip(made.cells[::2], made.cells[1::2])
    )


def test_only_and_seeds_choose(tmp_path):
    made = plan(small().at("cpu"), tmp_path, only=["smooth"], seeds=[4])
    assert [(cell.row, cell.column, cell.seed) for cell in made.cells] == [("smooth", "A", 4), ("smooth", "B", 4)]
    assert len(plan(small().at("cpu"), tmp_path, only=["*--b"]).cells) == 7
    named, spelled = (plan(small().at("cpu"), tmp_path, only=[f"smooth--{b}"]).cells for b in "Bb")
    assert [cell.folder for cell in named] == [cell.folder for cell in spelled] != []
    with pytest.raises(ValueError, match=r"--only smoth: small has no such row, column or cell; did you mean smooth"):
        plan(small().at("cpu"), tmp_path, only=["smoth"])


@pytest.mark.parametrize(("text", "seeds"), [("0-5", [0, 1, 2, 3, 4, 5]), ("3", [3]), ("0,2-3,2", [0, 2, 3])])
def test_seeds_of_the_command_line(text, seeds):
    assert seeds_of(text) == seeds


@pytest.mark.parametrize("text", ["", "a", "3-1", "1-", "-1", "1,,2", "0x3"])
def test_other_seeds_are_refused(text):
    with pytest.raises(ValueError, match="expected numbers and ranges"):
        seeds_of(text)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rows": {"a": {"method.temperatur": 1.0}}, "baseline": None}, "no field 'method.temperatur'"),
        ({"rows": {"a": {"optim.lr": "high"}}, "baseline": None}, "optim.lr is 'high'; expected a value such as 0.1"),
        ({"rows": {"a": {"optim.nesterov": 1}}, "baseline": None}, "optim.nesterov is 1"),
        (
            {"rows": {"a": {"recipe": "supervized"}}, "baseline": None},
            "no recipe 'supervized'; did you mean supervised",
        ),
        ({"rows": {"a b": {}, "a-b": {}}, "baseline": None}, "need folders of their own"),
        ({"baseline": "plane"}, "no row 'plane'; did you mean plain"),
        ({"teachers": {}}, "no teacher or row 'big'"),
    ],
)
def test_declarations_that_cannot_be_run_are_refused(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        plan(small(**changes).at("cpu"), tmp_path)


def test_unknown_studies_and_scales_are_refused():
    def ask(name, scale="cpu", over=()):
        return grid_of(name, scale=scale, over=over, seeds=None)

    with pytest.raises(ValueError, match=r"there is no study 'jacard-2'; did you mean jaccard-2"):
        ask("jacard-2")
    with pytest.raises(ValueError, match=r"no scale 'cpus'; did you mean cpu"):
        ask("jaccard-2", "cpus")
    with pytest.raises(ValueError, match="simclr is a recipe: say what is varied"):
        ask("simclr")
    with pytest.raises(ValueError, match="jaccard-2 is a study, whose rows are declared"):
        ask("jaccard-2", over=["optim.lr=1"])
    with pytest.raises(ValueError, match=r"no field 'method.temp' to change; did you mean"):
        ask("simclr", over=["method.temp=0.1,0.2"])
    with pytest.raises(ValueError, match=r"--over optim\.lr: expected a field and its values"):
        ask("simclr", over=["optim.lr"])


def test_a_grid_of_a_recipe_has_all_combinations(tmp_path):
    over = ["method.temperature=0.1,0.2,0.5", "method.relation=cosine,jaccard", "train.epochs=3"]
    grid = grid_of("simclr", scale="cpu", over=over, seeds=[0, 1])
    made = plan(grid, tmp_path)
    assert len(made.cells) == 12
    assert all(cell.changes["train.epochs"] == 3 for cell in made.cells)
    found = {(tree_of(c)["method"]["temperature"], tree_of(c)["method"]["relation"]) for c in made.cells}
    assert found == {(t, r) for t in (0.1, 0.2, 0.5) for r in ("cosine", "jaccard")}


def test_values_of_the_command_line():
    assert trees.parts("(0.3,0.4),(0.5,0.5)") == ["(0.3,0.4)", "(0.5,0.5)"]
    assert [trees.parsed(t) for t in ("(0.3,1)", "3", "1e-3", "true", "none", "jaccard")] == [
        *((0.3, 1), 3, 1e-3, True, None, "jaccard")
    ]


def selecting() -> Study:
    candidates = {row: [{"optim.lr": lr} for lr in (0.01, 0.03)] for row in ("plain", "smooth")}
    selection = Selection(candidates, metric="validation_top1")
    scale = Scale("tiny", {"data.validation": 0.0}, seeds=(0,), selection=selection)
    rows = {"plain": {}, "smooth": {"recipe": "label-smoothing"}}
    return small(rows=rows, columns={"A": {}}, scales={"cpu": scale})


def test_what_is_chosen_on_held_out_images_is_used_in_the_runs_that_count(tmp_path):
    made = plan(selecting().at("cpu"), tmp_path)
    trials = [cell for cell in made.cells if cell.kind == "trial"]
    run = next(cell for cell in made.cells if cell.kind == "run")
    assert [cell.changes.get("optim.lr") for cell in trials] == [0.01, 0.03, 0.01, 0.03]
    assert all(cell.changes["data.validation"] == 0.1 and cell.seed == 100 for cell in trials)
    with pytest.raises(ValueError, match=r"plain--a seed 0 waits for its trial .*lr-0.01"):
        made.resolved(run)
    for cell, held_out in zip(trials, (20.0, 30.0, 50.0, 40.0)):
        # The test set says the opposite, and is not asked.
        put(
            cell,
            100 - held_out,
            history=[{"epoch": 1, "validation_top1": 99.0}, {"epoch": 2, "validation_top1": held_out}],
        )
    runs = [cell for cell in made.cells if cell.kind == "run"]
    assert [made.resolved(cell).changes["optim.lr"] for cell in runs] == [0.03, 0.01]
    assert made.resolved(runs[0]).changes.get("data.validation", 0.0) == 0.0
    for cell in runs:
        put(made.resolved(cell), 40.0)
    text = answer(made)
    assert "| plain | A | optim.lr 0.03 | 2 | validation_top1 |" in text
    assert "4 of 4 trials on held-out images, 2 for each arm, 240 seconds in all" in text


def test_a_selection_is_fair_and_looks_at_held_out_images_alone(tmp_path):
    with pytest.raises(ValueError, match=r"as many trials.*\{'a': 1, 'b': 2\}"):
        Selection({"a": [{}], "b": [{}, {}]})
    with pytest.raises(ValueError, match="'knn_top1' is not measured on them"):
        Selection({"a": [{}]}, metric="knn_top1")
    selection = Selection({"KD": [{"optim.lr": 0.01}]}, metric="validation_top1")
    scale = Scale("tiny", {"teacher": Trained("big")}, selection=selection)
    with pytest.raises(ValueError, match="KD has a teacher, which has seen the held-out images"):
        plan(small(scales={"cpu": scale}).at("cpu"), tmp_path)


def test_no_trial_of_any_study_measures_the_test_set(tmp_path):
    """Nor does one that `--select` makes. The runs that count hold nothing out."""
    grids = [STUDIES[name].at(scale) for name, scale in EVERY]
    over = ["method.temperature=0.1,0.2"]
    grids += [grid_of("simclr", scale="cpu", over=over, seeds=None, select="validation_knn_top1")]
    seen = set()
    for grid in grids:
        for cell in plan(grid, tmp_path).cells if grid.selection else ():
            fields = trees.tree(cell.recipe) | cell.changes
            seen.add(cell.kind)
            if cell.kind == "trial":
                assert fields["evaluation.run"] == []
                assert fields["data.validation"] > 0
                assert fields["evaluation.every"] > fields["train.epochs"], "after the last epoch alone"
            elif cell.choice is not None:
                assert fields["data.validation"] == 0
                assert fields["evaluation.run"]
    assert {"trial", "run"} <= seen


def test_a_trial_that_did_not_measure_is_refused(tmp_path):
    made = plan(selecting().at("cpu"), tmp_path)
    for cell in made.cells:
        if cell.kind == "trial":
            put(cell, 1.0, history=[{"epoch": 1, "validation_knn_top1": 3.0}])
    with pytest.raises(ValueError, match=r"has not measured 'validation_top1'.*it has validation_knn_top1"):
        made.resolved(made.cells[-1])


def test_a_record_of_another_recipe_in_a_cell_is_refused(tmp_path):
    made = plan(small().at("cpu"), tmp_path)
    cell, *_ = made.cells
    record = put(cell, 50.0)
    other = from_dict(tree_of(cell) | {"train": tree_of(cell)["train"] | {"epochs": 7}})
    write_record(dataclasses.replace(record, recipe=to_dict(other)), cell.folder / "record.json")
    with pytest.raises(ValueError, match=r"another recipe than this cell's:\n  train.epochs: 7, expected 2"):
        answer(made)


def test_a_record_from_before_an_evaluator_existed_is_one_of_its_cell(tmp_path):
    made = plan(small().at("cpu"), tmp_path)
    cell, *_ = made.cells
    record = put(cell, 50.0)
    run = tree_of(cell)["evaluation"]["run"]
    before = from_dict(tree_of(cell) | {"evaluation": tree_of(cell)["evaluation"] | {"run": run[:-1]}})
    write_record(dataclasses.replace(record, recipe=to_dict(before)), cell.folder / "record.json")
    assert made.record(cell).recipe["evaluation"]["run"] == run[:-1]
    asked = dataclasses.replace(cell, changes=dict(cell.changes) | {"evaluation.run": tuple(run)})
    with pytest.raises(ValueError, match=r"another recipe than this cell's:\n  evaluation.run"):
        made.record(asked)


def test_two_records_for_one_seed_are_refused(tmp_path):
    made = plan(small().at("cpu"), tmp_path / "runs", results=tmp_path / "results")
    cell, *_ = made.cells
    put(cell, 50.0)
    assert collect(made) == 1
    assert collect(made) == 0
    assert (tmp_path / "results/small/cpu/plain--a/0.json").is_file()
    assert made.record(cell).metrics == {"top1": 50.0}
    put(cell, 51.0)
    with pytest.raises(ValueError, match="two Records for one seed"):
        answer(made)


def test_collected_records_count_as_done_and_a_teacher_needs_its_encoder(tmp_path):
    made = plan(small().at("cpu"), tmp_path / "runs", results=tmp_path / "results")
    for cell in made.cells:
        put(cell, 50.0)
    collect(made)
    elsewhere = plan(small().at("cpu"), tmp_path / "other", results=tmp_path / "results")
    assert lacking(elsewhere.cells, elsewhere.done, elsewhere.usable) == []
    (tmp_path / "results/small/cpu/kd--a/1.json").unlink()
    missing = lacking(elsewhere.cells, elsewhere.done, elsewhere.usable)
    assert [(cell.row, cell.seed) for cell in missing] == [("big", 0), ("KD", 1)]


def told(tmp_path, baseline, ours):
    """The evidence of two arms in column A, by their numbers."""
    made = plan(small(columns={"A": {}}).at("cpu"), tmp_path, only=["plain", "smooth"], seeds=range(len(baseline)))
    for cell in made.cells:
        put(cell, (baseline if cell.row == "plain" else ours)[cell.seed], parameters=1000, images_passed=10)
    return made


def test_the_answer_calls_a_difference_that_is_told_apart(tmp_path):
    made = told(tmp_path, (50.0, 51.0, 49.0, 50.5, 50.0, 49.5), (52.1, 53.0, 51.2, 52.4, 52.0, 51.6))
    text = answer(made)
    assert "| smooth | **52.05 ± 0.63 (n=6)** |" in text
    assert "| plain | 50.00 ± 0.71 (n=6) |" in text
    assert "| smooth - plain | A top-1 | 6 | +2.05 |" in text
    assert text.count("| better |") == 1
    assert "| smooth | A | 60 (x 1.00) | 10 (x 1.00) | 1,000 (x 1.00) |" in text


def test_another_baseline_than_the_planned_one_is_an_exploration(tmp_path):
    made = told(tmp_path, (50.0, 51.0, 49.0, 50.5, 50.0, 49.5), (52.1, 53.0, 51.2, 52.4, 52.0, 51.6))
    made = dataclasses.replace(made, grid=dataclasses.replace(made.grid, baseline="smooth"))
    text = answer(made)
    assert "Compared with smooth here, where the study plans to compare with plain: an exploration" in text
    assert "| plain - smooth | A top-1 | 6 | -2.05 |" in text
    with pytest.raises(ValueError, match="has no row 'smoth'; did you mean smooth"):
        dataclasses.replace(made.grid, baseline="smoth")


def test_the_same_difference_over_five_seeds_is_not_called_one(tmp_path):
    text = answer(told(tmp_path, (50.0, 51.0, 49.0, 50.5, 50.0), (52.1, 53.0, 51.2, 52.4, 52.0)))
    assert "| too few seeds |" in text
    assert "**" not in text


def test_noise_is_not_told_apart(tmp_path):
    text = answer(told(tmp_path, (50.0, 51.0, 49.0, 50.5, 50.0, 49.5), (50.2, 50.4, 49.9, 50.0, 50.3, 49.6)))
    assert "| not told apart |" in text
    assert "**" not in text


def test_seconds_are_better_when_they_are_fewer(tmp_path):
    made = told(tmp_path, (50.0, 51.0, 49.0, 50.5, 50.0, 49.5), (52.1, 53.0, 51.2, 52.4, 52.0, 51.6))
    made.grid = dataclasses.replace(made.grid, study=dataclasses.replace(made.grid.study, smaller=True))
    evidence = Evidence(made)
    assert evidence.verdict(evidence.differences[Place("smooth", "A", "top1")]) == "worse"
    assert evidence.best("A", "top1") is None


def test_two_rows_are_compared_image_by_image_where_both_keep_the_images(tmp_path):
    made = plan(small(columns={"A": {}}).at("cpu"), tmp_path, only=["plain", "smooth"], seeds=range(2))
    assert "Image by image" not in answer(made)
    right = {"plain": "1111100000", "smooth": "1111011110"}  # 1 image only the baseline's, 4 only the row's
    for cell in made.cells:
        bits = int(right[cell.row].ljust(16, "0"), 2).to_bytes(2, "big")
        put(cell, 50.0, correct={"classifier": base64.b64encode(bits).decode()} if cell.seed else {})
    text = answer(made)
    assert "### Image by image" in text
    assert "| smooth - plain | A top-1 | 1: 4 / 1 (p 0.38) |" in text  # 2 (1 + 5) / 32
    assert [guesser(metric) for metric in ("top1", "knn_top1", "linear_top1")] == ["classifier", "knn", "linear"]


def test_every_relation_is_a_row_of_the_study_of_relations():
    from relatum.relations import RELATIONS

    assert list(STUDIES["relations"].rows) == list(RELATIONS)
    assert list(STUDIES["relations-corsd"].rows) == ["relation network", *RELATIONS]
    assert "jaccard-softplus" in RELATIONS


def test_fields_that_numbers_do_not_depend_on_are_set_in_every_run(tmp_path):
    made = plan(small().at("cpu"), tmp_path, incidental={"data.root": "/data", "data.workers": 0})
    assert {cell.changes["data.root"] for cell in made.cells} == {"/data"}
    assert "--data.root /data" in " ".join(command(made.cells[0]))
    put(plan(small().at("cpu"), tmp_path).cells[0], 50.0)
    assert made.record(made.cells[0]).metrics == {"top1": 50.0}, "incidental fields may differ"
    with pytest.raises(ValueError, match=r"--set optim.lr: a study says itself what it trains.*--over"):
        plan(small().at("cpu"), tmp_path, incidental={"optim.lr": 1.0})
    with pytest.raises(ValueError, match=r"--set data.rot: .*did you mean data.root"):
        plan(small().at("cpu"), tmp_path, incidental={"data.rot": "/data"})


def test_a_study_gets_its_data_from_where_the_command_line_says(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["relatum", "study", "corsd-4", "--dry-run", "--set", "data.root=/data"])
    main()
    assert all("--data.root /data" in line for line in capsys.readouterr().out.splitlines())
    monkeypatch.setattr(sys, "argv", ["relatum", "study", "corsd-4", "--dry-run", "--set", "data.root"])
    with pytest.raises(SystemExit):
        main()
    assert "--set data.root: expected a field and its value" in capsys.readouterr().err


def test_the_answer_in_other_formats(tmp_path):
    made = told(tmp_path, (50.0, 51.0, 49.0, 50.5, 50.0, 49.5), (52.1, 53.0, 51.2, 52.4, 52.0, 51.6))
    rows = [line.split(",") for line in answer(made, "csv").splitlines()]
    assert rows[0][:6] == ["row", "column", "metric", "n", "mean", "sd"]
    assert rows[2][:8] == ["smooth", "A", "top1", "6", "52.0500", "0.63", "plain", "2.0500"]
    assert rows[2][11] == "better"
    latex = answer(made, "latex")
    assert r"smooth & \textbf{52.05 $\pm$ 0.63 (n=6)} \\" in latex
    assert r"\toprule" in latex


def test_expected_hours_are_of_measured_seconds(tmp_path):
    made = plan(small().at("cpu"), tmp_path)
    put(made.cells[0], 1.0, seconds=120.0)
    assert measured_seconds(made) == {
        c.folder: 120.0 for c in made.cells if c.folder.parent == made.cells[0].folder.parent
    }


def test_a_dry_run_prints_commands_one_a_line_and_trains_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["relatum", "study", "corsd-4", "--seeds", "0", "--dry-run"])
    main()
    printed = capsys.readouterr()
    lines = printed.out.splitlines()
    assert len(lines) == 6
    assert all(shlex.split(line)[:2] == ["relatum", "train"] and line.endswith("/0 --resume") for line in lines)
    assert "# 6 runs, 0 of them done" in printed.err
    assert list(tmp_path.iterdir()) == []


def test_the_answer_goes_into_its_place_in_a_text(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- relatum study corsd-4 --scale cpu -->\nold\n<!-- end -->\nafter\n")
    other = tmp_path / "other.md"
    other.write_text("<!-- relatum study corsd-4 --scale cpu --baseline '+RN +AC' -->\n<!-- end -->\n")
    words = ["relatum", "study", "corsd-4", "--answer", "--baseline", "+RN +AC", "--out", "other.md"]
    monkeypatch.setattr(sys, "argv", words)
    main()
    assert "Compared with +RN +AC here, where the study plans to compare with BL" in other.read_text()
    monkeypatch.setattr(sys, "argv", ["relatum", "study", "corsd-4", "--answer", "--out", "page.md"])
    main()
    text = page.read_text()
    assert text.startswith("before\n<!-- relatum study corsd-4 --scale cpu -->\n### Which part of CORSD helps?")
    assert "0 of 36 runs are done" in text
    assert text.endswith("<!-- end -->\nafter\n")


@pytest.mark.parametrize(
    "words", [["study"], ["study", "corsd-1", "--scale", "paper", "--dry-run"], ["study", "jaccard-2", "--dry-run"]]
)
def test_studies_answer_below_half_a_second_of_processor_time(tmp_path, words):
    """`list`, `show` and `table` are held to it beside what they belong to."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-m", "relatum", *words], cwd=tmp_path, capture_output=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 0.5


def test_a_table_of_a_study_answers_below_half_a_second_of_processor_time(tmp_path):
    for cell in plan(small().at("cpu"), tmp_path).cells:
        put(cell, 50.0)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-m", "relatum", "table", str(tmp_path)], capture_output=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 0.5


def test_a_run_that_dies_at_once_is_shown_with_its_last_lines(tmp_path, monkeypatch, capfd):
    """Through the command line, by the real command of a run."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["relatum", "study", "demo", "--over", "optim.lr=-1.0"])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 2
    said = capfd.readouterr().err
    assert re.search(r"FAILED as-asked--demo seed 0: exit status 2\n    relatum: optim.lr is -1.0; expected", said), (
        said
    )
    assert "relatum: 1 of 1 runs failed and 0 wait on them" in said


def test_a_study_without_jobs_is_refused(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["relatum", "study", "corsd-4", "--dry-run", "--jobs", "0"])
    with pytest.raises(SystemExit):
        main()
    assert "--jobs is 0; expected at least one run at a time" in capsys.readouterr().err


def test_an_unknown_suffix_is_refused_before_any_work(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["relatum", "study", "corsd-4", "--out", "answer.docx"])
    with pytest.raises(SystemExit):
        main()
    assert "answer.docx: a table is written as .md, .tex, .csv, and .docx is none" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_sensitivity_has_the_baseline_at_its_value():
    found = STUDIES["corsd-fig3"].at("cpu").sensitivity("method.lam")
    assert found == {0.2: "lam 0.2", 0.4: "lam 0.4", 0.6: "lam 0.6", 0.8: "CORSD", 1.0: "lam 1"}


def test_planning_imports_no_torch():
    program = (
        "import pathlib, sys; from relatum.studies.catalog import studies; "
        "from relatum.studies import answer, executor, plan, statistics; "
        "from relatum.studies.engines import local, payload; "
        "[plan.plan(s.at(n), pathlib.Path('runs')) for s in studies().values() for n in s.scales]; "
        "heavy = ('torch', 'timm', 'torchvision', 'lightning_fabric', 'scipy', 'pydantic'); "
        "print([m for m in heavy if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert json.loads(found.stdout.replace("'", '"')) == []


def test_records_of_other_versions_may_lack_new_fields(tmp_path):
    """A field that the recipe has got since is not held against an older Record."""
    made = plan(small().at("cpu"), tmp_path)
    record = put(made.cells[0], 50.0)
    old = json.loads(json.dumps(record.recipe))
    del old["optim"]["nesterov"]
    write_record(dataclasses.replace(record, recipe=old), made.cells[0].folder / "record.json")
    assert "optim.nesterov" not in flat(made.record(made.cells[0]).recipe)
