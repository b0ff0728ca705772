"""``counterpoise report``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from counterpoise.recipe.messages import Options


def main(arguments: Sequence[str]) -> int:
    """Draw finished runs as one HTML file."""
    parser = Options(
        prog="counterpoise report",
        description="One self-contained HTML file from run directories (or a directory of them). Nothing is trained.",
    )
    parser.add_argument("runs", nargs="+", help="run directories, or a benchmark's directory")
    parser.add_argument("--out", help="where to write it; report.html in the first directory by default")
    options = parser.parse_args(arguments)
    from counterpoise.report import write_report

    out = Path(options.out) if options.out else Path(options.runs[0]) / "report.html"
    write_report(options.runs, out)
    print(f"Wrote {out}.")
    return 0
