"""What every method is: views of images in, named loss terms out."""

from abc import ABC, abstractmethod
from typing import ClassVar, Literal

from jaxtyping import Float
from torch import Tensor, nn

from relatum.core.types import Batch
from relatum.networks.backbones import Backbone

Pairing = Literal["single", "two-views", "triples", "same-class-pairs"]
"""What one row of a batch is: one view of an image, two views of it, (anchor, positive, negative), or two images of
one class."""


class Method(nn.Module, ABC):
    """A way to train a backbone.

    A method is a module: what it learns beside the backbone are its parameters, what it remembers are its buffers,
    and both are in its state. A class is abstract or final, and the keywords of a final one's constructor are the
    options of recipes. What a class is stands in its first line, `class SimCLR(Method, pairing="two-views")`, and is
    inherited otherwise.

    Attributes:
        backbone: what the user keeps.
        pairing: the kind of batch it takes.
        needs_labels: whether it reads the classes.
        classifies: whether it trains the classifier of the backbone.
        multi_crop: whether it takes more than two views of an image, small crops among them.
        trains_in_phases: whether some steps leave trainable parameters without a gradient; DistributedDataParallel has
            to look for them then (`find_unused_parameters`).
    """

    pairing: ClassVar[Pairing]
    needs_labels: ClassVar[bool] = False
    classifies: ClassVar[bool] = False
    multi_crop: ClassVar[bool] = False

    def __init_subclass__(
        cls,
        *,
        pairing: Pairing | None = None,
        needs_labels: bool | None = None,
        classifies: bool | None = None,
        multi_crop: bool | None = None,
    ) -> None:
        super().__init_subclass__()
        said = {
            "pairing": pairing,
            "needs_labels": needs_labels,
            "classifies": classifies,
            "multi_crop": multi_crop,
        }
        for name, value in said.items():
            if value is not None:
                setattr(cls, name, value)

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone
        self.trains_in_phases = False

    @abstractmethod
    def losses(self, batch: Batch) -> dict[str, Float[Tensor, ""]]:
        """The loss terms, named and weighted: training minimizes their sum and logs each."""

    def after_step(self, progress: float) -> None:
        """What follows an optimizer step: momentum copies, queues, banks.

        Args:
            progress: the share of all steps that are done, in (0, 1].
        """

    def refuse_batch(self, images: int) -> None:
        """Raise unless batches of so many images, those of all processes together, can be trained on.

        Raises:
            ValueError: naming the option that does not fit, and what would.
        """

    def embed(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d"]:
        """The features of the backbone: the evaluators' only door."""
        return self.backbone.embed(images)

    def predictions(self, images: Float[Tensor, "n c h w"]) -> dict[str, Float[Tensor, "n k"]]:
        """The logits of every classifier that is trained beside the backbone's own, by its name; mostly none.

        The evaluator `heads` reports the accuracy of each: the heads of self-distillation and their ensemble, the
        peers of mutual learning.
        """
        return {}
