"""One HTML file about runs: tables that sort, charts that answer, pictures, recipes. It opens without a network.

The charts' runtime is inlined once (0.9 MB); everything else is text. A page is a title and sections; whoever has
something to show makes a section of it. Tables sort by twenty lines of our own script: the libraries that do it bring
a framework of half a megabyte or load it from elsewhere.
"""

import base64
import html
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from relatum.reports.records import Record, flat

if TYPE_CHECKING:
    import altair as alt

LIMIT = 1_500_000  # bytes of a whole page
THUMBNAIL = 112  # pixels: the longer side of an image of a gallery


class Cell(NamedTuple):
    """A cell of a table.

    Attributes:
        text: what is read.
        value: what it sorts by; None sorts by the text.
        tone: "better" or "worse" for what is told apart, which is shown so; empty for all else.
    """

    text: str
    value: float | None = None
    tone: Literal["", "better", "worse"] = ""


class Neighbor(NamedTuple):
    """An image of a gallery.

    Attributes:
        png: the image, encoded; JPEG is known by its first bytes.
        name: its class, file or number.
        distance: to the query; None for the query itself.
        same: whether it is of the query's class.
    """

    png: bytes
    name: str
    distance: float | None = None
    same: bool = False


@dataclass
class Page:
    """A page under construction: sections in the order in which they are added.

    Args:
        title: what the page is about.
        lead: one sentence below it.
        footer: what stands at its end.
        remedy: what makes a page smaller that is too large.
    """

    title: str
    lead: str = ""
    footer: str = "Made by relatum report. Everything on this page stands in the Records that it names."
    remedy: str = "name fewer runs"
    _sections: list[tuple[str, str]] = field(default_factory=list)
    _charts: list[dict[str, Any]] = field(default_factory=list)

    def table(
        self,
        title: str,
        headings: Sequence[str],
        rows: Sequence[Sequence[Cell | str]],
        note: str = "",
        caption: str = "",
        below: Sequence[str] = (),
    ) -> None:
        """A section with a table that sorts by each of its columns.

        Args:
            title: of the section.
            headings: one a column.
            rows: as many cells as there are headings.
            note: plain text above the table.
            caption: what the table shows, in a line.
            below: lines of plain text below it, such as how its numbers were measured.

        Raises:
            ValueError: for a row of another length than the headings.
        """
        lines = "".join(f"<li>{html.escape(line)}</li>" for line in below)
        self._add(title, note, _table(headings, rows, caption) + (f'<ul class="note">{lines}</ul>' if lines else ""))

    def charts(self, title: str, charts: "Sequence[alt.TopLevelMixin | None]", note: str = "") -> None:
        """A section with charts side by side; None is left out, and a section without charts too."""
        places = []
        for chart in charts:
            if chart is not None:
                self._charts.append(chart.to_dict())
                number = len(self._charts)
                described = html.escape(str(self._charts[-1].get("description", "")), quote=True)
                places.append(
                    f'<div class="chart" data-spec="chart-{number}" role="img" aria-label="{described}"></div>'
                )
        if places:
            self._add(title, note, f'<div class="charts">{"".join(places)}</div>')

    def pictures(self, title: str, paths: Mapping[str, Path], note: str = "") -> None:
        """A section with image files, each below its caption; a file that is not there is left out."""
        figures = [
            f'<figure><img alt="{html.escape(caption, quote=True)}" src="{_data_uri(_lighter(path.read_bytes()))}">'
            f"<figcaption>{html.escape(caption)}</figcaption></figure>"
            for caption, path in paths.items()
            if path.is_file()
        ]
        if figures:
            self._add(title, note, "".join(figures))

    def neighbors(
        self, title: str, rows: Sequence[Sequence[Neighbor]], note: str = "", *, large: bool = False, gap: int = 0
    ) -> None:
        """A section with a row of images for each query, the query first.

        Args:
            large: large images, which fill more rows than one.
            gap: the place in a row that stands apart from those before it, as where other neighbors begin; 0 for none.
        """
        kind = "gallery large" if large else "gallery"
        self._add(title, note, f'<div class="{kind}">{"".join(_gallery_row(row, gap) for row in rows)}</div>')

    def recipes(self, records: Mapping[str, Record]) -> None:
        """A section that shows the recipe of each run, and the fields in which any two differ."""
        if not records:
            return
        trees = {name: flat(record.recipe) for name, record in records.items()}
        names = list(trees)
        options = "".join(f"<option>{html.escape(name)}</option>" for name in names)
        second = names[min(1, len(names) - 1)]
        others = options.replace(f"<option>{html.escape(second)}<", f"<option selected>{html.escape(second)}<")
        body = (
            f'<div id="compare"><label>run <select>{options}</select></label>'
            f"<label>beside <select>{others}</select></label>"
            '<div class="scroll"><table><thead><tr><th>field</th><th class="text">run</th><th class="text">beside</th>'
            "</tr></thead><tbody></tbody></table></div></div>"
            f'<script type="application/json" id="recipes">{_json(trees)}</script>'
        )
        note = "Two runs: the fields in which they differ. The same run twice: its whole recipe."
        self._add("Recipes", note, body)

    def text(self, title: str, paragraphs: Sequence[str]) -> None:
        """A section of plain text."""
        self._add(title, "", "".join(f"<p>{html.escape(paragraph)}</p>" for paragraph in paragraphs))

    def html(self) -> str:
        """The whole page.

        Raises:
            ValueError: for a page of more than 1.5 MB, with what takes the room.
        """
        links = "".join(f'<a href="#s{i}">{html.escape(t)}</a>' for i, (t, _) in enumerate(self._sections))
        nav = f"<nav>{links}</nav>" if len(self._sections) > 1 else ""
        sections = "".join(
            f'<section id="s{i}"><h2>{html.escape(title)}</h2>{body}</section>'
            for i, (title, body) in enumerate(self._sections)
        )
        specs = "".join(
            f'<script type="application/json" id="chart-{i}">{_json(spec)}</script>'
            for i, spec in enumerate(self._charts, 1)
        )
        runtime = f"<script>{_runtime()}</script>" if self._charts else "<script>vegaEmbed = undefined</script>"
        page = (
            '<!doctype html><html lang="en"><head><meta charset="utf-8">'
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            f"<title>{html.escape(self.title)}</title><link rel=icon href='data:,'><style>{_asset('page.css')}</style>"
            f'</head><body><main><h1>{html.escape(self.title)}</h1><p class="lead">{html.escape(self.lead)}</p>'
            f"{nav}{sections}<footer>{html.escape(self.footer)}</footer></main>"
            f"{specs}{runtime}<script>{_asset('page.js')}</script>"
            "</body></html>"
        )
        size = len(page.encode())
        if size > LIMIT:
            biggest = max(self._sections, key=lambda section: len(section[1]))
            raise ValueError(
                f"the page has {size:,} bytes; expected at most {LIMIT:,}. Its section {biggest[0]!r} takes "
                f"{len(biggest[1]):,}: {self.remedy}."
            )
        return page

    def _add(self, title: str, note: str, body: str) -> None:
        above = f'<p class="note">{html.escape(note)}</p>' if note else ""
        self._sections.append((title, above + body))


