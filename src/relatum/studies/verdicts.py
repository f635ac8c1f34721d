"""What the papers claim, and what our Records say of it: the table that opens the results."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from relatum.reports.tables import Table
from relatum.studies.answer import Evidence, Place
from relatum.studies.catalog import studies
from relatum.studies.plan import plan
from relatum.studies.statistics import LEAST_SEEDS


@dataclass(frozen=True)
class Claim:
    """A claim as one difference of one study.

    Attributes:
        text: what is claimed.
        paper: the number that the paper prints for it, and where; empty for claims that are ours.
        study, row, column, metric: whose difference to the row's baseline decides it.
        scale: of the study.
    """

    text: str
    paper: str
    study: str
    row: str
    column: str
    metric: str
    scale: str = "cpu"


_JACCARD = "Jiang et al. 2022, Table 2"
_CORSD = "Yu et al. 2023, Table"

CLAIMS = (
    *(
        Claim(
            f"SimCLR with Eq. (4) beats the cosine on {column}",
            paper,
            "jaccard-arms",
            "Eq. (4), weights 1/3",
            column,
            m,
        )
        for column, m, paper in (
            ("CIFAR-100", "knn_top1", f"k-NN 63.9 - 62.1 = +1.8 ({_JACCARD})"),
            ("CIFAR-100", "linear_top1", f"linear 69.5 - 68.6 = +0.9 ({_JACCARD})"),
            ("CIFAR-10", "knn_top1", f"k-NN 88.6 - 88.6 = 0.0 ({_JACCARD})"),
            ("CIFAR-10", "linear_top1", f"linear 91.8 - 91.5 = +0.3 ({_JACCARD})"),
        )
    ),
    Claim("The Jaccard index alone beats the cosine", "", "jaccard-arms", "Jaccard alone", "CIFAR-100", "knn_top1"),
    Claim(
        "The second projector alone, without the index, beats the cosine",
        "",
        "jaccard-arms",
        "two cosine heads",
        "CIFAR-100",
        "knn_top1",
    ),
    Claim("The index's form in one space beats the cosine", "", "jaccard-arms", "Tanimoto", "CIFAR-100", "knn_top1"),
    *(
        Claim(f"The gain with {column}", paper, "classes", "SimCLR + Jaccard", column, "knn_top1")
        for column, paper in (
            ("10 classes (CIFAR-10)", f"k-NN 0.0 ({_JACCARD})"),
            ("20 classes (CIFAR-100, coarse)", ""),
            ("100 classes (CIFAR-100)", f"k-NN +1.8 ({_JACCARD})"),
            ("200 classes (Tiny-ImageNet)", f"k-NN 39.5 - 35.9 = +3.6 ({_JACCARD})"),
        )
    ),
    *(
        Claim(text, paper, "corsd-1", row, "resnet8x4", "top1")
        for text, row, paper in (
            ("CORSD beats cross-entropy", "CORSD", f"ResNet-18 81.10 - 77.09 = +4.01 ({_CORSD} 1)"),
            ("CORSD with weights that were chosen beats cross-entropy", "CORSD, weights chosen", ""),
            ("Batches of triples alone change cross-entropy", "cross-entropy on triples", ""),
            ("Label smoothing beats cross-entropy", "label smoothing", ""),
            ("CORSD with Jaccard in the place of the networks beats cross-entropy", "CORSD with Jaccard", ""),
            ("Knowledge distillation from a teacher beats cross-entropy", "KD", f"78.34 - 77.09 = +1.25 ({_CORSD} 1)"),
        )
    ),
)
"""In the order of the table."""


def verdicts(runs: Path, results: Path, claims: Sequence[Claim] = CLAIMS) -> Table:
    """A row for each claim: the paper's number, our paired difference with its interval, and what may be said.

    Args:
        runs: the folder of run folders.
        results: the folder of collected Records.
        claims: to decide.

    Raises:
        ValueError: for a Record of another recipe in a cell, or two Records for one seed.
    """
    known, seen, rows = studies(), dict[tuple[str, str], Evidence](), []
    for claim in claims:
        key = claim.study, claim.scale
        if key not in seen:
            seen[key] = Evidence(plan(known[claim.study].at(claim.scale), runs, results=results))
        rows.append([claim.text, claim.paper, *_ours(claim, seen[key])])
    return Table(
        ["claim", "paper", "ours", "verdict", "cost", "study"],
        rows,
        [
            "ours: the mean of paired differences to the row's baseline in points, and the interval that Holm's "
            "correction over the study's table leaves of 95 %.",
            f"A difference is called one from {LEAST_SEEDS} paired seeds on, where the interval excludes 0.",
            "cost: seconds of training over the baseline's.",
            "The papers' numbers are of single runs, the best epoch on the test set, of networks and images that are "
            "many times larger: the scale of each row stands with its study.",
        ],
    )


def _ours(claim: Claim, evidence: Evidence) -> list[str]:
    where = f"{claim.study}, {claim.scale}"
    difference = evidence.differences.get(Place(claim.row, claim.column, claim.metric))
    if difference is None:
        return ["", "not run", "", where]
    baseline = evidence.grid.baseline_of(claim.row) or ""
    pairs = [evidence.records.get((row, claim.column), {}).values() for row in (claim.row, baseline)]
    own, other = (sum(record.seconds for record in side) / max(len(side), 1) for side in pairs)
    interval = f" ({difference.low:+.2f} to {difference.high:+.2f})" if difference.n > 1 else ""
    ratio = f"{own / other:.2f}" if other else ""
    return [f"{difference.mean:+.2f}{interval}, n={difference.n}", evidence.verdict(difference), ratio, where]
