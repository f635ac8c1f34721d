"""The package: what is in it, and that a wheel, alone in an environment of its own, works."""

import email
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

from relatum.reports.records import read_record

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
TREES = ("benchmarks", "docs", "examples", "results", "src", "tests", ".ci")
MADE = shutil.ignore_patterns("__pycache__", "*.egg-info", "methods/index.md", "api")
DEMO = (
    *("train", "demo", "--run", "run", "--train.epochs", "1", "--data.train-images", "64", "--evaluation.run", "knn"),
    *("--evaluation.knn.k", "5", "--evaluation.no-figures"),
)
"""Two steps of the demo."""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with source distribution and wheel; the repository itself is left as it is."""
    folder = tmp_path_factory.mktemp("package")
    source = folder / "source"
    for tree in TREES:
        shutil.copytree(ROOT / tree, source / tree, ignore=MADE)
    shutil.rmtree(source / "docs" / "methods", ignore_errors=True)  # what Sphinx has made of the package
    for file in [path for path in ROOT.iterdir() if path.is_file() and path.name != ".git"]:
        shutil.copy(file, source)
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder / "dist"), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr + done.stdout[-2000:]
    return folder


def files_of(source: Path) -> set[str]:
    """All files of a folder, but for what setuptools leaves there."""
    files = (path.relative_to(source) for path in source.rglob("*") if path.is_file())
    return {str(path.as_posix()) for path in files if not any(part.endswith(".egg-info") for part in path.parts)}


def test_the_wheel_holds_every_file_of_the_package_and_nothing_else(built):
    (wheel,) = (built / "dist").glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    package = {f"relatum/{name}" for name in files_of(built / "source" / "src" / "relatum")}
    assert {name for name in names if ".dist-info/" not in name} == package
    assert {"relatum/py.typed", "relatum/__init__.pyi", "relatum/recipes/index.json"} < package
    assert f"relatum-{PROJECT['version']}.dist-info/licenses/LICENSE" in names


def test_the_wheel_says_what_it_is_and_needs(built):
    (wheel,) = (built / "dist").glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        folder = f"relatum-{PROJECT['version']}.dist-info"
        said = email.message_from_bytes(archive.read(f"{folder}/METADATA"))
        assert archive.read(f"{folder}/entry_points.txt").decode().split() == [
            *("[console_scripts]", "relatum", "=", "relatum.cli:main"),
        ]
    assert said["Requires-Python"] == ">=3.11"
    assert said["License-Expression"] == "Apache-2.0"
    assert said["Author"] == "The authors of Relatum"
    versions = [line.split(" :: ")[-1] for line in said.get_all("Classifier") if re.search(r":: 3\.\d+$", line)]
    assert versions == ["3.11", "3.12", "3.13"]
    assert {line.split(",")[0] for line in said.get_all("Project-URL")} == {
        *("Source", "Documentation", "Changelog", "Issues"),
    }
    needed = {re.split(r"[^\w-]", line)[0] for line in said.get_all("Requires-Dist") if "extra ==" not in line}
    assert needed == {re.split(r"[^\w-]", line)[0] for line in PROJECT["dependencies"]}
    assert "pyarrow" not in needed


def test_the_source_distribution_is_the_repository(built):
    (archive,) = (built / "dist").glob("*.tar.gz")
    with tarfile.open(archive) as opened:
        names = {member.name.partition("/")[2] for member in opened.getmembers() if member.isfile()}
    own = {"PKG-INFO", "setup.cfg"} | {name for name in names if name.startswith("src/relatum.egg-info/")}
    assert names - own == files_of(built / "source") - {"setup.cfg"}


def test_what_a_plain_install_lacks_is_named_before_anything_is_computed(tmp_path, monkeypatch):
    """pyarrow is an extra: a Parquet file, or a table to write, says which."""
    from commands import run
    from relatum.data import sources

    monkeypatch.setitem(sys.modules, "pyarrow", None)
    for module in [name for name in sys.modules if name.startswith(("pyarrow.", "relatum.data.parquet"))]:
        monkeypatch.delitem(sys.modules, module)
    (tmp_path / "train.parquet").touch()
    with pytest.raises(ModuleNotFoundError, match=r"train\.parquet needs pyarrow: pip install 'relatum\[parquet\]'"):
        sources.load(str(tmp_path / "train.parquet"))
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "encoder.safetensors").touch()
    with pytest.raises(pytest.fail.Exception, match="ends with status 2"):
        run(["embed", str(tmp_path / "run"), "--images", str(tmp_path), "--out", "x.parquet"], monkeypatch)


@pytest.fixture(scope="module")
def installed(built: Path) -> Path:
    """The commands of an environment that has the wheel; its dependencies are those of this environment."""
    environment = built / "environment"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(environment)], check=True)
    commands = environment / ("Scripts" if os.name == "nt" else "bin")
    (wheel,) = (built / "dist").glob("*.whl")
    pip = [sys.executable, "-m", "pip", "--python", str(commands / "python"), "install", "--quiet"]
    subprocess.run([*pip, "--no-deps", "--no-index", str(wheel)], check=True)
    paths = {"base": str(environment), "platbase": str(environment)}
    lent = [path for path in sys.path if path.endswith("site-packages")]
    own = Path(sysconfig.get_path("purelib", vars=paths))
    (own / "lent.pth").write_text("\n".join(lent), encoding="utf-8")  # behind its own packages
    return commands


def said(command: list[str], folder: Path) -> str:
    """What a command prints, in a folder where nothing of the repository is found."""
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "MYPYPATH")}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout


@pytest.mark.installed
def test_a_wheel_works_alone(installed, tmp_path):
    """Help, lists, a training of two steps, its page, in an environment that has never seen the repository."""
    relatum = str(installed / "relatum")
    where = said([str(installed / "python"), "-c", "import relatum; print(relatum.__file__)"], tmp_path)
    assert Path(where.strip()).is_relative_to(installed.parent)
    assert said([relatum, "--version"], tmp_path) == f"relatum {PROJECT['version']}\n"
    assert "relatum train demo" in said([relatum, "--help"], tmp_path)
    assert "simclr-jaccard" in said([relatum, "list"], tmp_path)
    assert "relation: jaccard" in said([relatum, "show", "simclr-jaccard"], tmp_path)
    said([relatum, *DEMO], tmp_path)
    record = read_record(tmp_path / "run")
    assert (record.recipe["train"]["epochs"], record.images_passed) == (1, 64)
    page = Path(said([relatum, "report", "run", "--no-neighbors"], tmp_path).strip())
    assert "<style>" in (tmp_path / page).read_text(encoding="utf-8")


PROGRAM = """
import torch
from relatum import RECIPES, Backbone, Batch, Jaccard, Method, SimCLR, fit, load_encoder, nt_xent, register_method

