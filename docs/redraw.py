"""Redraw the pictures of the README and of the site from a run of the demo.

    relatum train demo --run runs/demo
    python docs/redraw.py runs/demo

Copies the run's pictures to docs/pictures, and says which numbers of the texts are no longer those of its Record.
"""

import json
import shutil
import sys
from pathlib import Path

DOCS = Path(__file__).parent
PICTURES = {"neighbors.png": "demo.png", "tsne.png": "demo-map.png", "curves.png": "demo-curves.png"}
METRICS = ("knn_top1", "pixels_knn_top1", "untrained_knn_top1")
"""k-NN accuracy of the trained encoder, of the pixels and of the untrained encoder, in percent: rounded in the README,
with a decimal in the quick start."""


def stale(metrics: dict[str, float], readme: str, quick_start: str) -> list[str]:
    """What the texts should say and do not."""
    wanted = [("README.md", readme, f"{metrics[name]:.0f} %") for name in METRICS]
    wanted += [("docs/quickstart.md", quick_start, f"{metrics[name]:.1f} %") for name in METRICS]
    return [f"{file} does not say {number}" for file, text, number in wanted if number not in text]


def main(run: Path) -> int:
    """Copy the pictures; the number of texts that do not say what was measured.

    Raises:
        ValueError: for a run of another recipe, or of a changed one.
    """
    record = json.loads((run / "record.json").read_text(encoding="utf-8"))
    recipe = record["recipe"]
    if (recipe["name"], recipe["train"]["epochs"], record["seed"]) != ("demo", 30, 0):
        raise ValueError(f"{run} is no run of the demo as it is; expected `relatum train demo --run {run}`.")
    for drawn, shown in PICTURES.items():
        shutil.copyfile(run / drawn, DOCS / "pictures" / shown)
    texts = [path.read_text(encoding="utf-8") for path in (DOCS.parent / "README.md", DOCS / "quickstart.md")]
    said = stale(record["metrics"], *texts)
    print("\n".join(said) or "pictures redrawn; the texts say what was measured")
    return len(said)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
