"""Drawings as SVG inside the HTML, in the colors of the page; curves are computed by the package itself."""

import math
from collections.abc import Callable, Sequence
from html import escape

import torch

from relatum import Cosine, Euclidean, Jaccard, Tanimoto
from relatum.studies.statistics import detectable

INK, MUTED, LINE = "var(--color-foreground-primary)", "var(--color-foreground-muted)", "var(--color-background-border)"
KEPT, PAPER, SOFT = "var(--color-brand-primary)", "var(--color-background-primary)", "var(--color-background-secondary)"
SERIES = ("var(--chart-1)", "var(--chart-2)", "var(--chart-3)", "var(--chart-4)")


def _svg(width: int, height: int, name: str, described: str, body: Sequence[str]) -> str:
    return (
        f'<svg class="drawing {name}" viewBox="0 0 {width} {height}" role="img" aria-label="{escape(described)}" '
        f'xmlns="http://www.w3.org/2000/svg">{"".join(body)}</svg>'
    )


def _text(
    x: float, y: float, text: str, *, size: int = 15, fill: str = INK, anchor: str = "middle", more: str = ""
) -> str:
    where = f'x="{x:g}" y="{y:g}" font-size="{size}" text-anchor="{anchor}"'
    return f'<text {where} fill="{fill}" {more}>{escape(text)}</text>'


def _arrow(x1: float, y1: float, x2: float, y2: float) -> str:
    angle = math.atan2(y2 - y1, x2 - x1)
    wings = [(x2 - 8 * math.cos(angle + t), y2 - 8 * math.sin(angle + t)) for t in (0.45, -0.45)]
    (ax, ay), (bx, by) = wings
    stroke = f'fill="none" stroke="{MUTED}" stroke-width="1.8" stroke-linecap="round" stroke-linejoin="round"'
    return f'<path d="M{x1:g} {y1:g} L{x2:g} {y2:g} M{ax:.1f} {ay:.1f} L{x2:g} {y2:g} L{bx:.1f} {by:.1f}" {stroke}/>'


def _flower(
    x: float,
    y: float,
    side: float,
    *,
    ground: str,
    petals: str,
    zoom: float = 1.0,
    turn: float = 0.0,
    gray: bool = False,
) -> str:
    """A picture of a flower, in a frame."""
    key = f"f{x:g}-{y:g}-{side:g}".replace(".", "_")
    r = side * 0.19 * zoom
    cx, cy = x + side * (0.5 + turn * 0.12), y + side * 0.45
    ring = [
        f'<circle cx="{cx + 1.25 * r * math.cos(a + turn):.1f}" cy="{cy + 1.25 * r * math.sin(a + turn):.1f}" '
        f'r="{r:.1f}" fill="{petals}"/>'
        for a in (2 * math.pi * i / 6 for i in range(6))
    ]
    heart, stalk = ("#b9bdc4", "#6d737c") if gray else ("#f2c14e", "#3f7d4e")
    stem = f'<path d="M{cx:g} {cy:g} Q{cx + side * 0.06:g} {y + side * 0.8:g} {cx:g} {y + side * 1.1:g}" fill="none" '
    stem += f'stroke="{stalk}" stroke-width="{side * 0.07 * zoom:g}"/>'
    return (
        f'<clipPath id="{key}"><rect x="{x:g}" y="{y:g}" width="{side:g}" height="{side:g}" rx="8"/></clipPath>'
        f'<g clip-path="url(#{key})"><rect x="{x:g}" y="{y:g}" width="{side:g}" height="{side:g}" fill="{ground}"/>'
        f'{stem}{"".join(ring)}<circle cx="{cx:g}" cy="{cy:g}" r="{r:.1f}" fill="{heart}"/></g>'
    )


def _photo(x: float, y: float, side: float) -> str:
    return _flower(x, y, side, ground="#bfd9ea", petals="#d6577a")


def _views(positions: Sequence[tuple[float, float]], side: float) -> list[str]:
    looks = (
        {"ground": "#e9d8a6", "petals": "#e07a96", "zoom": 1.28, "turn": 1.4},
        {"ground": "#c9ccd1", "petals": "#80868f", "zoom": 1.08, "turn": -1.0, "gray": True},
    )
    return [_flower(x, y, side, **look) for (x, y), look in zip(positions, looks)]  # type: ignore[arg-type]


