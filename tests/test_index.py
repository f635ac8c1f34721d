"""The index: what is known of recipes without torch, and that it is current."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from relatum.methods import METHODS
from relatum.recipes import generate, index
from relatum.recipes.catalog import RECIPES, SETTINGS
from relatum.recipes.recipe import to_dict
from relatum.relations import RELATIONS

ROOT = Path(__file__).parent.parent


def test_the_index_is_current():
    assert index.FILE.read_text(encoding="utf-8") == generate.index_text(), f"run `{generate.COMMAND}`"


def test_the_index_holds_what_the_catalog_holds():
    assert index.recipe_names() == list(RECIPES)
    assert index.setting_names() == list(SETTINGS)
    assert list(index.contents()["methods"]) == list(METHODS)
    assert list(index.contents()["relations"]) == list(RELATIONS)
    assert sorted(name for names in index.recipe_tasks().values() for name in names) == sorted(RECIPES)
    for name, entry in RECIPES.items():
        assert index.recipe_tree(name) == to_dict(entry())
        assert index.recipe_doc(name) == entry.doc


def test_a_tree_is_the_readers_own():
    index.recipe_tree("demo")["optim"]["lr"] = 7
    assert index.recipe_tree("demo") == to_dict(RECIPES["demo"]())


def test_a_recipe_that_does_not_exist():
    with pytest.raises(ValueError, match=r"no recipe 'demmo'; did you mean demo, dml\?"):
        index.recipe_doc("demmo")
    with pytest.raises(ValueError, match=r"expected one of demo, photos, .*, or a \.yaml file\."):
        index.recipe_tree("~")


ANSWERED = """
import json, resource, sys
sys.argv = ["relatum", *sys.argv[1:]]
from relatum.cli import main
main()
used = resource.getrusage(resource.RUSAGE_SELF)
heavy = sorted({"torch", "torchvision", "timm", "numpy", "lightning_fabric", "pydantic", "tyro"} & set(sys.modules))
print(json.dumps({"seconds": used.ru_utime + used.ru_stime, "heavy": heavy}), file=sys.stderr)
"""


@pytest.mark.parametrize(
    "words",
    [["list"], ["show", "corsd"], ["show", "corsd", "--about"], ["--help"], ["train", "--help"], ["list", "--help"]],
    ids=" ".join,
)
def test_answers_without_torch_below_half_a_second(words):
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(
        [sys.executable, "-c", ANSWERED, *words], capture_output=True, text=True, env=environment, check=True
    )
    answer = json.loads(done.stderr.splitlines()[-1])
    assert answer["heavy"] == []
    assert answer["seconds"] < 0.5
    assert done.stdout
