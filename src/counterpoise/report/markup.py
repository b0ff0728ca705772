"""HTML from templates that escape every value; a page holds its style and pictures and asks no server for anything."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from counterpoise._files import write_text

if TYPE_CHECKING:
    from jinja2 import Environment
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Picture:
    """A figure for a page: its name (also of its files), what makes it, and what it shows."""

    name: str
    draw: Callable[[], Figure]
    caption: str


@dataclass(frozen=True)
class Score:
    """A number in a table.

    Attributes:
        text: the number.
        rank: 1 for the best of its column, 2 for the second.
        small: stands below it.
        hover: is shown when it is pointed at.
    """

    text: str
    rank: int | None = None
    small: str = ""
    hover: str = ""


def render(template: str, **values: Any) -> Markup:
    """``templates/TEMPLATE.html`` with these values; what is no ``Markup`` is escaped."""
    return Markup(_templates().get_template(f"{template}.html").render(values))


@cache
def _templates() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    return Environment(
        loader=PackageLoader("counterpoise.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def html_table(
    header: Sequence[str],
    rows: Iterable[Sequence[str | Score] | str],
    *,
    numbers: int = 0,
    over: Sequence[tuple[str, int]] = (),
    baseline: str | None = None,
    notes: Sequence[str] = (),
) -> Markup:
    """A table.

    Args:
        header: titles of the columns.
        rows: the cells of each, the first of which names it; a text alone is a heading above the rows that follow.
        numbers: so many columns at the end are right-aligned.
        over: titles above those of all columns but the first, and over how many each stands.
        baseline: name of a row to shade.
        notes: below the table.
    """
    first = len(header) - numbers
    return render("table", header=header, rows=rows, first=first, over=over, baseline=baseline, notes=notes)


def html_figure(picture: Picture, folder: Path | None = None, prefix: str = "") -> Markup:
    """A picture with its caption; with a ``folder`` also as PNG and SVG files there.

    Args:
        picture: to draw.
        folder: made when it is missing.
        prefix: keeps it apart from the pictures of the same name on the page.
    """
    from counterpoise.report.figures import save_png, save_svg, to_svg

    if folder is not None:
        save_png(picture.draw, folder / f"{picture.name}.png")
        save_svg(picture.draw, folder / f"{picture.name}.svg")
    svg = to_svg(picture.draw, f"{prefix}{picture.name}", picture.caption)
    return render("figure", svg=Markup(svg), caption=picture.caption)


def write_page(path: Path, title: str, body: Iterable[Markup]) -> Path:
    """One self-contained HTML file of these parts; its folder is made when it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, render("page", title=title, body=body))
    return path
