"""What can be refused is refused while images are only listed, and what is advised exists."""

import ast
import re
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import relatum
from relatum.core import plugins
from relatum.data import images as images_of
from relatum.methods import METHODS
from relatum.networks.backbones import Backbone
from relatum.networks.export import save_encoder
from relatum.recipes import trial
from relatum.recipes.building import build, prepare
from relatum.recipes.catalog import RECIPES, SETTINGS
from relatum.recipes.recipe import from_dict, to_dict
from relatum.reports.records import flat
from relatum.training.loop import fit

SUPERVISED = {
    "name": "photos",
    "method": {"name": "supervised"},
    "model": {"name": "resnet8"},
    "data": {"validation": 0.25, "view": {"kind": "classifier", "size": 24, "crop": "resized"}, "batch_size": 4},
    "train": {"epochs": 1, "accelerator": "cpu", "precision": "32-true", "threads": 1},
    "evaluation": {"run": [], "figures": False, "every": 0},
}
CONTRASTIVE = {"method": {"name": "simclr"}, "data": {"view": {"kind": "contrastive", "size": 24, "crop": None}}}


def merged(tree: dict, changes: dict) -> dict:
    """`tree` with the branches of `changes`; None takes one away."""
    out = {**tree}
    for name, value in changes.items():
        if value is None:
            out.pop(name, None)
        else:
            out[name] = merged(out.get(name, {}), value) if isinstance(value, dict) else value
    return out


def photos(folder: Path, **counts: int) -> Path:
    """A folder of small photos: as many of each class as said, of two sizes."""
    pixels = np.random.default_rng(0)
    for name, count in counts.items():
        (folder / name).mkdir(parents=True)
        for i in range(count):
            picture = Image.fromarray(pixels.integers(0, 256, (24 + i % 2, 24, 3), np.uint8))
            picture.save(folder / name / f"{i}.png")
    return folder


@pytest.fixture
def decoded(monkeypatch) -> list[str]:
    """The names of the images that were decoded."""
    names: list[str] = []
    real = images_of.decode

    def decode(encoded, name=None):
        names.append(str(name))
        return real(encoded, name)

    monkeypatch.setattr(images_of, "decode", decode)
    return names


