"""What a recipe takes from other runs: teachers, and weights to start from."""

import logging
from pathlib import Path

import torch

from relatum.data.sources import Source
from relatum.networks.backbones import Backbone
from relatum.networks.export import load_encoder

log = logging.getLogger(__name__)


def encoder_of(path: str) -> Path:
    """The weights that a run folder, or the path of a file, names."""
    return Path(path) / "encoder.safetensors" if Path(path).is_dir() else Path(path)


def load_teacher(path: str, source: Source, size: int, *, decoded: bool = True) -> Backbone:
    """The trained classifier of a run folder, checked against the data that its student will see.

    Args:
        path: the run folder, or a file of an encoder.
        source: the data.
        size: of the view, in pixels.
        decoded: whether the mean and deviation of the data are known.

    Raises:
        FileNotFoundError, ValueError: where there is none, or it was made for other classes, normalization or size.
    """
    teacher, info = load_encoder(encoder_of(path))
    expected = (len(source.classes), tuple(source.mean), tuple(source.std), size)
    found = (info.num_classes, info.mean, info.std, info.size)
    for what, a, b in zip(("classes", "mean", "std", "size"), found, expected):
        if what in ("mean", "std") and not decoded:
            continue
        same = torch.allclose(torch.tensor(a, dtype=torch.float64), torch.tensor(b, dtype=torch.float64), atol=1e-4)
        if not same:
            raise ValueError(
                f"the teacher {path} was trained with {what} {a}, and its student is to be trained with {b}: it would "
                "see other images than it knows. Train the teacher on the same data, or the student as the teacher was."
            )
    for number, (known, given) in enumerate(zip(info.classes or (), source.classes)):
        if known != given:
            raise ValueError(
                f"class {number} is {known!r} to the teacher {path} and {given!r} in the data of its student: it would "
                "teach the wrong classes. Train the teacher on data with the same classes in the same order."
            )
    return teacher


def start_from(backbone: Backbone, path: Path) -> None:
    """Copy all weights but the classifier's from a file of an encoder of the same architecture."""
    donor, info = load_encoder(path)
    if (info.architecture, info.stem, info.patch_size) != (backbone.name, backbone.stem, backbone.patch_size):
        found, wanted = (
            f"{name} with stem {stem}" + (f" and patches of {patch}" if patch else "")
            for name, stem, patch in (
                (info.architecture, info.stem, info.patch_size),
                (backbone.name, backbone.stem, backbone.patch_size),
            )
        )
        patch = f" --model.patch-size {info.patch_size}" if info.patch_size != backbone.patch_size else ""
        raise ValueError(
            f"{path} holds {found}; expected {wanted}: choose --model.name {info.architecture} "
            f"--model.stem {info.stem}{patch}."
        )
    own = backbone.model.state_dict()
    kept = {k: v for k, v in donor.model.state_dict().items() if k in own and own[k].shape == v.shape}
    missing, _ = backbone.model.load_state_dict(kept, strict=False)
    log.info("started from %s; fresh: %s", path, ", ".join(missing) or "nothing")
