"""Write the plain encoder of a run, for use without Relatum, and as ONNX."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from relatum.cli.arguments import parse, run_argument

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
    from relatum.networks.export import save_encoder, save_onnx
    from relatum.training.run_folder import encoder_of

    to = chosen.to or folder / "export"
    backbone, info = encoder_of(folder)
    written = [save_encoder(backbone, to, mean=info.mean, std=info.std, size=info.size, classes=info.classes)]
    if chosen.onnx:
        written.append(save_onnx(backbone, to / "encoder.onnx", info=info))
    print("\n".join(map(str, written)))
