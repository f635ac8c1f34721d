"""Pictures of images beside each other, pixel for pixel: queries, and what lies near them."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import matplotlib
import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont

TILE = 88  # pixels of an image's square; smaller images are enlarged by whole factors, so that their pixels stay sharp
FRAME = 3  # around it
GAP = 8  # between two
WIDE_GAP = 40  # between two columns
CAPTION = 18  # height of the words below an image
MARGIN = 28
SCALE = 2  # all lengths are drawn so many times as large, for dense screens

INK, SOFT, PAPER = (28, 35, 48), (90, 100, 117), (255, 255, 255)
SAME, OTHER, PLAIN = (23, 138, 85), (226, 122, 112), (205, 210, 218)


class Tile(NamedTuple):
    """An image and the words below it.

    Attributes:
        pixels: of shape (h, w, 1) or (h, w, 3), in its own resolution.
        caption: its class or its name, and its distance.
        same: whether its class is the query's; None where classes are not known, or for the query itself.
    """

    pixels: UInt8[np.ndarray, "h w c"]
    caption: str
    same: bool | None = None


class Column(NamedTuple):
    """The neighbors of all queries in one space.

    Attributes:
        title: what the space is.
        subtitle: what was measured in it.
        rows: the nearest of each query, nearest first.
    """

    title: str
    subtitle: str
    rows: Sequence[Sequence[Tile]]


def neighbors(
    queries: Sequence[Tile], columns: Sequence[Column], path: Path, *, title: str = "", note: str = ""
) -> None:
    """A row for each query: the image, then what is nearest to it in each column's space.

    Args:
        queries: one a row.
        columns: spaces, side by side, such as before and after training; each with a row for each query.
        path: the PNG.
        title: of the picture.
        note: below it.
    """
    cell = TILE + 2 * FRAME + GAP
    widths = [max((len(row) for row in column.rows), default=0) * cell for column in columns]
    left = [MARGIN + cell + WIDE_GAP + sum(widths[:i]) + i * WIDE_GAP for i in range(len(columns))]
    top = MARGIN + (38 if title else 0)
    first = top + 52
    size = (
        left[-1] + widths[-1] - GAP + MARGIN,
        first + len(queries) * (cell + CAPTION) + (26 if note else 0) + MARGIN // 2,
    )
    canvas = paper(*size)
    draw = ImageDraw.Draw(canvas)
    words(draw, (MARGIN, MARGIN), title, 21, INK, bold=True)
    words(draw, (MARGIN, top + 4), "query", 15, INK, bold=True)
    for x, column in zip(left, columns):
        words(draw, (x, top + 4), column.title, 15, INK, bold=True)
        words(draw, (x, top + 24), column.subtitle, 13, SOFT)
    for number, query in enumerate(queries):
        y = first + number * (cell + CAPTION)
        _tile(canvas, draw, query, (MARGIN, y), INK)
        for x, column in zip(left, columns):
            for place, tile in enumerate(column.rows[number]):
                color = PLAIN if tile.same is None else SAME if tile.same else OTHER
                _tile(canvas, draw, tile, (x + place * cell, y), color)
    words(draw, (MARGIN, size[1] - MARGIN // 2 - 22), note, 13, SOFT)
    saved(canvas, path)


def paper(width: int, height: int) -> Image.Image:
    """An empty picture; its sides are given before `SCALE`."""
    return Image.new("RGB", (width * SCALE, height * SCALE), PAPER)


def saved(canvas: Image.Image, path: Path) -> None:
    """Write a picture as a PNG."""
    # A palette keeps such pictures at a third of their size; they are seen in their own colors all the same.
    canvas.quantize(256, dither=Image.Dither.NONE).save(path, optimize=True)


def enlarged(pixels: UInt8[np.ndarray, "h w c"], side: int) -> Image.Image:
    """An image that fits a square of `side`: small ones by a whole factor, larger ones made smaller smoothly."""
    image = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels).convert("RGB")
    longest = max(image.size)
    if longest <= side:
        factor = side // longest
        return image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)
    width, height = (max(1, round(length * side / longest)) for length in image.size)
    return image.resize((width, height), Image.Resampling.LANCZOS)


def _tile(canvas: Image.Image, draw: ImageDraw.ImageDraw, tile: Tile, at: tuple[int, int], color: tuple) -> None:
    s, full = SCALE, (TILE + 2 * FRAME) * SCALE
    x, y = at[0] * s, at[1] * s
    image = enlarged(tile.pixels, TILE * s)
    inset = [(full - length) // 2 for length in image.size]
    frame = FRAME * s
    box = (x + inset[0] - frame, y + inset[1] - frame, x + full - inset[0] + frame - 1, y + full - inset[1] + frame - 1)
    draw.rectangle(box, fill=color)
    canvas.paste(image, (x + inset[0], y + inset[1]))
    font = _font(11, False)
    draw.text(
        (x + full // 2, y + full + 3 * s), _shortened(tile.caption, font, full + GAP * s), INK, font=font, anchor="mt"
    )


def words(
    draw: ImageDraw.ImageDraw, at: tuple[int, int], text: str, size: int, color: tuple, bold: bool = False
) -> None:
    """A line of text, its upper left corner at `at`; lengths are those before `SCALE`."""
    draw.text((at[0] * SCALE, at[1] * SCALE), text, color, font=_font(size, bold))


def width_of(text: str, size: int, bold: bool = False) -> int:
    """How wide a line is, before `SCALE`."""
    return round(_font(size, bold).getlength(text) / SCALE)


def _shortened(text: str, font: ImageFont.FreeTypeFont, width: int) -> str:
    """The text, its beginning cut where it is too long: names of files differ at their ends."""
    if font.getlength(text) <= width:
        return text
    while len(text) > 1 and font.getlength("…" + text) > width:
        text = text[1:]
    return "…" + text


@cache
def _font(size: int, bold: bool) -> ImageFont.FreeTypeFont:
    """The font that matplotlib brings along: the same letters on every machine."""
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name, size * SCALE)
