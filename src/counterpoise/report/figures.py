"""Numbers to matplotlib figures, and those to SVG that takes its colours from the page."""

from __future__ import annotations

import io
import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from counterpoise.benchmark.summary import Summary

# Stand-ins that `to_svg` replaces by the page's variables, so that a figure follows light and dark mode.
INK, FAINT, PAPER = "#010203", "#a0a1a2", "#fdfcfb"
VARIABLES = {INK: "--ink", FAINT: "--faint", PAPER: "--paper"}
# Okabe and Ito's palette, told apart with any colour vision; without black (the fused score) and yellow (too pale).
PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
MARKERS = ("o", "s", "^", "v", "P", "X", "<", ">")
VARIABLES |= {colour: f"--series-{number}" for number, colour in enumerate(PALETTE, 1)}
FUSED = "fused"
MOST_PHASES = 6
"""Methods that take turns more often are drawn without a line per turn."""
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
    "lines.linewidth": 1.6,
}


@dataclass(frozen=True)
class Curve:
    """One score over the epochs: mean over seeds, and standard deviation (nan where one seed is left)."""

    epochs: Sequence[int]
    mean: Sequence[float]
    sd: Sequence[float]


@dataclass(frozen=True)
class Panel:
    """The curves of one method: series (``"fused"`` or a modality) -> curve; first epoch of each phase -> name."""

    curves: Mapping[str, Curve]
    phases: Mapping[int, str]
    seeds: int


def colour(series: str, modalities: Sequence[str]) -> str:
    """Ink for the fused score, a colour of the palette for each modality."""
    return INK if series == FUSED else PALETTE[list(modalities).index(series) % len(PALETTE)]


def marker(series: str, modalities: Sequence[str]) -> str:
    """A diamond for the fused score, another shape for each modality."""
    return "D" if series == FUSED else MARKERS[list(modalities).index(series) % len(MARKERS)]


def learning_curves(panels: Mapping[str, Panel], modalities: Sequence[str], metric: str, share: bool) -> Figure:
    """One panel per method with equal axes: validation score of each modality and fused, mean ± sd over seeds."""
    columns = min(3, len(panels))
    rows = math.ceil(len(panels) / columns)
    figure = new_figure((6.5, 10, 10)[columns - 1], 0.5 + (3, 2.7, 2.3)[columns - 1] * rows)
    axes = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True).ravel()
    scale = 100 if share else 1
    for ax, (label, panel) in zip(axes, panels.items(), strict=False):
        for series, curve in panel.curves.items():
            mean = [scale * value for value in curve.mean]
            paint = colour(series, modalities)
            single = len(mean) == 1
            # The fused line is wider and below, so that it shows around a modality it coincides with.
            width, layer = (2.6, 3) if series == FUSED else (1.6, 4)
            dot = "o" if single else None
            ax.plot(curve.epochs, mean, color=paint, linewidth=width, marker=dot, markersize=4, zorder=layer)
            low = [m - scale * s for m, s in zip(mean, curve.sd, strict=True)]
            high = [m + scale * s for m, s in zip(mean, curve.sd, strict=True)]
            ax.fill_between(curve.epochs, low, high, color=paint, alpha=0.18, linewidth=0)
        if 1 < len(panel.phases) <= MOST_PHASES:
            for first, name in panel.phases.items():
                ax.axvline(first - 0.5, color=FAINT, linewidth=0.8, linestyle=":")
                ax.annotate(
                    name,
                    (first - 0.5, 1),
                    xycoords=("data", "axes fraction"),
                    xytext=(2, -1),
                    textcoords="offset points",
                    fontsize=7,
                    va="top",
                    clip_on=True,
                )
        ax.set_title(short(f"{label}  (n = {panel.seeds})", 34))
        ax.xaxis.get_major_locator().set_params(integer=True)
        ax.tick_params(length=0)
    for ax in axes[len(panels) :]:
        ax.set_visible(False)
        axes[list(axes).index(ax) - columns].tick_params(labelbottom=True)
    for position, ax in enumerate(axes[: len(panels)]):
        if position % columns == 0:
            ax.set_ylabel(f"validation {metric} (%)" if share else f"validation {metric}")
        if position + columns >= len(panels):
            ax.set_xlabel("epoch")
    _legend(figure, [FUSED, *modalities], modalities, line=True)
    return figure


