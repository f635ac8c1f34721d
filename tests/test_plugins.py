"""What others add: from a file and from an installed package, in recipes, on the command line, in Records and runs."""

import json
import re
import shutil
import sys
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from importlib import metadata
from multiprocessing import get_context
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import relatum
from plugging import REGISTRIES, Registered
from relatum import METHODS, RECIPES, cli, load_encoder, options
from relatum.core import plugins
from relatum.data import sources
from relatum.networks.registered import build_backbone
from relatum.recipes import evaluation, index
from relatum.recipes.options import build_method, forget
from relatum.recipes.recipe import from_dict, from_yaml, to_dict, to_yaml
from relatum.relations import RELATIONS
from relatum.reports.records import read_record
from relatum.studies.catalog import grid_of, studies
from relatum.studies.plan import command, plan

FILE = Path(__file__).parent / "plugin_of_all.py"
SMALL = (
    *("--model.name", "two-layers", "--model.stem", "imagenet", "--data.source", "stripes", "--data.batch-size", "16"),
    *("--method.relation", "bell", "--method.relation-width", "0.5", "--data.view.size", "16", "--train.epochs", "2"),
    *("--train.accelerator", "cpu", "--train.precision", "32-true", "--train.threads", "1", "--evaluation.no-figures"),
    *("--evaluation.run", "length", "stages", "--evaluation.length.power", "2", "--evaluation.knn.k", "3"),
)


@contextmanager
def unchanged(monkeypatch):
    """Registries, and what was loaded, are afterwards what they were."""
    before = Registered()
    try:
        yield
    finally:
        monkeypatch.undo()
        before.restore()
        sys.modules.pop(FILE.stem, None)


@pytest.fixture
def named(monkeypatch):
    """The plugin is named, as `--plugin` names it, and not loaded yet."""
    with unchanged(monkeypatch):
        monkeypatch.setenv(plugins.VARIABLE, "")
        plugins.name_more([str(FILE)])
        yield


@pytest.fixture
def alone(monkeypatch):
    """No plugin."""
    with unchanged(monkeypatch):
        monkeypatch.setenv(plugins.VARIABLE, "")
        yield


def call(monkeypatch, *args: str) -> None:
    monkeypatch.setattr("sys.argv", ["relatum", *args])
    cli.main()


def refused(monkeypatch, capsys, *args: str) -> str:
    with pytest.raises(SystemExit):
        call(monkeypatch, *args)
    return capsys.readouterr().err


def test_all_of_it_trains_resumes_is_measured_and_exported_from_the_command_line(alone, monkeypatch, tmp_path, capsys):
    run, plugin = tmp_path / "run", ("--plugin", str(FILE))
    call(monkeypatch, "train", "closer", *SMALL, *plugin, "--run", str(run))
    record = read_record(run)
    assert (
        record.recipe["method"] | {"relation": "bell", "relation_width": 0.5, "spread": 1.0} == record.recipe["method"]
    )
    assert record.recipe["evaluation"]["length"] == {"power": 2.0}
    assert (record.data["train"], record.data["test"], record.data["classes"]) == (64, 32, 2)
    assert record.versions[f"plugin {FILE.name}"].startswith("sha256 ")
    assert record.columns["length_mean"] == "length"
    assert {"stage1_knn_top1", "stage2_knn_top1"} < set(record.metrics)
    assert set(record.history[-1]) > {"apart", "flat"}

    weights = load_file(run / "encoder.safetensors")
    for file in (run / "record.json", run / "encoder.safetensors", sorted((run / "checkpoints").glob("*.pt"))[-1]):
        file.unlink()
    call(monkeypatch, "train", "closer", *SMALL, *plugin, "--run", str(run), "--resume")
    assert all(torch.equal(found, weights[name]) for name, found in load_file(run / "encoder.safetensors").items())
    assert read_record(run).metrics == record.metrics

    backbone, info = load_encoder(run)
    assert (info.architecture, backbone.stage_channels) == ("two-layers", (8, 12))
    source = sources.load("stripes")
    pixels = torch.stack([source.test.read(i) for i in range(32)]) / 255
    shape = (1, 3, 1, 1)
    seen = (pixels - torch.tensor(info.mean).view(shape)) / torch.tensor(info.std).view(shape)
    expected = backbone.embed(seen).norm(dim=1).square().mean().item()
    assert record.metrics["length_mean"] == pytest.approx(expected, rel=1e-5)

    capsys.readouterr()
    call(monkeypatch, "evaluate", str(run), *plugin, "--evaluation.run", "length")
    assert f"{record.metrics['length_mean']:.3f}"[:5] in capsys.readouterr().out
    call(monkeypatch, "export", str(run), *plugin, "--to", str(tmp_path / "exported"))
    assert load_encoder(tmp_path / "exported")[1] == info


