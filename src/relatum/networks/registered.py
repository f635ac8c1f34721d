"""Backbones by name: those that Relatum knows, and those that others have registered."""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import nn

from relatum.core.plugins import Registry
from relatum.networks.backbones import BACKBONES, Backbone, Stem
from relatum.networks.small_networks import SMALL_NETWORKS
from relatum.networks.wrapping import Wrapped

WRAPPED = "wrapped:"  # what the name of a module begins with that was wrapped in Python


class NoBuilderError(ValueError):
    """A name that builds no backbone here."""


BUILDERS: Registry[Callable[..., nn.Module]] = Registry("backbone", {})
"""Registered backbones: a name -> a function that gives the module, or `Backbone.wrap` of it. It is called with those
of the keywords `num_classes`, `in_channels`, `size` (the side of the images in pixels) and `pretrained` that it has."""


def build_backbone(
    name: str,
    *,
    stem: Stem = "imagenet",
    num_classes: int = 0,
    in_channels: int = 3,
    size: int = 224,
    pretrained: bool | str | Path = False,
    img_size: int | None = None,
    patch_size: int | None = None,
) -> Backbone:
    """The backbone of a name: a registered one, or as `Backbone` knows it.

    Args:
        name: a name in `BUILDERS`, or any that `Backbone` takes.
        size: side of the images, for a registered one.
        stem, num_classes, in_channels, pretrained, img_size, patch_size: as for `Backbone`.

    Raises:
        NoBuilderError: for an unknown name, and for a module that was wrapped, which no name builds.
        ValueError: as `Backbone`, and for a stem that a registered one has not.
    """
    if name.startswith(WRAPPED):
        raise NoBuilderError(
            f"{name} is a module that was wrapped in Python, and no name builds it: give it as "
            "fit(recipe, run, backbone=Backbone.wrap(...)) and load_encoder(run, backbone), or register what makes it, "
            f"@relatum.register_backbone('my-{name.removeprefix(WRAPPED).lower()}'), and name that file by --plugin"
        )
    if name in BACKBONES or name in SMALL_NETWORKS or name not in BUILDERS:
        try:
            return Backbone(
                name,
                stem=stem,
                num_classes=num_classes,
                in_channels=in_channels,
                pretrained=pretrained,
                img_size=img_size,
                patch_size=patch_size,
            )
        except ValueError as error:
            if not str(error).startswith("unknown backbone"):
                raise
            hint = f"; registered are {', '.join(BUILDERS)}" if BUILDERS else ""
            raise NoBuilderError(f"{error}{hint}. If it is of a plugin, name its file: --plugin FILE.") from None
    if stem != "imagenet":
        raise ValueError(
            f"stem is {stem!r}, and {name} is a registered backbone, which has no stem to change: choose "
            "--model.stem imagenet"
        )
    return _registered(name, num_classes, in_channels, size, pretrained)


def _registered(name: str, num_classes: int, in_channels: int, size: int, pretrained: bool | str | Path) -> Backbone:
    builder = BUILDERS[name]
    taken = inspect.signature(builder).parameters
    asked: dict[str, Any] = {"num_classes": num_classes, "in_channels": in_channels, "size": size}
    if pretrained and "pretrained" not in taken:
        raise ValueError(f"{name} has no pretrained weights: its builder takes no keyword pretrained")
    made = builder(**{k: v for k, v in {**asked, "pretrained": pretrained}.items() if k in taken})
    if not isinstance(made, Backbone):
        if not isinstance(made, nn.Module):
            raise ValueError(f"the builder of {name} gives a {type(made).__name__}; expected a module or a Backbone")
        made = Wrapped(made, num_classes=num_classes, in_channels=in_channels, size=size)
    found = (made.num_classes, made.in_channels)
    if found != (num_classes, in_channels):
        raise ValueError(
            f"the builder of {name} gives {found[0]} classes and {found[1]} channels, and was asked for {num_classes} "
            f"and {in_channels}: let it take the keywords num_classes and in_channels, and hand them to Backbone.wrap"
        )
    made.name = name
    return made
