"""timm's models with their published weights: downloaded, or read from a file."""

from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import timm
from safetensors import SafetensorError


def published(timm_name: str, weights: bool | str | Path, wanted: Mapping[str, Any]) -> Any:
    """A model of timm's.

    Args:
        timm_name: its name.
        weights: False for fresh ones, True for the published ones, or a file of these as their publishers give it:
            timm adapts it to other classes and channels, as it does with what it downloads.
        wanted: arguments of `timm.create_model`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file holds other weights, or none.
        OSError: they cannot be downloaded.
    """
    if weights is False:
        return timm.create_model(timm_name, **wanted)
    if weights is True:
        return _downloaded(timm_name, wanted)
    file = Path(weights)
    if not file.is_file():
        raise FileNotFoundError(f"there is no file {file}; expected the published weights of {timm_name}")
    overlay = {"file": str(file)}
    try:
        return timm.create_model(timm_name, pretrained=True, pretrained_cfg_overlay=overlay, **wanted)
    except (RuntimeError, KeyError, AttributeError, UnpicklingError, SafetensorError, EOFError) as error:
        why = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(
            f"{file} does not hold the weights of {timm_name} ({why}); expected its published file (.safetensors, .pth "
            "or .bin), or an encoder of Relatum's"
        ) from error


def _downloaded(timm_name: str, wanted: Mapping[str, Any]) -> Any:
    try:
        return timm.create_model(timm_name, pretrained=True, **wanted)
    except Exception as error:  # each hub client has errors of its own for a network that is not there
        why = (str(error).splitlines() or [type(error).__name__])[0]
        raise OSError(
            f"the published weights of {timm_name} could not be downloaded ({why}). With a network they are kept for "
            "the next time; without one, bring the file and name it with --model.initial FILE, start from a run of "
            "yours with --model.initial RUN, or start anew with --model.no-pretrained."
        ) from error
