"""What a recipe takes from other runs: teachers, and weights to start from."""

import logging
from collections.abc import Sequence
from pathlib import Path

from relatum.data.sources import Source
from relatum.networks.backbones import Backbone
from relatum.networks.export import load_encoder
from relatum.networks.teachers import TIMM, Preparation, Teacher, timm_teacher

log = logging.getLogger(__name__)


def weights_file(path: str) -> Path:
    """The file of weights that a run folder, or its own path, names.

    Raises:
        FileNotFoundError: there is none.
    """
    file = Path(path) / "encoder.safetensors" if Path(path).is_dir() else Path(path)
    if not file.is_file():
        raise FileNotFoundError(f"no encoder at {file}; expected a finished run's folder, or a file of weights")
    return file


def load_teacher(path: str, source: Source, size: int, *, decoded: bool = True) -> Backbone:
    """The encoder of a run folder or file, or one with timm's weights, that sees its student's views as its own images.

    Its logits are kept where it was trained on the classes of the data, in their order.

    Args:
        path: the run folder, a file of an encoder, or `timm:NAME`.
        source: the data.
        size: of the view, in pixels.
        decoded: whether the mean and deviation of the data are known.

    Raises:
        FileNotFoundError, OSError, ValueError: where there is none.
    """
    if path.startswith(TIMM):
        network, own, classes = timm_teacher(path.removeprefix(TIMM))
    else:
        network, info = load_encoder(weights_file(path))
        own, classes = Preparation(info.mean, info.std, info.size), info.classes
    why = _other_classes(path, network.num_classes, classes, source.classes)
    views = Preparation(tuple(source.mean), tuple(source.std), size) if decoded else own
    if not why and views.like(own):
        return network
    if not views.like(own):
        log.info("the teacher %s sees the views at %d pixels, with its own normalization", path, own.size)
    return Teacher(network, views, own, why)


def _other_classes(path: str, count: int, classes: Sequence[str] | None, wanted: Sequence[str]) -> str:
    """Why the logits of a teacher mean nothing to its student; "" where they do."""
    if not count:
        return f"the teacher {path} has no classifier"
    if count != len(wanted):
        return f"the teacher {path} knows {count} classes, and the data has {len(wanted)}"
    for number, (known, given) in enumerate(zip(classes or (), wanted)):
        if known != given:
            return f"class {number} is {known!r} to the teacher {path}, and {given!r} in the data of its student"
    return ""


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
