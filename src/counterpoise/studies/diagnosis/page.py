"""The page of a diagnosis: its pictures, tables and sentences."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from markupsafe import Markup

from counterpoise._files import write_text
from counterpoise._json import to_json
from counterpoise.benchmark.summary import percent
from counterpoise.metrics import SHARES
from counterpoise.report.charts import bars, curves
from counterpoise.report.figures import FAINT, log_axis
from counterpoise.report.markup import Picture, html_figure, html_table, render, write_page
from counterpoise.studies.diagnosis.diagnosis import Diagnosis, losses
from counterpoise.studies.diagnosis.verdict import ERRORS, LEAST
from counterpoise.studies.diagnosis.words import headline, sentences
from counterpoise.task import Regression
from counterpoise.types import FUSED

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Series = dict[str, list[np.ndarray]]
"""Name -> one curve per seed."""


def write(diagnosis: Diagnosis, out: Path) -> Path:
    """``diagnosis.json``, the pictures and the page ``diagnosis.html``, whose path is returned."""
    out.mkdir(parents=True, exist_ok=True)
    said = sentences(diagnosis)
    kept = {"headline": headline(diagnosis), "said": said, **asdict(diagnosis)}
    write_text(out / "diagnosis.json", to_json(kept, indent=1) + "\n")
    body = render(
        "diagnosis",
        headline=headline(diagnosis),
        advice=said[-1],
        said=said[:-1],
        several=len(diagnosis.measured) > 1,
        seeds=", ".join(str(one.seed) for one in diagnosis.measured),
        samples=diagnosis.samples,
        errors=f"{ERRORS:g}",
        least=f"{100 * LEAST:g}",
        items=[*(html_figure(picture, out) for picture in _pictures(diagnosis)), *_tables(diagnosis)],
    )
    return write_page(out / "diagnosis.html", "Is this model imbalanced?", [body])


# -- pictures ------------------------------------------------------------------------------------------
def _pictures(diagnosis: Diagnosis) -> list[Picture]:
    ms, inside = diagnosis.modalities, f"in {diagnosis.method}"
    like = {f"{m} {inside}": f"{m} alone" for m in ms}
    pairs = {"": ("alone", "inside"), ", linear": ("probe_alone", "probe_inside")}
    groups = {
        f"{m}{kind}": {"alone": diagnosis.of(m, a), inside: diagnosis.of(m, b)}
        for kind, (a, b) in pairs.items()
        for m in ms
    }
    chances = percent(np.array([one.chance for one in diagnosis.measured]))
    scores = {name: [one.curves[name] for one in diagnosis.measured] for name in diagnosis.measured[0].curves}
    shares = {m: {"contribution": 100 * diagnosis.of(m, "contribution")} for m in ms}
    recorded = all(balance is not None for one in diagnosis.measured for balance in (one.balance, *one.alone.values()))
    drawn = [
        Picture(
            "diagnosis-scores",
            lambda: bars(groups, x=f"validation {diagnosis.score}", share=True),
            f"Each modality's own prediction, and a {diagnosis.probe} on its encoder (chance: {chances} %).",
        ),
        Picture(
            "diagnosis-contributions",
            lambda: bars(shares, x=f"Shapley contribution to the fused validation {diagnosis.score} (points)"),
            f"What each modality adds, over all orders of joining; together the fused {diagnosis.score} "
            f"({percent(diagnosis.whole('fused'))} %) less chance ({chances} %).",
        ),
        Picture(
            "diagnosis-curves",
            lambda: curves({"validation": scores}, y=diagnosis.monitor, like=like, share=diagnosis.monitor in SHARES),
            f"Learning curves. Solid: trained alone; dashed: {inside}." + ("" if recorded else _NOT_RECORDED),
        ),
    ]
    if recorded:
        drawn.append(Picture("diagnosis-gradients", lambda: _gradients(diagnosis), _ABOUT_GRADIENTS))
        drawn.append(
            Picture(
                "diagnosis-overfitting",
                lambda: _overfitting(diagnosis, like),
                "From the start (epoch 0) to each epoch: how far the validation loss fell, how far the gap between "
                "validation and training loss grew, and the second over the first, which has no value where the "
                f"validation loss did not fall. Solid: trained alone; dashed: {inside}; black: the fused prediction.",
            )
        )
    return drawn


_NOT_RECORDED = (
    " Gradients and losses of every epoch are not shown: a run was begun by another command, which did not record them."
)
_ABOUT_GRADIENTS = (
    "The joint run, measured before training and after every epoch on up to 512 training samples, in evaluation mode: "
    "the fused loss's gradient by each modality's own parameters, and its cosine with the gradient of the modality's "
    "own loss. A cosine below 0 is a conflict: what helps the fused prediction hurts the modality alone, or, for a "
    "pair of modalities, what helps one hurts the other in the parameters that both use."
)


def _gradients(diagnosis: Diagnosis) -> Figure:
    ms = diagnosis.modalities
    runs = [one.balance for one in diagnosis.measured if one.balance is not None]
    size, angle = "gradient / weights", "cosine with own loss"
    panels: dict[str, Series] = {
        size: {m: [run.relative[:, i] for run in runs] for i, m in enumerate(ms)},
        angle: {m: [run.alignment[:, i] for run in runs] for i, m in enumerate(ms)},
    }
    labels = {size: "relative length", angle: "cosine"}
    if pairs := diagnosis.conflict():
        panels["cosine between modalities"] = {
            f"{a} × {b}": [run.conflict[:, ms.index(a), ms.index(b)] for run in runs] for a, b in pairs
        }
        labels["cosine between modalities"] = "cosine"
    figure = curves(panels, y=labels, positions=_epochs(diagnosis))
    first, *others = figure.axes
    if all((np.asarray(curve) > 0).all() for curves_ in panels[size].values() for curve in curves_):
        log_axis(first, "y")
    for ax in others:
        ax.axhline(0, color=FAINT, linewidth=0.9, linestyle=":")
    return figure


def _overfitting(diagnosis: Diagnosis, like: Mapping[str, str]) -> Figure:
    series: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {}
    for one in diagnosis.measured:
        for name, curves_, modality in (
            *((f"{m} alone", one.alone[m], m) for m in diagnosis.modalities),
            *((f"{m} in {diagnosis.method}", one.balance, m) for m in diagnosis.modalities),
            (FUSED, one.balance, None),
        ):
            if curves_ is not None:
                train, val = losses(curves_, diagnosis.modalities, modality)
                gap = val - train
                series.setdefault(name, []).append((gap - gap[0], val[0] - val))
    gain, gap, ratio = "gain", "overfitting", "overfitting / gain"
    panels: dict[str, Series] = {
        gain: {name: [g for _, g in pairs] for name, pairs in series.items()},
        gap: {name: [o for o, _ in pairs] for name, pairs in series.items()},
        ratio: {name: [_ratio(o, g) for o, g in pairs] for name, pairs in series.items()},
    }
    nats = "" if diagnosis.task == Regression.kind else " (nats)"
    labels = {gain: f"fall of validation loss{nats}", gap: f"growth of the gap{nats}", ratio: "size of the ratio"}
    figure = curves(panels, y=labels, positions=_epochs(diagnosis), like=like)
    if any(np.isfinite(curve).any() for runs in panels[ratio].values() for curve in runs):
        log_axis(figure.axes[-1], "y")
    return figure


def _ratio(overfitting: np.ndarray, gain: np.ndarray) -> np.ndarray:
    there = (gain > 0) & (overfitting != 0)  # on a logarithmic axis
    return np.where(there, np.abs(overfitting) / np.where(there, gain, 1.0), np.nan)


def _epochs(diagnosis: Diagnosis) -> list[int]:
    """The longest run's."""
    runs = [c for one in diagnosis.measured for c in (one.balance, *one.alone.values()) if c is not None]
    return max((run.epoch.tolist() for run in runs), key=len)


