"""Figures of the studies: curves, sweeps, bars and points of repeated runs. Plain numbers in, one value per seed.

Like those of ``counterpoise.report.figures`` they are drawn by ``to_svg(lambda: curves(...), name, description)``,
which sets the style, or ``save_png(...)``. Surfaces, histograms and spectra are in ``counterpoise.report.surfaces``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from counterpoise.report.figures import FAINT, FUSED, INK, MARKERS, PALETTE, PAPER, new_figure, place_labels, short

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Seeds = Sequence[float] | np.ndarray
"""One value per seed."""
Repeated = Sequence[Seeds] | np.ndarray
"""One curve per seed; shorter ones (a run that stopped early) count as far as they go."""


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


def looks(series: Iterable[str], like: Mapping[str, str] | None = None) -> dict[str, Look]:
    """The look of each series, by its place among those that are not the fused one.

    Args:
        series: names.
        like: series -> another one whose colour it takes, dashed.
    """
    found, place, like = {}, 0, like or {}
    names = list(series)
    for name in names:
        if like.get(name) in names:
            continue
        if name == FUSED:
            found[name] = Look(INK, "D", "-")
            continue
        line = "-" if place < len(PALETTE) else (0, (4, 2))
        found[name] = Look(PALETTE[place % len(PALETTE)], MARKERS[place % len(MARKERS)], line)
        place += 1
    for name in names:
        if name not in found:
            kin = found[like[name]]
            found[name] = Look(kin.colour, kin.marker, (0, (4, 2)))
    return {name: found[name] for name in names}


def spread(repeated: Repeated) -> tuple[np.ndarray, np.ndarray, int]:
    """Mean, standard deviation (nan where fewer than two seeds are left), and the number of seeds."""
    runs = [np.asarray(run, dtype=float) for run in repeated]
    length = max((len(run) for run in runs), default=0)
    table = np.full((len(runs), length), np.nan)
    for row, run in zip(table, runs, strict=True):
        row[: len(run)] = run
    there = np.isfinite(table).sum(0)
    total = np.where(np.isfinite(table), table, 0.0)
    mean = np.where(there > 0, total.sum(0) / np.maximum(there, 1), np.nan)
    squares = np.where(np.isfinite(table), (table - mean) ** 2, 0.0).sum(0)
    return mean, np.where(there > 1, np.sqrt(squares / np.maximum(there - 1, 1)), np.nan), len(runs)


def curves(
    panels: Mapping[str, Mapping[str, Repeated]],
    *,
    y: str | Mapping[str, str],
    x: str = "epoch",
    positions: Sequence[float] | Sequence[str] | None = None,
    share: bool = False,
    like: Mapping[str, str] | None = None,
) -> Figure:
    """Mean and standard deviation over seeds along an axis; one panel per key with equal axes.

    Args:
        panels: title -> series -> one curve per seed.
        y: what is drawn, with its unit; a mapping title -> label gives each panel a vertical axis of its own.
        x: the axis it is drawn along.
        positions: where on that axis; names are spaced evenly. None counts from 1.
        share: the values are shares: draw per cent.
        like: series -> another one whose colour it takes, dashed ("audio in joint" like "audio alone").
    """
    figure, axes = panel_grid(len(panels), sharey=isinstance(y, str))
    names = list(dict.fromkeys(name for series in panels.values() for name in series))
    drawn, scale = looks(names, like), 100 if share else 1
    longest = max((len(run) for series in panels.values() for runs in series.values() for run in runs), default=0)
    few = longest <= 12
    for ax, (title, series) in zip(axes, panels.items(), strict=False):
        seeds = set()
        for name, repeated in series.items():
            mean, sd, n = spread(repeated)
            seeds.add(n)
            at = _at(positions, len(mean))
            look = drawn[name]
            width, layer = (2.4, 3) if name == FUSED else (1.6, 4)
            ax.plot(
                at,
                scale * mean,
                color=look.colour,
                linestyle=look.line,
                linewidth=width,
                marker=look.marker if few else None,
                markersize=5,
                markerfacecolor=look.face,
                markeredgecolor=PAPER if look.line == "-" else look.colour,
                markeredgewidth=0.6 if look.line == "-" else 1.2,
                zorder=layer,
            )
            ax.fill_between(
                at, scale * (mean - sd), scale * (mean + sd), color=look.colour, alpha=0.18, linewidth=0, zorder=2
            )
        ax.set_title(short(f"{title}  (n = {_range(seeds)})", 44))
        ax.tick_params(length=0)
        _ticks(ax, positions, longest)
    labels = [y] * len(panels) if isinstance(y, str) else [y[title] for title in panels]
    outer_labels(axes, x, [f"{label}{' (%)' if share else ''}, mean ± sd" for label in labels])
    key(figure, drawn, line=True, dots=few)
    return figure


def sweep(panels: Mapping[str, Mapping[str, Mapping[float, Seeds]]], *, y: str, share: bool = True) -> Figure:
    """A score against the values of a setting, evenly spaced as they may be 0 or span many decades.

    Args:
        panels: setting -> series (a metric, a modality) -> value of the setting -> one score per seed.
        y: what is drawn.
        share: the scores are shares: draw per cent.
    """
    figure, axes = panel_grid(len(panels), sharey=True)
    drawn = looks(list(dict.fromkeys(name for series in panels.values() for name in series)))
    scale = 100 if share else 1
    for ax, (setting, series) in zip(axes, panels.items(), strict=False):
        values = sorted({value for scores in series.values() for value in scores})
        counts = set()
        for number, (name, scores) in enumerate(series.items()):
            look = drawn[name]
            at = [values.index(value) + 0.06 * (number - (len(series) - 1) / 2) for value in sorted(scores)]
            cells = [scale * np.asarray(scores[value], dtype=float) for value in sorted(scores)]
            counts |= {len(cell) for cell in cells}
            sd = [cell.std(ddof=1) if len(cell) > 1 else 0.0 for cell in cells]
            for position, cell in zip(at, cells, strict=True):
                ax.plot([position] * len(cell), cell, "_", color=look.colour, alpha=0.5, markersize=5, zorder=3)
            ax.errorbar(
                at,
                [cell.mean() for cell in cells],
                yerr=sd,
                color=look.colour,
                linestyle=look.line,
                marker=look.marker,
                markersize=6,
                markeredgecolor=PAPER,
                markeredgewidth=0.6,
                elinewidth=1.1,
                zorder=4,
            )
        ax.set_xticks(range(len(values)), [f"{value:g}" for value in values])
        ax.set_title(short(f"{setting}  (n = {_range(counts)})", 44))
        ax.grid(axis="x", visible=False)
        ax.tick_params(length=0)
        ax.margins(x=0.08)
        ax.set_xlabel(short(setting, 44))
    for ax in axes[: len(panels)]:
        if ax.get_subplotspec().is_first_col():
            ax.set_ylabel(f"{y}{' (%)' if share else ''}, mean ± sd")
    key(figure, drawn, line=True, dots=True)
    return figure


def bars(groups: Mapping[str, Mapping[str, Seeds]], *, x: str, share: bool = False) -> Figure:
    """Horizontal bars in groups: mean over seeds with its number, whiskers ± sd, single seeds as ticks.

    Args:
        groups: name of the group (top first) -> series -> one value per seed.
        x: what the length means, with its unit.
        share: the values are shares: draw per cent. The numbers at the bars then have one digit after the point,
            others three in all.
    """
    drawn = looks(list(dict.fromkeys(name for group in groups.values() for name in group)))
    scale, thick, far, top = 100 if share else 1, 0.24, 0.0, 0.0
    figure = new_figure(8, 0.9 + 0.28 * len(groups) + thick * sum(len(group) for group in groups.values()))
    ax = figure.subplots()
    counts, middles = set(), []
    for group in groups.values():
        shown = [name for name in drawn if name in group]
        middles.append(top + thick * (len(shown) - 1) / 2)
        for place, name in enumerate(shown):
            look, height = drawn[name], top + thick * place
            values = scale * np.asarray(group[name], dtype=float)
            values = values[np.isfinite(values)]  # a run that diverged has no length
            counts.add(len(values))
            if not len(values):
                continue
            mean, sd = float(values.mean()), float(values.std(ddof=1)) if len(values) > 1 else 0.0
            ax.barh(height, mean, 0.86 * thick, color=look.colour, alpha=_fill(look), linewidth=0)
            if len(values) > 1:
                ax.errorbar(mean, height, xerr=sd, color=INK, elinewidth=1.1, zorder=4)
                ax.plot(values, [height] * len(values), "|", color=INK, alpha=0.45, markersize=5, zorder=3)
            edge = max(mean + sd, float(values.max()), 0.0)
            far = max(far, edge)
            ax.annotate(
                f"{mean:.1f}" if share else three_digits(mean),
                (edge, height),
                xytext=(4, 0),
                textcoords="offset points",
                va="center",
                fontsize=8,
                annotation_clip=False,
            )
        top += thick * len(shown) + 0.28
    ax.set_yticks(middles, [short(name, 30) for name in groups])
    ax.set_ylim(top - 0.2, -0.28)
    ax.set_xlim(right=1.12 * far) if far > 0 else None
    ax.axvline(0, color=INK, linewidth=0.9)
    ax.set_xlabel(f"{x}{' (%)' if share else ''}, mean ± sd, n = {_range(counts)}")
    ax.grid(axis="y", visible=False)
    ax.tick_params(length=0)
    key(figure, drawn, line=False)
    return figure


def three_digits(value: float) -> str:
    """``"0.0300"``, ``"46.0"``, ``"109"``: zeros at the end count."""
    whole = math.floor(math.log10(abs(value))) if value and math.isfinite(value) else 0
    return f"{value:.{min(9, max(0, 2 - whole))}f}"


def points(
    places: Mapping[str, tuple[Seeds, Seeds]], *, x: str, y: str, share: bool = False, log: bool | None = None
) -> Figure:
    """One labelled point per key with whiskers ± sd over seeds.

    Args:
        places: label -> (values along x, values along y), one per seed.
        x: label of the horizontal axis, with its unit.
        y: label of the vertical axis, with its unit.
        share: the values along y are shares: draw per cent.
        log: a logarithmic horizontal axis; None where the values span more than a factor 8.
    """
    figure = new_figure(8, 4.4)
    ax = figure.subplots()
    centres, counts = [], set()
    for label, pair in places.items():
        values = [np.asarray(pair[0], dtype=float), (100 if share else 1) * np.asarray(pair[1], dtype=float)]
        counts.add(len(values[0]))
        (cx, cy), (sx, sy) = (
            [v.mean() for v in values],
            [v.std(ddof=1) if len(v) > 1 else None for v in values],
        )
        centres.append((label, float(cx), float(cy)))
        ax.errorbar(
            cx,
            cy,
            xerr=sx,
            yerr=sy,
            fmt="D",
            color=PALETTE[0],
            markersize=6,
            markeredgecolor=PAPER,
            markeredgewidth=0.6,
            elinewidth=1,
            ecolor=FAINT,
            zorder=3,
        )
    across = [cx for _, cx, _ in centres]
    if log or (log is None and min(across) > 0 and max(across) / min(across) > 8):
        log_axis(ax)
    ax.margins(0.14, 0.16)
    ax.set_xlabel(f"{x}, mean ± sd, n = {_range(counts)}")
    ax.set_ylabel(f"{y}{' (%)' if share else ''}, mean ± sd")
    ax.tick_params(length=0)
    place_labels(ax, centres)
    return figure


def panel_grid(count: int, *, sharey: bool = False, height: float = 2.7) -> tuple[Figure, list[Any]]:
    """Axes of ``count`` panels, at most three side by side."""
    columns = min(3, max(1, count))
    rows = math.ceil(max(1, count) / columns)
    figure = new_figure((6, 9, 10.5)[columns - 1], 0.6 + (height + 0.2 * (columns == 1)) * rows)
    axes = list(figure.subplots(rows, columns, squeeze=False, sharey=sharey).ravel())
    for ax in axes[count:]:
        ax.set_visible(False)
    return figure, axes


def outer_labels(axes: Sequence[Any], x: str, y: Sequence[str]) -> None:
    """Name the axes at the left and the lower edge of a grid of panels; all vertical ones where they differ."""
    columns = min(3, max(1, len(y)))
    for place, (ax, label) in enumerate(zip(axes, y, strict=False)):
        if len(set(y)) > 1 or place % columns == 0:
            ax.set_ylabel(label)
        if place + columns >= len(y):
            ax.set_xlabel(x)


def log_axis(ax: Any) -> None:
    """A logarithmic horizontal axis with plain numbers at it."""
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    ax.set_xscale("log")
    ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    ax.xaxis.set_minor_formatter(NullFormatter())


def _at(positions: Sequence[float] | Sequence[str] | None, length: int) -> np.ndarray:
    if positions is None:
        return np.arange(1, length + 1)
    named = any(isinstance(p, str) for p in positions)
    return np.arange(length) if named else np.asarray(positions[:length], dtype=float)


def _ticks(ax: Any, positions: Sequence[float] | Sequence[str] | None, length: int) -> None:
    if positions is None and length == 1:
        ax.set_xticks([1])  # the locator would fill the axis with fractions of an epoch
    elif positions is None:
        ax.xaxis.get_major_locator().set_params(integer=True)
    elif any(isinstance(p, str) for p in positions):
        crowded = length > 4
        ax.set_xticks(range(length), [short(str(p), 24) for p in positions[:length]])
        for text in ax.get_xticklabels():
            text.set(rotation=25 if crowded else 0, ha="right" if crowded else "center")
        ax.margins(x=0.06)


def _fill(look: Look) -> float:
    return 0.4 if look.colour == INK else 0.75  # whiskers are in ink and must show


def _range(counts: Iterable[int]) -> str:
    """``3 seeds``, or ``1 to 3 seeds`` where some have fewer."""
    found = sorted(set(counts)) or [0]
    text = str(found[0]) if len(found) == 1 else f"{found[0]} to {found[-1]}"
    return f"{text} seed{'s' * (text != '1')}"


def key(figure: Figure, drawn: Mapping[str, Look], *, line: bool, dots: bool = False) -> None:
    """A legend above the figure, where there is more than one series."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    if len(drawn) < 2:
        return
    handles = [
        Line2D(
            [],
            [],
            color=look.colour,
            linestyle=look.line,
            marker=look.marker if dots else None,
            markerfacecolor=look.face,
            label=name,
        )
        if line
        else Patch(facecolor=look.colour, alpha=_fill(look), label=name)
        for name, look in drawn.items()
    ]
    # Long enough for dashes on both sides of a marker.
    length = 3.4 if line and any(look.line != "-" for look in drawn.values()) else 1.8
    figure.legend(handles=handles, loc="outside upper left", ncols=min(6, len(handles)), handlelength=length)
