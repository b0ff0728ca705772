"""The page of an answer: its tables and pictures."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from markupsafe import Markup

from counterpoise._files import write_text
from counterpoise._json import to_json
from counterpoise.answer.evidence import Evidence
from counterpoise.answer.words import SPLITS, headline, percent, sentences, signed
from counterpoise.metrics import SHARES, lower_is_better
from counterpoise.report.charts import bars
from counterpoise.report.figures import FAINT, looks, new_figure
from counterpoise.report.markup import Picture, html_figure, html_table, render, write_page
from counterpoise.types import FUSED

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def write(evidence: Evidence, out: Path) -> Path:
    """``answer.json``, the pictures and the page ``answer.html`` in a folder; the path of the page."""
    write_text(out / "answer.json", to_json({"said": sentences(evidence), **asdict(evidence)}, indent=1) + "\n")
    body = render(
        "answer",
        headline=headline(evidence),
        said=sentences(evidence)[1:],
        train=evidence.samples["train"],
        val=evidence.samples["val"],
        tested=f"{evidence.samples[evidence.part]} {SPLITS[evidence.part]}",
        items=[
            _experts(evidence),
            *(html_figure(picture, out) for picture in _pictures(evidence)),
            _subsets(evidence),
            _metrics(evidence),
            *_trials(evidence),
        ],
    )
    return write_page(out / "answer.html", "One model, and why", [body])


def _experts(evidence: Evidence) -> Markup:
    rows = []
    for name, expert in evidence.experts.items():
        weight = f"{expert.weight:.2f}" + ("" if expert.spread is None else f" ± {expert.spread:.2f}")
        rows.append(
            [
                "all, fused" if name == FUSED else name,
                "–" if expert.score is None else percent(expert.score),
                weight,
                "–" if expert.temperature is None else f"{expert.temperature:.2f}",
                signed(evidence.shares[name]) if name in evidence.shares else "",
            ]
        )
    rows.append(["the pool", percent(evidence.score.value), "1", "", ""])
    of = f"{evidence.yardstick} (%, {SPLITS[evidence.part]})"
    notes = [
        "Weight ± its standard deviation when the pool is fitted on validation samples drawn again. A temperature "
        "above 1 makes an expert less sure than it said."
    ]
    return html_table(["expert", of, "weight", "temperature", "adds (points)"], rows, numbers=4, notes=notes)


def _pictures(evidence: Evidence) -> list[Picture]:
    adds = {m: {"contribution": [100 * share]} for m, share in evidence.shares.items()}
    drawn = [
        Picture(
            "answer-contributions",
            lambda: bars(adds, x=f"what it adds to the {SPLITS[evidence.part]} {evidence.yardstick} (points)"),
            f"What each modality adds to the model's {percent(evidence.score.value)} %; chance gives "
            f"{percent(evidence.chance)} %.",
        )
    ]
    if evidence.reliability:
        drawn.append(
            Picture(
                "answer-reliability",
                lambda: _reliability(evidence),
                "How often predictions of a confidence are right. On the line, a model is as sure as it should be; "
                "below it, too sure. The larger the mark, the more samples.",
            )
        )
    return drawn


def _reliability(evidence: Evidence) -> Figure:
    figure = new_figure(4.6, 4.2)
    ax = figure.subplots()
    ax.plot([0, 100], [0, 100], color=FAINT, linewidth=0.9, linestyle=":")
    for name, look in looks(evidence.reliability).items():
        sure, right, share = np.array(evidence.reliability[name]).T
        ax.plot(100 * sure, 100 * right, color=look.colour, linestyle=look.line, linewidth=1.4, label=name)
        ax.scatter(100 * sure, 100 * right, s=12 + 300 * share, color=look.colour, alpha=0.55, linewidth=0)
    ax.set_xlabel("confidence (%)")
    ax.set_ylabel(f"right on {SPLITS[evidence.part]} (%)")
    ax.legend(loc="upper left")
    return figure


def _subsets(evidence: Evidence) -> Markup:
    rows = [[name.replace("+", " + "), percent(score)] for name, score in evidence.subsets.items()]
    return html_table(["only with", f"{evidence.yardstick} (%, {SPLITS[evidence.part]})"], rows, numbers=1)


def _metrics(evidence: Evidence) -> Markup:
    rows = []
    for name, values in evidence.metrics.items():
        arrow = "lower is better" if lower_is_better(name) else ""
        cells = ["–" if v is None else percent(v) if name in SHARES else f"{v:.3f}" for v in values]
        rows.append([f"{name} (%)" if name in SHARES else name, *cells, arrow])
    return html_table(["metric", "fused, without the pool", "with the pool", ""], rows, numbers=3)


def _trials(evidence: Evidence) -> list[Markup]:
    if not evidence.trials:
        return []
    rows = [
        [f"{t.rate:g}", "diverged" if t.loss is None else f"{t.loss:.3f}", f"{t.seconds:.1f}"] for t in evidence.trials
    ]
    return [html_table(["learning rate tried", "least validation loss", "seconds"], rows, numbers=2)]
