"""The command line: what users type, what they get, and what they are told when they mistype."""

import dataclasses
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from PIL import Image
from pyarrow import parquet

from relatum import cli
from relatum.cli.arguments import free
from relatum.networks.export import load_encoder
from relatum.recipes.catalog import RECIPES
from relatum.recipes.recipe import from_yaml, options, to_yaml
from relatum.reports.records import read_record
from relatum.training import loop as training
from test_training import TINY


def call(monkeypatch, *args: str) -> None:
    monkeypatch.setattr("sys.argv", ["relatum", *args])
    cli.main()


def refused(monkeypatch, capsys, *args: str) -> str:
    with pytest.raises(SystemExit) as stop:
        call(monkeypatch, *args)
    assert stop.value.code == 2
    return capsys.readouterr().err


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("cli") / "run"
    training.fit(TINY, folder, quiet=True)
    return folder


def test_train_takes_a_file_and_overrides(monkeypatch, capsys, tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text(to_yaml(TINY))
    call(
        monkeypatch,
        *("train", str(file), "--run", str(tmp_path / "run"), "--optim.lr", "5e-4", "--train.epochs", "1"),
        *("--method.relation", "tanimoto", "--method.alphas", "--evaluation.knn.temperature", "None"),
    )
    record = read_record(tmp_path / "run")
    assert record.recipe["optim"]["lr"] == 5e-4
    assert record.recipe["method"]["relation"] == "tanimoto"
    assert record.recipe["method"]["alphas"] == []
    assert "unweighted" in record.protocols["knn"]
    printed = capsys.readouterr().out
    assert "epoch    1" in printed
    assert "knn_top1" in printed


def test_profile_says_where_the_time_goes(monkeypatch, tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text(to_yaml(TINY))
    more = ("--profile", "--train.epochs", "1", "--data.batch-size", "12", "--method.key-splits", "1")
    call(monkeypatch, "train", str(file), "--run", str(tmp_path / "run"), *more)
    profile = (tmp_path / "run" / "profile.txt").read_text()
    for part in ("loading and views", "forward and losses", "backward", "optimizer", "after the step"):
        assert f"%  relatum: {part}" in profile
    assert json.loads((tmp_path / "run" / "trace.json").read_text())["traceEvents"]


def test_show_prints_what_train_takes_back(monkeypatch, capsys):
    call(monkeypatch, "show", "simclr-jaccard", "--train.epochs", "7", "--data.view.strength", "0.3")
    recipe = from_yaml(capsys.readouterr().out)
    assert (recipe.train.epochs, recipe.data.view.strength, recipe.method.relation) == (7, 0.3, "jaccard")


def test_show_about_tells_source_cost_and_numbers(monkeypatch, capsys):
    call(monkeypatch, "show", "kd", "--about")
    printed = capsys.readouterr().out
    assert "Command: relatum train kd --method.teacher runs/teacher\n" in printed
    assert "Published: top-1 78.34 (Table 1 of Yu et al. 2023); top-1 70.66 (Tian et al. 2020," in printed
    assert printed.endswith("Ours: not run yet.\n")


def test_show_from_the_index_is_show_from_the_recipe(monkeypatch, capsys):
    call(monkeypatch, "show", "corsd")
    printed = capsys.readouterr().out
    assert printed == to_yaml(RECIPES["corsd"]())


def test_list_names_everything(monkeypatch, capsys):
    call(monkeypatch, "list")
    printed = capsys.readouterr().out
    for name in (
        "demo",
        "simclr-jaccard",
        "corsd",
        "ps-kd",
        "resnet20",
        "preact_resnet18",
        "tiny-imagenet",
        "jaccard-signed",
    ):
        assert name in printed


def test_evaluate_gives_the_numbers_of_the_record(monkeypatch, capsys, run, tmp_path):
    call(monkeypatch, "evaluate", str(run), "--out", str(tmp_path / "found.json"))
    found = json.loads((tmp_path / "found.json").read_text())
    expected = read_record(run).metrics
    for name in ("knn_top1", "linear_top1"):
        assert found["metrics"][name] == pytest.approx(expected[name])
    assert "k-NN (k=10, T=0.1, cosine)" in capsys.readouterr().out


def test_evaluate_takes_another_protocol(monkeypatch, capsys, run):
    call(monkeypatch, "evaluate", str(run), "--evaluation.knn.k", "3")
    assert "k=3" in capsys.readouterr().out


def test_embed_writes_features_with_the_names_of_the_files(monkeypatch, run, tmp_path):
    for i, size in enumerate([(20, 30), (50, 16), (33, 33)]):
        Image.effect_noise(size, 80).convert("L").save(tmp_path / f"{i}.png")
    (tmp_path / "broken.png").write_bytes(b"\x89PNG nothing")
    out = tmp_path / "found.npz"
    call(monkeypatch, "embed", str(run), "--images", str(tmp_path), "--out", str(out), "--on-bad-image", "skip")
    found = np.load(out)
    assert [Path(name).name for name in found["names"]] == ["0.png", "1.png", "2.png"]
    assert found["features"].shape == (3, 64)
    assert found["labels"].tolist() == [-1, -1, -1]
    assert np.isfinite(found["features"]).all()


def photos(folder: Path, count: int = 3) -> Path:
    folder.mkdir()
    for i in range(count):
        Image.effect_noise((20 + 7 * i, 30 - i), 80).convert("L").save(folder / f"{i}.png")
    return folder


def test_embed_writes_a_table_for_data_frames(monkeypatch, run, tmp_path):
    out = tmp_path / "found.parquet"
    call(monkeypatch, "embed", str(run), "--images", str(photos(tmp_path / "photos")), "--out", str(out))
    table = parquet.read_table(out)
    assert table.column_names == ["name", "label", "features"]
    assert [Path(name).name for name in table["name"].to_pylist()] == ["0.png", "1.png", "2.png"]
    assert table["label"].to_pylist() == [None, None, None]
    call(monkeypatch, "embed", str(run), "--images", str(tmp_path / "photos"), "--out", str(tmp_path / "found.npz"))
    features = np.stack(table["features"].to_pylist()).astype(np.float32)
    np.testing.assert_array_equal(features, np.load(tmp_path / "found.npz")["features"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["found.npz", "found.parquet", "photos"]


@pytest.mark.parametrize("name", ["foo", "foo.csv", "foo.npz.gz"])
def test_embed_refuses_a_kind_of_file_that_it_does_not_write(monkeypatch, capsys, run, tmp_path, name):
    said = refused(monkeypatch, capsys, "embed", str(run), "--images", "nowhere", "--out", str(tmp_path / name))
    assert f"{name}; expected a name that ends in .npz or .parquet" in said
    assert list(tmp_path.iterdir()) == []


def test_evaluate_refuses_what_it_would_ignore(monkeypatch, capsys, run):
    for words in (["--model.name", "resnet18"], ["--method.temperature", "1"], ["--train.seed", "3"]):
        said = refused(monkeypatch, capsys, "evaluate", str(run), *words)
        assert f"there is no option {words[0]}" in said
        assert "only --data.* and --evaluation.* can be changed" in said


def test_onnx_needs_no_data_and_says_its_preprocessing(monkeypatch, tmp_path):
    """Three photos of different sizes, which are gone when their encoder is exported."""
    recipe = dataclasses.replace(
        TINY,
        data=dataclasses.replace(
            TINY.data, source=str(photos(tmp_path / "photos")), batch_size=2, validation=0.0, train_images=None
        ),
        method=options("simclr"),
    )
    training.fit(recipe, tmp_path / "run", quiet=True)
    shutil.rmtree(tmp_path / "photos")
    call(monkeypatch, "export", str(tmp_path / "run"), "--onnx")
    session = onnxruntime.InferenceSession(tmp_path / "run" / "export" / "encoder.onnx")
    _, info = load_encoder(tmp_path / "run")
    stated = json.loads(session.get_modelmeta().custom_metadata_map["relatum"])
    assert (tuple(stated["mean"]), tuple(stated["std"]), stated["size"]) == (info.mean, info.std, 16)
    images = torch.randn(5, 3, 16, 16)
    backbone, _ = load_encoder(tmp_path / "run")
    with torch.no_grad():
        expected = backbone.embed(images).numpy()
    (found,) = session.run(None, {"images": images.numpy()})
    np.testing.assert_allclose(found, expected, atol=1e-3 * np.abs(expected).max())


def test_onnx_without_its_packages_is_one_line_with_the_remedy(monkeypatch, capsys, run, tmp_path):
    monkeypatch.setitem(sys.modules, "onnx", None)
    said = refused(monkeypatch, capsys, "export", str(run), "--onnx", "--to", str(tmp_path))
    assert said.startswith("relatum: ONNX export needs onnx, which is not installed: pip install 'relatum[onnx]'\n")


def test_export_gives_the_plain_encoder(monkeypatch, run, tmp_path):
    call(monkeypatch, "export", str(run), "--to", str(tmp_path / "out"))
    images = torch.randn(2, 3, 16, 16)
    ours, _ = load_encoder(run / "encoder.safetensors")
    theirs, _ = load_encoder(tmp_path / "out" / "encoder.safetensors")
    assert torch.equal(ours.embed(images), theirs.embed(images))
    assert (tmp_path / "out" / "encoder.py").exists()


def test_table_of_runs(monkeypatch, capsys, run, tmp_path):
    text = tmp_path / "text.md"
    text.write_text(f"before\n<!-- relatum table {run} -->\nold\n<!-- end -->\nafter\n")
    call(monkeypatch, "table", str(run))
    table = capsys.readouterr().out
    assert table.startswith("| recipe | seeds | k-NN | linear |")
    call(monkeypatch, "table", str(run), "--into", str(text))
    assert text.read_text() == f"before\n<!-- relatum table {run} -->\n{table}<!-- end -->\nafter\n"


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["trian", "demo"], "did you mean train"),
        (["train"], "needs a recipe"),
        (["train", "demmo"], "did you mean demo"),
        (["train", "missing.yaml"], "no recipe file missing.yaml"),
        (["train", "demo", "--optim.lrr", "1"], "no option --optim.lrr; did you mean --optim.lr?"),
        (["train", "demo", "--optim.name", "sgdd"], "--optim.name is 'sgdd'; did you mean sgd?"),
        (["train", "demo", "step-24"], "no setting 'step-24'; did you mean step-240"),
        (["show", "demo", "--about", "--train.epochs", "3"], "leave --train.epochs 3 out"),
        (["show", "x.yaml", "--about"], "x.yaml is a file"),
        (["table"], "needs runs"),
        (["train", "demo", "--optim.lr", "fast"], "could not convert"),
        (["train", "demo", "--method.relation", "jackard"], "jaccard"),
        (["train", "demo", "--train.epochs", "0"], "train.epochs is 0"),
        (["train", "demo", "--resume"], "name its folder with --run"),
        (["train", "kd", "--data.source", "digits", "--run", "x"], "--method.teacher"),
        (["evaluate", "nowhere"], "no trained encoder"),
        (["embed"], "needs a run folder"),
        (["list", "me"], "takes no arguments"),
        (["table", "nowhere"], "no record in nowhere"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_mistakes_are_answered_with_what_was_expected(monkeypatch, capsys, tmp_path, args, message):
    monkeypatch.chdir(tmp_path)
    assert message in refused(monkeypatch, capsys, *args)


def test_a_refusal_has_no_traceback_unless_asked(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert "Traceback" not in refused(monkeypatch, capsys, "evaluate", "nowhere")
    monkeypatch.setenv(cli.TRACEBACK, "1")
    with pytest.raises(FileNotFoundError):
        call(monkeypatch, "evaluate", "nowhere")


@pytest.mark.parametrize("flag", [[], ["--help"], ["-h"]])
def test_help(monkeypatch, capsys, flag):
    call(monkeypatch, *flag)
    printed = capsys.readouterr().out
    assert all(f"  {verb}" in printed for verb in cli.VERBS)


def test_every_option_of_a_recipe_has_a_help_text(monkeypatch, capsys):
    with pytest.raises(SystemExit):
        call(monkeypatch, "train", "simclr-jaccard", "--help")
    printed = capsys.readouterr().out
    assert "weights of the cosine contrast in each space" in " ".join(printed.replace("│", " ").split())
    for option in ("--optim.lr", "--data.on-bad-image", "--method.temperature", "--train.devices", "--profile"):
        assert option in printed


def test_version(monkeypatch, capsys):
    call(monkeypatch, "--version")
    assert capsys.readouterr().out.startswith("relatum 0.")


def test_runs_are_numbered_not_overwritten(tmp_path):
    assert free(tmp_path / "demo") == tmp_path / "demo"
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo-2").mkdir()
    assert free(tmp_path / "demo") == tmp_path / "demo-3"


def test_the_console_script_is_installed():
    done = subprocess.run(
        [Path(sys.executable).parent / "relatum", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("relatum ")
