"""Name the class of images, and how sure that is, by the encoder of a run.

A run with a classifier is asked for it; for one without labels the nearest of its labeled training images vote.
"""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Literal

from relatum.cli.arguments import device_of, parse, recipe_of, run_argument, write

USAGE = "RUN --images DIR [--out LABELS.csv] [--on-bad-image skip]"


@dataclass(frozen=True)
class Predict:
    """Classes of images."""

    images: str
    """A folder of images, or anything that --data.source takes."""
    out: Path = Path("labels.csv")
    """A table with the columns file, label and confidence (0 to 1), a row an image."""
    root: str = ".data"
    """Where named sets are found."""
    on_bad_image: Literal["error", "skip"] = "error"
    """What to do with a file that cannot be read."""


def run(args: Sequence[str]) -> None:
    """Predict."""
    folder, rest = run_argument("predict", args)
    chosen = parse(Predict, f"predict {folder}", rest)
    if chosen.out.suffix != ".csv":
        raise ValueError(f"--out is {chosen.out}; expected a name that ends in .csv.")
    from relatum.training.encoding import encoder_in, guess, images_in

    images = images_in(chosen.images, root=chosen.root, on_bad_image=chosen.on_bad_image).train
    recipe = recipe_of(folder)
    found = guess(encoder_in(folder, recipe, device_of(recipe)), images)
    text = StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(("file", "label", "confidence"))
    for name, label, confidence in zip(images.names, found.labels.tolist(), found.confidence.tolist()):
        table.writerow((name, found.classes[label], f"{confidence:.4f}"))
    write(chosen.out, text.getvalue())
    counts = found.labels.bincount(minlength=len(found.classes)).tolist()
    print(f"by {found.by}")
    for name, count in sorted(zip(found.classes, counts), key=lambda pair: -pair[1])[:20]:
        if count:
            print(f"  {count:6,}  {name}")
    print(f"{len(images):,} image{'s' * (len(images) != 1)} in {chosen.out}")
