"""Views: what a method sees of an image. Batched, on the device of the images, every parameter per sample.

A view is a pure function of uint8 images and of uniform random numbers, one row per image, in two halves:

- *geometry*: a box of the image, resampled to `size x size` and perhaps mirrored;
- *appearance*: color operations and occlusions of those crops, in [0, 1].

Resident images pass both at once: `view(images, ...)`. Images of any size, streamed by workers, are cropped one by
one (`crop_image`), and a batch of such crops is finished on the device (`finish`). Every operation has torchvision's
values, and every parameter torchvision's distribution.
"""

import copy
import math
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import PIL.Image
import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor
from torchvision.transforms import AutoAugment, AutoAugmentPolicy
from torchvision.transforms.v2 import functional as F

from relatum.core.precision import full_precision

RATIO = (3 / 4, 4 / 3)  # width over height of a random crop
ATTEMPTS = 10  # boxes drawn before the central one is taken
LUMA = (0.2989, 0.587, 0.114)  # ITU-R BT.601, in torchvision's digits
CONTRAST, SATURATION, HUE = 1, 2, 3  # brightness is 0
CACHE = 2**16  # pixels of a slice of the batch that stays in a core's cache from operation to operation


@dataclass(frozen=True)
class View(ABC):
    """A map from uint8 images to normalized images of `size x size`.

    Args:
        size: height and width of the output, in pixels.
    """

    size: int = 32

    geometry_draws: ClassVar[int] = 0  # uniform numbers that the geometry of one image takes
    appearance_draws: ClassVar[int] = 0  # uniform numbers that the appearance of one image takes

    def __post_init__(self) -> None:
        _require(self.size >= 1, f"size is {self.size}: expected at least 1 pixel")

    @abstractmethod
    def crop_batch(self, images: UInt8[Tensor, "n c h w"], uniforms: Float[Tensor, "n g"]) -> Float[Tensor, "n c s s"]:
        """The crops of images of equal size, in [0, 1]."""

    @abstractmethod
    def crop_image(self, image: PIL.Image.Image, generator: torch.Generator) -> UInt8[Tensor, "c s s"]:
        """The crop of one image of any size, made by a worker: the law of `crop_batch`, Pillow's values.

        Args:
            image: mode `RGB` or `L`.
            generator: source of randomness, on the CPU.
        """

    def appearance(
        self, crops: Float[Tensor, "n c s s"], mean: Sequence[float], uniforms: Float[Tensor, "n a"]
    ) -> Float[Tensor, "n c s s"]:
        """Colors and occlusions of crops in [0, 1]; `mean` is the color that a hole is filled with."""
        return crops

    def render(
        self,
        images: UInt8[Tensor, "n c h w"],
        uniforms: Float[Tensor, "n u"],
        mean: Sequence[float],
        std: Sequence[float],
        dtype: torch.dtype = torch.float32,
    ) -> Float[Tensor, "n c s s"]:
        """`__call__` without its randomness: a pure function, which `torch.compile(fullgraph=True)` takes.

        Args:
            uniforms: numbers in [0, 1), `geometry_draws` for each image and then `appearance_draws`.
        """
        geometry, appearance = uniforms.split((self.geometry_draws, self.appearance_draws), 1)
        return self.render_crops(self.crop_batch(images, geometry), appearance, mean, std, dtype)

    def render_crops(
        self,
        crops: Float[Tensor, "n c s s"],
        uniforms: Float[Tensor, "n a"],
        mean: Sequence[float],
        std: Sequence[float],
        dtype: torch.dtype = torch.float32,
    ) -> Float[Tensor, "n c s s"]:
        """The second half of `render`: all that comes after the crop."""
        return normalize(self.appearance(crops, mean, uniforms), mean, std, dtype)

    def compiled(self) -> "View":
        """The same view, compiled by torch.compile when it is first called: that takes seconds to a minute.

        Its values differ by rounding. AutoAugment stays as it is: what it does depends on what it draws.
        """
        view = copy.copy(self)
        for name in ("render", "render_crops"):
            object.__setattr__(view, name, torch.compile(getattr(self, name)))  # the class is frozen
        return view

    def __call__(
        self,
        images: UInt8[Tensor, "n c h w"],
        mean: Sequence[float],
        std: Sequence[float],
        generator: torch.Generator,
        dtype: torch.dtype = torch.float32,
    ) -> Float[Tensor, "n c s s"]:
        """One view of each image: `(appearance(crop(image)) - mean) / std`, in channels_last.

        Args:
            images: n images of equal size, 1 or 3 channels, 0 to 255.
            mean, std: of each channel over the data set, on the scale of [0, 1].
            generator: source of randomness, on the device of the images.
            dtype: of the output; all before the last operation is float32.

        Raises:
            ValueError: images that are not uint8 or are too small for the crop; mean and std that do not fit the
                channels.
        """
        _require_bytes(images)
        draws = (len(images), self.geometry_draws + self.appearance_draws)
        uniforms = torch.rand(draws, generator=generator, device=images.device)
        return self.render(images, uniforms, mean, std, dtype)

    def finish(
        self,
        crops: UInt8[Tensor, "n c s s"],
        mean: Sequence[float],
        std: Sequence[float],
        generator: torch.Generator,
        dtype: torch.dtype = torch.float32,
    ) -> Float[Tensor, "n c s s"]:
        """The second half of `__call__`, for a batch of crops that `crop_image` made. Args, Raises: the same."""
        _require_bytes(crops)
        uniforms = torch.rand(len(crops), self.appearance_draws, generator=generator, device=crops.device)
        return self.render_crops(to_unit(crops), uniforms, mean, std, dtype)


