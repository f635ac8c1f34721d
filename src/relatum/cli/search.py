"""Find images that are alike, by the encoder of a run: the nearest of a query, or duplicates in a folder.

With --query: the nearest images of a folder, with their distances (1 - cosine of the features, 0 to 2). Without: the
groups of images in the folder that lie within --threshold of each other.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from relatum.cli.arguments import device_of, parse, recipe_of, run_argument, write

if TYPE_CHECKING:
    from relatum.data.images import Images
    from relatum.reports.page import Neighbor
    from relatum.training.encoding import RunEncoder

USAGE = "RUN --in DIR [--query IMAGE] [--k 10] [--threshold 0.05] [--out GALLERY.html]"

SHOWN = 192  # pixels of an image's side in a gallery: at least as many as it is shown on
PRINTED = 20  # groups of duplicates


def run(args: Sequence[str]) -> None:
    """Search."""
    import tyro

    @dataclass(frozen=True)
    class Search:
        images: Annotated[str, tyro.conf.arg(name="in")] = ""
        """Where to search: a folder of images, or anything that --data.source takes."""
        query: str | None = None
        """An image, or several: a folder or a pattern. Without it duplicates are looked for."""
        k: int = 10
        """Images that are found for each query."""
        threshold: float | None = None
        """Leave out what is further away than this: 0 is the same, 2 the opposite."""
        out: Path | None = None
        """Write a gallery, an HTML page that opens without a network."""
        root: str = ".data"
        """Where named sets are found."""
        on_bad_image: Literal["error", "skip"] = "error"
        """What to do with a file that cannot be read."""

    folder, rest = run_argument("search", args)
    chosen = parse(Search, f"search {folder}", rest)
    _check(chosen)
    from relatum.training.encoding import encoder_in, images_in

    if chosen.query is not None:
        asked = images_in(chosen.query, root=chosen.root, on_bad_image=chosen.on_bad_image).train
    bank = images_in(chosen.images, root=chosen.root, on_bad_image=chosen.on_bad_image).train
    recipe = recipe_of(folder)
    encoder = encoder_in(folder, recipe, device_of(recipe))
    if chosen.query is None:
        rows = _duplicates(encoder, bank, chosen.threshold)
        about = f"within {chosen.threshold:g} of each other in {chosen.images}"
    else:
        rows = _nearest(encoder, asked, bank, chosen.k, chosen.threshold, gallery=chosen.out is not None)
        about = f"nearest to {chosen.query} in {chosen.images}"
    if chosen.out:
        _gallery(chosen.out, about, folder, rows)


def _check(chosen: Any) -> None:
    if not chosen.images:
        raise ValueError("`relatum search` needs --in DIR, where to search: a folder of images, for example.")
    if chosen.k < 1:
        raise ValueError(f"--k is {chosen.k}; expected at least 1 image.")
    if chosen.threshold is not None and not 0 <= chosen.threshold <= 2:
        raise ValueError(f"--threshold is {chosen.threshold:g}; expected a distance between 0 (the same) and 2.")
    if chosen.query is None and chosen.threshold is None:
        raise ValueError(
            "`relatum search` needs --query IMAGE, to find what is like it, or --threshold 0.05, to find duplicates."
        )
    if chosen.out is not None and chosen.out.suffix not in (".html", ".htm"):
        raise ValueError(f"--out is {chosen.out}; a gallery is written as .html.")


def _nearest(
    encoder: "RunEncoder", asked: "Images", bank: "Images", k: int, threshold: float | None, *, gallery: bool
) -> "list[list[Neighbor]]":
    """Print the nearest of each query; with a gallery give its rows."""
    from relatum.evaluation.retrieval import nearest

    names, files = asked.names, bank.names
    places = {_place(file): i for i, file in enumerate(files)}
    itself = [places.get(_place(name)) for name in names]
    excluded = any(place is not None for place in itself)  # a query that lies among the images is found beside them
    most = len(bank) - excluded
    if not most:
        raise ValueError(f"{files[0]} is the query and the only image; name a folder with others by --in.")
    if k > most:
        print(f"{most} image{'s' * (most > 1)} to search in, fewer than --k {k}: all are listed.")
    found = nearest(encoder.features(asked), encoder.features(bank), min(k, most) + excluded)
    rows = []
    for i, (alike, near) in enumerate(zip(found.similarities.tolist(), found.indices.tolist())):
        pairs = [(j, max(0.0, 1 - cosine)) for j, cosine in zip(near, alike) if j != itself[i]][:k]
        pairs = [(j, d) for j, d in pairs if threshold is None or d <= threshold]
        print(names[i] + ("" if pairs else f": nothing within {threshold:g}"))
        for j, distance in pairs:
            print(f"  {distance:.4f}  {files[j]}")
        if gallery:
            rows.append([_shown(asked, i, names[i]), *(_shown(bank, j, files[j], d) for j, d in pairs)])
    return rows


def _duplicates(encoder: "RunEncoder", bank: "Images", threshold: float) -> "list[list[Neighbor]]":
    """Print groups of images that are close to each other, and give them as rows: the first, then the others."""
    from relatum.evaluation.duplicates import groups_of, pairs_within

    files, features = bank.names, encoder.features(bank)
    groups = groups_of(pairs_within(features, threshold).rows)
    inside = sum(map(len, groups))
    print(
        f"{len(bank):,} images, {len(groups):,} group{'s' * (len(groups) != 1)} within {threshold:g} of each other"
        + (f", {inside:,} images in them; the distances are to the first of a group" if groups else "")
    )
    rows = []
    for number, (first, *others) in enumerate(groups):
        apart = (1 - _cosines(features, first, others)).clamp(min=0).tolist()
        if number < PRINTED:
            print(f"  {files[first]}")
            for j, distance in zip(others, apart):
                print(f"    {distance:.4f}  {files[j]}")
        rows.append([_shown(bank, first, files[first]), *(_shown(bank, j, files[j], d) for j, d in zip(others, apart))])
    if len(groups) > PRINTED:
        print(f"  ... and {len(groups) - PRINTED:,} groups more; --out GALLERY.html shows them")
    return rows


def _cosines(features: Any, first: int, others: Sequence[int]) -> Any:
    import torch.nn.functional as F

    return F.normalize(features[list(others)]) @ F.normalize(features[first], dim=0)


def _place(name: str) -> Path:
    return Path(name).expanduser().resolve()


def _shown(images: "Images", i: int, name: str, distance: float | None = None) -> "Neighbor":
    """An image of the gallery, as JPEG: a page of a hundred photos stays below its limit."""
    from io import BytesIO

    from relatum.reports.page import Neighbor
    from relatum.reports.tiles import enlarged

    picture, out = enlarged(images.read(i).permute(1, 2, 0).numpy(), SHOWN), BytesIO()
    picture.save(out, "jpeg", quality=88)
    return Neighbor(out.getvalue(), Path(name).name, distance)


def _gallery(out: Path, about: str, run: Path, rows: "Sequence[Sequence[Neighbor]]") -> None:
    from relatum.reports.page import Page

    page = Page(
        "Images that are alike",
        f"{about}, by the encoder of {run}",
        footer="Made by relatum search.",
        remedy="ask for fewer: a single --query, a smaller --k or --threshold",
    )
    note = "First what was asked for, then the nearest with their distances (1 - cosine of the features)."
    if rows:
        page.neighbors("Found", rows, note, large=True)
    else:
        page.text("Found", ["nothing"])
    write(out, page.html())
    print(out)
