"""Every recipe and every setting by the name that the command line uses."""

from relatum.core.plugins import Registry
from relatum.recipes.contrastive import DISTILLED, PAPER, SHARED, SUPERVISED_CONTRAST
from relatum.recipes.demo import DEMO
from relatum.recipes.distill import CORSD, FROM_A_TEACHER, LARGE, SELF_DISTILLATION, SUPERVISED
from relatum.recipes.entry import Entry
from relatum.recipes.multi_crop import MULTI_CROP
from relatum.recipes.photos import PHOTOS
from relatum.recipes.settings import SETTINGS

__all__ = ["RECIPES", "SETTINGS"]

_RECIPES: dict[str, Entry] = {
    **DEMO,
    **PHOTOS,
    **SHARED,
    **MULTI_CROP,
    **DISTILLED,
    **PAPER,
    **SUPERVISED_CONTRAST,
    **SUPERVISED,
    **FROM_A_TEACHER,
    **SELF_DISTILLATION,
    **CORSD,
    **LARGE,
}
RECIPES: Registry[Entry] = Registry("recipe", _RECIPES)
"""Every recipe: `RECIPES["simclr"]()` gives it, `RECIPES["simclr"].doc` says where it comes from."""
