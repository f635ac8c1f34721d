"""Write a page about a study or about runs: one HTML file that opens without a network."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from relatum.cli.arguments import parse, write

if TYPE_CHECKING:
    from relatum.data.images import Images
    from relatum.measurement.measurer import Measurer
    from relatum.networks.backbones import Backbone
    from relatum.reports.page import Neighbor, Page

USAGE = "STUDY|RUN [RUN ...] [--scale cpu] [--out FILE.html]"

QUERIES, NEIGHBORS = 8, 5  # of a gallery, the latter before and after training
BANK = 3_000  # training images that neighbors are looked for in
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
    galleries: dict[Path, dict[str, list[list[Neighbor]]]] = {}
    for run in records if neighbors else ():
        if (run / "encoder.safetensors").is_file() and len(galleries) < GALLERIES:
            found_here = _galleries(run)
            if found_here:
                galleries[run] = found_here
    return page_of(records, galleries)


def _galleries(run: Path) -> "dict[str, list[list[Neighbor]]]":
    """The nearest training images of some test images, before and after training; none without the data."""
    import logging

    from relatum.cli.arguments import device_of, precision_of, recipe_of
    from relatum.data.images import first
    from relatum.networks.export import load_encoder
    from relatum.recipes.building import measurer_of, prepare
    from relatum.recipes.trained import weights_file

    recipe = recipe_of(run)
    try:
        prepared = prepare(recipe)
    except (FileNotFoundError, OSError) as error:
        logging.getLogger(__name__).warning("no neighbors of %s: %s", run, error)
        return {}
    device = device_of(recipe)
    measurer = measurer_of(recipe, prepared, device, precision_of(recipe, device))
    encoders = {"after training": load_encoder(weights_file(str(run)))[0]}
    if measurer.untrained is not None:
        encoders = {"before training": measurer.untrained(), **encoders}
    bank = measurer.train if len(measurer.train) <= BANK else first(measurer.train, BANK, seed=0)
    return {name: _gallery(measurer, encoder.to(device).eval(), bank) for name, encoder in encoders.items()}


def _gallery(measurer: "Measurer", encoder: "Backbone", bank: "Images") -> "list[list[Neighbor]]":
    from relatum.evaluation.retrieval import nearest
    from relatum.reports.page import Neighbor, thumbnail_of
    from relatum.reports.pictures import queries_of

    images = measurer.test if measurer.test is not None else bank
    queries = queries_of(images.labels)[:QUERIES]
    asked = images.subset(queries)
    known, test = (measurer.embed(encoder.embed, part) for part in (bank, asked))
    assert known is not None  # there is one process
    assert test is not None
    skip = int(images is bank)  # an image is nearest to itself
    found = nearest(test.features, known.features, min(NEIGHBORS + skip, len(bank)))
    classes = measurer.source.classes

    def shown(part: "Images", i: int, distance: float | None = None, same: bool = False) -> Neighbor:
        label, file = int(part.labels[i]), Path(part.names[i]).name
        name = file if label < 0 else classes[label] if file.isdigit() else f"{classes[label]} ({file})"
        return Neighbor(thumbnail_of(part.read(i).permute(1, 2, 0).cpu().numpy()), name, distance, same)

    rows = []
    for query, (near, alike) in enumerate(zip(found.indices[:, skip:].tolist(), found.similarities[:, skip:].tolist())):
        own = int(asked.labels[query])
        beside = [shown(bank, i, 1 - cosine, int(bank.labels[i]) == own >= 0) for i, cosine in zip(near, alike)]
        rows.append([shown(asked, query), *beside])
    return rows
