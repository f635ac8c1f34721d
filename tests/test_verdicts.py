"""The table of verdicts: each claim is a difference of a study that exists."""

import pytest

from relatum.studies import verdicts
from relatum.studies.catalog import studies
from relatum.studies.verdicts import CLAIMS, Claim
from test_studies import put, small, told


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: f"{claim.study}-{claim.row}-{claim.column}-{claim.metric}")
def test_a_claim_is_a_cell_with_a_baseline(claim):
    grid = studies()[claim.study].at(claim.scale)
    assert claim.column in grid.columns
    assert claim.metric in grid.study.metrics
    assert grid.baseline_of(claim.row) is not None
    assert grid.baseline_of(claim.row) in grid.rows


def test_a_paper_s_difference_is_that_of_its_numbers():
    for claim in CLAIMS:
        if " = " in claim.paper:
            terms, _, rest = claim.paper.partition(" = ")
            a, b = (float(word) for word in terms.split()[-3::2])
            assert f"{a - b:+.2f}".rstrip("0").rstrip(".") in (rest.split()[0].rstrip("0").rstrip("."), "+0"), claim


def test_what_is_run_is_told_and_what_is_not_is_said_to_be_not(tmp_path, monkeypatch):
    made = told(tmp_path / "runs", (50.0, 51.0, 49.0, 50.5, 50.0, 49.5), (52.1, 53.0, 51.2, 52.4, 52.0, 51.6))
    for cell in made.cells:
        put(cell, {"plain": 50.0, "smooth": 52.0}[cell.row] + cell.seed / 10, seconds={"plain": 60.0, "smooth": 90.0}[cell.row])  # fmt: skip  # noqa: E501
    study = small(columns={"A": {}}, scales={"cpu": made.grid.study.scales["cpu"]})
    monkeypatch.setattr(verdicts, "studies", lambda: {"small": study})
    claims = (
        Claim("smooth helps", "a paper", "small", "smooth", "A", "top1"),
        Claim("KD helps", "", "small", "KD", "A", "top1"),
    )
    table = verdicts.verdicts(tmp_path / "runs", tmp_path / "results", claims)
    first, second = (list(row) for row in table.rows)
    assert first[:2] == ["smooth helps", "a paper"]
    assert first[4:] == ["1.50", "small, cpu"]
    assert second[2:] == ["", "not run", "", "small, cpu"]