@dataclass(frozen=True)
class RandomView(View, ABC):
    """A view whose geometry is a random box and a random mirroring.

    Args:
        flip: probability of a mirror image, left for right.
    """

    flip: float = 0.5

    geometry_draws: ClassVar[int] = 2 * ATTEMPTS + 3  # shapes of boxes, position of the box, mirroring

    def __post_init__(self) -> None:
        super().__post_init__()
        _require_probability("flip", self.flip)

    @abstractmethod
    def boxes(self, height: int, width: int, uniforms: Float[Tensor, "n b"]) -> Float[Tensor, "n 4"]:
        """A box (top, left, height, width) of whole pixels for each of n images of `height x width`."""

    def crop_batch(self, images: UInt8[Tensor, "n c h w"], uniforms: Float[Tensor, "n g"]) -> Float[Tensor, "n c s s"]:
        boxes = self.boxes(images.shape[2], images.shape[3], uniforms[:, :-1])
        return resample(images, boxes, uniforms[:, -1] < self.flip, self.size)

    def crop_image(self, image: PIL.Image.Image, generator: torch.Generator) -> UInt8[Tensor, "c s s"]:
        uniforms = torch.rand(1, self.geometry_draws, generator=generator)
        boxes = self.boxes(image.height, image.width, uniforms[:, :-1])
        top, left, height, width = (int(edge) for edge in boxes[0].tolist())
        crop = image.crop((left, top, left + width, top + height))
        crop = crop.resize((self.size, self.size), PIL.Image.Resampling.BILINEAR)
        pixels: Tensor = F.pil_to_tensor(crop)
        return pixels.flip(2) if bool(uniforms[0, -1] < self.flip) else pixels


