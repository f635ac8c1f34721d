"""What the methods share that train the classifier of the backbone."""

from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from relatum.core.precision import full_precision
from relatum.core.types import Features
from relatum.methods.base import Method
from relatum.networks.backbones import Backbone


class Classifying(Method, needs_labels=True, classifies=True):
    """A method that trains the classifier of its backbone.

    Args:
        backbone: the network, with classes.

    Raises:
        ValueError: for a backbone without classes.
    """

    def __init__(self, backbone: Backbone) -> None:
        super().__init__(backbone)
        if backbone.num_classes < 1:
            raise ValueError(
                f"{backbone.name} has num_classes={backbone.num_classes} and this method trains a classifier; build "
                "the backbone with the number of classes of the data, such as num_classes=100."
            )


def require_stages(backbone: Backbone, least: int = 2) -> None:
    """Raise unless `backbone` has as many stages as a method learns from.

    Raises:
        ValueError: for fewer than `least` stages.
    """
    count = len(backbone.stage_channels)
    if count < least:
        raise ValueError(
            f"{backbone.name} has {count} stage(s) and this method learns from its stages; expected at least {least}. "
            "Name the children of a wrapped module that are its stages, shallow to deep: "
            'Backbone.wrap(module, stages=("layer1", "layer2")), or choose a method that needs the embedding alone.'
        )


def class_logits(features: Features) -> Float[Tensor, "n k"]:
    """The logits of a network that is known to have classes."""
    assert features.logits is not None
    return features.logits


@full_precision
def task_loss(
    logits: Float[Tensor, "n k"], labels: Int[Tensor, " n"], label_smoothing: float = 0.0
) -> Float[Tensor, ""]:
    """Cross-entropy with the classes, the mean over the batch.

    Args:
        logits: class scores of each image.
        labels: the classes, in [0, k).
        label_smoothing: the share of the target that is spread evenly over all k classes.
    """
    return F.cross_entropy(logits, labels, label_smoothing=label_smoothing)
