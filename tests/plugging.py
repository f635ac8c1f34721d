"""The registries that plugins add to, and what is to be as it was after a test that did."""

import os
import sys
from pathlib import Path

from relatum import METHODS, RECIPES
from relatum.core import plugins
from relatum.data.catalog import ADDED
from relatum.measurement.evaluators import EVALUATORS
from relatum.networks.registered import BUILDERS
from relatum.recipes.options import forget
from relatum.relations import RELATIONS

REGISTRIES = (METHODS, RELATIONS, BUILDERS, ADDED, EVALUATORS, RECIPES)


class Registered:
    """What is registered, loaded and named now."""

    def __init__(self) -> None:
        self.known = [dict(registry) for registry in REGISTRIES]
        self.named = os.environ.get(plugins.VARIABLE)

    def restore(self) -> None:
        """As it was then; where nothing was added, nothing is forgotten that took time."""
        if self.named is None:
            os.environ.pop(plugins.VARIABLE, None)
        else:
            os.environ[plugins.VARIABLE] = self.named
        if [list(registry) for registry in REGISTRIES] == [list(known) for known in self.known] and not plugins._loaded:
            return
        for registry, known in zip(REGISTRIES, self.known, strict=True):
            registry.clear()
            registry.update(known)
        forget()
        for plugin in plugins._loaded:
            sys.modules.pop(Path(plugin).stem, None)  # or it would not be run when it is named again
        plugins._loaded.clear()
        plugins._installed.cache_clear()
