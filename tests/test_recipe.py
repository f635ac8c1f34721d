"""Recipes: whole round trips, derived options, and errors that say which field is wrong."""

import dataclasses
import inspect
import re

import pytest
import torch

from relatum.core.schedules import cosine, learning_rate
from relatum.methods import METHODS
from relatum.networks.backbones import Backbone
from relatum.recipes import RECIPES
from relatum.recipes.recipe import (
    RELATIONS,
    Optim,
    Recipe,
    build_method,
    difference,
    from_dict,
    from_yaml,
    options,
    options_of,
    to_dict,
    to_yaml,
)

recipes = pytest.mark.parametrize("name", RECIPES)


@recipes
def test_yaml_round_trip(name):
    recipe = RECIPES[name]()
    assert from_yaml(to_yaml(recipe)) == recipe
    assert from_dict(to_dict(recipe)) == recipe


@recipes
def test_a_recipe_is_called_what_its_run_folder_is_called(name):
    assert RECIPES[name]().name == name


@recipes
def test_docstrings_promise_source_command_cost_and_number(name):
    text = inspect.getdoc(RECIPES[name])
    for promise in ("Source:", "Command:", "Cost:", "Expected:"):
        assert promise in text
    command = re.search(r"Command: relatum train (\S+)", text)
    assert command
    assert command.group(1) == name


@pytest.mark.parametrize("name", METHODS)
def test_options_mirror_the_constructor(name):
    signature = inspect.signature(METHODS[name].__init__)
    expected = [p.name for p in signature.parameters.values() if p.kind is p.KEYWORD_ONLY and p.name != "num_samples"]
    fields = {f.name: f for f in dataclasses.fields(options_of(name))}
    assert list(fields) == ["name", *expected]
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
    assert set(RELATIONS) == {"cosine", "euclidean", "jaccard", "jaccard-signed", "tanimoto"}


def changed(path: str, value) -> dict:
    tree = to_dict(RECIPES["demo"]())
    node = tree
    *parents, leaf = path.split(".")
    for parent in parents:
        node = node[parent]
    node[leaf] = value
    return tree


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("optim.learning", 1, r"no field optim\.learning"),
        ("optim.lr", "fast", r"optim\.lr: .*number.*'fast'"),
        ("optim.nme", "sgd", r"no field optim\.nme; did you mean name"),
        ("method.name", "simclar", r"method\.name is 'simclar'; did you mean simclr"),
        ("method.temprature", 0.1, r"no field method\.temprature; did you mean temperature"),
        ("method.relation", "jacard", r"method.*relation.*'jacard'"),
        ("model.stem", "cfar", r"stem.*'cfar'"),
        ("data.view.min_scal", 0.3, r"no field data\.view\.min_scal; did you mean min_scale"),
        ("train.epochs", 0, r"train\.epochs is 0; expected at least 1"),
        ("data.validation", 1.0, r"data\.validation is 1\.0"),
        ("train.devices", 3, r"batch_size 64 cannot be shared by train\.devices 3"),
        ("trian", {}, r"no field trian; did you mean train"),
        ("evaluation.knn.k", 0, r"k=0"),
    ],
)
def test_errors_name_the_field_and_the_remedy(path, value, message):
    with pytest.raises(ValueError, match=message):
        from_dict(changed(path, value))


@pytest.mark.parametrize(("text", "message"), [("[1, 2", "no YAML"), ("- a\n- b", "tree of fields, not list")])
def test_what_is_no_recipe_is_refused(text, message):
    with pytest.raises(ValueError, match=message):
        from_yaml(text)


def test_unknown_options_and_methods_are_refused():
    with pytest.raises(ValueError, match=r"no option 'temp'; did you mean temperature"):
        options("simclr", temp=0.1)
    with pytest.raises(ValueError, match=r"no method 'simcl'; did you mean simclr"):
        options("simcl")


def test_difference_names_the_fields():
    recipe = RECIPES["demo"]()
    other = dataclasses.replace(recipe, optim=dataclasses.replace(recipe.optim, lr=0.5))
    assert difference(recipe, other) == ["optim.lr: 0.003 -> 0.5"]
    assert difference(recipe, recipe) == []


def test_a_partial_tree_has_the_defaults():
    recipe = from_dict({"name": "mine", "method": {"name": "byol"}})
    assert recipe == Recipe(name="mine", method=options("byol"))
    assert recipe.optim == Optim()


# Schedules


def test_cosine_schedule_with_warmup():
    rate = lambda p: learning_rate(p, "cosine", warmup=0.1)  # noqa: E731
    assert [rate(0.0), rate(0.05), rate(0.1)] == pytest.approx([0, 0.5, 1])
    assert rate(0.55) == pytest.approx(0.5)
    assert cosine(1.0, 0.99, 1.0) == pytest.approx(1.0)


def test_step_schedule():
    rates = [learning_rate(p, "step", milestones=(0.5, 0.75), gamma=0.1) for p in (0.0, 0.499, 0.5, 0.75)]
    assert rates == pytest.approx([1, 1, 0.1, 0.01])


def test_one_cycle_is_torchs():
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1.0, total_steps=1001, cycle_momentum=False)
    for step in range(1000):
        if step % 100 == 0:  # torch counts to its last step, and puts the peak one step earlier
            assert learning_rate(step / 1000, "one-cycle") == pytest.approx(optimizer.param_groups[0]["lr"], abs=5e-3)
        optimizer.step()
        scheduler.step()


def test_unknown_schedule():
    with pytest.raises(ValueError, match="expected constant, cosine"):
        learning_rate.__wrapped__(0.5, "linear") if hasattr(learning_rate, "__wrapped__") else learning_rate(0.5, "x")
