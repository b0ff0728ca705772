"""The table on a terminal, as Markdown and on a page, with its picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from markupsafe import Markup

from counterpoise.benchmark.summary import mean_sd
from counterpoise.datasets import recipes
from counterpoise.datasets.published import Number, Publication
from counterpoise.replication.compared import Cell, Compared, heading
from counterpoise.report.figures import FAINT, INK, PALETTE, PAPER, Look, key, mark, new_figure, short
from counterpoise.report.markup import Picture, Score, html_figure, html_table, render

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from rich.table import Table

NONE = "–"
OURS, PUBLISHED = "ours", "published"


def ours(cell: Cell) -> str:
    """``"63.1 ± 0.8"``."""
    if not cell.values:
        return NONE
    mean, sd = mean_sd(cell.values.values())
    return f"{mean:.2f}" + ("" if sd is None else f" ± {sd:.2f}")


def theirs(number: Number | None) -> str:
    """The published number, with its spread where it has one."""
    return NONE if number is None else f"{number.value:.2f}" + ("" if number.sd is None else f" ± {number.sd:.2f}")


def minus(cell: Cell) -> str:
    """Ours minus the published number."""
    return NONE if cell.difference is None else f"{cell.difference:+.2f}".replace("-", "−")


def note(table: Compared, row: recipes.PublishedRecipe) -> str:
    """Whether the row is comparable, and what others print."""
    cells = list(table.cells[row.name].values())
    reasons = list(dict.fromkeys(reason for cell in cells for reason in cell.reasons))
    said = "comparable" if not reasons else f"not comparable: {'; '.join(reasons)}"
    if cells[0].elsewhere:
        others = ", ".join(f"{theirs(n)} [{n.publication.name}]" for n in cells[0].elsewhere)
        said += f". {heading(cells[0].metric).removesuffix(' (%)')} elsewhere: {others}"
    return said


def header(table: Compared) -> list[str]:
    """Titles of the columns."""
    columns = [(heading(m), part) for m in table.metrics for part in (OURS, PUBLISHED, "difference")]
    return ["row", *(f"{metric} {part}" for metric, part in columns), "note"]


def lines(table: Compared) -> list[list[str]]:
    """The rows as text."""
    rows = []
    for row in table.rows:
        cells = [table.cells[row.name][m] for m in table.metrics]
        rows.append([row.label, *(t for c in cells for t in (ours(c), theirs(c.number), minus(c))), note(table, row)])
    return rows


def to_rich(table: Compared) -> Table:
    """For a terminal; the notes are in the files."""
    from rich.table import Table

    made = Table(title=table.title)
    for place, title in enumerate(header(table)[:-1]):
        made.add_column(title, justify="right" if place else "left")
    for line in lines(table):
        made.add_row(*line[:-1])
    return made


def legend(publication: Publication) -> str:
    """What is known of a publication's numbers."""
    said = [
        f"[{publication.name}] {publication.source}.",
        f"Trained by {publication.by}. Selected on: {publication.selected_on}"
        + (f" ({publication.selection})." if publication.selection else "."),
        f"Seeds: {publication.seeds}. Split: {publication.split}. Encoders: {publication.encoders}.",
        "" if publication.read == "source" else "Not read in the source itself.",
        publication.remarks,
    ]
    return " ".join(part for part in said if part)


def settings(row: recipes.PublishedRecipe) -> str:
    """Where the options of a row come from, and what is not as there."""
    return f"{recipes.SETTINGS[row.settings].capitalize()}. {row.source}" + (
        f" Differs: {row.differs}" if row.differs else ""
    )


def to_markdown(table: Compared) -> str:
    """With the notes, the settings and what is known of the publications."""
    titles = header(table)
    made = [f"# {table.title}", "", _row(titles), _row(["---"] + ["---:"] * (len(titles) - 2) + ["---"])]
    made += [_row(line) for line in lines(table)]
    made += ["", about(table), "", "## Settings", "", *(f"- {r.label}: {settings(r)}" for r in table.rows)]
    made += ["", "## Publications", "", *(f"- {legend(p)}" for p in table.publications()), ""]
    return "\n".join(made)


def about(table: Compared) -> str:
    """What the runs have in common, in sentences."""
    given = table.about
    selected = (
        "The published test part chose the epoch whose score it prints, as in released codes: these numbers are "
        "optimistic."
        if given.as_published
        else "Validation chose the epoch; the test part was scored once."
    )
    options = f" Every row was run with {' '.join(given.options)}." if given.options else ""
    return (
        f"Split {given.split}, seeds {', '.join(map(str, given.seeds))}: mean ± standard deviation over seeds. "
        f"{selected} Difference: ours minus published, in points.{options}"
    )


def section(table: Compared, folder: Path) -> Markup:
    """The table, its picture, which is written into the folder too, and its legend for a page."""
    rows: list[Sequence[str | Score]] = list(lines(table))
    parts: list[Markup | str] = [
        html_table(header(table), rows),
        html_figure(picture(table), folder),
        html_table(["row", "settings"], [[row.label, settings(row)] for row in table.rows]),
        *map(legend, table.publications()),
    ]
    # How the numbers were selected must be read with them, so nothing is folded away.
    return render("study", title=table.title, finding=about(table), about="", missing=_missing(table), items=parts)


def picture(table: Compared) -> Picture:
    """Ours with their spread and the published numbers, a panel for each metric."""
    caption = (
        f"{table.title}. Dots: mean over our seeds with its standard deviation; diamonds: the published number; "
        "strokes: numbers of the same row in other publications."
    )
    return Picture("published", lambda: _draw(table), caption)


def _draw(table: Compared) -> Figure:
    figure = new_figure(10, 1.6 + 0.36 * len(table.rows))
    axes = figure.subplots(1, len(table.metrics), squeeze=False, sharey=True)[0]
    mine, published = Look(PALETTE[0], "o", "-"), Look(INK, "D", "-")
    for ax, metric in zip(axes, table.metrics, strict=True):
        for height, row in enumerate(reversed(table.rows)):
            cell = table.cells[row.name][metric]
            ax.plot([n.value for n in cell.elsewhere], [height] * len(cell.elsewhere), "|", color=FAINT, markersize=9)
            if cell.number:
                mark(ax, cell.number.value, height, published, size=5, markerfacecolor=PAPER, markeredgecolor=INK)
            if cell.values:
                mean, sd = mean_sd(cell.values.values())
                mark(ax, mean, height, mine, xerr=sd)
        ax.set_xlabel(heading(metric))
        ax.grid(axis="y", visible=False)
    axes[0].set_yticks(range(len(table.rows)), [short(row.label, 30) for row in reversed(table.rows)])
    axes[0].set_ylim(-0.6, len(table.rows) - 0.4)
    figure.suptitle("selected on test" if table.about.as_published else "selected on validation", fontsize=9)
    key(figure, {OURS: mine, PUBLISHED: published}, line=False, dots=True)
    return figure


def _missing(table: Compared) -> list[str]:
    wanted = len(table.about.seeds)
    return [row.label for row in table.rows if any(len(c.values) < wanted for c in table.cells[row.name].values())]


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"
