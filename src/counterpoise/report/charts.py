"""Scores of repeated runs as curves, sweeps, bars, points and dots. Plain numbers in, one value per seed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from counterpoise.benchmark.cells import Cell, named
from counterpoise.benchmark.summary import SPLITS, Summary
from counterpoise.metrics import SHARES, lower_is_better
from counterpoise.report.figures import (
    FAINT,
    INK,
    PALETTE,
    PAPER,
    Look,
    key,
    landmark,
    log_axis,
    looks,
    mark,
    nested,
    new_figure,
    outer_labels,
    panel_grid,
    panel_looks,
    place_labels,
    seeds_text,
    short,
)
from counterpoise.types import FUSED

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Seeds = Sequence[float] | np.ndarray
"""One value per seed."""
Repeated = Sequence[Seeds] | np.ndarray
"""One curve per seed; shorter ones (a run that stopped early) count as far as they go."""
MOST_PHASES = 6
"""Methods that take turns more often are drawn without a line per turn."""


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
    order: Sequence[str] = (),
    phases: Mapping[str, Mapping[int, str]] | None = None,
) -> Figure:
    """Mean and standard deviation over seeds along an axis; one panel per key with equal axes.

    Args:
        panels: title -> series -> one curve per seed.
        y: what is drawn, with its unit; a mapping title -> label gives each panel a vertical axis of its own.
        x: the axis it is drawn along.
        positions: where on that axis; names are spaced evenly. None counts from 1.
        share: the values are shares: draw per cent.
        like: series -> another one whose colour it takes, dashed ("audio in joint" like "audio alone").
        order: series that come first in the legend and the palette.
        phases: title -> first epoch of each phase -> its name.
    """
    figure, axes = panel_grid(len(panels), sharex=True, sharey=isinstance(y, str))
    drawn = panel_looks(panels, like, order)
    longest = max((len(run) for series in panels.values() for runs in series.values() for run in runs), default=0)
    few = longest <= 12
    for ax, (title, series) in zip(axes, panels.items(), strict=True):
        means = [spread(repeated)[0] for repeated in series.values()]
        covered = zip(nested(means), nested(means, dots=few), strict=True)
        for (name, repeated), above in zip(series.items(), covered, strict=True):
            _curve(ax, repeated, positions, drawn[name], 100 if share else 1, few=few, above=above)
        ax.set_title(short(f"{title}  (n = {seeds_text(map(len, series.values()))})", 44))
        _phases(ax, (phases or {}).get(title, {}))
        _ticks(ax, positions, longest)
    labels = [y] * len(panels) if isinstance(y, str) else [y[title] for title in panels]
    spreads = any(len(repeated) > 1 for series in panels.values() for repeated in series.values())
    outer_labels(axes, x, [_spread_of(label, share, drawn=spreads) for label in labels])
    key(figure, drawn, line=True, dots=few)
    return figure


def _curve(
    ax: Any, repeated: Repeated, positions: Any, look: Look, scale: float, *, few: bool, above: tuple[int, int]
) -> None:
    """A line at the mean over seeds, with a band of one standard deviation; wider by what lies ``above``."""
    mean, sd, _ = spread(repeated)
    at, solid, fused = _at(positions, len(mean)), look.line == "-", look.colour == INK
    ax.plot(
        at,
        scale * mean,
        color=look.colour,
        linestyle=look.line,
        # The fused line is wider and below, so that it shows around a modality it coincides with.
        linewidth=(2.4 if fused else 1.6) + 1.8 * above[0],
        zorder=3 if fused else 4,
        marker=look.marker if few else None,
        markersize=5 + 3.5 * above[1],
        markerfacecolor=look.face,
        markeredgecolor=PAPER if solid else look.colour,
        markeredgewidth=0.6 if solid else 1.2,
    )
    band = [scale * (mean - sd), scale * (mean + sd)]
    ax.fill_between(at, *band, color=look.colour, alpha=0.18, linewidth=0, zorder=2)


def _phases(ax: Any, phases: Mapping[int, str]) -> None:
    if not 1 < len(phases) <= MOST_PHASES:
        return
    for first, name in phases.items():
        landmark(ax, first - 0.5, name, color=FAINT, linestyle=":")


def sweep(
    panels: Mapping[str, Mapping[str, Mapping[float, Seeds]]],
    *,
    y: str,
    share: bool = True,
    ticks: Mapping[str, Sequence[str]] | None = None,
) -> Figure:
    """A score against the values of a setting, evenly spaced as they may be 0 or span many decades.

    Args:
        panels: setting -> series (a metric, a modality) -> value of the setting -> one score per seed.
        y: what is drawn.
        share: the scores are shares: draw per cent.
        ticks: setting -> what its values are called, in increasing order; themselves by default.
    """
    figure, axes = panel_grid(len(panels), sharey=True)
    drawn, scale = panel_looks(panels), 100 if share else 1
    for ax, (setting, series) in zip(axes, panels.items(), strict=True):
        values = sorted({value for scores in series.values() for value in scores})
        for name, scores in series.items():
            at = [values.index(value) for value in sorted(scores)]
            cells = [scale * np.asarray(scores[value], dtype=float) for value in sorted(scores)]
            for position, cell in zip(at, cells, strict=True):
                ax.plot([position] * len(cell), cell, "_", color=drawn[name].colour, alpha=0.5, markersize=5, zorder=3)
            means, sds = np.array([cell.mean() for cell in cells]), np.array([_sd(cell) or 0.0 for cell in cells])
            mark(ax, at, means, drawn[name], linestyle=drawn[name].line)
            ax.fill_between(at, means - sds, means + sds, color=drawn[name].colour, alpha=0.18, linewidth=0, zorder=2)
        ax.set_xticks(range(len(values)), (ticks or {}).get(setting) or [f"{value:g}" for value in values])
        counts = [len(cell) for scores in series.values() for cell in scores.values()]
        ax.set_title(short(f"{setting}  (n = {seeds_text(counts)})", 44))
        ax.grid(axis="x", visible=False)
        ax.margins(x=0.08)
    spreads = any(len(cell) > 1 for series in panels.values() for scores in series.values() for cell in scores.values())
    outer_labels(axes, "", [_spread_of(y, share, drawn=spreads)] * len(panels))
    for ax, setting in zip(axes, panels, strict=True):
        ax.set_xlabel(short(setting, 44))
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
    drawn = panel_looks(groups)
    thick, far, top = 0.24, 0.0, 0.0
    figure = new_figure(8, 0.9 + 0.28 * len(groups) + thick * sum(len(group) for group in groups.values()))
    ax = figure.subplots()
    counts, middles = set(), []
    for group in groups.values():
        shown = [name for name in drawn if name in group]
        middles.append(top + thick * (len(shown) - 1) / 2)
        for place, name in enumerate(shown):
            values = (100 if share else 1) * np.asarray(group[name], dtype=float)
            values = values[np.isfinite(values)]  # a run that diverged has no length
            counts.add(len(values))
            if len(values):
                far = max(far, _bar(ax, values, top + thick * place, drawn[name], 0.86 * thick, share=share))
        top += thick * len(shown) + 0.28
    ax.set_yticks(middles, [short(name, 30) for name in groups])
    ax.set_ylim(top - 0.2, -0.28)
    ax.set_xlim(right=1.12 * far) if far > 0 else None
    ax.axvline(0, color=INK, linewidth=0.9)
    ax.set_xlabel(f"{_spread_of(x, share, drawn=max(counts, default=0) > 1)}, n = {seeds_text(counts)}")
    ax.grid(axis="y", visible=False)
    key(figure, drawn, line=False)
    return figure


def _bar(ax: Any, values: np.ndarray, height: float, look: Look, thick: float, *, share: bool) -> float:
    """A bar with its number; returns how far it reaches with its whisker."""
    mean, sd = float(values.mean()), _sd(values)
    ax.barh(height, mean, thick, color=look.colour, alpha=look.fill, linewidth=0)
    if sd is not None:
        ax.errorbar(mean, height, xerr=sd, color=INK, elinewidth=1.1, zorder=4)
        ax.plot(values, [height] * len(values), "|", color=INK, alpha=0.45, markersize=5, zorder=3)
    edge = max(mean + (sd or 0.0), float(values.max()), 0.0)
    ax.annotate(
        f"{mean:.1f}" if share else three_digits(mean), (edge, height), xytext=(4, 0), textcoords="offset points",
        va="center", fontsize=8, annotation_clip=False,
    )  # fmt: skip
    return edge


def three_digits(value: float) -> str:
    """``"0.0300"``, ``"46.0"``, ``"109"``: zeros at the end count."""
    whole = math.floor(math.log10(abs(value))) if value and math.isfinite(value) else 0
    return f"{value:.{min(9, max(0, 2 - whole))}f}"


def points(places: Mapping[str, tuple[Seeds, Seeds]], *, x: str, y: str, share: bool = False) -> Figure:
    """One labelled point per key with whiskers ± sd over seeds; the horizontal axis is logarithmic beyond a factor 8.

    Args:
        places: label -> (values along x, values along y), one per seed.
        x: label of the horizontal axis, with its unit.
        y: label of the vertical axis, with its unit.
        share: the values along y are shares: draw per cent.
    """
    figure = new_figure(8, 4.4)
    ax = figure.subplots()
    centres, look = [], Look(PALETTE[0], "D", "-")
    for label, (along, up) in places.items():
        across, height = np.asarray(along, dtype=float), (100 if share else 1) * np.asarray(up, dtype=float)
        centres.append((label, float(across.mean()), float(height.mean())))
        mark(ax, across.mean(), height.mean(), look, xerr=_sd(across), yerr=_sd(height), elinewidth=1, ecolor=FAINT)
    means = [mean for _, mean, _ in centres]
    if min(means) > 0 and max(means) / min(means) > 8:
        log_axis(ax)
    ax.margins(0.14, 0.16)
    counts = [len(along) for along, _ in places.values()]
    spreads = max(counts, default=0) > 1
    ax.set_xlabel(f"{_spread_of(x, share=False, drawn=spreads)}, n = {seeds_text(counts)}")
    ax.set_ylabel(_spread_of(y, share, drawn=spreads))
    place_labels(ax, centres)
    return figure


# -- a comparison --------------------------------------------------------------------------------------
def score_dots(summary: Summary, metric: str, modalities: Sequence[str]) -> Figure:
    """Fused and unimodal scores of every method, single seeds faint, and the paired difference to the baseline."""
    fused, share = f"{FUSED}/{metric}", metric in SHARES
    sign = -1 if lower_is_better(metric) else 1
    labels = sorted(
        (label for label, cells in summary.rows.items() if fused in cells),
        key=lambda label: sign * summary.rows[label][fused].mean,
    )
    paired = any(summary.rows[label][fused].difference is not None for label in labels)
    figure = new_figure(10, 1.4 + 0.42 * len(labels))
    widths = (5, 2.4) if paired else None
    first, *second = figure.subplots(1, 1 + paired, squeeze=False, sharey=True, width_ratios=widths)[0]
    middle = (len(modalities) + 1) // 2
    drawn = looks([*modalities[:middle], FUSED, *modalities[middle:]])
    for height, label in enumerate(labels):
        _row(first, summary.rows[label], metric, height, drawn)
    if fused in summary.references:
        best, value = summary.references[fused]
        name = short(f"best modality alone: {best}", 60)
        landmark(first, (100 if share else 1) * value, name, above=True)
    counts = [summary.rows[label][fused] for label in labels]
    names = [
        short(label, 30) + ("" if c.complete else f" (n = {c.n})") for label, c in zip(labels, counts, strict=True)
    ]
    first.set_yticks(range(len(labels)), names)
    first.set_ylim(-0.6, len(labels) - 0.4)
    what = _spread_of(f"{SPLITS[summary.split]} {named(metric)}", share, drawn=summary.asked > 1)
    first.set_xlabel(f"{what}, n = {seeds_text([summary.asked])}")
    first.grid(axis="y", visible=False)
    for ax in second:
        _differences(ax, summary, labels, metric)
    key(figure, {name: drawn[name] for name in (FUSED, *modalities)}, line=False, dots=True)
    return figure


def _row(ax: Any, cells: Mapping[str, Cell], metric: str, height: float, drawn: Mapping[str, Look]) -> None:
    """The scores of one method, below each other."""
    middle, scale = (len(drawn) - 1) / 2, 100 if metric in SHARES else 1
    for place, (name, look) in enumerate(drawn.items()):
        cell = cells.get(f"{name}/{metric}")
        if cell is None:
            continue
        values, at = scale * np.array(list(cell.values.values())), height + 0.24 * (middle - place) / max(1, middle)
        ax.plot(values, [at] * len(values), "|", color=look.colour, alpha=0.55, markersize=5)
        mark(ax, values.mean(), at, look, xerr=_sd(values), size=6.5 if name == FUSED else 5.5)


def _differences(ax: Any, summary: Summary, labels: Sequence[str], metric: str) -> None:
    """The fused scores' differences to the baseline, filled where the interval excludes zero."""
    scale = 100 if metric in SHARES else 1
    ax.axvline(0, color=INK, linewidth=0.9)
    for height, label in enumerate(labels):
        d = summary.rows[label][f"{FUSED}/{metric}"].difference
        if d is None:
            continue
        style: dict[str, Any] = {"markerfacecolor": PAPER, "markeredgecolor": INK, "elinewidth": 1.4}
        if d.low is not None and d.high is not None:
            style["xerr"] = [[scale * (d.mean - d.low)], [scale * (d.high - d.mean)]]
            style["markerfacecolor"] = INK if d.without_zero else PAPER
        mark(ax, scale * d.mean, height, Look(INK, "D", "-"), **style)
    points = "points" if metric in SHARES else metric
    ax.set_xlabel(f"fused: difference to {summary.baseline} ({points}), {100 * summary.confidence:g} % interval")
    ax.grid(axis="y", visible=False)