def _backbone(x: float, y: float, width: float, height: float) -> list[str]:
    inset = height * 0.24
    shape = f"M{x} {y} L{x + width} {y + inset} L{x + width} {y + height - inset} L{x} {y + height} Z"
    return [
        f'<path d="{shape}" fill="{KEPT}" stroke="{KEPT}" stroke-width="8" stroke-linejoin="round"/>',
        _text(x + width / 2, y + height / 2 - 1, "backbone", size=16, fill=PAPER, more='font-weight="600"'),
        _text(x + width / 2, y + height / 2 + 19, "f", size=16, fill=PAPER, more='font-style="italic"'),
    ]


def _box(x: float, y: float, width: float, height: float, first: str, second: str) -> list[str]:
    return [
        f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="10" fill="{SOFT}" stroke="{MUTED}" '
        'stroke-width="1.6" stroke-dasharray="5 4"/>',
        _text(x + width / 2, y + height / 2 - 2, first, size=16),
        _text(x + width / 2, y + height / 2 + 17, second, size=13, fill=MUTED),
    ]


def _matrix(x: float, y: float, side: float) -> list[str]:
    """The Jaccard index of all pairs of six images and their other views, as the library computes it."""
    generator = torch.Generator().manual_seed(3)
    a = torch.randn(6, 16, generator=generator)
    b = a + 0.35 * torch.randn(6, 16, generator=generator)
    values = Jaccard().all_pairs(a, b)
    cell = side / 6
    return [
        f'<rect x="{x + j * cell + 1:.1f}" y="{y + i * cell + 1:.1f}" width="{cell - 2:.1f}" height="{cell - 2:.1f}" '
        f'rx="2.5" fill="{KEPT}" fill-opacity="{0.1 + 0.9 * float(values[i, j]):.2f}"/>'
        for i in range(6)
        for j in range(6)
    ]


def _bracket(x1: float, x2: float, y: float, text: str, color: str) -> list[str]:
    path = f"M{x1} {y} v8 h{x2 - x1} v-8"
    return [
        f'<path d="{path}" fill="none" stroke="{color}" stroke-width="1.8"/>',
        _text((x1 + x2) / 2, y + 30, text, size=15, fill=color, more='font-weight="600"'),
    ]


_SAID = (
    "An image becomes two views. The backbone encodes both, a projector maps the features, a relation says how alike "
    "each pair is, and the loss makes views of one image alike. Only the backbone is kept."
)


def schematic() -> str:
    """From relation to loss to backbone, wide for desks and tall for phones."""
    wide = [
        _photo(14, 92, 96),
        _text(62, 212, "an image", fill=MUTED),
        _arrow(118, 128, 156, 92),
        _arrow(118, 152, 156, 190),
        *_views([(164, 48), (164, 160)], 76),
        _text(202, 262, "two views", fill=MUTED),
        _arrow(248, 88, 292, 116),
        _arrow(248, 196, 292, 168),
        *_backbone(304, 62, 128, 160),
        _arrow(442, 142, 482, 142),
        *_box(490, 102, 104, 80, "projector", "one a space"),
        _arrow(600, 142, 640, 142),
        *_matrix(650, 76, 132),
        _text(716, 60, "relation", size=16),
        _arrow(792, 142, 832, 142),
        *_box(840, 102, 106, 80, "loss", "and gradient"),
        f'<path d="M893 94 C 880 4, 420 -6, 374 62" fill="none" stroke="{MUTED}" stroke-width="1.6" '
        'stroke-dasharray="2 5" stroke-linecap="round"/>',
        _arrow(378, 56, 371, 68),
        *_bracket(300, 436, 244, "what you keep", KEPT),
        *_bracket(490, 946, 244, "only while training", MUTED),
    ]
    tall = [
        _photo(132, 6, 96),
        _text(244, 58, "an image", fill=MUTED, anchor="start"),
        _arrow(160, 110, 126, 140),
        _arrow(200, 110, 234, 140),
        *_views([(74, 148), (210, 148)], 76),
        _arrow(114, 232, 146, 262),
        _arrow(246, 232, 214, 262),
        f'<rect x="98" y="272" width="164" height="72" rx="10" fill="{KEPT}"/>',
        _text(180, 303, "backbone", size=17, fill=PAPER, more='font-weight="600"'),
        _text(180, 326, "what you keep", size=14, fill=PAPER),
        _arrow(180, 350, 180, 378),
        *_box(118, 386, 124, 66, "projector", "one a space"),
        _arrow(180, 458, 180, 484),
        *_matrix(120, 492, 120),
        _text(256, 557, "relation", size=16, anchor="start"),
        _arrow(180, 618, 180, 644),
        *_box(118, 652, 124, 62, "loss", "and gradient"),
        f'<path d="M106 386 h-8 v328 h8" fill="none" stroke="{MUTED}" stroke-width="1.8"/>',
        _text(
            82, 556, "only while training", size=15, fill=MUTED, more='font-weight="600" transform="rotate(-90 82 556)"'
        ),
    ]
    return (
        '<div class="schematic">' + _svg(960, 284, "wide", _SAID, wide) + _svg(360, 724, "tall", _SAID, tall) + "</div>"
    )


