"""AutoAugment's policy for CIFAR-10, for a batch, with torchvision's operations."""

import math
from collections import defaultdict

import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torchvision.transforms import AutoAugment, AutoAugmentPolicy
from torchvision.transforms.v2 import functional as F


@torch.compiler.disable
def auto_augment(images: UInt8[Tensor, "n c h w"], uniforms: Float[Tensor, "n 5"]) -> UInt8[Tensor, "n c h w"]:
    """The CIFAR-10 policy of AutoAugment, with a sub-policy, probabilities and signs drawn for each image.

    The images that share an operation and its level are one call of torchvision's. Corners that a motion leaves empty
    are zero, as there. Cubuk et al. 2019, "AutoAugment: Learning Augmentation Policies from Data", table 7.

    Args:
        uniforms: the sub-policy; then for its first and second operation the chance to be applied; then their signs.
    """
    policies = AutoAugment(AutoAugmentPolicy.CIFAR10).policies
    draws = uniforms.tolist()
    images = images.clone()
    for step in range(2):
        groups = defaultdict(list)
        for row, draw in enumerate(draws):
            name, probability, level = policies[int(draw[0] * len(policies))][step]
            if draw[1 + step] < probability:
                groups[name, level, draw[3 + step] < 0.5].append(row)
        for (name, level, negative), rows in groups.items():
            index = torch.tensor(rows, device=images.device)
            images[index] = _augment(images[index], name, 0 if level is None else level, negative)
    return images


def _augment(images: UInt8[Tensor, "n c h w"], name: str, level: int, negative: bool) -> UInt8[Tensor, "n c h w"]:
    """One operation of AutoAugment; `level` 0 to 9 spans its range (Cubuk et al. 2019, table 6)."""
    height, width = images.shape[2:]

    def magnitude(highest: float) -> float:  # in float32, as torchvision: it decides on which side a value rounds
        size = float(torch.linspace(0, highest, 10)[level])
        return -size if negative else size

    match name:
        case "ShearY":
            shear = [0.0, math.degrees(math.atan(magnitude(0.3)))]
            return F.affine(images, angle=0.0, translate=[0, 0], scale=1.0, shear=shear, center=[0, 0])
        case "TranslateX":
            shift = [int(magnitude(150 / 331 * width)), 0]
            return F.affine(images, angle=0.0, translate=shift, scale=1.0, shear=[0.0, 0.0])
        case "TranslateY":
            shift = [0, int(magnitude(150 / 331 * height))]
            return F.affine(images, angle=0.0, translate=shift, scale=1.0, shear=[0.0, 0.0])
        case "Rotate":
            return F.rotate(images, angle=magnitude(30.0))
        case "Brightness":
            return F.adjust_brightness(images, brightness_factor=1 + magnitude(0.9))
        case "Color":
            return F.adjust_saturation(images, saturation_factor=1 + magnitude(0.9))
        case "Contrast":
            return F.adjust_contrast(images, contrast_factor=1 + magnitude(0.9))
        case "Sharpness":
            return F.adjust_sharpness(images, sharpness_factor=1 + magnitude(0.9))
        case "Posterize":
            return F.posterize(images, bits=8 - round(4 * level / 9))
        case "Solarize":
            return F.solarize(images, threshold=255 * float(torch.linspace(1, 0, 10)[level]))
        case "AutoContrast":
            return F.autocontrast(images)
        case "Equalize":
            return F.equalize(images)
        case "Invert":
            return F.invert(images)
    raise AssertionError(f"torchvision's CIFAR-10 policy has a new operation, {name}")
