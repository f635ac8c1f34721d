"""A picture of what a vision transformer looks at: images, and beside each the attention of its class token by head."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw
from torch import Tensor
from torch.nn import functional as F

from relatum.reports.tiles import GAP, INK, MARGIN, SCALE, SOFT, enlarged, paper, saved, width_of, words

SHOWN = 12  # heads beside an image at most
COLORS = "magma"  # dark is nothing, light is the most; read by color-blind people as well
SIDE = 96  # pixels of an image, and of a map: a whole multiple of what small images have
TITLE, HEADINGS, NOTE, WIDE_GAP = 34, 26, 26, 22  # pixels: heights of lines, and what parts the image from the maps


def attention_maps(
    images: Sequence[UInt8[Tensor, "_h _w _c"]],
    attention: Float[Tensor, "n heads gh gw"],
    path: Path,
    *,
    title: str = "",
    note: str = "",
) -> None:
    """A row for each image: it, the mean of its heads, then each head; each map from its least to its largest weight.

    Args:
        images: as the network saw them.
        attention: of the class token to each patch, as `Backbone.attention` gives it.
        path: the PNG.
        title: of the picture.
        note: below it.

    Raises:
        ValueError: for another number of images than of maps.
    """
    if len(images) != len(attention):
        raise ValueError(f"{len(images)} images and the attention of {len(attention)}; expected one map for each.")
    heads = attention[:, :SHOWN]
    columns = ["image", "mean", *(f"head {i}" for i in range(1, heads.shape[1] + 1))]
    left = [MARGIN, *(MARGIN + SIDE + WIDE_GAP + i * (SIDE + GAP) for i in range(len(columns) - 1))]
    top = MARGIN + (TITLE if title else 0)
    first = top + HEADINGS
    height = first + len(images) * (SIDE + GAP) + (NOTE if note else 0) + MARGIN // 2
    lines = max(width_of(title, 21, bold=True), width_of(note, 13))
    canvas = paper(max(left[-1] + SIDE, MARGIN + lines) + MARGIN, height)
    draw = ImageDraw.Draw(canvas)
    words(draw, (MARGIN, MARGIN), title, 21, INK, bold=True)
    for x, heading in zip(left, columns):
        words(draw, (x, top), heading, 13, SOFT)
    for row, (pixels, maps) in enumerate(zip(images, torch.cat([attention.mean(1, keepdim=True), heads], 1))):
        y = first + row * (SIDE + GAP)
        tiles = [enlarged(pixels.cpu().numpy(), SIDE * SCALE), *(colored(one, SIDE * SCALE) for one in maps)]
        for x, tile in zip(left, tiles):
            inset = [(SIDE * SCALE - length) // 2 for length in tile.size]
            canvas.paste(tile, (x * SCALE + inset[0], y * SCALE + inset[1]))
    words(draw, (MARGIN, height - MARGIN // 2 - 20), note, 13, SOFT)
    saved(canvas, path)


def colored(weights: Float[Tensor, "gh gw"], side: int) -> Image.Image:
    """A map of weights as an image that fits a square of `side`, smooth between the middles of the patches."""
    height, width = weights.shape
    size = [max(1, round(side * length / max(height, width))) for length in (height, width)]
    least, most = weights.aminmax()
    shares = (weights - least) / (most - least).clamp(min=torch.finfo(torch.float32).tiny)
    smooth = F.interpolate(shares[None, None].float().cpu(), size=size, mode="bicubic", align_corners=False)
    shares = smooth[0, 0].clamp(0, 1)
    return Image.fromarray((matplotlib.colormaps[COLORS](shares.numpy())[:, :, :3] * 255).round().astype(np.uint8))
