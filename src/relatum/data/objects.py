"""Items of a torch Dataset as images and labels."""

from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from relatum.data.decoding import to_rgb
from relatum.data.files import streamed
from relatum.data.images import StreamedImages


class Items:
    """The images of a torch Dataset, as pictures."""

    def __init__(self, dataset: Dataset[Any], part: str) -> None:
        self.dataset, self.part = dataset, part

    def __len__(self) -> int:
        return len(self.dataset)  # type: ignore[arg-type]  # it was asked for its length when it was listed

    def __getitem__(self, i: int) -> tuple[str, Image.Image]:
        return self.name(i), picture_of(_image_and_label(self.dataset[i])[0], self.name(i))

    def name(self, i: int) -> str:
        """The part of the set, and the number of the item."""
        return f"{self.part}[{i}]"

    def made_of(self) -> None:
        """None: nobody knows when a Dataset changes."""
        return None


def listed(dataset: Dataset[Any], part: str) -> StreamedImages:
    """All items of a Dataset, each read once for its label.

    Raises:
        ValueError: it has no length, no item, or a label that is no whole number.
    """
    if not hasattr(dataset, "__len__") or not len(dataset):
        raise ValueError(f"the Dataset of the {part} part has no items, or no length: expected one with indices from 0")
    labels = []
    for i in range(len(dataset)):
        image, label = _image_and_label(dataset[i])
        picture_of(image, f"{part}[{i}]")
        try:
            number = -1 if label is None else int(label)
        except (TypeError, ValueError):
            number = None
        if number is None or (label is not None and number != label):
            raise ValueError(f"{part}[{i}] has the label {label!r}: expected the number of a class, or -1 for none")
        labels.append(number)
    return streamed(Items(dataset, part), labels)


def picture_of(image: Any, name: str) -> Image.Image:
    """An image of a Dataset as an RGB picture.

    Raises:
        ValueError: it is none, or has values whose range no one knows.
    """
    if isinstance(image, Image.Image):
        return to_rgb(image)
    pixels = torch.as_tensor(image) if isinstance(image, Tensor | np.ndarray) else None
    if pixels is not None and pixels.ndim == 3 and len(pixels) in (1, 3):
        if pixels.is_floating_point():  # of ToTensor: multiples of 1/255
            scaled = pixels * 255
            whole = scaled.round()
            if whole.min() >= 0 and whole.max() <= 255 and (scaled - whole).abs().max() < 1e-2:
                pixels = whole.to(torch.uint8)
        if pixels.dtype == torch.uint8:
            return Image.fromarray(pixels.expand(3, -1, -1).permute(1, 2, 0).contiguous().numpy())
    found = f"{pixels.dtype} of shape {tuple(pixels.shape)}" if pixels is not None else type(image).__name__
    raise ValueError(
        f"{name} is {found}: expected a PIL picture, or a uint8 tensor or array of shape (1 or 3, h, w); leave out "
        f"transforms that normalize: views do so"
    )


def _image_and_label(item: Any) -> tuple[Any, Any]:
    if isinstance(item, tuple | list):
        return (item[0], item[1]) if len(item) > 1 else (item[0], None)
    if isinstance(item, dict):
        image = next((item[k] for k in ("image", "img", "pixel_values") if k in item), None)
        return image, next((item[k] for k in ("label", "labels", "target") if k in item), None)
    return item, None
