"""Print a table of runs, with mean and spread over seeds, in Markdown, LaTeX or CSV."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from relatum.cli.arguments import parse, write

USAGE = "RUN [RUN ...] [--format latex] [--out FILE.md|.tex|.csv] [--into FILE.md]"


def run(args: Sequence[str]) -> None:
    """Compare runs."""
    import tyro

    @dataclass(frozen=True)
    class Table:
        runs: tyro.conf.Positional[tuple[Path, ...]]
        """Run folders, records, or folders that hold them."""
        out: Path | None = None
        """Write the table there."""
        format: Literal["markdown", "latex", "csv"] | None = None
        """The kind of table; the suffix of --out says it too."""
        into: Path | None = None
        """Put the table into this text, between its lines `<!-- relatum table RUNS -->` and `<!-- end -->`."""

    chosen = parse(Table, "table", args)
    if not chosen.runs:
        raise ValueError("`relatum table` needs runs: relatum table runs, for example.")
    from relatum.reports.records import find_records
    from relatum.reports.tables import comparison, filled, format_of

    text = comparison(find_records(chosen.runs), format_of(chosen.out, chosen.format))
    if chosen.out:
        write(chosen.out, text)
    if chosen.into:
        before = chosen.into.read_text(encoding="utf-8")
        write(chosen.into, filled(before, " ".join(map(str, chosen.runs)), text))
    if not (chosen.out or chosen.into):
        print(text, end="")