# -- tables --------------------------------------------------------------------------------------------
def _tables(diagnosis: Diagnosis) -> list[Markup]:
    ms = diagnosis.modalities
    rows = []
    for m in (*ms, None):
        inside = diagnosis.overfitting(m)
        own = [_cell(diagnosis.overfitting(m, alone=True)[:, i]) for i in range(3)] if m else ["–"] * 3
        cells = [_cell(inside[:, i]) for i in range(3)]
        rows.append([m or FUSED, *(f"{a} / {b}" for a, b in zip(own, cells, strict=True))])
    header = ["prediction", "overfitting, alone / inside", "gain, alone / inside", "ratio, alone / inside"]
    tables = [html_table(header, rows, numbers=3)]
    rows = [
        [
            m,
            _cell(100 * diagnosis.of(m, "contribution"), 1),
            _cell(diagnosis.of(m, "gradient"), 3),
            _cell(diagnosis.of(m, "alignment")),
        ]
        for m in ms
    ]
    header = ["modality", "contribution (points)", "gradient / weights at the end", "its cosine with the own loss's"]
    tables.append(html_table(header, rows, numbers=3))
    given = [
        [name.replace("+", " + "), f"{percent([one.subsets[name] for one in diagnosis.measured])} %"]
        for name in diagnosis.measured[0].subsets
    ]
    tables.append(html_table([f"{diagnosis.method} given only", f"validation {diagnosis.score}"], given, numbers=1))
    return tables


def _cell(values: np.ndarray, digits: int = 2) -> str:
    """Mean ± standard deviation over seeds."""
    if np.isinf(values).any():
        return "no gain"
    there = values[np.isfinite(values)]
    if not len(there):
        return "–"
    return f"{there.mean():.{digits}f}" + (f" ± {there.std(ddof=1):.{digits}f}" if len(there) > 1 else "")
