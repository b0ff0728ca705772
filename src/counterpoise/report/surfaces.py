"""Figures of the analyses of one trained model: loss surfaces, lines between weights, histograms, spectra."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from counterpoise.analysis.gradient_change import histogram
from counterpoise.analysis.landscape import Path, Surface
from counterpoise.report.figures import (
    INK,
    PALETTE,
    key,
    landmark,
    log_axis,
    looks,
    nested,
    new_figure,
    outer_labels,
    panel_grid,
    panel_looks,
    seeds_text,
    short,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LOSS = "training loss"


def contours(panels: Mapping[str, Surface], *, columns: int | None = None) -> Figure:
    """Loss above the centre around trained weights, the same levels in all panels: more lines, sharper minimum.

    Levels end at twice what the middle panel reaches; what is higher has the deepest shade and no lines.

    Args:
        panels: title (method and modality, say) -> surface.
        columns: panels side by side; None for up to three.
    """
    from matplotlib.colors import to_rgb

    heights = {title: surface.loss - surface.centre for title, surface in panels.items()}
    levels = _levels(list(heights.values()))
    figure, axes = panel_grid(len(panels), columns=columns, width=3.2, height=3.4, sharex=True, sharey=True)
    # One colour, deeper uphill: readable on a light and on a dark page.
    shades = [(*to_rgb(PALETTE[0]), alpha) for alpha in np.linspace(0.04, 0.72, len(levels))]
    for ax, (title, surface) in zip(axes, panels.items(), strict=True):
        ax.contourf(surface.x, surface.y, heights[title], levels, colors=shades, extend="max")
        drawn = ax.contour(surface.x, surface.y, heights[title], levels, colors=INK, linewidths=0.6)
        ax.clabel(drawn, [*levels[:6], *levels[6::4]], fontsize=6.5, fmt="%g")
        ax.plot(0, 0, "+", color=INK, markersize=8, markeredgewidth=1.4)
        # Above the panel, as contours carry their labels up to its edge.
        ax.set_title(short(title, 40), pad=16)
        ax.annotate(
            f"centre {surface.centre:.3g}, corners {surface.rise:+.3g}", (0, 1), xycoords="axes fraction",
            xytext=(0, 4), textcoords="offset points", fontsize=7.5,
        )  # fmt: skip
        ax.set_aspect("equal")
        ax.grid(visible=False)
        ax.tick_params(length=2)
    outer_labels(axes, "step along direction 1", ["step along direction 2"] * len(panels))
    figure.suptitle(
        f"{LOSS} above the centre; steps in units of the filters' norms, lines every {levels[1] - levels[0]:g}",
        fontsize=8.5,
        x=0.01,
        ha="left",
    )
    return figure


def _levels(heights: Sequence[np.ndarray]) -> np.ndarray:
    """Heights of the lines; one surface that explodes must not flatten the others."""
    from matplotlib.ticker import MaxNLocator

    tops = [float(h[np.isfinite(h)].max()) for h in heights]
    low = min(0.0, *(float(h[np.isfinite(h)].min()) for h in heights))
    high = min(max(tops), 2 * float(np.median(tops)))
    levels = np.asarray(MaxNLocator(24, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high))
    return np.unique(np.round(levels, 12))


def profiles(panels: Mapping[str, Mapping[str, Surface]]) -> Figure:
    """The loss along the first direction through the trained weights: the steeper its sides, the sharper the minimum.

    Each panel has a vertical axis of its own, around the losses that it shows: from zero, high ones would look flat.

    Args:
        panels: title (a modality, fused) -> series (a method) -> surface with an odd number of points.

    Raises:
        ValueError: for a surface without a row through the centre.
    """
    figure, axes = panel_grid(len(panels))
    drawn = panel_looks(panels)
    for ax, (title, series) in zip(axes, panels.items(), strict=False):
        for name, surface in series.items():
            look = drawn[name]
            ax.plot(surface.x, surface.line, color=look.colour, linestyle=look.line, marker=look.marker, markersize=4)
        ax.axvline(0, color=INK, linewidth=0.8, linestyle=(0, (4, 3)), zorder=1)
        heights = np.concatenate([surface.line for surface in series.values()])
        heights = heights[np.isfinite(heights)]
        if len(heights) and heights.max() > heights.min():
            # at least a twentieth of the height, so that what hardly rises still looks flat
            margin = 0.05 * max(heights.max() - heights.min(), abs(heights).max())
            ax.set_ylim(heights.min() - margin, heights.max() + margin)
        ax.set_title(short(title, 44))
    outer_labels(axes, "step along direction 1 (filter norms)", [LOSS] * len(panels))
    key(figure, drawn, line=True, dots=True)
    return figure


def reliefs(panels: Mapping[str, Mapping[str, Surface]]) -> Figure:
    """The loss over the two directions in space, series over each other; not drawn where it is not finite.

    More than two series would hide each other: each then has a panel, beside the others and on the same vertical axis.

    Args:
        panels: title (a modality, fused) -> series (a method) -> surface.
    """
    names = list(dict.fromkeys(name for series in panels.values() for name in series))
    drawn, together = looks(names), len(names) <= 2
    columns = min(3, len(panels)) if together else len(names)
    cells = -(-len(panels) // columns) * columns if together else len(panels) * columns
    figure = new_figure(0.6 + 3.3 * columns, 0.5 + 3.1 * cells // columns)
    grid = {"squeeze": False, "subplot_kw": {"projection": "3d"}}
    axes = iter(figure.subplots(cells // columns, columns, **grid).ravel())
    for title, series in panels.items():
        losses = np.concatenate([surface.loss[np.isfinite(surface.loss)] for surface in series.values()])
        top = float(losses.max(initial=0.0))
        for group in (names,) if together else ((name,) for name in names):
            ax = next(axes)
            for name in (name for name in group if name in series):
                surface = series[name]
                height = np.where(np.isfinite(surface.loss), surface.loss, np.nan)
                # Lines without faces: what is behind stays visible, and no shading brings colours of its own.
                ax.plot_wireframe(*np.meshgrid(surface.x, surface.y), height, color=drawn[name].colour, linewidth=0.8)
            _space(ax, title if together else f"{title}, {group[0]}")
            ax.set_zlim(min(0.0, ax.get_zlim()[0]), ax.get_zlim()[1] if together else top)
            if not together and group[0] not in series:
                ax.remove()
    for ax in axes:
        ax.remove()  # hidden ones in space break the layout
    key(figure, drawn, line=True)
    return figure


def _space(ax: Any, title: str) -> None:
    """Axes in space without walls."""
    for axis, label in zip((ax.xaxis, ax.yaxis, ax.zaxis), ("direction 1", "direction 2", LOSS), strict=True):
        axis.pane.set_visible(False)
        axis.line.set_color(INK)
        axis.set_label_text(label, fontsize=8)
        axis.labelpad = 1  # closer, tick labels run into it
    ax.patch.set_visible(False)  # it would cover the labels of the panel beside it
    ax.tick_params(labelsize=7, pad=-2)
    ax.locator_params(nbins=5)
    ax.set_title(short(title, 44))


def lines(paths: Mapping[str, Mapping[str, Path]], *, ends: tuple[str, str], score: str | None = None) -> Figure:
    """The loss, or a score, on the line between two sets of weights, one panel per key.

    Args:
        paths: title -> series (a method, a split) -> path.
        ends: names of the weights at 0 and at 1.
        score: what the paths' ``accuracy`` is of; draw it instead, in per cent.
    """
    figure, axes = panel_grid(len(paths), sharey=True)
    drawn = panel_looks(paths)
    for ax, (title, series) in zip(axes, paths.items(), strict=False):
        heights = {name: 100 * path.accuracy if score else path.loss for name, path in series.items()}
        for (name, path), above in zip(series.items(), nested([*heights.values()]), strict=True):
            look = drawn[name]
            few = len(path.position) <= 12
            ax.plot(
                path.position,
                heights[name],
                color=look.colour,
                linestyle=look.line,
                linewidth=1.6 + 1.8 * above,
                marker=look.marker if few else None,
                markersize=4,
            )
        for position, end in zip((0, 1), ends, strict=True):
            landmark(ax, position, short(end, 18))
        ax.set_title(short(title, 44), pad=None if score else 16)
        if not score:  # above the panel, each with its line's name
            barriers = ", ".join(f"{name} {p.barrier:.2g}" for name, p in series.items())
            ax.annotate(
                short(f"barrier: {barriers}", 64), (0, 1), xycoords="axes fraction",
                xytext=(0, 4), textcoords="offset points", fontsize=7.5,
            )  # fmt: skip
    outer_labels(axes, "position between the weights", [f"training {score} (%)" if score else LOSS] * len(paths))
    key(figure, drawn, line=True)
    return figure


def histograms(values: Mapping[str, Sequence[float] | np.ndarray], *, x: str, seeds: int, threshold: float) -> Figure:
    """One histogram per key above each other on equal axes, with mean, median, and the share below ``threshold``.

    Args:
        values: title (a method) -> values, of all seeds together.
        x: what they are.
        seeds: how many the values are of.
        threshold: marked by a dotted line.
    """
    arrays = {title: np.asarray(v, dtype=float) for title, v in values.items()}
    arrays = {title: v[np.isfinite(v)] for title, v in arrays.items()}
    everything = np.concatenate(list(arrays.values())) if arrays else np.zeros(0)
    span = (float(everything.min()), float(everything.max())) if len(everything) else (-1.0, 1.0)
    span = span if span[0] < span[1] else (span[0] - 0.5, span[1] + 0.5)
    figure = new_figure(7, 0.7 + 1.55 * len(arrays))
    axes = figure.subplots(len(arrays), 1, squeeze=False, sharex=True, sharey=True).ravel()
    for number, (ax, (title, finite)) in enumerate(zip(axes, arrays.items(), strict=True)):
        counted = histogram(finite, span=span, threshold=threshold)
        share = 100 * counted.counts / max(1, counted.n)
        ax.stairs(share, counted.edges, fill=True, color=PALETTE[number % len(PALETTE)], alpha=0.75)
        ax.axvline(threshold, color=INK, linewidth=0.9, linestyle=":")
        described = "no values"
        if counted.n:
            ax.axvline(counted.mean, color=INK, linewidth=1.1)
            ax.axvline(counted.median, color=INK, linewidth=1.1, linestyle=(0, (4, 3)))
            described = (
                f"mean {_three(counted.mean)}, median {_three(counted.median)}, "
                f"{100 * counted.below:.1f} % below {threshold:g}"
            )
        ax.set_title(f"{short(title, 30)}  (n = {counted.n}, {seeds_text([seeds])}): {described}", fontsize=9)
        ax.set_ylabel("share (%)")
    axes[-1].set_xlabel(f"{x} (solid: mean, dashed: median, dotted: {threshold:g})")
    return figure


def _three(number: float) -> str:
    return f"{round(number, 3) + 0.0:.3f}"  # no "-0.000"


def spectra(layers: Mapping[str, Mapping[str, Sequence[float] | np.ndarray]]) -> Figure:
    """Values of each layer in falling order on a logarithmic axis, one panel per layer, dots at the means.

    Values below a billionth of the largest are rounding and left out.

    Args:
        layers: layer -> series (a method) -> values, largest first.
    """
    figure, axes = panel_grid(len(layers))
    drawn = panel_looks(layers)
    for ax, (layer, series) in zip(axes, layers.items(), strict=False):
        for place, (name, given) in enumerate(series.items()):
            values, look = np.asarray(given, dtype=float), drawn[name]
            kept = values[values > 1e-9 * values.max()] if len(values) else values
            width = max(1.2, 3.6 - 1.2 * place)  # what is drawn first shows around what covers it
            ax.plot(np.arange(1, len(kept) + 1), kept, color=look.colour, linestyle=look.line, linewidth=width)
            ax.axhline(values.mean(), color=look.colour, linewidth=0.9, linestyle=":")
        log_axis(ax)
        log_axis(ax, "y")
        widest = max(len(given) for given in series.values())
        ax.set_title(short(f"{layer}  (d = {widest})", 40))
    outer_labels(axes, "number of the value", ["singular value (dotted: mean)"] * len(layers))
    key(figure, drawn, line=True)
    return figure
