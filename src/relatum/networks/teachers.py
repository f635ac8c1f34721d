"""Teachers of another world: what was trained with another normalization, size of images, or on other classes.

A student's views are normalized with the mean and deviation of its own data and have its own size. A teacher sees them
as it was trained: back to pixels, and normalized and resized as its own images were.
"""

from dataclasses import dataclass
from typing import Any

import timm
import torch
from jaxtyping import Float
from timm.data import ImageNetInfo, resolve_model_data_config
from torch import Tensor, nn
from torch.nn import functional as F

from relatum.core.types import Features
from relatum.networks.backbones import Backbone

TIMM = "timm:"
"""What the name of a teacher begins with that has timm's weights."""


@dataclass(frozen=True)
class Preparation:
    """What becomes of an image before a network sees it.

    Attributes:
        mean: subtracted from each channel of images in [0, 1].
        std: each channel is divided by this afterwards.
        size: height and width in pixels; 0 leaves what there is.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    size: int

    def like(self, other: "Preparation") -> bool:
        """Whether the two prepare images alike, to four digits."""
        numbers = ((self.mean, other.mean), (self.std, other.std))
        close = all(len(a) == len(b) and max(abs(x - y) for x, y in zip(a, b)) <= 1e-4 for a, b in numbers)
        return close and self.size == other.size


class Teacher(Backbone):
    """A trained network that sees the views of its student as its own images were.

    Views are brought back to [0, 1] and normalized anew, then resized (bilinear, with antialiasing) to the side that
    the teacher was trained with; gray views are given to a teacher of color images as three equal channels.

    Args:
        network: the teacher.
        views: how the views of the student were prepared.
        own: how the teacher's images were.
        why_no_logits: why its classifier is of no use to the student; "" where it is.

    Raises:
        ValueError: for a teacher of gray images and a student of color images.

    Attributes:
        why_no_logits: as given; where it is not empty, `num_classes` is 0 and there are no logits.
    """

    scale: Float[Tensor, "c 1 1"]
    shift: Float[Tensor, "c 1 1"]

    def __init__(self, network: Backbone, views: Preparation, own: Preparation, why_no_logits: str = "") -> None:
        nn.Module.__init__(self)
        if len(views.mean) != network.in_channels and len(views.mean) != 1:
            raise ValueError(
                f"the teacher {network.name} sees {network.in_channels} channel(s), and the images of its student have "
                f"{len(views.mean)}; choose a teacher of color images."
            )
        self.name, self.stem = network.name, network.stem
        self.num_classes = 0 if why_no_logits else network.num_classes
        self.in_channels, self.chunk = len(views.mean), 0
        self.img_size, self.patch_size, self.arguments = network.img_size, network.patch_size, network.arguments
        self.why_no_logits = why_no_logits
        self.model = network
        self.size = 0 if own.size == views.size else own.size
        self.embedding_dim, self.stage_channels = network.embedding_dim, network.stage_channels
        # In pixels of the student's views, for methods that bring maps of the two to one size.
        ratio = views.size / own.size if self.size else 1.0
        self.stage_strides: Any = tuple(stride * ratio for stride in network.stage_strides)
        seen = (torch.tensor(numbers, dtype=torch.float64).view(-1, 1, 1) for numbers in (views.mean, views.std))
        known = (torch.tensor(numbers, dtype=torch.float64).view(-1, 1, 1) for numbers in (own.mean, own.std))
        (view_mean, view_std), (mean, std) = seen, known
        self.register_buffer("scale", (view_std / std).float())
        self.register_buffer("shift", ((view_mean - mean) / std).float())

    @property
    def network(self) -> Backbone:
        """The teacher as it was trained."""
        network: Any = self.model
        return network

    def as_its_own(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n _c _h _w"]:
        """Views of the student as the teacher's own images were prepared."""
        images = images * self.scale + self.shift
        if self.size and images.shape[2:] != (self.size, self.size):
            return F.interpolate(images, (self.size, self.size), mode="bilinear", antialias=True)
        return images

    def forward(self, images: Float[Tensor, "n c h w"]) -> Features:
        features = self.network(self.as_its_own(images))
        return features._replace(logits=None) if self.why_no_logits else features

    def _embed(self, images: Tensor) -> Tensor:
        return self.network.embed(self.as_its_own(images))

    def refuse_images_of(self, channels: int, height: int, width: int) -> None:
        if channels != self.in_channels:
            raise ValueError(
                f"images have {channels} channels; the teacher {self.name} was made for views of {self.in_channels}"
            )
        self.network.refuse_images_of(self.network.in_channels, self.size or height, self.size or width)


def timm_teacher(name: str) -> tuple[Backbone, Preparation, tuple[str, ...] | None]:
    """A network with timm's weights: the network, how its images were prepared, and its classes, where they are known.

    Args:
        name: what timm calls it, such as `resnet50` or `vit_small_patch16_224.dino`.

    Raises:
        ValueError: for a name that timm does not know, or has no weights for.
        OSError: the weights are not in the cache of the Hugging Face hub, and cannot be downloaded.
    """
    known = timm.is_model(name) and timm.models.is_model_pretrained(name)
    published: Any = timm.get_pretrained_cfg(name) if known else None
    classes = int(published.num_classes or 0) if published else 0
    try:
        network = Backbone(name, num_classes=classes, pretrained=True)
    except OSError as error:
        why = " ".join(str(error.__cause__ or error).split())[:200]
        raise OSError(
            f"the weights of {TIMM}{name} are not here and cannot be downloaded ({why}); connect to a network once, or "
            "name a run folder or a file."
        ) from error
    config = resolve_model_data_config(network.model)
    own = Preparation(tuple(config["mean"]), tuple(config["std"]), int(config["input_size"][-1]))
    names = tuple(ImageNetInfo("imagenet-1k").label_names()) if classes == 1000 else None
    return network.eval(), own, names
