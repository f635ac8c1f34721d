"""The plain encoder as files that outlive Relatum: safetensors with a script that rebuilds it, and ONNX."""

import copy
import hashlib
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from relatum.core.files import write_durably
from relatum.networks.backbones import Backbone, Stem
from relatum.networks.registered import NoBuilderError, build_backbone
from relatum.networks.script import script
from relatum.networks.small_networks import SMALL_NETWORKS, defined_in

ONNX_TOLERANCE = 1e-3
"""How far ONNX Runtime may be from PyTorch: the largest difference of an output over its largest value."""


@dataclass(frozen=True)
class EncoderInfo:
    """What the header of an encoder's file says.

    Attributes:
        architecture: the backbone's name.
        stem: what precedes its first stage.
        in_channels: channels of the images.
        num_classes: width of the classifier; 0 for none.
        mean: subtracted from each channel of images in [0, 1].
        std: each channel is divided by this afterwards.
        size: height and width of the training images, in pixels.
        classes: the name of each class, or None.
        relatum: the version that wrote the file.
        img_size: side of the images that the network was made for; None for timm's.
        patch_size: side of a transformer's patches; None for timm's.
    """

    architecture: str
    stem: Stem
    in_channels: int
    num_classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    size: int
    classes: tuple[str, ...] | None
    relatum: str
    img_size: int | None = None
    patch_size: int | None = None


def describe(
    backbone: Backbone,
    *,
    mean: Sequence[float],
    std: Sequence[float],
    size: int,
    classes: Sequence[str] | None = None,
) -> EncoderInfo:
    """What must be known of a backbone, beside its weights, to use it.

    Args:
        backbone: the encoder.
        mean: of the training images in [0, 1], a number per channel.
        std: likewise, above 0.
        size: height and width of the training images, in pixels.
        classes: the names of the classes, as many as the classifier has.

    Raises:
        ValueError: if a number of the description contradicts the backbone.
    """
    if len(mean) != backbone.in_channels or len(std) != backbone.in_channels or min(std) <= 0:
        raise ValueError(
            f"mean is {tuple(mean)} and std is {tuple(std)}; expected {backbone.in_channels} numbers each, "
            f"one for each channel of {backbone.name}, and std above 0"
        )
    if backbone.stage_strides and size < backbone.stage_strides[-1]:
        raise ValueError(f"size is {size}; {backbone.name} takes at least {backbone.stage_strides[-1]} pixels")
    if classes is not None and len(classes) != backbone.num_classes:
        raise ValueError(
            f"classes has {len(classes)} names; expected {backbone.num_classes}, the width of the classifier"
        )
    return EncoderInfo(
        architecture=backbone.name,
        stem=backbone.stem,
        in_channels=backbone.in_channels,
        num_classes=backbone.num_classes,
        mean=tuple(float(m) for m in mean),
        std=tuple(float(s) for s in std),
        size=size,
        classes=None if classes is None else tuple(classes),
        relatum=version("relatum"),
        img_size=backbone.img_size,
        patch_size=backbone.patch_size,
    )


def rebuilt(
    description: Mapping[str, Any], weights: Mapping[str, Tensor], backbone: Backbone | None = None
) -> tuple[Backbone, EncoderInfo]:
    """The backbone of a description and the state of its model, in eval mode on the CPU.

    Args:
        description: the fields of an `EncoderInfo`, lists in the place of tuples allowed.
        weights: the state of `backbone.model`.
        backbone: gets the weights; None builds one by its name.

    Raises:
        ValueError: if the two do not agree.
    """
    try:
        fields = dict(description)
        for name in ("mean", "std", "classes"):
            fields[name] = None if fields[name] is None else tuple(fields[name])
        info = EncoderInfo(**fields)
        if backbone is None:
            backbone = build_backbone(
                info.architecture,
                stem=info.stem,
                num_classes=info.num_classes,
                in_channels=info.in_channels,
                size=info.size,
                img_size=info.img_size,
                patch_size=info.patch_size,
            )
        backbone.model.load_state_dict(weights)
    except NoBuilderError:
        raise
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ValueError(" ".join(str(error).split())) from error
    return backbone.eval(), info


