"""Recipes: functions whose docstring says where they come from, the command, the cost, and the number to expect."""

from collections.abc import Callable

from relatum.recipe import Recipe
from relatum.recipes.contrastive import (
    cifar_byol,
    cifar_debiased,
    cifar_moco,
    cifar_moco_jaccard,
    cifar_simclr,
    cifar_simclr_jaccard,
    cifar_simsiam,
    cifar_supcon,
)
from relatum.recipes.demo import demo

RECIPES: dict[str, Callable[[], Recipe]] = {
    "demo": demo,
    "simclr": cifar_simclr,
    "simclr-jaccard": cifar_simclr_jaccard,
    "moco": cifar_moco,
    "moco-jaccard": cifar_moco_jaccard,
    "byol": cifar_byol,
    "simsiam": cifar_simsiam,
    "debiased": cifar_debiased,
    "supcon": cifar_supcon,
}
"""Every recipe by the name that the command line uses."""