def accuracy_dots(summary: Summary, metric: str, modalities: Sequence[str]) -> Figure:
    """Fused and unimodal scores of every method, single seeds faint, and the paired difference to the baseline."""
    from counterpoise.benchmark.summary import SPLITS
    from counterpoise.metrics import SHARES, lower_is_better

    fused = f"{FUSED}/{metric}"
    scale, unit = (100, " (%)") if metric in SHARES else (1, "")
    sign = -1 if lower_is_better(metric) else 1
    labels = sorted(
        (label for label, cells in summary.rows.items() if fused in cells),
        key=lambda label: sign * summary.rows[label][fused].mean,
    )
    pairs = {label: d for label in labels if (d := summary.rows[label][fused].difference) is not None}
    figure = new_figure(10, 1.4 + 0.42 * len(labels))
    axes = figure.subplots(1, 2 if pairs else 1, squeeze=False, sharey=True, width_ratios=(5, 2.4) if pairs else None)[
        0
    ]
    middle = (len(modalities) + 1) // 2
    series = [*modalities[:middle], FUSED, *modalities[middle:]]
    for height, label in enumerate(labels):
        for position, name in enumerate(series):
            cell = summary.rows[label].get(f"{name}/{metric}")
            if cell is None:
                continue
            paint = colour(name, modalities)
            y = height + 0.24 * ((len(series) - 1) / 2 - position) / max(1, (len(series) - 1) / 2)
            axes[0].plot(
                [scale * v for v in cell.values.values()], [y] * cell.n, "|", color=paint, alpha=0.55, markersize=5
            )
            axes[0].errorbar(
                scale * cell.mean,
                y,
                xerr=None if cell.sd is None else scale * cell.sd,
                fmt=marker(name, modalities),
                color=paint,
                markersize=6.5 if name == FUSED else 5.5,
                markeredgecolor=PAPER,
                markeredgewidth=0.6,
                elinewidth=1.2,
                zorder=4,
            )
    if fused in summary.references:
        name, value = summary.references[fused]
        axes[0].axvline(scale * value, color=INK, linewidth=0.9, linestyle=(0, (4, 3)), zorder=1)
        axes[0].annotate(
            short(f"best modality alone: {name}", 60),
            (scale * value, 1),
            xycoords=("data", "axes fraction"),
            xytext=(3, 2),
            textcoords="offset points",
            fontsize=7.5,
        )
    counts = [summary.rows[label][fused] for label in labels]
    names = [
        short(label, 30) + ("" if c.complete else f" (n = {c.n})") for label, c in zip(labels, counts, strict=True)
    ]
    axes[0].set_yticks(range(len(labels)), names)
    axes[0].set_ylim(-0.6, len(labels) - 0.4)
    axes[0].set_xlabel(f"{SPLITS[summary.split]} {metric}{unit}, mean ± sd, n = {_seeds(summary)}")
    axes[0].grid(axis="y", visible=False)
    axes[0].tick_params(length=0)
    if pairs:
        _differences(axes[1], labels, pairs, scale)
        points = "points" if scale == 100 else metric
        axes[1].set_xlabel(
            f"fused: difference to {summary.baseline} ({points}), {100 * summary.confidence:g} % interval"
        )
    _legend(figure, [FUSED, *modalities], modalities, line=False)
    return figure


def time_accuracy(summary: Summary, metric: str) -> Figure:
    """Seconds of training against the fused score, one labelled point per method, whiskers ± sd."""
    from counterpoise.benchmark.summary import SPLITS
    from counterpoise.metrics import SHARES

    fused = f"{FUSED}/{metric}"
    scale, unit = (100, " (%)") if metric in SHARES else (1, "")
    rows = {label: cells for label, cells in summary.rows.items() if fused in cells and "seconds" in cells}
    figure = new_figure(10, 4.2)
    ax = figure.subplots()
    for cells in rows.values():
        x, y = cells["seconds"], cells[fused]
        ax.errorbar(
            x.mean,
            scale * y.mean,
            xerr=x.sd,
            yerr=None if y.sd is None else scale * y.sd,
            fmt="D",
            color=PALETTE[0],
            markersize=6,
            markeredgecolor=PAPER,
            markeredgewidth=0.6,
            elinewidth=1,
            ecolor=FAINT,
            zorder=3,
        )
    times = [cells["seconds"].mean for cells in rows.values()]
    if min(times) > 0 and max(times) / min(times) > 8:
        from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

        ax.set_xscale("log")
        ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        ax.xaxis.set_minor_formatter(NullFormatter())
    ax.margins(0.12, 0.15)
    ax.set_xlabel(f"training time (s), mean ± sd, n = {_seeds(summary)}")
    ax.set_ylabel(f"fused {SPLITS[summary.split]} {metric}{unit}")
    ax.tick_params(length=0)
    place_labels(ax, [(label, cells["seconds"].mean, scale * cells[fused].mean) for label, cells in rows.items()])
    return figure


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


def new_figure(width: float, height: float) -> Figure:
    """An empty figure, in inches, that lays itself out."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height))
    figure.set_layout_engine("constrained", h_pad=0.09, w_pad=0.06)
    return figure


def _legend(figure: Figure, series: Sequence[str], modalities: Sequence[str], *, line: bool) -> None:
    from matplotlib.lines import Line2D

    handles = [
        Line2D(
            [],
            [],
            color=colour(name, modalities),
            marker="" if line else marker(name, modalities),
            linestyle="-" if line else "",
            label=name,
        )
        for name in series
    ]
    figure.legend(handles=handles, loc="outside upper left", ncols=min(8, len(handles)), handlelength=1.6)


def _differences(ax: Axes, labels: Sequence[str], pairs: Mapping[str, object], scale: float) -> None:
    ax.axvline(0, color=INK, linewidth=0.9)
    for height, label in enumerate(labels):
        pair = pairs.get(label)
        if pair is None:
            continue
        low, mean, high = (getattr(pair, key) for key in ("low", "mean", "high"))
        spread = None if low is None else [[scale * (mean - low)], [scale * (high - mean)]]
        clear = low is not None and (low > 0 or high < 0)
        ax.errorbar(
            scale * mean,
            height,
            xerr=spread,
            fmt="D",
            color=INK,
            markersize=6,
            markerfacecolor=INK if clear else PAPER,
            elinewidth=1.4,
            zorder=3,
        )
    ax.grid(axis="y", visible=False)
    ax.tick_params(length=0)


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


def _seeds(summary: Summary) -> str:
    return f"{summary.asked} seed{'s' * (summary.asked != 1)}"


def short(text: str, length: int) -> str:
    """A label of at most so many characters."""
    return text if len(text) <= length else text[: length - 1] + "…"
