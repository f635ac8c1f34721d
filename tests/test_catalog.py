"""The named recipes: called once, with their source and a number; the papers' settings are the papers'."""

import dataclasses
import inspect

import pytest

from relatum import cli
from relatum.core.schedules import learning_rate
from relatum.data.views import ContrastiveView
from relatum.methods import METHODS
from relatum.recipes import contrastive, distill
from relatum.recipes.catalog import RECIPES, SETTINGS
from relatum.recipes.entry import Entry
from relatum.recipes.recipe import Recipe, from_dict, from_yaml, to_dict, to_yaml

recipes = pytest.mark.parametrize("name", RECIPES)


@recipes
def test_a_recipe_is_called_what_the_command_line_calls_it(name):
    assert RECIPES[name]().name == name


@recipes
def test_round_trips(name):
    recipe = RECIPES[name]()
    assert from_yaml(to_yaml(recipe)) == recipe
    assert from_dict(to_dict(recipe)) == recipe


@recipes
def test_a_recipe_says_source_cost_and_numbers_with_their_sources(name):
    entry: Entry = RECIPES[name]
    assert entry.about.endswith(".")
    assert entry.source
    assert entry.cost
    assert entry.command.startswith(f"relatum train {name}")
    for number in (*entry.published, *entry.ours):
        assert 0 < number.value < 100
        assert len(number.source) > 10
    lines = entry.doc.splitlines()
    assert lines[0] == entry.about
    assert [line.partition(":")[0] for line in lines[2:]] == ["Source", "Command", "Cost", "Published", "Ours"]
    if not entry.ours:
        assert lines[-1] == "Ours: not run yet."


def test_no_two_recipes_are_the_same():
    trees = [{k: v for k, v in to_dict(entry()).items() if k != "name"} for entry in RECIPES.values()]
    assert all(tree not in trees[:i] for i, tree in enumerate(trees))


def test_every_teacher_that_a_recipe_needs_is_named():
    for name, entry in RECIPES.items():
        needs = "teacher" in inspect.signature(METHODS[entry().method.name].__init__).parameters
        assert ("--method.teacher" in entry.command) == needs, name


# The first paper: Jiang et al. 2022, Section 3


def test_the_first_papers_protocol_is_the_papers():
    for name, entry in contrastive.PAPER.items():
        recipe = entry()
        assert (recipe.model.name, recipe.model.stem) == ("resnet50", "cifar"), name
        assert (recipe.data.batch_size, recipe.train.epochs) == (512, 500), name
        assert recipe.data.validation == 0.0, "its numbers are of all 50,000 images"
        assert recipe.data.view == ContrastiveView(size=32, min_scale=0.08, grayscale=0.2), "SimCLR's augmentation"
        assert (recipe.optim.lr, recipe.optim.schedule) == (1e-3, "constant"), name
        assert recipe.evaluation.every == 1, "it measures after each epoch"


def test_equation_4_has_one_temperature():
    three = [entry().method for entry in RECIPES.values() if getattr(entry().method, "alphas", ())]
    assert len(three) == 5
    for method in three:
        assert method.cosine_temperature is None
        assert method.alphas == (1 / 3, 1 / 3)
    for jaccard, cosine in (("paper-simclr-jaccard", "paper-simclr"), ("paper-moco-jaccard", "paper-moco")):
        assert RECIPES[jaccard]().method.temperature == RECIPES[cosine]().method.temperature


def test_the_index_as_printed_can_be_chosen():
    printed, clamped = RECIPES["paper-simclr-jaccard-printed"](), RECIPES["paper-simclr-jaccard"]()
    assert printed.method.relation == "jaccard-signed"
    assert dataclasses.replace(printed, name=clamped.name, method=clamped.method) == clamped


def test_tiny_imagenet_has_its_size_batch_and_stem():
    recipe = SETTINGS["tiny-imagenet"](RECIPES["paper-simclr"]())
    assert recipe.name == "paper-simclr-tiny-imagenet"
    assert (recipe.data.source, recipe.data.view.size, recipe.data.batch_size) == ("tiny-imagenet", 64, 256)
    assert recipe.model.stem == "tiny"
    assert SETTINGS["tiny-imagenet"](RECIPES["corsd"]()).data.batch_size == 255


def test_table_2_is_quoted_as_printed():
    values = {name: tuple(n.value for n in entry.published) for name, entry in contrastive.PAPER.items()}
    assert values["paper-simclr"] == (88.6, 91.5, 62.1, 68.6, 35.9, 50.7)
    assert values["paper-simclr-jaccard"] == (88.6, 91.8, 63.9, 69.5, 39.5, 53.8)
    assert values["paper-moco"] == (85.5, 90.5, 56.8, 66.8, 33.5, 49.6)
    assert values["paper-moco-jaccard"] == (85.1, 90.2, 59.2, 67.5, 35.4, 51.2)


def test_numbers_of_whole_training_sets_hold_nothing_out():
    for name, entry in RECIPES.items():
        if entry.published:
            assert entry().data.validation == 0.0, name


def test_moco_of_the_first_paper_is_the_official_one():
    """A head of two layers without batch norm, 8 groups, one direction; queue, momentum and temperature for CIFAR."""
    for name in ("paper-moco", "paper-moco-jaccard"):
        method = RECIPES[name]().method
        assert (method.layers, method.projector_norm, method.key_splits, method.symmetric) == (2, False, 8, False)
        assert (method.queue_size, method.momentum, method.temperature) == (4096, 0.99, 0.1)


