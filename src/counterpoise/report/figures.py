"""How figures are drawn: one style, one look per series, and SVG that takes its colours from the page.

What is drawn is in ``counterpoise.report.charts`` and ``counterpoise.report.surfaces``. A function that makes a figure
is called by ``to_svg(lambda: curves(...), name, description)`` or ``save_png(...)``, which set the style.
"""

from __future__ import annotations

import io
import math
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from counterpoise.types import FUSED

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Stand-ins that `to_svg` replaces by the page's variables, so that a figure follows light and dark mode.
INK, FAINT, PAPER = "#010203", "#a0a1a2", "#fdfcfb"
VARIABLES = {INK: "--ink", FAINT: "--faint", PAPER: "--paper"}
# Okabe and Ito's palette, told apart with any colour vision; without black (the fused score) and yellow (too pale).
PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
MARKERS = ("o", "s", "^", "v", "P", "X", "<", ">")
VARIABLES |= {colour: f"--series-{number}" for number, colour in enumerate(PALETTE, 1)}
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,  # names are text, whatever dollar signs they have
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": FAINT,
    "grid.linewidth": 0.5,
    "grid.alpha": 0.45,
    "legend.frameon": False,
    "text.color": INK,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "lines.linewidth": 1.6,
}


# -- series --------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Look:
    """How a series is drawn: fused in ink, the others in the palette, and from the seventh on dashed too."""

    colour: str
    marker: str
    line: Any

    @property
    def face(self) -> str:
        """What markers are filled with: dashed series have hollow ones, told apart without colour."""
        return self.colour if self.line == "-" else PAPER

    @property
    def fill(self) -> float:
        """How opaque bars are: whiskers are in ink and must show."""
        return 0.4 if self.colour == INK else 0.75


def looks(series: Iterable[str], like: Mapping[str, str] | None = None) -> dict[str, Look]:
    """The look of each series, by its place among those that are not the fused one.

    Args:
        series: names.
        like: series -> another one whose colour it takes, dashed.
    """
    looks, place, like = {}, 0, like or {}
    names = list(series)
    for name in names:
        if like.get(name) in names:
            continue
        if name == FUSED:
            looks[name] = Look(INK, "D", "-")
            continue
        line = "-" if place < len(PALETTE) else (0, (4, 2))
        looks[name] = Look(PALETTE[place % len(PALETTE)], MARKERS[place % len(MARKERS)], line)
        place += 1
    for name in names:
        if name not in looks:
            kin = looks[like[name]]
            looks[name] = Look(kin.colour, kin.marker, (0, (4, 2)))
    return {name: looks[name] for name in names}


def panel_looks(
    panels: Mapping[str, Iterable[str]], like: Mapping[str, str] | None = None, order: Sequence[str] = ()
) -> dict[str, Look]:
    """The looks of all series of the panels, those of ``order`` first."""
    names = dict.fromkeys(name for series in panels.values() for name in series)
    return looks([*(name for name in order if name in names), *(name for name in names if name not in order)], like)


