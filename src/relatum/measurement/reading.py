"""What is read of images, in one pass: features, scores, stages and pixels side by side."""

from collections.abc import Callable, Mapping, Set

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from relatum.core.precision import at_least_float32
from relatum.core.types import Embeddings
from relatum.evaluation.evaluator import Reading
from relatum.networks.backbones import Backbone

PIXELS = 32  # a side of the pixels that are read: as many as a comparison of whole images can use


def shrunk(images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c _h _w"]:
    """Images averaged to at most 32 x 32 pixels: of large ones the single pixels say little, and take much."""
    height, width = images.shape[2:]
    if max(height, width) <= PIXELS:
        return images
    return F.adaptive_avg_pool2d(at_least_float32(images), (min(height, PIXELS), min(width, PIXELS)))


class Reader:
    """All readings of a batch as the columns of one matrix, which `parts` takes apart again.

    Args:
        backbone: in evaluation mode.
        readings: at least one.
        untrained: the encoder before training, where that is read.
        predictions: of the classifiers that are trained beside the backbone's, where they are read.
    """

    def __init__(
        self,
        backbone: Backbone,
        readings: Set[Reading],
        untrained: Backbone | None = None,
        predictions: Callable[[Tensor], Mapping[str, Tensor]] | None = None,
    ) -> None:
        self.backbone, self.readings, self.untrained, self.predictions = backbone, readings, untrained, predictions
        self.widths: dict[str, int] = {}

    def __call__(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d"]:
        """In float32 at least."""
        found: dict[str, Tensor] = {}
        if self.readings & {"logits", "stages"}:  # one forward pass gives the features, too
            features = self.backbone(images)
            if "embedding" in self.readings:
                found["embedding"] = features.embedding
            if "logits" in self.readings:
                assert features.logits is not None
                found["logits"] = features.logits
            if "stages" in self.readings:
                found |= {f"stage{i}": at_least_float32(maps).mean((2, 3)) for i, maps in enumerate(features.stages, 1)}
        elif "embedding" in self.readings:
            found["embedding"] = self.backbone.embed(images)
        if "pixels" in self.readings:
            found["pixels"] = shrunk(images).flatten(1)
        if "untrained" in self.readings:
            assert self.untrained is not None
            found["untrained"] = self.untrained.embed(images)
        if "heads" in self.readings:
            assert self.predictions is not None
            found |= {f"head:{name}": logits for name, logits in self.predictions(images).items()}
        self.widths = {name: part.shape[1] for name, part in found.items()}
        return torch.cat([at_least_float32(part) for part in found.values()], dim=1)

    def parts(self, seen: Embeddings) -> dict[str, Embeddings]:
        """Each reading by its name; the stages as "stage1", "stage2", ..., shallow to deep."""
        columns = seen.features.split(list(self.widths.values()), dim=1)
        return {name: Embeddings(part.contiguous(), seen.labels) for name, part in zip(self.widths, columns)}
