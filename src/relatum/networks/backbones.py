"""Image encoders: any timm model with staged features, and the small CIFAR networks, all giving `Features`."""

from collections.abc import Callable, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

import timm
import torch
from jaxtyping import Float
from timm.layers import convert_sync_batchnorm
from timm.models.efficientnet import EfficientNet
from timm.models.resnet import ResNet
from timm.models.resnetv2 import ResNetV2
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from relatum.core.types import Features
from relatum.networks.pretrained import published
from relatum.networks.small_networks import SMALL_NETWORKS
from relatum.networks.transformers import class_attention, is_transformer, size_arguments

Stem = Literal["imagenet", "cifar", "tiny"]
Module = TypeVar("Module", bound=nn.Module)

BACKBONES: dict[str, str] = {
    "resnet18": "resnet18",
    "resnet34": "resnet34",
    "resnet50": "resnet50",
    "resnet101": "resnet101",
    "resnext50_32x4d": "resnext50_32x4d",
    "resnext101_32x8d": "resnext101_32x8d",
    "wide_resnet50_2": "wide_resnet50_2",
    "wide_resnet101_2": "wide_resnet101_2",
    "seresnet18": "seresnet18",
    "seresnet50": "seresnet50",
    "preact_resnet18": "resnetv2_18",
    "preact_resnet50": "resnetv2_50",
    "mobilenetv1": "mobilenetv1_100",
}
"""The papers' networks: our name -> timm's name. Every other timm model is known by its own name."""


class StemLayers(NamedTuple):
    """Where a family of models keeps the layers that shrink the image before the first stage.

    Attributes:
        conv: the convolution of stride 2, or the sequence of convolutions in its place.
        pool: the pooling of stride 2, if the family has one.
    """

    conv: str
    pool: str | None


STEM_LAYERS: dict[type[nn.Module], StemLayers] = {
    ResNet: StemLayers("conv1", "maxpool"),
    ResNetV2: StemLayers("stem.conv", "stem.pool"),
    EfficientNet: StemLayers("conv_stem", None),
}
"""The families whose stem can change: residual networks (plain, aggregated, wide, squeeze-and-excite), those with
pre-activation, and MobileNets (V1 and V2) and EfficientNets."""


