"""What timm's vision transformers need beside a name: sizes of images and patches, and how to read their attention."""

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import timm
import torch
from jaxtyping import Float
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

MODULES = ("vision_transformer", "deit")
"""Where timm keeps the plain transformers (Dosovitskiy et al. 2021), DeiT's among them."""


class NoAttentionError(ValueError):
    """A network has no class token that looks at patches."""


def is_transformer(timm_name: str) -> bool:
    """Whether timm's model of this name is a plain vision transformer."""
    return timm.models.is_model_in_modules(timm_name.partition(".")[0], MODULES)


def size_arguments(timm_name: str, img_size: int | None, patch_size: int | None) -> dict[str, Any]:
    """The keywords that a timm model of these sizes is made with; none where all is timm's default.

    A plain transformer takes images of any size that its patches divide: its position embedding is made for
    `img_size` and interpolated for others (timm's `dynamic_img_size`), so that crops of two sizes pass one network.

    Args:
        timm_name: a model that timm knows.
        img_size: side of the images in pixels; None for timm's.
        patch_size: side of a patch in pixels; None for timm's.

    Raises:
        ValueError: for a size that this model has none of, or that patches do not divide.
    """
    if img_size is None and patch_size is None and not is_transformer(timm_name):
        return {}
    with torch.device("meta"):
        model: Any = timm.create_model(timm_name)
    taken = inspect.signature(type(model).__init__).parameters
    asked = {"img_size": img_size, "patch_size": patch_size}
    given: dict[str, Any] = {name: size for name, size in asked.items() if size is not None}
    for name, size in given.items():
        if name not in taken:
            raise ValueError(
                f"{name} is {size}, and {timm_name} ({type(model).__name__}) has none to set; leave it out, or choose "
                "a transformer such as vit_tiny_patch16_224"
            )
        if size < 1:
            raise ValueError(f"{name} is {size}; expected a positive number of pixels")
    if not isinstance(model, VisionTransformer):
        return given
    patch = patch_size or model.patch_embed.patch_size[0]
    side = img_size or model.patch_embed.img_size[0]
    if side % patch:
        raise ValueError(
            f"img_size {side} is no multiple of patch_size {patch} of {timm_name}: choose an img_size such as "
            f"{max(1, side // patch) * patch}, or a patch_size that divides {side}"
        )
    return given | {"dynamic_img_size": True}


def patch_projection(model: nn.Module) -> nn.Module:
    """What turns the patches of an image into tokens.

    Raises:
        ValueError: for a model that has none.
    """
    found = getattr(getattr(model, "patch_embed", None), "proj", None)
    if not isinstance(found, nn.Module):
        raise ValueError(
            f"{type(model).__name__} projects no patches that could be frozen; leave freeze_patches out, or choose a "
            "vision transformer such as vit_tiny_patch16_224"
        )
    return found


@torch.no_grad()
def class_attention(model: nn.Module, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n heads gh gw"]:
    """How much the class token looks at each patch in the last block, head by head: the weights of its softmax.

    Those of one head sum to one less what the class token gives to itself and to register tokens. Caron et al. 2021,
    Figures 1 and 3.

    Args:
        model: a plain transformer of timm with a class token, in evaluation mode.
        images: normalized.

    Raises:
        NoAttentionError: for a model that is none, or has no class token.
    """
    if not isinstance(model, VisionTransformer) or model.cls_token is None:
        raise NoAttentionError(
            f"{type(model).__name__} has no attention of a class token to show; expected a vision transformer with "
            "one, such as vit_tiny_patch16_224"
        )
    attention: Any = model.blocks[-1].attn
    with _kept_input(attention) as kept:
        model.forward_features(images)
    patch = model.patch_embed.patch_size
    grid = images.shape[2] // patch[0], images.shape[3] // patch[1]
    return kept[0][:, :, 0, model.num_prefix_tokens :].float().unflatten(2, grid)


@contextmanager
def _kept_input(attention: Any) -> Iterator[list[Tensor]]:
    """The weights of an attention layer, which it hands to its dropout where it does not use the fused kernel."""
    kept: list[Tensor] = []
    fused, attention.fused_attn = attention.fused_attn, False
    handle = attention.attn_drop.register_forward_pre_hook(lambda _, given: kept.append(given[0]))
    try:
        yield kept
    finally:
        handle.remove()
        attention.fused_attn = fused
