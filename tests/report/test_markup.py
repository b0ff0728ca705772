from __future__ import annotations

from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest
from markupsafe import Markup
from matplotlib.figure import Figure

from counterpoise.report.figures import new_figure
from counterpoise.report.markup import Picture, Score, html_figure, html_table, render, write_page

HOSTILE = ["<script>alert(1)</script>", "a\" onload='x", "{{ 7 * 7 }}{% raw %}", "&lt;b&gt; $x^{"]


class Seen(HTMLParser):
    """Texts, elements and attributes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.text, self.tags, self.attributes = "", set(), set()
        self.feed(str(page))  # what is added to Markup would be escaped

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        self.text += "".join(value or "" for name, value in attrs if name in ("title", "aria-label"))

    def handle_data(self, data: str) -> None:
        self.text += data


def drawn(name: str) -> Figure:
    figure = new_figure(2, 2)
    figure.subplots().set_title(name)
    return figure


PLACES: dict[str, Callable[[str], Markup]] = {
    "header": lambda name: html_table(["a", name], []),
    "cell": lambda name: html_table(["a", "b"], [["x", name]]),
    "name of a row": lambda name: html_table(["a", "b"], [[name, "x"]], baseline=name),
    "heading": lambda name: html_table(["a", "b"], [name, ["x", "y"]], over=[("z", 1)]),
    "over": lambda name: html_table(["a", "b"], [], over=[(name, 1)]),
    "notes": lambda name: html_table(["a", "b"], [], notes=[name]),
    "score": lambda name: html_table(["a", "b"], [["x", Score(name)]]),
    "small print": lambda name: html_table(["a", "b"], [["x", Score("1", 1, small=name)]]),
    "hover": lambda name: html_table(["a", "b"], [["x", Score("1", 2, hover=name)]]),
    "caption": lambda name: html_figure(Picture("p", lambda: drawn("x"), name)),
    "figure": lambda name: html_figure(Picture("p", lambda: drawn(name), "x")),
    "paragraph": lambda name: render("study", title="t", finding="f", about="a", missing=[], items=[name]),
    "finding of a study": lambda name: render("study", title="t", finding=name, about="a", missing=[], items=[]),
    "title of a study": lambda name: render("study", title=name, finding="f", about="a", missing=[], items=[]),
    "row without runs": lambda name: render("study", title="t", finding="f", about="a", missing=[name], items=[]),
}


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("place", PLACES)
def test_whatever_a_name_is_it_stays_a_text(place: str, name: str) -> None:
    plain, seen = Seen(PLACES[place]("name")), Seen(PLACES[place](name))
    assert name in seen.text
    assert (seen.tags, seen.attributes) == (plain.tags, plain.attributes)


@pytest.mark.parametrize("name", HOSTILE)
def test_a_page_holds_its_parts_as_they_are_and_its_title_as_text(tmp_path: Path, name: str) -> None:
    path = write_page(tmp_path / "new" / "page.html", name, [html_table(["a"], [[name]]), Markup("<hr>")])
    seen = Seen(path.read_text(encoding="utf-8"))
    assert seen.text.count(name) == 3  # the title, the heading and the cell
    assert {"hr", "table", "style"} <= seen.tags
    assert "script" not in seen.tags


def test_a_picture_in_a_folder_is_two_files(tmp_path: Path) -> None:
    picture = Picture("p", lambda: drawn("x"), "what it shows")
    assert html_figure(picture, tmp_path / "new") == html_figure(picture)
    assert {path.name for path in (tmp_path / "new").iterdir()} == {"p.png", "p.svg"}