class Backbone(nn.Module):
    """An image encoder that gives the features of its stages, its embedding and its logits.

    The stem decides at what size the first stage works. `imagenet` is the model as timm makes it. `cifar` has one
    3x3 convolution of stride 1 and padding 1 and no max-pool, so that four stages see 32, 16, 8 and 4 pixels of a
    CIFAR image. `tiny` has that convolution and keeps the max-pool. MobileNets have no max-pool to keep or drop, and
    their first stage halves the image: 16, 8, 4 and 2 pixels with `cifar`. The small networks (`resnet20`,
    `wrn_16_2`, ...) are defined with the `cifar` stem and have three stages.

    Up to four stages are given: the deepest feature map of each size. A vision transformer has one size, its stages are
    blocks, and four are given: those that end each quarter of its depth (3, 6, 9 and 12 of 12), the patches as a map,
    before the last normalization. It has no stem to change: `patch_size` says what the image is shrunk by. It takes
    images of any size that its patches divide, as crops of several sizes need it.

    A map of a pre-activation network is the sum that leaves the stage, before the next normalization. timm's
    squeeze-and-excite networks round the squeezed width up to a multiple of 8, which differs from the definition (a
    sixteenth) only where a block has 64 channels: 8 for 4.

    Args:
        name: a name in `BACKBONES` or `SMALL_NETWORKS`, or any timm model with staged features.
        stem: what precedes the first stage.
        num_classes: width of the classifier; 0 for none.
        in_channels: channels of the images.
        pretrained: whether to download timm's weights, or a file that holds them (.safetensors, .pth, .bin); a stem
            other than `imagenet` starts anew.
        img_size: side of the images in pixels, for models that are made for one (transformers); None for timm's.
        patch_size: side of a transformer's patches in pixels; None for timm's.

    Attributes:
        model: the plain model, whose state is what an export holds.
        embedding_dim: width of the embedding.
        stage_channels: channels of each stage, shallow to deep.
        stage_strides: image pixels for each pixel of a stage.
        arguments: what timm needs to make the model beside name, classes and channels.
        chunk: how many images `embed` encodes at a time in training; 0 for all at once.
        listener: is told the images and the embedding of each pass; None for nobody. Copies have none.

    Raises:
        ValueError: for an unknown name, a stem that the family does not define, sizes that the model cannot have, a
            model without staged features or without published weights.

    Source: `cifar` is the stem of SimCLR (Chen et al. 2020, appendix B.9), `tiny` that of W-MSE (Ermolov et al.
    2021); the networks are defined in the papers that `timm`, `small_resnets` and `small_convnets` name.
    """

    model: nn.Module
    listener: Callable[[Tensor, Tensor], None] | None = None

    def __init__(
        self,
        name: str,
        *,
        stem: Stem = "imagenet",
        num_classes: int = 0,
        in_channels: int = 3,
        pretrained: bool | str | Path = False,
        img_size: int | None = None,
        patch_size: int | None = None,
    ) -> None:
        super().__init__()
        if num_classes < 0 or in_channels < 1:
            raise ValueError(
                f"num_classes is {num_classes} and in_channels is {in_channels}; expected at least 0 and 1"
            )
        self.name = name
        self.stem = stem
        self.num_classes = num_classes
        self.in_channels = in_channels
        self.chunk = 0
        self.img_size, self.patch_size = img_size, patch_size
        self.arguments: dict[str, Any] = {}

        model: Any
        shrunk = 1
        if name in SMALL_NETWORKS:
            if stem != "cifar":
                raise ValueError(f"{name} is defined with the CIFAR stem only, not {stem!r}; give stem='cifar'")
            if pretrained:
                raise ValueError(f"{name} has no published weights here; train it, or start from a run of yours")
            if img_size or patch_size:
                raise ValueError(f"{name} takes images of any size: leave img_size and patch_size out")
            model = SMALL_NETWORKS[name](num_classes=num_classes, in_channels=in_channels)
        else:
            self.arguments = size_arguments(_known_to_timm(name, pretrained is True), img_size, patch_size)
            model = _timm_model(name, num_classes, in_channels, pretrained, self.arguments)
            if stem != "imagenet":
                shrunk = _change_stem(model, name, stem, in_channels)
        self.model = model

        self._stages = _stage_indices([info["reduction"] for info in model.feature_info])
        self.stage_channels = tuple(int(model.feature_info[i]["num_chs"]) for i in self._stages)
        self.stage_strides = tuple(int(model.feature_info[i]["reduction"]) // shrunk for i in self._stages)
        self.embedding_dim = int(model.head_hidden_size)
        config = getattr(model, "pretrained_cfg", {})
        self._only_size = config["input_size"][1:] if config.get("fixed_input_size") else None
        if img_size is not None:
            self._only_size = (img_size, img_size)
        self._patch = model.patch_embed.patch_size if "dynamic_img_size" in self.arguments else None

    @staticmethod
    def wrap(
        module: nn.Module,
        *,
        stages: Sequence[str] = (),
        classifier: str = "",
        num_classes: int = 0,
        in_channels: int = 3,
        size: int = 224,
        pool: Literal["auto", "first", "mean"] | Callable[[Any], Tensor] = "auto",
        name: str = "",
    ) -> "Backbone":
        """Any module as a backbone: torchvision's, Hugging Face's, your own.

        The embedding is found in what the module returns for images "n c h w": a tensor "n d" as it is; a map
        "n d h w" averaged over its positions; of an object the `pooler_output`, or without one the
        `last_hidden_state`, by the same rule. Tokens "n t d" must be said, by `pool`.

        The module is not copied. What comes out of `fit` is: the weights in the run folder, which
        `load_encoder(run, backbone)` gives back to a module that was wrapped in the same way. To be trained, measured
        and exported from the command line, a module needs a name that builds it: `relatum.register_backbone`.

        Args:
            module: takes images "n c h w".
            stages: paths of the children whose outputs are the stages, shallow to deep, such as ("layer1", "layer2"):
                maps "n c h w", or the tokens "n t c" of a square image, the patches last. Methods that learn from
                stages refuse a backbone without them.
            classifier: the path of the module's own linear classifier, such as "fc". An identity takes its place, so
                that the module returns the embedding.
            num_classes: width of the classifier on the embedding, 0 for none. It starts with the weights of the
                module's own where they have that width.
            in_channels: channels of the images.
            size: side of the images, in pixels, with which the module is tried once for its widths.
            pool: "first" or "mean" takes the class token, or the mean of all tokens; a function takes what the module
                returns and gives "n d".
            name: what Records call it; "wrapped:" and the class by default.

        Raises:
            ValueError: for a child that is not there, an output without a plain embedding, or a module that fails on
                images of this size.
        """
        from relatum.networks.wrapping import Wrapped  # which is a Backbone

        return Wrapped(
            module,
            stages=stages,
            classifier=classifier,
            num_classes=num_classes,
            in_channels=in_channels,
            size=size,
            pool=pool,
            name=name,
        )

    def __call__(self, images: Float[Tensor, "n c h w"]) -> Features:
        """`forward`, and the listener is told: here, and not in what is compiled."""
        features = super().__call__(images)
        self._tell(images, features.embedding)
        return features

    def forward(self, images: Float[Tensor, "n c h w"]) -> Features:
        """The features of every stage, the embedding, and the logits if there are classes.

        Raises:
            ValueError: for images of other channels, or too small for the deepest stage.
        """
        self.refuse_images_of(*images.shape[1:])
        model: Any = self.model
        deepest, stages = model.forward_intermediates(images, indices=list(self._stages))
        embedding = model.forward_head(deepest, pre_logits=True)
        logits = None
        if self.num_classes:
            classifier = model.get_classifier()
            # timm's pre-activation networks classify with a 1x1 convolution.
            pixel = embedding[:, :, None, None] if isinstance(classifier, nn.Conv2d) else embedding
            logits = classifier(pixel).flatten(1)
        return Features(tuple(stages), embedding, logits)

    def embed(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d"]:
        """The embedding alone: what `forward` gives, and no map is kept for the stages.

        In training with `chunk`, a chunk of images at a time keeps its embeddings only, and is computed again, with
        the same randomness, when its gradient is due (Gao et al. 2021, "Scaling Deep Contrastive Learning Batch Size
        under Memory Limited Setup"): exact for all networks but those whose output for an image depends on its batch.

        Raises:
            ValueError: as `forward`.
        """
        self.refuse_images_of(*images.shape[1:])
        if self.chunk and self.training and torch.is_grad_enabled():
            chunks = images.split(self.chunk)
            embedding = torch.cat([checkpoint(self._embed, chunk, use_reentrant=False) for chunk in chunks])
        else:
            embedding = self._embed(images)
        self._tell(images, embedding)
        return embedding

    def _tell(self, images: Tensor, embedding: Tensor) -> None:
        if self.listener is not None:
            self.listener(images, embedding)

    def attention(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n heads gh gw"]:
        """How much a transformer's class token looks at each patch in the last block: see `class_attention`.

        Raises:
            ValueError: as `forward`; NoAttentionError for a model without such attention.
        """
        self.refuse_images_of(*images.shape[1:])
        return class_attention(self.model, images)

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Compile `forward` and `embed` in place, as `nn.Module.compile` does it; copies are plain again."""
        super().compile(*args, **kwargs)
        self.__dict__["_embed"] = torch.compile(self._embed, *args, **kwargs)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in super().__getstate__().items() if name not in ("_embed", "listener")}

    def _embed(self, images: Tensor) -> Tensor:
        model: Any = self.model
        return model.forward_head(model.forward_features(images), pre_logits=True)

    def refuse_images_of(self, channels: int, height: int, width: int) -> None:
        """Raise if images of this shape cannot be encoded.

        Raises:
            ValueError: other channels, another size than the only one, or too small for the deepest stage.
        """
        if channels != self.in_channels:
            raise ValueError(
                f"images have {channels} channels; {self.name} was built for {self.in_channels}: "
                f"convert the images, or build it with in_channels={channels}"
            )
        if self._patch is not None:
            if height % self._patch[0] or width % self._patch[1] or not min(height, width):
                raise ValueError(
                    f"images are {height}x{width}, which the patches of {self.name} do not divide; expected multiples "
                    f"of {self._patch[0]}: resize them, or choose another patch_size"
                )
        elif self._only_size is not None and (height, width) != tuple(self._only_size):
            expected = "x".join(map(str, self._only_size))
            raise ValueError(f"images are {height}x{width}; {self.name} takes {expected} only: resize them")
        if min(height, width) < self.stage_strides[-1]:
            hint = ", or choose stem='cifar'" if type(self.model) in STEM_LAYERS and self.stem != "cifar" else ""
            raise ValueError(
                f"images are {height}x{width}; {self.name} with the {self.stem} stem shrinks them "
                f"{self.stage_strides[-1]} times, expected at least that size: resize them{hint}"
            )


def share_batch_statistics(module: Module) -> Module:
    """The same module, whose batch normalization is over the batches of all processes: on GPUs only."""
    # timm's, not torch's: that takes the activation away from the layers that normalize and activate in one.
    return convert_sync_batchnorm(module)


def takes_size(name: str) -> bool:
    """Whether a backbone's network is made for a size of images: a vision transformer."""
    timm_name = BACKBONES.get(name, name)
    return timm.is_model(timm_name) and is_transformer(timm_name)


def _known_to_timm(name: str, pretrained: bool) -> str:
    """timm's name of a network, which must be one, with weights where they are wanted."""
    timm_name = BACKBONES.get(name, name)
    tag = "." in timm_name
    if not timm.is_model(timm_name) or (tag and not timm.models.is_model_pretrained(timm_name)):
        known = dict.fromkeys([*BACKBONES, *SMALL_NETWORKS, *timm.list_models()])
        close = get_close_matches(name, known, n=3)
        ours = ", ".join([*BACKBONES, *SMALL_NETWORKS])
        hint = f"did you mean {' or '.join(close)}?" if close else f"expected a timm model or one of {ours}"
        raise ValueError(f"unknown backbone {name!r}; {hint}")
    if pretrained and not timm.models.is_model_pretrained(timm_name):
        raise ValueError(f"timm has no weights for {name}; give pretrained=False, or choose another backbone")
    return timm_name


def _timm_model(
    name: str, num_classes: int, in_channels: int, pretrained: bool | str | Path, arguments: dict[str, Any]
) -> Any:
    """timm's model of this name, checked to have what `Backbone` needs."""
    wanted = {"num_classes": num_classes, "in_chans": in_channels, **arguments}
    model = published(BACKBONES.get(name, name), pretrained, wanted)
    needed = ("forward_intermediates", "forward_head", "get_classifier", "feature_info", "head_hidden_size")
    missing = [attribute for attribute in needed if not hasattr(model, attribute)]
    if missing or not isinstance(model.get_classifier(), nn.Module):
        lacks = ", ".join(missing) or "a single classifier"
        raise ValueError(f"{name} lacks {lacks}; expected a timm model with staged features, such as resnet18")
    return model


def _change_stem(model: nn.Module, name: str, stem: Stem, in_channels: int) -> int:
    """Put a small-image stem in place of a timm model's own; return how many times less it shrinks the images.

    The new convolution starts as timm's do, from a normal of variance 2 / fan-out (He et al. 2015).
    """
    if is_transformer(BACKBONES.get(name, name)):
        raise ValueError(
            f"stem is {stem!r}, and {name} is a vision transformer, which has no stem to change; give stem='imagenet', "
            "and for small images a patch_size such as 4"
        )
    layers = STEM_LAYERS.get(type(model))
    replaced: list[nn.Conv2d] = []
    if layers is not None and any(path == layers.conv for path, _ in model.named_modules()):
        replaced = [m for m in model.get_submodule(layers.conv).modules() if isinstance(m, nn.Conv2d)]
    # Variants that standardize weights or pad like TensorFlow would lose it with their first convolution.
    if layers is None or not replaced or any(type(m) is not nn.Conv2d for m in replaced):
        families = ", ".join(family.__name__ for family in STEM_LAYERS)
        raise ValueError(
            f"stem {stem!r} is not defined for {name} ({type(model).__name__}); expected a plain model of "
            f"{families}: choose one of {', '.join(BACKBONES)}, or give stem='imagenet'"
        )
    if stem == "tiny" and layers.pool is None:
        raise ValueError(f"stem 'tiny' keeps the max-pool and {name} has none; give stem='cifar'")

    conv = nn.Conv2d(in_channels, replaced[-1].out_channels, 3, padding=1, bias=False)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    model.set_submodule(layers.conv, conv)
    if stem == "cifar" and layers.pool is not None:
        model.set_submodule(layers.pool, nn.Identity())
        return 4
    return 2


def _stage_indices(reductions: list[int]) -> tuple[int, ...]:
    """Which of a model's feature maps are its stages: the deepest of each size, the last four of these.

    A model with maps of one size only has none that end a stage: those at each quarter of its depth are taken.
    """
    depth = len(reductions)
    if len(set(reductions)) == 1:
        return tuple(sorted({depth * quarter // 4 - 1 for quarter in range(1, 5)} - {-1}))
    last = {reduction: i for i, reduction in enumerate(reductions)}
    return tuple(sorted(last.values())[-4:])