MANY = {"a": 8, "b": 8}
REFUSED = {
    "a single class": ({"a": 8}, {}, "one class cannot be told from another"),
    "no labels": ({".": 8}, {}, "have no label"),
    "a class of one image for triples": (
        {"a": 8, "b": 1},
        {"method": {"name": "corsd"}, "data": {"validation": 0.0, "batch_size": 3}},
        "an anchor needs a positive",
    ),
    "no whole triples": (MANY, {"method": {"name": "corsd"}}, "whole triples"),
    "groups larger than a class": (MANY, {"data": {"images_per_class": 7, "batch_size": 14}}, "per_class=7"),
    "more images than there are": (MANY, {"data": {"train_images": 17}}, "--data.train-images"),
    "nothing held out": (MANY, {"data": {"validation": 0.01}}, "--data.validation"),
    "windows of other sizes": (MANY, {"data": {"view": {"crop": "pad"}}}, "--data.view.crop resized"),
    "images of one size alone": (MANY, {"data": {"resident": "yes"}}, "--data.resident auto"),
    "an unknown backbone": (MANY, {"model": {"name": "resnet9", "stem": "cifar"}}, "unknown backbone"),
    "a stem of another family": (MANY, {"model": {"name": "densenet121"}}, "not defined for densenet121"),
    "a view below the deepest stage": (
        MANY,
        {"model": {"name": "resnet18", "stem": "imagenet"}},
        "images are 24x24; resnet18 with the imagenet stem shrinks them 32 times",
    ),
    "an option of the method": (MANY, merged(CONTRASTIVE, {"method": {"temperature": 0.0}}), "temperature"),
    "no teacher": (MANY, {"method": {"name": "kd"}}, "--method.teacher RUN"),
    "a teacher that is not there": (MANY, {"method": {"name": "kd", "teacher": "nowhere"}}, "nowhere"),
    "a start that is not there": (MANY, {"model": {"initial": "nowhere"}}, "nowhere"),
    "chunks of a network with batch statistics": (MANY, {"train": {"chunk": 2}}, "--train.chunk-batchnorm"),
    "shared statistics without a GPU": (MANY, {"train": {"sync_batchnorm": True}}, "--train.sync-batchnorm"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_no_image_is_decoded_for_a_recipe_that_cannot_work(case, tmp_path, decoded):
    counts, changes, expected = REFUSED[case]
    tree = merged(SUPERVISED, {"data": {"source": str(photos(tmp_path / "photos", **counts))}})
    with pytest.raises((ValueError, FileNotFoundError), match=re.escape(expected)):
        fit(from_dict(merged(tree, changes)), tmp_path / "run", quiet=True)
    assert decoded == []


def test_a_recipe_that_works_decodes(tmp_path, decoded):
    tree = merged(SUPERVISED, {"data": {"source": str(photos(tmp_path / "photos", **MANY)), "workers": 0}})
    fit(from_dict(tree), tmp_path / "run", quiet=True)
    assert len(set(decoded)) == 16


def test_a_teacher_of_other_classes_is_met_before_decoding(tmp_path, decoded):
    source = photos(tmp_path / "photos", **MANY)
    kd = merged(SUPERVISED, {"data": {"source": str(source)}, "method": {"name": "kd", "teacher": str(tmp_path / "t")}})
    for classes in (("a", "c"), ("a", "b", "c")):
        network = Backbone("resnet8", stem="cifar", num_classes=len(classes))
        save_encoder(network, tmp_path / "t", classes=classes, size=24, mean=(0.5,) * 3, std=(0.25,) * 3)
        with pytest.raises(ValueError, match=r"to the teacher .*'b' in the data|knows 3 classes, and the data has 2"):
            fit(from_dict(kd), tmp_path / "run", quiet=True)
        assert decoded == []


def test_windows_are_advised_only_where_they_would_do(tmp_path):
    source = photos(tmp_path / "photos", **MANY)
    tree = merged(SUPERVISED, {"data": {"source": str(source), "view": {"crop": "pad", "size": 16}}})
    with pytest.raises(ValueError, match="of different sizes") as refused:
        fit(from_dict(tree), tmp_path / "run", quiet=True)
    assert "--data.view.size" not in str(refused.value)
    for file in source.rglob("*.png"):
        Image.new("RGB", (24, 24)).save(file)
    with pytest.raises(ValueError, match=r"of 24 pixels.*--data\.view\.size 24, or --data\.view\.crop resized"):
        fit(from_dict(tree), tmp_path / "run", quiet=True)


# What messages advise


OTHER_PROGRAMS = {
    "--shm-size": "docker",
    "--nnodes": "torchrun",
    "--nproc-per-node": "torchrun",
    "--no-python": "torchrun",
    "--head": "ray",
}


@cache
def known_options() -> frozenset[str]:
    """Every option of every verb: the fields of all recipes, and what the files of `cli` declare."""
    trees = [to_dict(entry()) for entry in RECIPES.values()]
    trees += [to_dict(setting(RECIPES["supervised"]())) for setting in SETTINGS.values()]
    base = to_dict(RECIPES["simclr"]())
    trees += [to_dict(from_dict({**base, "method": {"name": name}})) for name in METHODS]
    fields = {path for tree in trees for path in flat(tree)}
    sections = {path.rpartition(".")[0] for path in fields} - {""}
    spelled = {f"--{path.replace('_', '-')}" for path in fields | sections}
    spelled |= {re.sub(r"([.-]?)([a-z0-9-]+)$", r"\1no-\2", option) for option in spelled if "." in option}
    own: set[str] = {"--help", "--version"}
    for file in (Path(relatum.__file__).parent / "cli").glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef) and any("dataclass" in ast.unparse(d) for d in node.decorator_list):
                own |= {f"--{n.target.id.replace('_', '-')}" for n in node.body if isinstance(n, ast.AnnAssign)}
                own |= set(re.findall(r"arg\(name='(\w+)'\)", ast.unparse(node)))
            if isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] in ("add", "add_argument"):
                own |= {a.value for a in node.args if isinstance(a, ast.Constant) and str(a.value).startswith("--")}
            if isinstance(node, ast.Compare) and isinstance(node.left, ast.Constant):  # "--about" in args
                own |= {node.left.value} if str(node.left.value).startswith("--") else set()
    own.add(plugins.OPTION)  # which holds for every verb
    return frozenset(spelled | own | {f"--{name}" for name in own if not name.startswith("--")})


def advised(tree: ast.AST) -> set[str]:
    """The options that the texts of a file name, but for commands of other programs."""
    inside = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    texts = []
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):  # what is filled in stands for itself
            texts.append("".join(str(p.value) if isinstance(p, ast.Constant) else "{}" for p in node.values))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in inside:
            texts.append(node.value)
    return {
        option.rstrip(".-")
        for text in texts
        if " " in text  # a single word is a word of a command
        for option in re.findall(r"(?<![\w-])--[a-z][\w.-]*(?![\w{]*\{)", text)
        if not option.endswith("{")
    }


def unknown(tree: ast.AST) -> set[str]:
    return {option for option in advised(tree) if option not in known_options() and option not in OTHER_PROGRAMS}


def test_every_option_that_a_message_names_exists():
    found = {}
    total = 0
    for file in sorted(Path(relatum.__file__).parent.rglob("*.py")):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        total += len(advised(tree))
        if wrong := unknown(tree):
            found[file.name] = wrong
    assert found == {}
    assert total > 100  # what is searched is found


def test_an_option_that_does_not_exist_is_found():
    assert unknown(ast.parse("raise ValueError(f'{a}: give `--data.size 64`, or --data.resident auto')")) == {
        "--data.size"
    }
    assert unknown(ast.parse("x = 'Set it with --train.epoch.'")) == {"--train.epoch"}
    assert unknown(ast.parse("x = 'see --train.no-compile, --data.* and --evaluation options'")) == set()


def test_the_seed_of_a_run_is_not_moved_by_the_trial(tmp_path):
    """The same images as files, where networks are tried, and in memory, where they are not: the same first weights."""
    recipe = from_dict(merged(SUPERVISED, {"data": {"source": str(photos(tmp_path / "photos", **MANY))}}))
    weights = [
        torch.cat([p.flatten() for p in build(recipe, prepare(recipe, check)).parameters()])
        for check in (None, trial.of(recipe))
    ]
    assert torch.equal(*weights)