def _chart(
    curves: dict[str, Sequence[tuple[float, float]]],
    *,
    xs: Sequence[float],
    ys: Sequence[float],
    labels: tuple[str, str],
    described: str,
    dots: bool = False,
) -> str:
    """Curves over an axis each, their names in a line above."""
    left, top, width, height = 58, 46, 460, 250
    x0, x1, y0, y1 = xs[0], xs[-1], ys[0], ys[-1]

    def at(x: float, y: float) -> tuple[float, float]:
        return left + width * (x - x0) / (x1 - x0), top + height * (y1 - y) / (y1 - y0)

    body = []
    for y in ys:
        _, py = at(x0, y)
        body.append(f'<line x1="{left}" y1="{py:g}" x2="{left + width}" y2="{py:g}" stroke="{LINE}" stroke-width="1"/>')
        body.append(_text(left - 10, py + 5, f"{y:g}".replace("-", "−"), size=14, fill=MUTED, anchor="end"))
    for x in xs:
        body.append(_text(at(x, y0)[0], top + height + 22, f"{x:g}".replace("-", "−"), size=14, fill=MUTED))
    legend = left
    for color, (name, points) in zip(SERIES, curves.items()):
        placed = [at(x, y) for x, y in points if y0 - 1e-9 <= y <= y1 + 1e-9]
        path = "M" + " L".join(f"{x:.1f} {y:.1f}" for x, y in placed)
        body.append(f'<path d="{path}" fill="none" stroke="{color}" stroke-width="2.6" stroke-linejoin="round"/>')
        if dots:
            body += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.4" fill="{color}"/>' for x, y in placed]
        body.append(f'<line x1="{legend}" y1="18" x2="{legend + 20}" y2="18" stroke="{color}" stroke-width="3"/>')
        body.append(_text(legend + 26, 23, name, size=14, anchor="start"))
        legend += 50 + round(7.6 * len(name))
    body.append(_text(left + width / 2, top + height + 46, labels[0], size=14, fill=MUTED))
    body.append(
        _text(
            16, top + height / 2, labels[1], size=14, fill=MUTED, more=f'transform="rotate(-90 16 {top + height / 2})"'
        )
    )
    return _svg(540, 350, "chart", described, body)


def relations() -> str:
    """What each relation says of two unit vectors as the angle between them grows; for Jaccard, in both spaces."""
    angles = torch.linspace(0, math.pi, 91)
    a = torch.tensor([[1.0, 0.0]]).expand(91, 2)
    b = torch.stack([angles.cos(), angles.sin()], 1)
    found = {
        "Cosine": Cosine().matched(a, b),
        "Tanimoto": Tanimoto().matched(a, b),
        "Jaccard": Jaccard().matched(torch.cat([a, a], 1), torch.cat([b, b], 1)),
        "Euclidean": Euclidean().matched(a, b),
    }
    degrees = angles.rad2deg().tolist()
    curves = {name: list(zip(degrees, values.tolist())) for name, values in found.items()}
    return _chart(
        curves,
        xs=(0, 45, 90, 135, 180),
        ys=(-2, -1, 0, 1),
        labels=("angle between two unit vectors, in degrees", "value"),
        described="Cosine, Tanimoto, Jaccard and the negated Euclidean distance over the angle between two vectors.",
    )


def power() -> str:
    """The smallest difference that n paired seeds find four times in five, in standard deviations of the difference."""
    seeds = range(3, 16)
    curves = {
        f"{count} comparison{'s' * (count > 1)}": [(n, detectable(1.0, n, comparisons=count)) for n in seeds]
        for count in (1, 5, 15)
    }
    return _chart(
        curves,
        xs=(3, 6, 9, 12, 15),
        ys=(0, 1, 2, 3, 4),
        labels=("paired seeds", "difference, in standard deviations"),
        described="The smallest difference that is found with a power of 0.8, over the number of seeds: it falls "
        "quickly up to six seeds and slowly after.",
        dots=True,
    )


DRAWINGS: dict[str, Callable[[], str]] = {"schematic": schematic, "relations": relations, "power": power}
"""Every drawing by the name that pages ask for it."""