def save_encoder(
    backbone: Backbone,
    path: str | Path,
    *,
    mean: Sequence[float],
    std: Sequence[float],
    size: int,
    classes: Sequence[str] | None = None,
) -> Path:
    """Write the plain model's weights, and beside them the script that rebuilds it without Relatum.

    `encoder.safetensors` holds exactly the state of `backbone.model`, under its own names; in the header are, under
    `relatum`, an `EncoderInfo` as JSON, and, under `sha256`, the checksum of that text and of all weights.
    `encoder.py` defines `encoder()`, which builds that model from timm and loads the weights strictly. For a network
    of the CIFAR benchmarks, a copy of the file that defines it is the third.

    Args:
        backbone: the trained encoder.
        path: the folder of the files, made if absent; or the name of the weights, ending in `.safetensors`.
        mean, std, size, classes: as for `describe`.

    Returns:
        The file of the weights.

    Raises:
        ValueError: if a number of the description contradicts the backbone.
    """
    info = describe(backbone, mean=mean, std=std, size=size, classes=classes)
    file = _weights_file(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in backbone.model.state_dict().items()}
    text = json.dumps(asdict(info))
    content = save(state, metadata={"relatum": text, "sha256": checksum(text, state)})
    write_durably(file, lambda part: part.write(content))
    file.with_suffix(".py").write_text(script(backbone, asdict(info)), encoding="utf-8")
    if backbone.name in SMALL_NETWORKS:
        source = Path(str(defined_in(backbone.name)[0].__file__))
        shutil.copyfile(source, file.with_name(source.name))
    return file


def load_encoder(path: str | Path, backbone: Backbone | None = None) -> tuple[Backbone, EncoderInfo]:
    """The backbone of an encoder's file, in eval mode on the CPU, and what its header says.

    Args:
        path: what `save_encoder` was given: the folder, or the file.
        backbone: gets the weights, and is returned: for a module that was wrapped, which no name builds. None builds
            the backbone that the header names.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is damaged, or was not written by `save_encoder`.
    """
    file = _weights_file(path)
    if not file.is_file():
        raise FileNotFoundError(f"no encoder at {file}; expected a file written by save_encoder, or its folder")
    try:
        with safe_open(file, framework="pt") as content:
            header = content.metadata() or {}
            state = {name: content.get_tensor(name) for name in content.keys()}  # noqa: SIM118 (no mapping)
    except SafetensorError as error:
        raise ValueError(f"{file} is damaged ({error}); expected safetensors: export the encoder again") from error
    if "relatum" not in header:
        raise ValueError(f"{file} has no description of its model; expected a file written by save_encoder")
    if header.get("sha256") != checksum(header["relatum"], state):
        raise ValueError(
            f"{file} is damaged: weights and description do not match the checksum in its header. Export the encoder "
            "again, or copy the file again from where it came"
        )
    try:
        return rebuilt(json.loads(header["relatum"]), state, backbone)
    except NoBuilderError:  # nothing is wrong with the file
        raise
    except ValueError as error:
        raise ValueError(
            f"the weights and the description in {file} do not agree ({error}); export the encoder again"
        ) from error


def is_encoder(path: str | Path) -> bool:
    """Whether a file was written by `save_encoder`, or begun to be: another .safetensors has no such header."""
    try:
        with safe_open(_weights_file(path), framework="pt") as content:
            return "relatum" in (content.metadata() or {})
    except (SafetensorError, OSError):
        return False