def test_a_process_that_is_started_anew_knows_what_the_plugin_adds(named):
    """As ranks and workers are started: they get the recipe in plain types."""
    plugins.load()
    tree = to_dict(RECIPES["closer"]())
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        assert pool.submit(_read_anew, tree).result() == tree


def _read_anew(tree):
    assert "closer" not in dict(METHODS)
    return to_dict(from_dict(tree))


def test_list_show_and_errors_know_it(named, monkeypatch, capsys):
    call(monkeypatch, "list")
    printed = capsys.readouterr().out
    said = ("closer  ", "Pull two views together", "A Gaussian of the distance", "two-layers", "stripes", "length  ")
    assert all(text in printed for text in said)
    call(monkeypatch, "show", "closer")
    assert from_yaml(capsys.readouterr().out) == RECIPES["closer"]()
    assert "did you mean closer" in refused(monkeypatch, capsys, "train", "closr")
    assert "did you mean --method.spread" in refused(monkeypatch, capsys, "train", "closer", "--method.spred", "2")
    assert "bell" in refused(monkeypatch, capsys, "train", "simclr", "--method.relation", "bel")
    with pytest.raises(SystemExit):
        call(monkeypatch, "train", "closer", "--help")
    helped = " ".join(capsys.readouterr().out.split())
    assert "--method.spread FLOAT" in helped
    assert "weight of the spread" in helped
    assert "--evaluation.length.power" in helped


def test_recipes_that_were_made_before_know_it(named):
    early = RECIPES["simclr"]()
    assert not hasattr(early.method, "relation_width")
    plugins.load()
    late = RECIPES["simclr"]()
    assert late.method.relation_width is None
    changed = replace(late, method=replace(late.method, relation="bell", relation_width=0.25))
    assert from_yaml(to_yaml(changed)) == changed
    method = build_method(changed.method, build_backbone("resnet8", stem="cifar"), num_samples=9, load_teacher=str)
    assert method.terms[0].relation.width == 0.25
    assert replace(early, name="simclr") == late


def test_a_run_s_recipe_does_not_load_code_and_says_what_is_missing(named):
    plugins.load()
    of_method, of_evaluator = to_dict(RECIPES["closer"]()), to_dict(RECIPES["simclr"]())
    of_evaluator["method"]["relation"] = "cosine"
    with unchanged(pytest.MonkeyPatch()):
        for registry in REGISTRIES:
            for name in ("closer", "bell", "two-layers", "stripes", "length"):
                registry.pop(name, None)
        forget()
        with pytest.MonkeyPatch.context() as patch:
            patch.delenv(plugins.VARIABLE)
            with pytest.raises(ValueError, match=r"method.name is 'closer'.*name its file: --plugin FILE"):
                from_dict(of_method)
            with pytest.raises(ValueError, match=r"no field evaluation.length.*--plugin FILE"):
                from_dict({**of_evaluator, "method": {"name": "simclr"}})
            with pytest.raises(ValueError, match=r"unknown backbone 'two-layers'.*--plugin FILE"):
                build_backbone("two-layers")


def test_a_study_of_its_recipe_names_it_in_every_command(named):
    found = plan(grid_of("closer", scale="", over=["method.spread=1,2"], seeds=[0]), Path("runs"))
    commands = [command(cell) for cell in found.cells]
    assert len(commands) == 2
    assert all(words[words.index("--plugin") + 1] == str(FILE) for words in commands)
    assert "bell" not in str([study.rows for study in studies().values()])


def test_an_installed_package_is_found_by_its_entry_point(alone, monkeypatch, tmp_path):
    shutil.copy(FILE, tmp_path / "their_package.py")
    info = tmp_path / "theirs-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text(f"[{plugins.GROUP}]\ntheirs = their_package\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    plugins._installed.cache_clear()
    assert "bell" not in dict(RELATIONS)
    assert RELATIONS["bell"](width=2.0).width == 2.0  # an unknown name loads what is installed
    assert "closer" in METHODS
    assert plugins.versions() == {"plugin theirs": "1.2"}
    assert "closer" in index.contents()["methods"]
    sys.modules.pop("their_package")
    assert metadata.version("theirs") == "1.2"