# -- texts and ticks -----------------------------------------------------------------------------------
def _spread_of(what: str, share: bool, *, drawn: bool) -> str:
    return f"{what}{' (%)' if share else ''}" + (", mean ± sd" if drawn else "")


def _sd(values: np.ndarray) -> float | None:
    """Sample standard deviation; None for one value."""
    return float(values.std(ddof=1)) if len(values) > 1 else None


def _at(positions: Sequence[float] | Sequence[str] | None, length: int) -> np.ndarray:
    if positions is None:
        return np.arange(1, length + 1)
    named = any(isinstance(p, str) for p in positions)
    return np.arange(length) if named else np.asarray(positions[:length], dtype=float)


def _ticks(ax: Any, positions: Sequence[float] | Sequence[str] | None, length: int) -> None:
    if positions is None or not any(isinstance(p, str) for p in positions):
        if length == 1:
            ax.set_xticks(_at(positions, 1))  # the locator would fill the axis with fractions of an epoch
        else:
            ax.xaxis.get_major_locator().set_params(integer=True)
        return
    crowded = length > 4
    ax.set_xticks(range(length), [short(str(p), 24) for p in positions[:length]])
    for text in ax.get_xticklabels():
        text.set(rotation=25 if crowded else 0, ha="right" if crowded else "center")
    ax.margins(x=0.06)
