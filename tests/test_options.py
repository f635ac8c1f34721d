"""The options of methods: derived from constructors, picklable, and known to type checkers."""

import dataclasses
import inspect
import pickle
import re
import subprocess
import sys
from pathlib import Path

import pytest

from relatum.methods import METHODS
from relatum.networks.backbones import Backbone
from relatum.recipes import generate
from relatum.recipes import options as module
from relatum.recipes.catalog import RECIPES
from relatum.recipes.options import build_method, build_relation, options, options_of
from relatum.relations import RELATIONS

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize("name", METHODS)
def test_options_mirror_the_constructor(name):
    signature = inspect.signature(METHODS[name].__init__)
    expected = [p.name for p in signature.parameters.values() if p.kind is p.KEYWORD_ONLY and p.name != "num_samples"]
    fields = {f.name: f for f in dataclasses.fields(options_of(name))}
    derived = {f"relation_{key}" for key in ("eps", "sharpness")} if "relation" in expected else set()
    assert set(fields) == {"name", *expected} | derived
    assert [f for f in fields if f in expected] == expected
    documented = inspect.getdoc(METHODS[name])
    for option in expected:
        assert re.search(rf"^\s+{option}[,:( ]|, {option}[,:]", documented, re.M), f"{name}.{option} is not documented"


def test_relations_of_recipes_become_relations():
    method = build_method(
        options("simclr", relation="jaccard-signed", alphas=(0.25, 0.25)),
        Backbone("resnet8", stem="cifar"),
        num_samples=10,
        load_teacher=lambda path: pytest.fail("SimCLR has no teacher"),
    )
    assert [t.name for t in method.terms] == ["cosine1", "cosine2", "jaccard"]
    assert method.terms[-1].relation.measure == "signed"
    assert set(RELATIONS) == {"cosine", "euclidean", "jaccard", "jaccard-signed", "jaccard-softplus", "tanimoto"}


def test_unknown_options_and_methods_are_refused():
    with pytest.raises(ValueError, match=r"no option 'temp'; did you mean temperature"):
        options("simclr", temp=0.1)
    with pytest.raises(ValueError, match=r"no method 'simcl'; did you mean simclr"):
        options("simcl")


@pytest.mark.parametrize("name", METHODS)
def test_options_are_pickled(name):
    made = options(name)
    assert pickle.loads(pickle.dumps(made)) == made
    assert getattr(module, type(made).__name__) is type(made)


def test_recipes_are_pickled():
    recipe = RECIPES["corsd"]()
    assert pickle.loads(pickle.dumps(recipe)) == recipe


def test_a_class_that_no_method_has_is_missing():
    with pytest.raises(AttributeError, match="SimclrOptions"):
        module.SimclrOptions  # noqa: B018


def test_a_relations_own_option_reaches_it():
    chosen = options("simclr", relation="jaccard-signed", relation_eps=0.25)
    backbone = Backbone("resnet8", stem="cifar")
    method = build_method(chosen, backbone, num_samples=10, load_teacher=lambda path: backbone)
    assert (method.terms[0].relation.measure, method.terms[0].relation.eps) == ("signed", 0.25)
    with pytest.raises(ValueError, match=r"relation_eps is 0\.1, and the relation 'cosine' has no eps"):
        build_relation("cosine", {"relation_eps": 0.1})


def test_the_stub_is_current():
    assert generate.STUB.read_text(encoding="utf-8") == generate.stub_text(), f"run `{generate.COMMAND}`"


USER = """
from relatum.recipes.options import options
from relatum.recipes.recipe import Recipe

chosen = options("simclr", temperature=0.1)
reveal_type(chosen)
reveal_type(chosen.temperature)
options("simclr", temprature=0.1)
options("simclr", relation="jacard")
recipe = Recipe(name="mine", method=chosen)
if recipe.method.name == "moco":
    reveal_type(recipe.method.queue_size)
"""


def test_type_checkers_know_the_options(tmp_path):
    file = tmp_path / "user.py"
    file.write_text(USER)
    # Of all else, these two files need only that it is there: torch alone would take mypy most of a minute.
    read = [str(generate.STUB), str(generate.STUB.with_name("recipe.py"))]
    command = [sys.executable, "-m", "mypy", "--follow-imports", "skip", "--ignore-missing-imports", str(file), *read]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    found = [line.partition("user.py:")[2] for line in done.stdout.splitlines() if "user.py:" in line]
    assert 'Revealed type is "relatum.recipes.options.SimCLROptions"' in found[0], done.stdout + done.stderr
    assert found[0].startswith("6:")
    assert 'Revealed type is "float"' in found[1].replace("builtins.", "")
    errors = {line.partition(":")[0] for line in found if ": error:" in line}
    assert errors == {"8", "9"}, done.stdout
    assert found[-1].startswith("12:")
    assert 'Revealed type is "int"' in found[-1].replace("builtins.", "")
