"""Compute the features of a folder of images, by the encoder of a run."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, Literal

from relatum.cli.arguments import device_of, parse, recipe_of, run_argument
from relatum.core.files import write_durably

USAGE = "RUN --images DIR [--out FILE.npz|FILE.parquet] [--on-bad-image skip]"
SUFFIXES = (".npz", ".parquet")


@dataclass(frozen=True)
class Embed:
    """Features of images."""

    images: str
    """A folder of images, or anything that --data.source takes."""
    out: Path = Path("embeddings.npz")
    """features (n, d) float32, labels (n) with -1 for none, names (n), classes: an .npz file, or .parquet for a table
    with a row an image."""
    root: str = ".data"
    """Where named sets are found."""
    on_bad_image: Literal["error", "skip"] = "error"
    """What to do with a file that cannot be read."""


def run(args: Sequence[str]) -> None:
    """Embed."""
    folder, rest = run_argument("embed", args)
    chosen = parse(Embed, f"embed {folder}", rest)
    if chosen.out.suffix not in SUFFIXES:
        raise ValueError(f"--out is {chosen.out}; expected a name that ends in {' or '.join(SUFFIXES)}.")
    if chosen.out.suffix == ".parquet":
        import pyarrow.parquet  # noqa: F401 - an extra: that it is missing is said before anything is computed
    from relatum.data import sources
    from relatum.recipes import building
    from relatum.training.run_folder import encoder_of

    recipe = recipe_of(folder)
    # Streamed images keep the names of their files.
    source = sources.load(
        chosen.images, root=chosen.root, on_bad_image=chosen.on_bad_image, resident="no", together=True
    )
    backbone, info = encoder_of(folder)
    source = replace(source, mean=info.mean, std=info.std)
    device = device_of(recipe)
    recipe = replace(recipe, evaluation=replace(recipe.evaluation, run=()))  # nothing is measured
    measurer = building.measurer_of(recipe, building.Prepared(source, source.train, None), device)
    found = measurer.embed(backbone.to(device).eval().embed, source.train)
    assert found is not None  # there is one process
    save(chosen.out, found.features.numpy(), found.labels.numpy(), source.train.names, source.classes)
    print(f"{len(found.labels)} images, {found.features.shape[1]} features each, in {chosen.out}")


def save(out: Path, features: Any, labels: Any, names: Sequence[str], classes: Sequence[str]) -> None:
    """Write features, one row an image, whole or not at all."""
    import numpy as np

    def write(file: BinaryIO) -> None:
        if out.suffix == ".npz":
            np.savez(file, features=features, labels=labels, names=np.array(names), classes=np.array(classes))
        else:
            import pyarrow as pa
            from pyarrow import parquet

            rows = pa.FixedSizeListArray.from_arrays(pa.array(features.ravel()), features.shape[1])
            label = [classes[i] if 0 <= i < len(classes) else None for i in labels.tolist()]
            columns = {"name": pa.array(list(names)), "label": pa.array(label, pa.string()), "features": rows}
            parquet.write_table(pa.table(columns), file)

    try:
        write_durably(out, write)
    except OSError as error:
        raise OSError(f"{out} cannot be written: {error.strerror or error}. Choose another --out.") from error
