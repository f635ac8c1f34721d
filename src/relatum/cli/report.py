"""Write a page about a study or about runs: one HTML file that opens without a network."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from relatum.cli.arguments import parse, write

if TYPE_CHECKING:
    from relatum.reports.page import Neighbor, Page

USAGE = "STUDY|RUN [RUN ...] [--scale cpu] [--out FILE.html]"

QUERIES, NEIGHBORS = 8, 9  # of a gallery
GALLERIES = 2  # runs whose neighbors are computed


def run(args: Sequence[str]) -> None:
    """Write a page."""
    import tyro

    @dataclass(frozen=True)
    class Report:
        names: tyro.conf.Positional[tuple[str, ...]]
        """A study, or run folders, records, or folders that hold them."""
        scale: str = "cpu"
        """The scale of a study: paper, gpu or cpu."""
        runs: Path = Path("runs")
        """Where the run folders of a study are."""
        results: Path = Path("results")
        """Where the collected Records of a study are."""
        out: Path | None = None
        """The page; by default STUDY-SCALE.html, or report.html in the first run's folder."""
        neighbors: bool = True
        """Show the nearest neighbors of some images of the first runs, from their data, where that is at hand."""

    chosen = parse(Report, "report", args)
    if not chosen.names:
        raise ValueError("`relatum report` needs a study or runs: relatum report runs/demo, for example.")
    out = chosen.out
    if out is not None and out.suffix not in (".html", ".htm"):
        raise ValueError(f"--out is {out}; a page is written as .html.")
    _require_charts()
    from relatum.studies.catalog import studies

    if len(chosen.names) == 1 and chosen.names[0] in studies() and not Path(chosen.names[0]).exists():
        page = _study(chosen.names[0], chosen.scale, chosen.runs, chosen.results)
        out = out or Path(f"{chosen.names[0]}-{chosen.scale}.html")
    else:
        paths = _paths(chosen.names, list(studies()))
        page = _runs(paths, chosen.neighbors)
        out = out or (paths[0] if paths[0].is_dir() else paths[0].parent) / "report.html"
    write(out, page.html())
    print(out)


def _require_charts() -> None:
    try:
        import altair  # noqa: F401
        import vl_convert  # noqa: F401
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"`relatum report` needs {error.name}: install it with `pip install 'relatum[report]'`.", name=error.name
        ) from None


def _paths(names: Sequence[str], studies: Sequence[str]) -> list[Path]:
    for name in names:
        if not Path(name).exists():
            from relatum.recipes.index import did_you_mean

            hint = did_you_mean(name, studies, ", or a folder of runs")
            raise ValueError(f"there is no study and no run {name!r}; {hint}")
    return [Path(name) for name in names]


def _study(name: str, scale: str, runs: Path, results: Path) -> "Page":
    from relatum.studies.catalog import studies
    from relatum.studies.page import page_of
    from relatum.studies.plan import plan

    return page_of(plan(studies()[name].at(scale), runs, results=results))


def _runs(paths: Sequence[Path], neighbors: bool) -> "Page":
    from relatum.reports.records import record_files
    from relatum.reports.runs import page_of

    found = record_files(paths)
    records = {path.parent if path.name == "record.json" else path: record for path, record in found.items()}
    galleries: dict[Path, list[list[Neighbor]]] = {}
    for run in records if neighbors else ():
        if (run / "encoder.safetensors").is_file() and len(galleries) < GALLERIES:
            rows = _gallery(run)
            if rows:
                galleries[run] = rows
    return page_of(records, galleries)


def _gallery(run: Path) -> "list[list[Neighbor]]":
    """The nearest training images of some test images, at their own resolution; none without the data."""
    import logging

    import torch

    from relatum.cli.arguments import device_of, precision_of, recipe_of
    from relatum.evaluation.retrieval import nearest
    from relatum.networks.export import load_encoder
    from relatum.recipes.building import measurer_of, prepare
    from relatum.recipes.trained import weights_file
    from relatum.reports.page import Neighbor, png_of

    recipe = recipe_of(run)
    try:
        prepared = prepare(recipe)
    except (FileNotFoundError, OSError) as error:
        logging.getLogger(__name__).warning("no neighbors of %s: %s", run, error)
        return []
    device = device_of(recipe)
    measurer = measurer_of(recipe, prepared, device, precision_of(recipe, device))
    images = measurer.test if measurer.test is not None else measurer.train
    backbone = load_encoder(weights_file(str(run)))[0].to(device).eval()
    bank, test = (measurer.embed(backbone.embed, part) for part in (measurer.train, images))
    assert bank is not None  # there is one process
    assert test is not None
    queries = torch.linspace(0, len(images) - 1, min(QUERIES, len(images))).long()
    skip = int(images is measurer.train)  # an image is nearest to itself
    found = nearest(test.features[queries], bank.features, min(NEIGHBORS + skip, len(bank.features)))
    classes = prepared.source.classes

    def named(part: "object", number: int, label: int) -> str:
        file = part.names[number] if hasattr(part, "names") else str(number)
        return f"{classes[label]} ({Path(file).name})" if label >= 0 else Path(file).name

    rows = []
    for query, near, alike in zip(
        queries.tolist(), found.indices[:, skip:].tolist(), found.similarities[:, skip:].tolist()
    ):
        label = int(test.labels[query])
        row = [Neighbor(png_of(images.read(query).permute(1, 2, 0).numpy()), named(images, query, label))]
        for number, cosine in zip(near, alike):
            own = int(bank.labels[number])
            pixels = measurer.train.read(number).permute(1, 2, 0).numpy()
            same = own == label and own >= 0
            row.append(Neighbor(png_of(pixels), named(measurer.train, number, own), 1 - cosine, same))
        rows.append(row)
    return rows
