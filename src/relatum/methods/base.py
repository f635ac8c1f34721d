"""What every method is: views of images in, named loss terms out."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import wraps
from typing import Any, ClassVar, Literal

import torch
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
        if "losses" in vars(cls):
            cls.losses = _takes_tensors(cls.losses)  # type: ignore[method-assign]

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone
        self.trains_in_phases = False

    @abstractmethod
    def losses(self, batch: Batch) -> dict[str, Float[Tensor, ""]]:
        """The loss terms, named and weighted: training minimizes their sum and logs each.

        A method on two views that needs no labels also takes plain tensors, `losses((x1, x2))`, as
        `Batch.unlabeled(x1, x2)`.

        Raises:
            TypeError: for another thing that is no Batch, with what a Batch is.
        """

    def loss(self, batch: Batch | tuple[Float[Tensor, "n c _h _w"], ...]) -> Float[Tensor, ""]:
        """The sum of the loss terms: what training minimizes.

        Args:
            batch: a Batch; or two views of the same images as plain tensors, where the method needs no labels.

        Raises:
            TypeError: for tensors that are not the batch of this method, with what a Batch is.
        """
        return torch.stack(
            list(self.losses(batch if isinstance(batch, Batch) else _batch_of(self, batch)).values())
        ).sum()

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


def _takes_tensors(losses: Callable[..., Any]) -> Callable[..., Any]:
    """The same `losses`, for what loops of others have at hand too: a tuple of views."""

    @wraps(losses)
    def taking(self: Method, batch: Any) -> Any:
        return losses(self, batch if isinstance(batch, Batch) else _batch_of(self, batch))

    return taking


def _batch_of(method: Method, given: Any) -> Batch:
    views = tuple(given) if isinstance(given, tuple | list) else ()
    images = bool(views) and all(isinstance(view, Tensor) and view.ndim == 4 for view in views)
    if images and len(views) == 2 and method.pairing == "two-views" and not method.needs_labels:
        return Batch.unlabeled(*views)
    count = {"single": 1, "triples": 3}.get(method.pairing, 2)
    names = ", ".join(f"x{i}" for i in range(1, count + 1))
    found = f"{len(views)} things" if views else f"a {type(given).__name__}"
    raise TypeError(
        f"losses of {type(method).__name__} takes a Batch, and was given {found}. A Batch has views, {count} tensor(s) "
        f"n x c x h x w of images less mean over std; labels, a class for each image in each view, {count} x n; and "
        f"index, the number of each image in the training set, {count} x n: "
        f"relatum.Batch(({names}{',' if count == 1 else ''}), labels.expand({count}, -1), "
        f"index.expand({count}, -1)). Without labels, Batch.unlabeled({names})."
    )
