"""Every example runs, and does what it says."""

import importlib.util
import sys
from pathlib import Path

import pytest
import torch

from relatum import Backbone, cli
from relatum.reports.records import read_record
from test_plugins import unchanged

FOLDER = Path(__file__).parent.parent / "examples"


def example(name: str):
    spec = importlib.util.spec_from_file_location(f"example_{name}", FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_each_is_named_in_the_readme_and_tested():
    named = {
        line.split("](")[1].split(")")[0] for line in (FOLDER / "README.md").read_text().splitlines() if "](" in line
    }
    assert named == {path.name for path in FOLDER.glob("*.py")}
    tests = Path(__file__).read_text()
    assert all(Path(name).stem in tests for name in named)


def test_plain_pytorch(capsys):
    found = example("plain_pytorch").main(epochs=1, count=128)
    assert found["top1"] > 20  # of ten classes, after two steps


@pytest.mark.filterwarnings(
    "ignore::UserWarning:pytorch_lightning", "ignore::FutureWarning", "ignore::DeprecationWarning"
)
def test_with_lightning(capsys):
    module = example("with_lightning").main(epochs=1, images=128)
    assert module.method.queue.position == 128 % 256  # every step was followed by `after_step`
    assert "loss/" in capsys.readouterr().out


def test_hugging_face(tmp_path, capsys):
    torch.manual_seed(0)
    module = example("hugging_face")
    record, trained = module.main(tmp_path / "run", epochs=4)
    assert record.recipe["model"]["name"] == "wrapped:ViTModel"
    assert record.metrics["top1"] > 20  # of ten classes
    fresh = module.vit().state_dict()
    assert trained.state_dict().keys() == fresh.keys()
    assert not torch.equal(trained.layernorm.weight, fresh["layernorm.weight"])


def test_torch_dataset(tmp_path, capsys):
    record = example("torch_dataset").main(tmp_path / "run", epochs=3, images=320)
    assert record.recipe["data"]["source"] == "python:dataset"
    assert record.metrics["top1"] > 80  # of two classes


def test_one_loss():
    before, after = example("one_loss").main(steps=30)
    assert after < before - 0.5


def test_my_method(monkeypatch, tmp_path, capsys):
    with unchanged(monkeypatch):
        monkeypatch.setenv("RELATUM_PLUGINS", "")
        words = ["train", "whitened", "--plugin", str(FOLDER / "my_method.py"), "--run", str(tmp_path / "run")]
        words += ["--data.source", "digits", "--data.view.size", "16", "--data.train-images", "128"]
        words += ["--data.batch-size", "64", "--model.name", "resnet8", "--train.threads", "1", "--method.width", "8"]
        words += ["--train.epochs", "1", "--evaluation.run", "geometry", "--evaluation.no-figures"]
        monkeypatch.setattr("sys.argv", ["relatum", *words])
        cli.main()
        method = sys.modules["my_method"].Whitened(Backbone("resnet8", stem="cifar"), width=8)
        white = method._whiten(torch.randn(64, 8) @ torch.randn(8, 8))
        torch.testing.assert_close(white.T @ white / 63, torch.eye(8), rtol=0, atol=0.05)
    record = read_record(tmp_path / "run")
    assert (record.recipe["method"], "apart" in record.history[0]) == (
        {"name": "whitened", "width": 8, "shrinkage": 0.001},
        True,
    )
