"""The program beside the weights of an encoder, which rebuilds its model without Relatum."""

from collections.abc import Mapping
from typing import Any

from relatum.networks.backbones import BACKBONES, STEM_LAYERS, Backbone
from relatum.networks.small_networks import SMALL_NETWORKS, defined_in
from relatum.networks.wrapping import Wrapped

_SCRIPT = '''"""{title}, exported by Relatum {relatum}. Relatum is not needed."""

from pathlib import Path

{imports}

MEAN = {mean}
STD = {std}
SIZE = {size}
CLASSES = {classes}


def encoder({given}) -> nn.Module:
    """The trained model.{whose} Images are in [0, 1], less MEAN, over STD, n x {in_channels} x SIZE x SIZE.

    The embedding is {embedding}.
    """
    {build}
    model.load_state_dict(load_file(Path(__file__).with_suffix(".safetensors")))
    return model.eval()
{main}
'''
_MAIN = """

if __name__ == "__main__":
    print(encoder())"""


def script(backbone: Backbone, info: Mapping[str, Any]) -> str:
    """The program that rebuilds the model from timm, from the copy of a file, or from a module of its owner.

    Args:
        backbone: the encoder.
        info: the fields of its `EncoderInfo`.
    """
    name, stem, classes, channels = (info[field] for field in ("architecture", "stem", "num_classes", "in_channels"))
    imports = ["from safetensors.torch import load_file", "from torch import nn"]
    if isinstance(backbone, Wrapped):
        return _SCRIPT.format(**info, **_wrapped(backbone), imports="\n".join(imports), title=name, main="")
    sizes = "".join(f", {name}={value}" for name, value in backbone.arguments.items())
    if backbone.name in SMALL_NETWORKS:
        source, called = defined_in(backbone.name)
        imports += ["", f"from {source.__name__.rpartition('.')[2]} import {called}"]
        create = f'{called}["{name}"](num_classes={classes}, in_channels='
    else:
        imports.insert(0, "import timm")
        timm_name = BACKBONES.get(backbone.name, backbone.name)
        create = f'timm.create_model("{timm_name}", num_classes={classes}, in_chans='
    build = [f"model = {create}{channels}{sizes})"]
    if stem != "imagenet" and backbone.name not in SMALL_NETWORKS:
        layers = STEM_LAYERS[type(backbone.model)]
        conv: Any = backbone.model.get_submodule(layers.conv)
        arguments = f"{channels}, {conv.out_channels}, 3, padding=1, bias=False"
        build.append(f"model.{layers.conv} = nn.Conv2d({arguments})")
        if stem == "cifar" and layers.pool is not None:
            build.append(f"model.{layers.pool} = nn.Identity()")
    embedding = "`model.forward_head(model.forward_features(images), pre_logits=True)`"
    title = f"{name} with the {stem} stem"
    own = {"given": "", "whose": "", "main": _MAIN}
    parts = {"title": title, "embedding": embedding, "build": "\n    ".join(build), **own}
    return _SCRIPT.format(**info, **parts, imports="\n".join(imports))


def _wrapped(backbone: Wrapped) -> dict[str, str]:
    """The parts of the program for a module that its owner makes."""
    kind = type(backbone.module)
    source = f"{kind.__module__}.{kind.__qualname__}"
    build, embedding = "", "what was chosen of the output of the module when it was wrapped"
    if backbone.num_classes:
        build = f"model = nn.ModuleDict(dict(module=model, classifier=nn.Linear({backbone.embedding_dim}, "
        build += f"{backbone.num_classes})))"
        embedding += ' `model["module"]`; `model["classifier"]` takes it'
    whose = f" Give it the module as it was wrapped: a {source}."
    return {"given": "model: nn.Module", "whose": whose, "embedding": embedding, "build": build}