method = SimCLR(Backbone("resnet8", stem="cifar"), relation=Jaccard(), temperature=0.2)
reveal_type(method)
reveal_type(nt_xent(torch.zeros(2, 2), torch.zeros(2, 2)))
SimCLR(Backbone("resnet8"), temprature=0.2)
from relatum import SimCRL

wrapped = Backbone.wrap(torch.nn.Identity(), stages=("a",), pool="first")
reveal_type(wrapped)
reveal_type(wrapped.embed(torch.zeros(2, 3, 8, 8)))
Backbone.wrap(torch.nn.Identity(), pool="frist")
reveal_type(fit(RECIPES["demo"](), "run", data=torch.zeros(2), backbone=wrapped))
fit(RECIPES["demo"](), "run", bakbone=wrapped)
reveal_type(load_encoder("run", wrapped))
reveal_type(method.losses(Batch.unlabeled(torch.zeros(2, 3, 8, 8), torch.zeros(2, 3, 8, 8))))
method.losses((torch.zeros(2, 3, 8, 8), 1))

@register_method("mine", like="simclr")
class Mine(Method, pairing="two-views"):
    def losses(self, batch: Batch) -> dict[str, torch.Tensor]:
        return {"sum": batch.views[0].sum()}

reveal_type(Mine(wrapped).losses)
register_method("no")(int)
"""

REVEALED = (
    "relatum.methods.contrastive.simclr.SimCLR",
    "torch._tensor.Tensor",
    "relatum.networks.backbones.Backbone",
    "relatum.reports.records.Record | None",
    "tuple[relatum.networks.backbones.Backbone, relatum.networks.export.EncoderInfo]",
    "dict[str, torch._tensor.Tensor]",
)
CAUGHT = (
    'Unexpected keyword argument "temprature" for "SimCLR"',
    'has no attribute "SimCRL"',
    'Argument "pool" to "wrap" of "Backbone" has incompatible type',
    'Unexpected keyword argument "bakbone" for "fit"',
    'Argument 1 to "losses" of "SimCLR" has incompatible type',
    'Value of type variable "AnyMethod"',
)


@pytest.mark.installed
def test_a_type_checker_sees_the_types_of_an_installed_wheel(installed, tmp_path):
    (tmp_path / "program.py").write_text(PROGRAM, encoding="utf-8")
    command = [sys.executable, "-m", "mypy", "--python-executable", str(installed / "python"), "program.py"]
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "MYPYPATH")}
    options = ["--follow-imports=silent", "--ignore-missing-imports"]
    done = subprocess.run(
        [*command, *options], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    told = done.stdout.replace("builtins.", "").replace("jaxtyping.", "")
    for kind in REVEALED:
        assert f'Revealed type is "{kind}"' in told, f"{kind}: {told}{done.stderr}"
    for error in CAUGHT:
        assert error in told, f"{error}: {told}"
