"""Write the plain encoder of a run, for use without Relatum, and as ONNX."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from relatum.cli.arguments import parse, run_argument

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from relatum.networks.export import EncoderInfo

USAGE = "RUN [--to DIR] [--onnx]"


@dataclass(frozen=True)
class Export:
    """The plain encoder as files."""

    to: Path | None = None
    """The folder; RUN/export if not given."""
    onnx: bool = False
    """Write encoder.onnx too, checked against PyTorch; it needs neither the data nor a network."""


def run(args: Sequence[str]) -> None:
    """Export."""
    folder, rest = run_argument("export", args)
    chosen = parse(Export, f"export {folder}", rest)
    from relatum.networks.export import load_encoder, save_encoder, save_onnx
    from relatum.recipes import building

    to = chosen.to or folder / "export"
    backbone, info = load_encoder(building.encoder_of(str(folder)))
    written = [save_encoder(backbone, to, mean=info.mean, std=info.std, size=info.size, classes=info.classes)]
    if chosen.onnx:
        written.append(save_onnx(backbone, to / "encoder.onnx", _images(info)))
    print("\n".join(map(str, written)))


def _images(info: "EncoderInfo") -> "Float[Tensor, 'n c h w']":
    """Images of the encoder's kind and size, made here: an export needs no data."""
    import torch

    pixels = torch.rand(8, info.in_channels, info.size, info.size, generator=torch.Generator().manual_seed(0))
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (info.mean, info.std))
    return (pixels - mean) / std