def key(figure: Figure, drawn: Mapping[str, Look], *, line: bool, dots: bool = False) -> None:
    """A legend above the figure, where there is more than one series; of patches with neither line nor dots."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    if len(drawn) < 2:
        return
    handles = [
        Line2D(
            [],
            [],
            color=look.colour,
            linestyle=look.line if line else "",
            marker=look.marker if dots else None,
            markerfacecolor=look.face,
            label=name,
        )
        if line or dots
        else Patch(facecolor=look.colour, alpha=look.fill, label=name)
        for name, look in drawn.items()
    ]
    # Long enough for dashes on both sides of a marker.
    length = 3.4 if line and any(look.line != "-" for look in drawn.values()) else 1.8
    columns = _key_columns(list(drawn), figure.get_figwidth(), length)
    figure.legend(handles=handles, loc="outside upper left", ncols=columns, handlelength=length)


def _key_columns(names: Sequence[str], width: float, length: float) -> int:
    """The most columns, six at most, of a legend that is no wider than ``width`` inches."""

    def needed(columns: int) -> float:
        # filled column by column, the first ones with one name more
        widest = (max(map(len, column)) for column in np.array_split(np.asarray(names), columns))
        return sum(0.08 * letters + 0.125 * (length + 2.8) for letters in widest)  # at 9 points, gaps included

    return next((n for n in range(min(6, len(names)), 1, -1) if needed(n) <= width), 1)


def nested(values: Sequence[Sequence[float] | np.ndarray], *, dots: bool = False) -> list[int]:
    """How many of the later series lie on each one somewhere: drawn so much wider, it shows around them.

    Args:
        values: of each series, along one axis.
        dots: one common value counts, as its markers cover each other; otherwise a common line, which two make.
    """

    def same(one: np.ndarray, other: np.ndarray) -> bool:
        length = min(len(one), len(other))
        equal = one[:length] == other[:length]
        return bool(equal.any() if dots else (equal[1:] & equal[:-1]).any())

    arrays = [np.asarray(v, dtype=float) for v in values]
    return [sum(same(one, other) for other in arrays[place + 1 :]) for place, one in enumerate(arrays)]


def mark(ax: Any, x: Any, y: Any, look: Look, *, size: float = 6, **style: Any) -> None:
    """A point with whiskers (``xerr``, ``yerr``), or several along a line (``linestyle``)."""
    plain = {"linestyle": "", "elinewidth": 1.2, "zorder": 4, "markeredgecolor": PAPER, "markeredgewidth": 0.6}
    ax.errorbar(x, y, color=look.colour, marker=look.marker, markersize=size, **{**plain, **style})


def landmark(ax: Any, at: float, name: str, *, above: bool = False, **line: Any) -> None:
    """A vertical line with its name at the upper end, inside or ``above`` the axes."""
    ax.axvline(at, **{"color": INK, "linewidth": 0.8, "linestyle": (0, (4, 3)), "zorder": 1, **line})
    ax.annotate(
        name, (at, 1), xycoords=("data", "axes fraction"), xytext=(3, 2 if above else -2), textcoords="offset points",
        fontsize=7.5, va="bottom" if above else "top", clip_on=not above,
    )  # fmt: skip


# -- axes ----------------------------------------------------------------------------------------------
def new_figure(width: float, height: float) -> Figure:
    """An empty figure, in inches, that lays itself out."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height))
    figure.set_layout_engine("constrained", h_pad=0.09, w_pad=0.09)
    return figure


def panel_grid(
    count: int,
    *,
    columns: int | None = None,
    width: float | None = None,
    height: float = 2.7,
    sharex: bool = False,
    sharey: bool = False,
) -> tuple[Figure, list[Any]]:
    """A figure and the axes of ``count`` panels.

    Args:
        count: of panels.
        columns: side by side; None for up to three.
        width: of a panel, in inches; None fits the page.
        height: of a panel.
        sharex: equal horizontal axes.
        sharey: equal vertical axes.
    """
    columns = columns or min(3, max(1, count))
    rows = math.ceil(max(1, count) / columns)
    wide = (6, 9, 10.5)[columns - 1] if width is None else 0.6 + width * columns
    figure = new_figure(wide, 0.6 + (height + 0.2 * (columns == 1)) * rows)
    axes = list(figure.subplots(rows, columns, squeeze=False, sharex=sharex, sharey=sharey).ravel())
    for ax, above in zip(axes[count:], axes[count - columns :], strict=False):
        ax.set_visible(False)
        above.tick_params(labelbottom=True)
    return figure, axes[:count]


def outer_labels(axes: Sequence[Any], x: str, y: Sequence[str]) -> None:
    """Name the axes at the left and the lower edge of a grid of panels; all vertical ones where they differ."""
    columns = axes[0].get_gridspec().ncols if axes else 1
    for place, (ax, label) in enumerate(zip(axes, y, strict=True)):
        if len(set(y)) > 1 or place % columns == 0:
            ax.set_ylabel(label)
        if place + columns >= len(y):
            ax.set_xlabel(x)


def log_axis(ax: Any, which: Literal["x", "y"] = "x") -> None:
    """Make the axis of what is drawn logarithmic; its numbers are plain, as formulas are not parsed here."""
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    ax.set(**{f"{which}scale": "log"})
    axis = ax.xaxis if which == "x" else ax.yaxis
    low, high = axis.get_view_interval()
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 500 * low else (1,)))
    axis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.set_minor_formatter(NullFormatter())
    ax.minorticks_off()