def test_without_plugins_the_index_is_the_file(alone):
    assert index.contents() is index.shipped()
    assert evaluation.evaluation_of() is evaluation.Evaluation


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("gone.py", None, "there is no such file"),
        ("json.py", "", "has the name of another module"),
        ("two-words.py", "", "'two-words' is none: rename the file"),
        ("wrong.py", "import relatum\nrelatum.Simclr", "cannot be loaded: AttributeError: .*Simclr"),
        ("syntax.py", "def", "cannot be loaded: SyntaxError"),
    ],
)
def test_a_plugin_that_cannot_be_loaded_says_why(alone, monkeypatch, capsys, tmp_path, name, text, said):
    file = tmp_path / name
    if text is not None:
        file.write_text(text)
    assert re.search(said, refused(monkeypatch, capsys, "list", "--plugin", str(file)))
    assert "names nothing" in refused(monkeypatch, capsys, "list", "--plugin")
    monkeypatch.setattr(sys, "path", [folder for folder in sys.path if folder != str(tmp_path)])


class Plain(relatum.Relation):
    """A relation that is the cosine's half."""

    def matched(self, a, b):
        return (a * b).sum(1) / 2

    def all_pairs(self, a, b):
        return a @ b.T / 2


def test_an_object_in_the_place_of_a_name_is_refused_with_the_remedy(alone):
    with pytest.raises(ValueError, match=r"Plain is a relation without a name.*@relatum.register_relation\('plain'\)"):
        options("simclr", relation=Plain())
    with pytest.raises(ValueError, match=r"relation is the object Jaccard.*write relation='jaccard'"):
        options("simclr", relation=relatum.Jaccard())
    with pytest.raises(ValueError, match=r"teacher is the object Backbone.*timm:NAME"):
        options("kd", teacher=relatum.Backbone("resnet8", stem="cifar", num_classes=3))
    relatum.register_relation("plain")(Plain)
    assert options("simclr", relation="plain").relation == "plain"


def test_names_are_taken_once_and_a_definition_that_runs_again_replaces_itself(alone):
    relatum.register_relation("plain")(Plain)
    relatum.register_relation("plain")(Plain)
    with pytest.raises(ValueError, match="there is a relation 'cosine' already"):
        relatum.register_relation("cosine")(Plain)
    with pytest.raises(ValueError, match="is no name for a relation"):
        relatum.register_relation("two words")(Plain)
    with pytest.raises(ValueError, match="there is a backbone 'resnet18' already"):
        relatum.register_backbone("resnet18")(torch.nn.Module)
    with pytest.raises(ValueError, match="there is a data set 'digits' already"):
        relatum.register_data("digits")(lambda root: None)


def test_what_is_no_method_is_refused_and_leaves_nothing(alone):
    class Half(relatum.Method):
        def losses(self, batch):
            return {}

    class Untyped(relatum.Method, pairing="single"):
        def __init__(self, backbone, *, weight=1.0):
            super().__init__(backbone)

        def losses(self, batch):
            return {}

    with pytest.raises(TypeError, match="Half is not final"):
        relatum.register_method("half")(Half)
    with pytest.raises(TypeError, match=r"weight of Untyped\.__init__ cannot be an option"):
        relatum.register_method("untyped")(Untyped)

    class Thawed(relatum.Evaluator):
        def measure(self, subject):
            return relatum.Measured({}, "")

    with pytest.raises(TypeError, match="is no evaluator; expected a frozen dataclass"):
        relatum.register_evaluator("thawed")(Thawed)
    assert not {"half", "untyped", "plain"} & set(METHODS)


def test_a_recipe_of_one_s_own_has_a_name(alone):
    @relatum.register_recipe("short")
    def short():
        """SimCLR, one epoch."""
        base = RECIPES["simclr"]()
        return replace(base, train=replace(base.train, epochs=1))

    assert RECIPES["short"]().train.epochs == 1
    assert RECIPES["short"]().name == "short"
    assert json.dumps(to_dict(RECIPES["short"]()))
