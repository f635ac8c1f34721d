"""The online probe of a run: it hears what the encoder makes of each batch, and learns from it without a trace."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from relatum.core.distributed import gather
from relatum.core.types import Batch
from relatum.evaluation.linear import LinearProbe
from relatum.evaluation.online import OnlineProbe
from relatum.networks.backbones import Backbone
from relatum.recipes.building import Prepared
from relatum.recipes.recipe import Recipe

log = logging.getLogger(__name__)

Heard = list[tuple[Tensor, Tensor]]
"""Images and their features, pass by pass."""


class Online:
    """A probe, and the backbone that it listens to in training steps.

    Args:
        probe: what learns.
        backbone: whose features it learns from.
    """

    def __init__(self, probe: OnlineProbe, backbone: Backbone) -> None:
        self.probe, self.backbone = probe, backbone
        self._heard: Heard = []
        self._known: dict[tuple[torch.Size, ...], list[list[int]]] = {}

    @classmethod
    def of(cls, recipe: Recipe, prepared: Prepared, backbone: Backbone, device: torch.device) -> "Online":
        """The probe of a recipe."""
        like = getattr(recipe.evaluation, "linear", LinearProbe())
        return cls(OnlineProbe(backbone.embedding_dim, len(prepared.source.classes), like, device), backbone)

    def load(self, state: Mapping[str, Any] | None) -> None:
        """Go on from the state in a checkpoint, or start anew and say so: how a run is measured may change."""
        why = self.probe.load(state)
        if why:
            log.warning("The online probe starts anew: %s.", why)

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Within it, the features that the backbone makes are remembered for the next `step`."""
        self._heard = []
        self.backbone.listener = lambda images, embedding: self._heard.append((images, embedding.detach()))
        try:
            yield
        finally:
            self.backbone.listener = None

    def step(self, batch: Batch, progress: float) -> None:
        """Let the probe learn from the features of the large views, those of all processes together.

        Args:
            batch: what the method has seen while this was listening.
            progress: the share of the training that was done before it.

        Raises:
            ValueError: the method encoded none of the views as they are.
        """
        shapes = tuple(images.shape for images, _ in self._heard)
        if shapes not in self._known:  # a look that waits for the device: once for each way of a method to encode
            self._known[shapes] = [views_of(images, batch) for images, _ in self._heard]
        features, labels = [], []
        for (_, embedding), numbers in zip(self._heard, self._known[shapes]):
            for part, number in zip(embedding.split(len(batch.views[0])), numbers):
                if number < batch.large:
                    features.append(part)
                    labels.append(batch.labels[number])
        self._heard = []
        if not features:
            raise ValueError(
                "evaluation.online finds no view of the batch among what the method gives its backbone, and has no "
                "features to learn from: leave --evaluation.online out."
            )
        self.probe.step(gather(torch.cat(features)), gather(torch.cat(labels)), progress)


def views_of(images: Float[Tensor, "m c h w"], batch: Batch) -> list[int]:
    """Which views of a batch are these images, one view after the other; none where they are anything else."""
    rows = len(batch.views[0])
    if len(images) % rows:
        return []
    found = []
    views = [view.to(images.dtype) for view in batch.views]  # mixed precision rounds what a method is given
    for part in images.split(rows):
        same = (i for i, view in enumerate(views) if view.shape == part.shape and torch.equal(view, part))
        found.append(next(same, -1))
    return [] if -1 in found else found
