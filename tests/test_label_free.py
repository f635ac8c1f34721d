"""The study of the methods without labels: planned here, and not run."""

import json
import sys

from relatum.cli import main
from relatum.methods import METHODS
from relatum.studies.plan import plan
from test_studies import STUDIES, tree_of


def test_the_study_without_labels_trains_each_method_on_one_budget(tmp_path, monkeypatch, capsys):
    made = plan(STUDIES["label-free"].at("cpu"), tmp_path)
    trees = [tree_of(cell) for cell in made.cells if cell.seed == 0]
    methods = {tree["method"]["name"] for tree in trees}
    assert methods >= {
        "simclr",
        "moco",
        "mocov3",
        "byol",
        "simsiam",
        "debiased",
        "nnclr",
        "ressl",
        "lejepa",
        "vicreg",
    } | {"swav", "dino"}
    assert not any(METHODS[name].needs_labels for name in methods)
    budgets = {
        json.dumps([tree[part] for part in ("model", "optim", "train")] + [tree["data"]["batch_size"]])
        for tree in trees
    }
    assert len(budgets) == 1
    assert (trees[0]["train"]["epochs"], trees[0]["data"]["batch_size"]) == (20, 256)
    assert STUDIES["label-free"].at("cpu").baseline == "SimCLR"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["relatum", "study", "label-free", "--scale", "cpu", "--dry-run"])
    main()
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 6 * len(methods) == len(made.cells)  # six seeds
    assert sum("relatum train nnclr " in line for line in lines) == 6
