"""Recipes: trees of fields, strict reading, and errors that say which field is wrong."""

import dataclasses
import time

import pytest
import torch

from relatum.core.schedules import cosine, learning_rate
from relatum.recipes.catalog import RECIPES
from relatum.recipes.recipe import Optim, Recipe, difference, from_dict, from_yaml, options, read, to_dict, to_yaml


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
        ("train.devices", 3, r"batch_size 32 cannot be shared by train\.devices 3"),
        ("trian", {}, r"no field trian; did you mean train"),
        ("evaluation.knn.k", 0, r"k=0"),
        ("method.temperature", "warm", r"method\.temperature: .*number.*'warm'"),
        ("method.name", {"a": 1}, r"method\.name is a dict; expected one of at, "),
        ("method.temperature", float("nan"), r"method\.temperature is nan; expected a finite number"),
        ("train.epochs", True, r"train\.epochs is true; expected a whole number"),
        ("train.epochs", 10**21, r"train\.epochs is a number of 22 digits"),
        ("train.epochs", 10**9, r"train\.epochs is 1000000000; expected at most 1,000,000"),
        ("train.seed", 10**21, r"train\.seed is a number of 22 digits"),
        ("train.compile", 1, r"train\.compile is 1; expected true or false"),
        ("optim.milestones", [True], r"optim\.milestones is true"),
        ("optim.lr", float("inf"), r"optim\.lr is inf; expected a finite number.*--optim\.lr"),
        ("optim.warmup_epochs", float("inf"), r"optim\.warmup_epochs is inf; expected a finite number"),
        ("optim.warmup_epochs", 99, r"optim\.warmup_epochs is 99\.0; expected at most train\.epochs, 30"),
        ("optim.warmup_epochs", -1, r"optim\.warmup_epochs is -1\.0; expected at least 0"),
        ("optim.momentum", float("nan"), r"optim\.momentum is nan; expected a finite number"),
        ("optim.momentum", 1.5, r"optim\.momentum is 1\.5; expected at most 1"),
        ("optim.gamma", float("inf"), r"optim\.gamma is inf"),
        ("optim.milestones", [9, 3], r"optim\.milestones is \(9\.0, 3\.0\); expected epochs above 0, each larger"),
        ("optim.milestones", [3, 3], r"optim\.milestones is \(3\.0, 3\.0\)"),
        ("optim.milestones", [-3, 3], r"optim\.milestones is \(-3\.0, 3\.0\)"),
        ("optim.milestones", [3, float("nan")], r"optim\.milestones is nan; expected a finite number"),
        ("data.train_images", 0, r"data\.train_images is 0; expected at least 1"),
        ("name", "x" * 100_000, r"name is 'x+\.\.\.x+'|name is 'x"),
    ],
)
def test_errors_name_the_field_and_the_remedy(path, value, message):
    with pytest.raises(ValueError, match=message):
        from_dict(changed(path, value))


@pytest.mark.parametrize(("text", "message"), [("[1, 2", "no YAML"), ("- a\n- b", "tree of fields, not list")])
def test_what_is_no_recipe_is_refused(text, message):
    with pytest.raises(ValueError, match=message):
        from_yaml(text)


def test_difference_names_the_fields():
    recipe = RECIPES["demo"]()
    other = dataclasses.replace(recipe, optim=dataclasses.replace(recipe.optim, lr=0.5))
    assert difference(recipe, other) == ["optim.lr: 0.002 -> 0.5"]
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


# Names and texts


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "../../x",
        "/tmp/x",
        "a/b",
        "a\\b",
        "C:x",
        " a",
        "a ",
        "a\nb",
        "a\0b",
        "-x",
        "x" * 201,
        "*",
        "é" * 101,
    ],
)
def test_a_name_is_one_plain_file_name(name):
    with pytest.raises(ValueError, match=r"name is .*one plain file name.*--run DIR"):
        dataclasses.replace(RECIPES["demo"](), name=name)


@pytest.mark.parametrize("name", ["demo", "kd-step-240", "a.b", "Größe 2", "3", "x" * 200])
def test_plain_names_are_taken(name):
    assert dataclasses.replace(RECIPES["demo"](), name=name).name == name


def bomb(levels: int) -> str:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, levels)]
    return "\n".join([*lines, f"name: *a{levels - 1}"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (bomb(8), "found the alias or anchor 'a0'"),
        ("name: a\nname: b", "found 'name' twice"),
        ("name: a\noptim: {lr: 1, lr: 2}", "found 'lr' twice"),
        ("1: 2", "found the key 1; expected the name of a field"),
        ("{[1, 2]: 3}", "found the key a list"),
        ("a: " + "[" * 5000, "nested too deeply|no YAML"),
        ("x" * 1_000_001, r"1,000,001 characters; expected a recipe"),
        ("!!python/object/apply:os.system [echo]", "no YAML that a recipe can be"),
        ("name: " + "1" * 5000, "cannot be read"),
    ],
    ids=["bomb", "twice", "twice-inside", "number", "list", "deep", "long", "code", "digits"],
)
def test_texts_that_no_recipe_has_are_refused_at_once(text, message):
    start = time.process_time()
    with pytest.raises(ValueError, match=message) as refused:
        from_yaml(text)
    assert len(str(refused.value)) < 1000
    assert time.process_time() - start < 2


def test_a_file_that_is_no_text_is_refused(tmp_path):
    file = tmp_path / "recipe.yaml"
    file.write_bytes(b"name: \xff\xfe")
    with pytest.raises(ValueError, match=r"no text in UTF-8 .*at byte 6"):
        read(file)


def test_names_in_any_script_round_trip(tmp_path):
    recipe = dataclasses.replace(RECIPES["demo"](), name="数字")
    file = tmp_path / "recipe.yaml"
    file.write_text(to_yaml(recipe), encoding="utf-8")
    assert read(file) == recipe