@dataclass(frozen=True)
class ContrastiveView(RandomView):
    """The augmentation of SimCLR: random resized crop, mirroring, color jitter, gray, blur, solarisation.

    Strength s draws the factors of brightness, contrast and saturation from [1 - 0.8 s, 1 + 0.8 s] and the shift of
    the hue from [-0.2 s, 0.2 s] of the circle; their order is drawn too. s = 0.5 and no blur are the setting for
    CIFAR. Chen et al. 2020, "A Simple Framework for Contrastive Learning of Visual Representations", appendix A;
    solarisation as in Grill et al. 2020, appendix B.

    Args:
        min_scale: least share of the image's area in a crop; the largest is 1.
        strength: s, in [0, 2.5].
        jitter_probability, grayscale, blur, solarize: probability of each operation for an image. Blur has standard
            deviation 0.1 to 2 pixels and a kernel of a tenth of the image; solarisation inverts what is >= 0.5.
    """

    kind: Literal["contrastive"] = "contrastive"
    min_scale: float = 0.08
    strength: float = 0.5
    jitter_probability: float = 0.8
    grayscale: float = 0.2
    blur: float = 0.0
    solarize: float = 0.0

    appearance_draws: ClassVar[int] = 13

    def __post_init__(self) -> None:
        super().__post_init__()
        _require_scale(self.min_scale)
        _require(
            0 <= self.strength <= 2.5,
            f"strength is {self.strength}: expected 0 to 2.5 (where the hue turns by half a circle); "
            "0.5 is SimCLR's for CIFAR, 1 for ImageNet",
        )
        for name in ("jitter_probability", "grayscale", "blur", "solarize"):
            _require_probability(name, getattr(self, name))

    def boxes(self, height: int, width: int, uniforms: Float[Tensor, "n b"]) -> Float[Tensor, "n 4"]:
        return resized_boxes(height, width, self.min_scale, uniforms)

    def appearance(
        self, crops: Float[Tensor, "n c s s"], mean: Sequence[float], uniforms: Float[Tensor, "n a"]
    ) -> Float[Tensor, "n c s s"]:
        jitter, gray, blur, solarize = uniforms.split((9, 1, 2, 1), 1)
        if self.jitter_probability and self.strength:
            crops = color_jitter(crops, *jitter_parameters(self.strength, self.jitter_probability, jitter))
        if self.grayscale:
            crops = crops.lerp(luma(crops), _chosen(gray[:, 0], self.grayscale))
        if self.blur:
            sigma = torch.where(blur[:, 0] < self.blur, 0.1 + 1.9 * blur[:, 1], 0.0)
            crops = gaussian_blur(crops, sigma, 2 * (self.size // 20) + 1)
        if self.solarize:
            inverted = torch.minimum(crops, 1 - crops)
            crops = crops.lerp(inverted, _chosen(solarize[:, 0], self.solarize))
        return crops


@dataclass(frozen=True)
class ClassifierView(RandomView):
    """The augmentation of supervised training: crop and mirroring; AutoAugment and Cutout as options.

    Args:
        crop: `pad` takes a `size x size` window of the image with a border of zeros (CIFAR: He et al. 2016, section
            4.2); `resized` a random share of the area, as `ContrastiveView` does (ImageNet).
        padding: width of that border, in pixels; for `pad`.
        min_scale: least share of the image's area in a crop; for `resized`.
        autoaugment: the CIFAR-10 policy of Cubuk et al. 2019, a sub-policy per image. It waits for the device.
        cutout: side of a square of the mean color in pixels, 0 for none. Its center is uniform over the image, so
            that it may leave it (DeVries & Taylor 2017).
    """

    kind: Literal["classifier"] = "classifier"
    crop: Literal["pad", "resized"] = "pad"
    padding: int = 4
    min_scale: float = 0.08
    autoaugment: bool = False
    cutout: int = 0

    appearance_draws: ClassVar[int] = 7

    def __post_init__(self) -> None:
        super().__post_init__()
        _require_scale(self.min_scale)
        _require(
            self.crop in ("pad", "resized"),
            f"crop is {self.crop!r}: expected 'pad' (CIFAR) or 'resized' (ImageNet)",
        )
        _require(self.padding >= 0, f"padding is {self.padding}: expected 0 pixels or more")
        _require(
            0 <= self.cutout <= 2 * self.size,
            f"cutout is {self.cutout}: expected 0 (off) to {2 * self.size} pixels, which hide the whole image; "
            "16 is usual for 32 x 32",
        )

    def boxes(self, height: int, width: int, uniforms: Float[Tensor, "n b"]) -> Float[Tensor, "n 4"]:
        if self.crop == "resized":
            return resized_boxes(height, width, self.min_scale, uniforms)
        free = [side + 2 * self.padding - self.size for side in (height, width)]
        _require(
            min(free) >= 0,
            f"an image of {height} x {width} with a border of {self.padding} is too small for a window of "
            f"{self.size} x {self.size}: choose a smaller size, more padding, or crop='resized'",
        )
        corners = [_integers(u, f) - self.padding for u, f in zip(uniforms[:, :2].unbind(1), free)]
        side = torch.full_like(corners[0], self.size)
        return torch.stack((*corners, side, side), 1)

    def appearance(
        self, crops: Float[Tensor, "n c s s"], mean: Sequence[float], uniforms: Float[Tensor, "n a"]
    ) -> Float[Tensor, "n c s s"]:
        if self.autoaugment:
            pixels = crops.mul(255).round().to(torch.uint8)
            crops = to_unit(auto_augment(pixels, uniforms[:, :5]))
        if self.cutout:
            hidden = cutout_mask(self.size, self.cutout, uniforms[:, 5:])
            crops = crops.lerp(_constants(mean, crops), hidden[:, None].float())
        return crops


@dataclass(frozen=True)
class EvaluationView(View):
    """The view of k-NN, linear probes and tests, without randomness.

    An image of `size x size` passes unchanged. Of any other the shorter side is resized, antialiased, to `resize`, and
    the center of the result taken.

    Args:
        resize: length of the shorter side, in pixels; None is `size` up to 64 pixels and 256/224 of it above.
    """

    resize: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        _require(
            self.resize is None or self.resize >= self.size,
            f"resize is {self.resize}: expected at least size = {self.size}, or None for the usual value",
        )

    @property
    def shorter_side(self) -> int:
        """Length to which the shorter side is resized."""
        if self.resize is not None:
            return self.resize
        return self.size if self.size <= 64 else round(self.size * 256 / 224)

    def crop_batch(self, images: UInt8[Tensor, "n c h w"], uniforms: Float[Tensor, "n g"]) -> Float[Tensor, "n c s s"]:
        crops = to_unit(images)
        if images.shape[2:] == (self.size, self.size):
            return crops
        return F.center_crop(F.resize(crops, [self.shorter_side], antialias=True), [self.size, self.size])

    def crop_image(self, image: PIL.Image.Image, generator: torch.Generator) -> UInt8[Tensor, "c s s"]:
        if image.size != (self.size, self.size):
            image = F.center_crop(F.resize(image, [self.shorter_side]), [self.size, self.size])
        return F.pil_to_tensor(image)


# --- geometry ---------------------------------------------------------------------------------------------------


def resized_boxes(height: int, width: int, min_scale: float, uniforms: Float[Tensor, "n b"]) -> Float[Tensor, "n 4"]:
    """Boxes (top, left, height, width) of a random resized crop of images of `height x width`.

    The area is uniform in [min_scale, 1] of the image's and the logarithm of width / height uniform between those of
    3/4 and 4/3; sides are rounded. The first of ten such shapes that fits is placed uniformly. Where none fits, it is
    the largest central box of a permitted ratio. Szegedy et al. 2015, in torchvision's form.

    Args:
        uniforms: ten numbers for the areas, ten for the ratios, two for the position; all in [0, 1).
    """
    low, high = (math.log(ratio) for ratio in RATIO)
    area = height * width * (min_scale + (1 - min_scale) * uniforms[:, :ATTEMPTS])
    ratio = (low + (high - low) * uniforms[:, ATTEMPTS : 2 * ATTEMPTS]).exp()
    heights, widths = (area / ratio).sqrt().round(), (area * ratio).sqrt().round()
    fits = (heights > 0) & (heights <= height) & (widths > 0) & (widths <= width)
    first = fits.int().argmax(1, keepdim=True)
    found = fits.any(1)

    if width < RATIO[0] * height:
        central = (round(width / RATIO[0]), width)
    elif width > RATIO[1] * height:
        central = (height, round(height * RATIO[1]))
    else:
        central = (height, width)
    starts, sides = [], []
    for axis, (extent, lengths) in enumerate(((height, heights), (width, widths))):
        side = torch.where(found, lengths.gather(1, first).squeeze(1), float(central[axis]))
        start = _integers(uniforms[:, 2 * ATTEMPTS + axis], extent - side)
        starts.append(torch.where(found, start, float((extent - central[axis]) // 2)))
        sides.append(side)
    return torch.stack((*starts, *sides), 1)


@full_precision
def resample(
    images: UInt8[Tensor, "n c h w"], boxes: Float[Tensor, "n 4"], flips: Bool[Tensor, " n"], size: int
) -> Float[Tensor, "n c size size"]:
    """Each image's box as `size x size` pixels in [0, 1]: bilinear, antialiased, mirrored where `flips`.

    Cropping, resizing, mirroring and the division by 255 are one linear map for each axis, Y = R X C', with two banded
    matrices. What a box holds outside its image is zero.
    """
    channels, extent = images.shape[1], images.shape[2:]
    top, left, height, width = boxes.unbind(1)
    rows = resampling_matrix(top, height, torch.zeros_like(flips), size, extent[0]).div_(255)
    columns = resampling_matrix(left, width, flips, size, extent[1])
    crops = torch.empty(len(images), channels, size, size, device=images.device)
    for part in _slices(images):
        pixels = images[part].transpose(1, 2)
        lines = pixels.to(torch.float32, memory_format=torch.contiguous_format).flatten(2)
        wide = (rows[part] @ lines).view(-1, size * channels, extent[1])
        crops[part] = (wide @ columns[part].mT).view(-1, size, channels, size).transpose(1, 2)
    return crops


def resampling_matrix(
    start: Float[Tensor, " n"],
    length: Float[Tensor, " n"],
    flips: Bool[Tensor, " n"],
    size: int,
    extent: int,
) -> Float[Tensor, "n size extent"]:
    """Weights of the `extent` pixels of a line for the `size` pixels of its resampled part [start, start + length).

    With scale = length / size, output o is centered on (o + 1/2) scale, and its weights are the triangle of half-width
    max(scale, 1) at the centers of the pixels of the part, divided by their sum.
    """
    output = torch.arange(size, dtype=torch.float32, device=start.device)
    output = torch.where(flips[:, None], size - 1 - output, output)
    pixel = torch.arange(extent, dtype=torch.float32, device=start.device) - start[:, None]
    inside = (pixel >= 0) & (pixel < length[:, None])
    scale = (length / size)[:, None]
    width = scale.clamp(min=1)
    source = torch.where(inside, (pixel + 0.5) / width, math.inf)
    target = (output + 0.5) * scale / width
    weights = (source[:, None, :] - target[:, :, None]).abs_().neg_().add_(1).clamp_(min=0)
    return weights.div_(weights.sum(2, keepdim=True).clamp_(min=0.1))  # only a line outside the image has < 0.5


# --- appearance -------------------------------------------------------------------------------------------------


def luma(images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n 1 h w"]:
    """Gray value 0.2989 r + 0.587 g + 0.114 b; images of one channel are gray already."""
    if images.shape[1] == 1:
        return images
    _require(
        images.shape[1] == 3,
        f"images have {images.shape[1]} channels: expected 1 or 3. Convert them to RGB or to gray",
    )
    red, green, blue = images.split(1, 1)
    return (LUMA[0] * red).add_(green, alpha=LUMA[1]).add_(blue, alpha=LUMA[2])


def jitter_parameters(
    strength: float, probability: float, uniforms: Float[Tensor, "n 9"]
) -> tuple[Float[Tensor, "n 4"], Int[Tensor, "n 4"]]:
    """Factors of (brightness, contrast, saturation, hue), and the order in which the four are applied.

    Returns:
        factors: uniform in [max(0, 1 - 0.8 s), 1 + 0.8 s], the hue's in [-0.2 s, 0.2 s]; for the share
            `1 - probability` of the images 1, 1, 1, 0.
        order: a uniform permutation of 0 to 3 for each image.
    """
    low, high = max(0.0, 1 - 0.8 * strength), 1 + 0.8 * strength
    blends = low + (high - low) * uniforms[:, 1:4]
    hue = 0.2 * strength * (2 * uniforms[:, 4:5] - 1)
    applied = uniforms[:, :1] < probability
    factors = torch.cat((torch.where(applied, blends, 1.0), torch.where(applied, hue, 0.0)), 1)
    return factors, uniforms[:, 5:].argsort(1)


def color_jitter(
    images: Float[Tensor, "n c h w"], factors: Float[Tensor, "n 4"], order: Int[Tensor, "n 4"]
) -> Float[Tensor, "n c h w"]:
    """Brightness, contrast, saturation and hue, in an order of each image's own.

    The first three are blends, of which factor 1 is the exact identity. So three blends before the hue and three after
    it, each with the identity for the images that are not due, give every image its own order in one fixed sequence
    of operations: no sorting, no waiting for the device, and the hue only once.

    Args:
        factors: of brightness, contrast, saturation (1 is the identity) and hue (in turns, 0 is the identity).
        order: the operations in the order of their application.
    """
    reached = (order == HUE).cumsum(1)
    early = reached == 0
    late = (reached == 1) & (order != HUE)
    operation = torch.cat((order[:, :3], order[:, 1:]), 1)
    due = torch.cat((early[:, :3], late[:, 1:]), 1)
    factor = _pixelwise(torch.where(due, factors.gather(1, operation), 1.0))
    gray = _pixelwise((operation == SATURATION).float())
    average = _pixelwise((operation == CONTRAST).float())
    turns = factors[:, HUE]
    out = torch.empty_like(images)
    for part in _slices(images):
        x = images[part]
        for step in range(6):
            if step == 3:
                x = shift_hue(x, turns[part])
            x = blend(x, factor[step, part], gray[step, part], average[step, part])
        out[part] = x
    return out


def blend(
    images: Float[Tensor, "n c h w"],
    factor: Float[Tensor, "n 1 1 1"],
    gray: Float[Tensor, "n 1 1 1"],
    average: Float[Tensor, "n 1 1 1"],
) -> Float[Tensor, "n c h w"]:
    """`f x + (1 - f) (gray * luma(x) + average * mean luma(x))`, cut to [0, 1].

    (gray, average) = (0, 0) is brightness, (0, 1) contrast and (1, 0) saturation.
    """
    shade = luma(images)
    mean = shade.mean((2, 3), keepdim=True)
    target = (shade * gray).add_(mean * average)
    return torch.lerp(target, images, factor).clamp_(0, 1)


def shift_hue(images: Float[Tensor, "n c h w"], turns: Float[Tensor, " n"]) -> Float[Tensor, "n c h w"]:
    """Images with their hue turned by `turns` of the circle, in [-1/2, 1/2]; value and saturation stay.

    With M and m the largest and the least channel, h = sign(g - b) (1 + (g + b - r - m) / (M - m)) is the hue in
    sixths of the circle. After the turn, modulo 6, red is m + (M - m) T(|h - 3| - 1), green m + (M - m) T(2 - |h - 2|)
    and blue m + (M - m) T(2 - |h - 4|), with T(u) = min(max(u, 0), 1): Smith's hexagon without a case distinction.
    """
    if images.shape[1] == 1:
        return images
    red, green, blue = images.unbind(1)
    least = torch.minimum(torch.minimum(red, green), blue)
    chroma = torch.maximum(torch.maximum(red, green), blue).sub_(least)
    hue = (green + blue).sub_(red).sub_(least).div_(chroma.clamp(min=1e-12)).add_(1)
    hue.copysign_(green - blue).add_(6 * turns[:, None, None])
    hue.sub_((hue / 6).floor_(), alpha=6)
    weights = (hue[:, None] - _constants((3.0, 2.0, 4.0), hue)).abs_()
    weights[:, 0].neg_().add_(3)
    return weights.neg_().add_(2).clamp_(0, 1).mul_(chroma[:, None]).add_(least[:, None])


@full_precision
def gaussian_blur(
    images: Float[Tensor, "n c s s"], sigma: Float[Tensor, " n"], kernel: int
) -> Float[Tensor, "n c s s"]:
    """Each image convolved with a Gaussian of its own standard deviation; the border is reflected.

    Both axes are one banded matrix B: Y = B X B'.

    Args:
        sigma: standard deviation in pixels; 0 leaves the image unchanged.
        kernel: width of the kernel in pixels, odd.
    """
    size, radius = images.shape[2], kernel // 2
    offset = torch.arange(-radius, radius + 1, device=images.device)
    exponent = -0.5 * (offset / sigma.clamp(min=1e-3)[:, None]) ** 2  # e^(-1/2 10^6) is 0: the identity
    weights = exponent.softmax(1)
    pixel = torch.arange(size, device=images.device)
    source = (pixel[:, None] + offset).abs()
    source = size - 1 - (size - 1 - source).abs()
    taps = (source[:, :, None] == pixel).float()  # output, offset, input
    band = torch.einsum("nk,oki->noi", weights, taps)[:, None]
    return band @ images @ band.mT


def cutout_mask(size: int, side: int, uniforms: Float[Tensor, "n 2"]) -> Bool[Tensor, "n size size"]:
    """True in a square of `side` pixels around a center that is uniform over the pixels of the image."""
    pixel = torch.arange(size, device=uniforms.device)
    start = _integers(uniforms, size - 1)[:, :, None] - side // 2
    hidden = (pixel >= start) & (pixel < start + side)
    return hidden[:, 0, :, None] & hidden[:, 1, None, :]


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


def to_unit(images: UInt8[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
    """0 to 255 as [0, 1]."""
    return images.float().mul_(1 / 255)


def normalize(
    images: Float[Tensor, "n c h w"],
    mean: Sequence[float],
    std: Sequence[float],
    dtype: torch.dtype = torch.float32,
) -> Float[Tensor, "n c h w"]:
    """`(images - mean) / std`, in channels_last.

    Raises:
        ValueError: mean or std that does not have a number for each channel, or a std that is not positive.
    """
    channels = images.shape[1]
    _require(
        len(mean) == len(std) == channels,
        f"mean has {len(mean)} and std {len(std)} numbers: expected one for each of the {channels} channels",
    )
    _require(
        all(s > 0 for s in std),
        f"std is {tuple(std)}: expected positive numbers; give 1 to a channel that is constant",
    )
    center, spread = _constants(mean, images), _constants(std, images)
    out = torch.empty_like(images, dtype=dtype, memory_format=torch.channels_last)
    for part in _slices(images):
        out[part] = (images[part] - center).div_(spread)
    return out


def _constants(values: Sequence[float], like: Tensor) -> Float[Tensor, "c 1 1"]:
    """A number for each channel, filled in on the device: a copy from the host would wait for it."""
    return torch.stack([like.new_full((1, 1), value) for value in values])


def _integers(uniforms: Float[Tensor, "*n"], highest: Float[Tensor, "*n"] | int) -> Float[Tensor, "*n"]:
    """Uniform whole numbers from 0 to `highest`; the product may round up to `highest + 1`."""
    return torch.minimum((uniforms * (highest + 1)).floor(), torch.zeros_like(uniforms) + highest)


def _chosen(uniforms: Float[Tensor, " n"], probability: float) -> Float[Tensor, "n 1 1 1"]:
    """1 with the given probability, else 0: a weight with which `lerp` is exact, and faster than `where`."""
    return (uniforms < probability).float()[:, None, None, None]


def _slices(images: Tensor) -> list[slice]:
    """The parts of a batch to be worked on in turn: on a CPU what its cache holds, elsewhere everything."""
    if images.is_cuda or torch.compiler.is_compiling():
        return [slice(None)]
    step = max(1, CACHE // images.shape[2:].numel())
    return [slice(start, start + step) for start in range(0, len(images), step)]


def _pixelwise(values: Float[Tensor, "n k"]) -> Float[Tensor, "k n 1 1 1"]:
    """Numbers of each image, against its channels and pixels."""
    return values.T[:, :, None, None, None]


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(f"{message}.")


def _require_bytes(images: Tensor) -> None:
    _require(images.dtype == torch.uint8, f"images are {images.dtype}: expected uint8, 0 to 255; convert them before")


def _require_probability(name: str, value: float) -> None:
    _require(0 <= value <= 1, f"{name} is {value}: expected a probability, 0 to 1")


def _require_scale(value: float) -> None:
    _require(
        0 < value <= 1,
        f"min_scale is {value}: expected a share of the image's area, above 0 and up to 1; 0.08 is usual",
    )
