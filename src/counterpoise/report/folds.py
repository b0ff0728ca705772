"""The page of a comparison over folds."""

from __future__ import annotations

from pathlib import Path

from counterpoise.benchmark.cells import column_title
from counterpoise.benchmark.folds import FoldTables
from counterpoise.benchmark.summary import Summary
from counterpoise.report.markup import html_table, render, write_page
from counterpoise.report.page import Part, Section
from counterpoise.report.tables import summary_html


def write_folds(summary: Summary, tables: FoldTables, data: str, out: Path) -> Path:
    """Write the page: the comparison, a row per fold, and the scores of all predictions together.

    Args:
        summary: over the folds.
        tables: of the folds.
        data: name of the data set.
        out: the HTML file; replaced when it exists.
    """
    header, rows = tables.per_fold()
    all_header, all_rows = tables.all_folds()
    title = column_title(tables.column)
    parts = [
        Part("Comparison", "The seeds of a fold are averaged first.", summary_html(summary)),
        Part("Folds", f"{title} on the test samples of each fold.", html_table(header, rows, numbers=len(header) - 1)),
        Part(
            "All folds together",
            "Every sample as predicted by the model that has not seen it.",
            html_table(all_header, all_rows, numbers=len(all_header) - 1),
        ),
    ]
    lead = f"{len(summary.rows)} methods, {len(tables.folds)} folds."
    body = render("report", notable=[], head="", sections=[Section(data, lead, parts)])
    return write_page(out, f"{data}: {len(tables.folds)} folds", [body])
