"""Settings: one published way to train, for any recipe. `relatum train RECIPE SETTING`.

Numbers under different schedules do not compare, and published tables mix them. `SETTINGS` has the three that most
numbers of distillation on CIFAR-100 come from, and the first paper's for Tiny-ImageNet:

    relatum train supervised step-240 --model.name resnet56 --run runs/resnet56
    relatum train kd step-240 --model.name resnet20 --method.teacher runs/resnet56
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from relatum.methods import METHODS
from relatum.recipes.recipe import Optim, Recipe


def one_cycle_100(recipe: Recipe) -> Recipe:
    """100 epochs in batches of 129, one cycle to a rate of 0.1: the released CORSD code, and the default here.

    That code lets the momentum swing with the rate, between 0.95 and 0.85; here it is 0.9 throughout.
    """
    return _set(recipe, "one-cycle-100", 100, 129, Optim(lr=0.1, schedule="one-cycle"))


def step_200(recipe: Recipe) -> Recipe:
    """200 epochs in batches of 128, rate 0.1, a fifth of it after 60, 120 and 160: TF-KD, and AT without the warm-up.

    TF-KD's recipe, and that of the public CIFAR-100 zoo which it took over, also rotate images by up to 15 degrees.
    """
    step = Optim(lr=0.1, schedule="step", milestones=(60.0, 120.0, 160.0), gamma=0.2, warmup_epochs=1.0)
    return _set(recipe, "step-200", 200, 128, step)


def step_240(recipe: Recipe) -> Recipe:
    """240 epochs in batches of 64, rate 0.05, a tenth of it after 150, 180 and 210: the benchmark of Tian et al."""
    return _set(recipe, "step-240", 240, 64, Optim(lr=0.05, schedule="step", milestones=(150.0, 180.0, 210.0)))


def tiny_imagenet(recipe: Recipe) -> Recipe:
    """Tiny-ImageNet at its 64 pixels in batches of 256, with the stem for that size: Jiang et al. 2022, Section 3.

    The paper names the batch, not the stem: this is that of W-MSE (Ermolov et al. 2021) for the same data.
    """
    view: Any = replace(recipe.data.view, size=64)
    return replace(
        recipe,
        name=f"{recipe.name}-tiny-imagenet",
        model=replace(recipe.model, stem="tiny"),
        data=replace(recipe.data, source="tiny-imagenet", batch_size=_batch(recipe, 256), view=view),
    )


SETTINGS: dict[str, Callable[[Recipe], Recipe]] = {
    "one-cycle-100": one_cycle_100,
    "step-200": step_200,
    "step-240": step_240,
    "tiny-imagenet": tiny_imagenet,
}
"""Every setting by the name that the command line uses: `relatum train RECIPE SETTING`."""


def _batch(recipe: Recipe, size: int) -> int:
    """The batch size; triples take the nearest that holds whole ones."""
    return 3 * round(size / 3) if METHODS[recipe.method.name].pairing == "triples" else size


def _set(recipe: Recipe, setting: str, epochs: int, batch_size: int, optim: Optim) -> Recipe:
    """The recipe under a setting, and called so."""
    return replace(
        recipe,
        name=f"{recipe.name}-{setting}",
        data=replace(recipe.data, batch_size=_batch(recipe, batch_size)),
        optim=optim,
        train=replace(recipe.train, epochs=epochs),
    )