def thumbnail_of(pixels: Any) -> bytes:
    """An image of a gallery, not larger than `THUMBNAIL`; as JPEG where that is much lighter, as with photos.

    Args:
        pixels: uint8 of shape (h, w, c), gray or RGB.
    """
    from relatum.reports.tiles import enlarged

    small = max(pixels.shape[:2]) <= THUMBNAIL
    return _lighter(png_of(pixels) if small else png_of(np.asarray(enlarged(pixels, THUMBNAIL))))


def _lighter(picture: bytes) -> bytes:
    """A PNG as it is, or as JPEG where that is less than half of it: photos, and not lines or text."""
    from PIL import Image

    out = BytesIO()
    with Image.open(BytesIO(picture)) as image:
        image.convert("RGB").save(out, "jpeg", quality=85)
    return out.getvalue() if 2 * len(out.getvalue()) < len(picture) else picture


def png_of(pixels: Any) -> bytes:
    """An image as PNG.

    Args:
        pixels: uint8 of shape (h, w), (h, w, 1) or (h, w, 3).
    """
    from PIL import Image

    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[:, :, 0]
    out = BytesIO()
    Image.fromarray(pixels).save(out, "png", optimize=True)
    return out.getvalue()


def _table(headings: Sequence[str], rows: Sequence[Sequence[Cell | str]], caption: str) -> str:
    for row in rows:
        if len(row) != len(headings):
            raise ValueError(f"a row has {len(row)} cells and the table {len(headings)} columns: {list(row)}.")
    head = "".join(f'<th scope="col"><button type="button">{html.escape(text)}</button></th>' for text in headings)
    body = "".join("<tr>" + "".join(map(_cell, row)) + "</tr>" for row in rows)
    above = f"<caption>{html.escape(caption)}</caption>" if caption else ""
    return (
        f'<div class="scroll"><table class="sortable">{above}<thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def _cell(cell: Cell | str) -> str:
    cell = Cell(cell) if isinstance(cell, str) else cell
    value = "" if cell.value is None else f' data-value="{cell.value:.10g}"'
    return f"<td{value}{f' class={cell.tone}' if cell.tone else ''}>{html.escape(cell.text)}</td>"


def _gallery_row(row: Sequence[Neighbor], gap: int) -> str:
    figures = []
    for i, image in enumerate(row):
        kind = ("query" if i == 0 else "same" if image.same else "other") + (" apart" if 0 < i == gap else "")
        words = image.name if image.distance is None else f"{image.name}, {image.distance:.3f}"
        figures.append(
            f'<figure class="{kind}"><img alt="{html.escape(words, quote=True)}" src="{_data_uri(image.png)}">'
            f"<figcaption>{html.escape(words)}</figcaption></figure>"
        )
    return f'<div class="row">{"".join(figures)}</div>'


def _data_uri(image: bytes) -> str:
    kind = "jpeg" if image.startswith(b"\xff\xd8") else "png"
    return f"data:image/{kind};base64,{base64.b64encode(image).decode()}"


def _json(value: Any) -> str:
    """JSON that cannot end the script element in which it stands."""
    return json.dumps(value, separators=(",", ":")).replace("<", "\\u003c")


def _asset(name: str) -> str:
    return (files("relatum.reports") / "assets" / name).read_text(encoding="utf-8")


@cache
def _runtime() -> str:
    import altair as alt
    import vl_convert

    version = "v" + ".".join(alt.SCHEMA_VERSION.removeprefix("v").split(".")[:2])
    return vl_convert.javascript_bundle(None, vl_version=version).replace("</script", "<\\/script")  # type: ignore[arg-type]  # None: the default snippet