def place_labels(ax: Axes, points: Sequence[tuple[str, float, float]]) -> None:
    """Write each label next to its point where it covers no other label and no point, as far as there is room."""
    ax.figure.draw_without_rendering()  # type: ignore[union-attr]
    pixels = [ax.transData.transform((x, y)) for _, x, y in points]
    dpi = ax.figure.dpi / 72
    taken = [(x - 5 * dpi, y - 5 * dpi, x + 5 * dpi, y + 5 * dpi) for x, y in pixels]
    frame = ax.bbox
    for (label, x, y), (px, py) in zip(points, pixels, strict=True):
        text = short(label, 30)
        width, height = 5.2 * len(text) * dpi, 10 * dpi
        best: tuple[float, float, float, tuple[float, float, float, float]] | None = None
        for radius in (9, 16, 26, 38):
            for angle in (45, 315, 135, 225, 0, 180, 90, 270):  # whiskers are at 0, 90, ...
                dx, dy = radius * math.cos(math.radians(angle)), radius * math.sin(math.radians(angle))
                left = px + dx * dpi - width * (0.5 - 0.5 * round(math.cos(math.radians(angle)), 1))
                bottom = py + dy * dpi - height / 2
                box = (left, bottom, left + width, bottom + height)
                cost = sum(_overlap(box, other) for other in taken) + 2 * width * height * (
                    box[0] < frame.x0 or box[2] > frame.x1 or box[1] < frame.y0 or box[3] > frame.y1
                )
                cost += 0.01 * radius * width
                if best is None or cost < best[0]:
                    best = (cost, dx, dy, box)
        assert best is not None
        _, dx, dy, box = best
        taken.append(box)
        across = round(math.copysign(1, dx)) if abs(dx) > 1 else 0
        ax.annotate(
            text,
            (x, y),
            xytext=(dx, dy),
            textcoords="offset points",
            ha={-1: "right", 0: "center", 1: "left"}[across],
            va="center",
            fontsize=8.5,
            arrowprops={"arrowstyle": "-", "color": FAINT, "linewidth": 0.7} if math.hypot(dx, dy) > 12 else None,
        )


def _overlap(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> float:
    return max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))


def seeds_text(counts: Iterable[int]) -> str:
    """``3 seeds``, or ``1 to 3 seeds`` where some have fewer."""
    distinct = sorted(set(counts)) or [0]
    text = str(distinct[0]) if len(distinct) == 1 else f"{distinct[0]} to {distinct[-1]}"
    return f"{text} seed{'s' * (text != '1')}"


def short(text: str, length: int) -> str:
    """A label of at most so many characters."""
    return text if len(text) <= length else text[: length - 1] + "…"


# -- files ---------------------------------------------------------------------------------------------
def to_svg(draw: Callable[[], Figure], name: str, description: str) -> str:
    """Inline SVG of what ``draw`` returns, in the page's colours and fonts and without a link to anywhere.

    Args:
        draw: makes the figure; called with the styles of this module.
        name: keeps the ids of different figures on one page apart.
        description: read out instead of the picture.
    """
    import html

    import matplotlib as mpl

    with mpl.rc_context({**STYLE, "svg.hashsalt": name}):
        figure = draw()
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, bbox_inches="tight", pad_inches=0.04)
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r' id="[A-Za-z0-9.]+_\d+"', "", svg)
    svg = re.sub(r"<!--.*?-->\n?", "", svg, flags=re.DOTALL)
    view = re.search(r'viewBox="0 0 ([\d.]+) ', svg)
    width = f"{float(view[1]) * 1.5:.0f}px" if view else "100%"
    label = html.escape(description, quote=True)
    head = f'<svg role="img" aria-label="{label}" style="max-width:{width}" '
    svg = (
        head
        + re.sub(r'(?:width|height|version|xmlns(?::xlink)?)="[^"]*"\s*', "", svg[len("<svg ") : svg.index(">")])
        + (svg[svg.index(">") :])
    )
    for stand_in, variable in VARIABLES.items():
        svg = svg.replace(stand_in, f"var({variable})")
    return svg


def save_png(draw: Callable[[], Figure], path: str | os.PathLike[str], dpi: int = 150) -> None:
    """Write what ``draw`` returns as a picture on white, for slides and papers."""
    _save(draw, path, format="png", dpi=dpi)


def save_svg(draw: Callable[[], Figure], path: str | os.PathLike[str]) -> None:
    """The same as a drawing that scales; byte for byte the same for the same numbers."""
    _save(draw, path, format="svg", metadata={"Date": None})


def _save(draw: Callable[[], Figure], path: str | os.PathLike[str], **options: Any) -> None:
    import matplotlib as mpl

    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with mpl.rc_context({**STYLE, "svg.hashsalt": Path(path).stem}):
        draw().savefig(path, facecolor="white", bbox_inches="tight", pad_inches=0.04, **options)