def checksum(description: str, state: Mapping[str, Tensor]) -> str:
    """SHA-256 of a description and of all tensors, with their names, types and shapes."""
    digest = hashlib.sha256(description.encode())
    for name, tensor in sorted(state.items()):
        digest.update(f"\n{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def save_onnx(
    backbone: Backbone,
    path: str | Path,
    images: Float[Tensor, "n c h w"] | None = None,
    *,
    info: EncoderInfo | None = None,
) -> Path:
    """Write the encoder as ONNX, for any batch size, and check it in ONNX Runtime against PyTorch.

    The input is `images`, normalized: the file says how, in words at its input and as the JSON of an `EncoderInfo`
    under `relatum` in its metadata. The outputs are `embedding` and, if there are classes, `logits`. For each
    output y of PyTorch and y' of ONNX Runtime, on the whole batch and on its first image alone,
    max |y' - y| <= `ONNX_TOLERANCE` max |y|, or no file is left.

    Args:
        backbone: the trained encoder; it is exported in eval mode and float32, and not changed.
        path: the file to write.
        images: a batch of images to check with, normalized as in training; the file takes their size only. None makes
            noise of the size in `info`.
        info: what the encoder's file says of it (see `load_encoder`); None leaves the normalization unsaid.

    Returns:
        The file.

    Raises:
        ImportError: without the packages of `relatum[onnx]`.
        ValueError: for no images, or neither images nor an `info` to make them from.
        RuntimeError: if ONNX Runtime's outputs differ.
    """
    try:
        import onnx  # noqa: F401 (torch needs it, and says so less clearly)
        import onnxruntime
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ImportError(
            f"ONNX export needs {error.name}, which is not installed: pip install 'relatum[onnx]'"
        ) from error
    if images is None:
        if info is None:
            raise ValueError("neither images nor info is given; expected one of them, for the size of the images")
        images = normalized_noise(info)
    if len(images) == 0:
        raise ValueError("images is empty; expected at least one image to check the export on")

    outputs = _Outputs(copy.deepcopy(backbone).cpu().float()).eval()
    images = images.detach().cpu().float().contiguous()
    with torch.no_grad():
        expected = outputs(images)
    # A batch of one would be taken for a constant.
    example = images if len(images) > 1 else images.repeat(2, 1, 1, 1)
    program = torch.onnx.export(
        outputs,
        (example,),
        input_names=["images"],
        output_names=["embedding", "logits"][: len(expected)],
        dynamic_shapes={"images": {0: torch.export.Dim.DYNAMIC}},
        dynamo=True,
        verbose=False,
    )
    assert program is not None
    if info is not None:
        program.model.metadata_props["relatum"] = json.dumps(asdict(info))
        program.model.graph.inputs[0].doc_string = _preprocessing(info)
    file = Path(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(file.name + ".part")
    program.save(part, external_data=False)
    try:
        session = onnxruntime.InferenceSession(part, providers=["CPUExecutionProvider"])
        for count in (len(images), 1):
            found = session.run(None, {"images": images[:count].numpy()})
            for output, y, other in zip(session.get_outputs(), expected, found, strict=True):
                difference = (torch.from_numpy(other) - y[:count]).abs().max().item()
                largest = y[:count].abs().max().item()
                if not difference <= ONNX_TOLERANCE * largest:
                    raise RuntimeError(
                        f"{output.name} of {count} images differs by {difference:.2g} between ONNX Runtime and "
                        f"PyTorch; expected at most {ONNX_TOLERANCE} of its largest value, {largest:.2g}: "
                        f"no file was written to {file}; report this with the versions of torch and onnxruntime"
                    )
        os.replace(part, file)
    finally:
        part.unlink(missing_ok=True)
    return file


def normalized_noise(info: EncoderInfo, count: int = 8) -> Float[Tensor, "n c h w"]:
    """Images of uniform noise, the same each time, normalized as the encoder's training images were."""
    shape = (count, info.in_channels, info.size, info.size)
    noise = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (info.mean, info.std))
    return (noise - mean) / std


def _preprocessing(info: EncoderInfo) -> str:
    """What becomes of an image before it is the encoder's input, in words."""
    channels = "RGB" if info.in_channels == 3 else f"{info.in_channels} channel(s)"
    return (
        f"{channels}, values in [0, 1], {info.size} x {info.size} pixels, less mean {list(info.mean)} and over std "
        f"{list(info.std)} of each channel; n x {info.in_channels} x {info.size} x {info.size}, float32"
    )


class _Outputs(nn.Module):
    """What an ONNX file computes: the embedding, and the logits if there are classes."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, images: Float[Tensor, "n c h w"]) -> tuple[Tensor, ...]:
        _, embedding, logits = self.backbone(images)
        return (embedding,) if logits is None else (embedding, logits)


def _weights_file(path: str | Path) -> Path:
    path = Path(path)
    return path if path.suffix == ".safetensors" else path / "encoder.safetensors"