def test_mocos_own_number_stands_beside_its_own_settings():
    assert [name for name, entry in RECIPES.items() if 85.3 in [n.value for n in entry.published]] == ["moco-cifar"]
    recipe = RECIPES["moco-cifar"]()
    method = recipe.method
    assert (method.layers, method.projector_norm, method.key_splits) == (1, False, 8)
    assert (method.symmetric, method.symmetric_loss) == (True, "sum")
    assert recipe.data.view == ContrastiveView(size=32, min_scale=0.08, grayscale=0.2)
    assert (recipe.train.epochs, recipe.data.batch_size, recipe.optim.lr) == (200, 512, 0.06)


# The second paper: Yu et al. 2023


def test_numbers_of_the_second_paper_stand_beside_its_widths():
    for name, entry in RECIPES.items():
        recipe = entry()
        if recipe.method.name == "corsd" and entry.published:
            assert recipe.method.width is None, name
            assert recipe.method.deepest_layers == 1, "Section 2.1: several layers at every depth"
            assert recipe.method.divergence == "from-shallow", "Eq. (4) as printed"
            assert (recipe.method.calibration_input, recipe.method.calibration_loss) == ("logits", "mean")
    assert RECIPES["corsd"].published == ()
    assert RECIPES["paper-corsd"].published[0].value == 81.10


# Distillation


def distillation() -> dict[str, Recipe]:
    groups = (distill.SUPERVISED, distill.FROM_A_TEACHER, distill.SELF_DISTILLATION, distill.CORSD, distill.LARGE)
    return {name: entry() for group in groups for name, entry in group.items()}


def test_methods_are_compared_under_one_recipe():
    """All but the teacher, and the recipes of other data sets, differ in the method alone."""
    compared = [r for r in distillation().values() if r.data.source == "cifar100" and r.name != "teacher"]
    for recipe in compared:
        assert dataclasses.replace(compared[0], name=recipe.name, method=recipe.method) == recipe
    covered = {recipe.method.name for recipe in compared}
    assert covered == {name for name, method in METHODS.items() if method.needs_labels and name != "supcon"}


def test_rows_of_table_4_switch_terms_off():
    recipes = distillation()
    weights = {
        name: tuple(bool(getattr(recipes[name].method, w)) for w in ("alpha", "beta", "gamma_p", "gamma_n", "sigma"))
        for name in ("corsd", "corsd-rn", "corsd-rn-ac", "corsd-ld")
    }
    assert weights == {
        "corsd": (True, True, True, True, True),
        "corsd-rn": (True, True, False, False, False),
        "corsd-rn-ac": (True, True, True, True, False),
        "corsd-ld": (False, False, False, False, True),
    }
    assert [recipes[f"corsd-{r}"].method.relation for r in ("l2", "jaccard")] == ["euclidean", "jaccard"]


@pytest.mark.parametrize(
    ("setting", "epochs", "batch_sizes", "rates"),
    [
        ("one-cycle-100", 100, (129, 129), {0: 0.004, 30: 0.1, 99.999: 0.0}),
        ("step-200", 200, (128, 129), {0.5: 0.05, 59: 0.1, 61: 0.02, 121: 0.004, 161: 0.0008}),
        ("step-240", 240, (64, 63), {0: 0.05, 149: 0.05, 151: 0.005, 181: 0.0005, 211: 0.00005}),
    ],
    ids=["one-cycle-100", "step-200", "step-240"],
)
def test_settings_are_the_published_ones(setting, epochs, batch_sizes, rates):
    for name, batch_size in zip(("kd", "corsd"), batch_sizes):
        before = RECIPES[name]()
        recipe = SETTINGS[setting](before)
        assert recipe.name == f"{name}-{setting}"
        assert (recipe.train.epochs, recipe.data.batch_size) == (epochs, batch_size)
        optim = recipe.optim
        assert (optim.name, optim.momentum, optim.weight_decay) == ("sgd", 0.9, 5e-4)
        for epoch, rate in rates.items():
            factor = learning_rate(
                epoch / epochs,
                optim.schedule,
                warmup=optim.warmup_epochs / epochs,
                milestones=tuple(m / epochs for m in optim.milestones),
                gamma=optim.gamma,
            )
            assert optim.lr * factor == pytest.approx(rate, rel=1e-3, abs=1e-6)
        assert (recipe.method, recipe.model, recipe.data.view) == (before.method, before.model, before.data.view)


def test_the_default_setting_is_one_cycle():
    recipe = RECIPES["corsd"]()
    assert dataclasses.replace(SETTINGS["one-cycle-100"](recipe), name="corsd") == recipe


def test_settings_are_words_of_the_command_line(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["relatum", "show", "sp", "step-240", "--model.name", "resnet20"])
    cli.main()
    printed = capsys.readouterr().out
    assert "name: sp-step-240\n" in printed
    assert "epochs: 240\n" in printed
    assert "name: resnet20\n" in printed
    monkeypatch.setattr("sys.argv", ["relatum", "show", "sp", "step-24"])
    with pytest.raises(SystemExit):
        cli.main()
    assert "there is no setting 'step-24'; did you mean step-240, step-200?" in capsys.readouterr().err


def test_large_images_have_the_papers_batches():
    recipes = distillation()
    for name in ("imagenet-supervised", "imagenet-corsd", "cub200-supervised", "cub200-corsd"):
        recipe = recipes[name]
        assert (recipe.model.stem, recipe.data.view.size, recipe.data.view.crop) == ("imagenet", 224, "resized")
        assert recipe.data.batch_size == (255 if name.startswith("imagenet") else 129)
        assert recipe.model.pretrained is name.startswith("cub200")
