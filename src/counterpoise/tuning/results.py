"""What a search found: tables, figures, a page."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from counterpoise._files import write_text, writing
from counterpoise._json import to_json
from counterpoise.report.figures import FAINT, INK, PALETTE, log_axis, new_figure, outer_labels, panel_grid, short
from counterpoise.report.markup import Picture, html_figure, html_table, write_page
from counterpoise.tuning.database import ERROR, RUNS, SCORES, counting
from counterpoise.tuning.space import Parameter

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from optuna.study import Study

STATES = {"COMPLETE": "finished", "PRUNED": "pruned", "FAIL": "failed", "RUNNING": "running"}


def rows(study: Study, space: Sequence[Parameter]) -> list[dict[str, Any]]:
    """One record per trial: number, folder, state, score, values, epochs reported, seconds, error."""
    trials = []
    for trial in counting(study.get_trials(deepcopy=False)):
        record: dict[str, Any] = {
            "trial": trial.number,
            "runs": trial.user_attrs.get(RUNS, []),
            "state": STATES[trial.state.name],
            "score": trial.value if trial.state.name == "COMPLETE" else None,
            **{parameter.name: trial.params.get(parameter.name) for parameter in space},
            "seeds": trial.user_attrs.get(SCORES, {}),
            "curve": [value for _, value in sorted(trial.intermediate_values.items())],
            "seconds": round(trial.duration.total_seconds(), 1) if trial.duration else None,
            "error": trial.user_attrs.get(ERROR),
        }
        trials.append(record)
    return trials


def write_tables(trials: Sequence[dict[str, Any]], out: Path, about: dict[str, Any]) -> None:
    """``trials.json`` with everything, ``trials.csv`` with a line per trial."""
    write_text(out / "trials.json", to_json({**about, "trials": list(trials)}, indent=1) + "\n")
    columns = [name for name in trials[0] if name not in ("seeds", "curve", "runs")]
    with writing(out / "trials.csv", newline="") as file:
        table = csv.writer(file)
        table.writerow([*columns, "epochs"])
        table.writerows([[row[name] for name in columns] + [len(row["curve"])] for row in trials])


def draw(trials: Sequence[dict[str, Any]], space: Sequence[Parameter], out: Path, title: str, monitor: str) -> Path:
    """The pictures ``history`` and ``slices``, and ``tuning.html`` with both and the table; returns the page."""
    from counterpoise.metrics import SHARES, lower_is_better

    share, less = monitor in SHARES, lower_is_better(monitor)
    label = f"validation {monitor}" + (" (%)" if share else "")
    pictures = [
        Picture(
            "history",
            lambda: history(trials, label, share, less),
            "Score of every trial in order, and the best so far. A pruned trial (cross) has the score of its last "
            "epoch and one seed.",
        ),
        Picture(
            "slices",
            lambda: slices(trials, space, label, share),
            "The same scores over each parameter; the later the trial, the darker.",
        ),
    ]
    body = [*(html_figure(picture, out) for picture in pictures), _table(trials, space, share, less)]
    return write_page(out / "tuning.html", title, body)


def history(trials: Sequence[dict[str, Any]], label: str, share: bool, less: bool) -> Figure:
    """Score over trial, and the best so far."""
    from matplotlib.ticker import MaxNLocator

    figure = new_figure(8, 3.4)
    ax = figure.subplots()
    done = [(row["trial"], _scaled(row["score"], share)) for row in trials if row["score"] is not None]
    best = []
    for _, value in done:
        best.append(value if not best else min(best[-1], value) if less else max(best[-1], value))
    if done:
        numbers = [n for n, _ in done]
        ax.step([*numbers, trials[-1]["trial"]], [*best, best[-1]], where="post", color=PALETTE[1], label="best so far")
    _dots(ax, [(row["trial"], row) for row in trials], share)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_xlabel("trial")
    ax.set_ylabel(label)
    figure.legend(loc="outside upper left", ncols=3)
    return figure


def slices(trials: Sequence[dict[str, Any]], space: Sequence[Parameter], label: str, share: bool) -> Figure:
    """Score over the values of each parameter, one panel each."""
    figure, axes = panel_grid(len(space), sharey=True)
    for ax, parameter in zip(axes, space, strict=False):
        known = [row for row in trials if row[parameter.name] is not None]
        if parameter.kind == "choice":
            places = [(parameter.choices.index(row[parameter.name]), row) for row in known]
            crowded = len(parameter.choices) > 3
            names = [short(choice, 20) for choice in parameter.choices]
            ax.set_xticks(range(len(names)), names, rotation=25 if crowded else 0, ha="right" if crowded else "center")
            ax.set_xlim(-0.5, len(names) - 0.5)
        else:
            places = [(row[parameter.name], row) for row in known]
        _dots(ax, places, share, shade=True)
        if parameter.log:
            log_axis(ax)
        ax.set_title(short(parameter.name, 40))
        outer_labels(axes, "", [label] * len(space))
    return figure


def _dots(ax: Any, places: Sequence[tuple[float, dict[str, Any]]], share: bool, *, shade: bool = False) -> None:
    """A dot per finished trial, a cross per pruned one, at the height of its score."""
    last = max((row["trial"] for _, row in places), default=0) or 1
    kinds = [("finished", "o", PALETTE[0], "score"), ("pruned", "x", FAINT, "curve")]
    for state, mark, paint, source in kinds:
        chosen = [(x, row) for x, row in places if row["state"] == state and row[source] not in (None, [])]
        for i, (x, row) in enumerate(chosen):
            value = row["score"] if source == "score" else row["curve"][-1]
            alpha = 0.25 + 0.75 * row["trial"] / last if shade and state == "finished" else 1
            style = {"edgecolors": INK, "linewidths": 0.4} if state == "finished" else {"linewidths": 1.2}
            ax.scatter(
                x, _scaled(value, share), marker=mark, c=paint, s=28, alpha=alpha, zorder=3,
                label=None if i or shade else f"{state} trial", **style,
            )  # fmt: skip


def _scaled(value: float, share: bool) -> float:
    return 100 * value if share else value


def _table(trials: Sequence[dict[str, Any]], space: Sequence[Parameter], share: bool, less: bool) -> Markup:
    """The trials as HTML, best first."""

    def place(row: dict[str, Any]) -> float:
        return math.inf if row["score"] is None else row["score"] if less else -row["score"]

    rows = []
    for row in sorted(trials, key=place):
        score = "–" if row["score"] is None else f"{_scaled(row['score'], share):.4g}"
        values = [f"{row[p.name]:.4g}" if isinstance(row[p.name], float) else str(row[p.name]) for p in space]
        seconds = "–" if row["seconds"] is None else str(row["seconds"])
        rows.append([str(row["trial"]), row["state"], score, *values, str(len(row["curve"])), seconds])
    return html_table(["trial", "state", "score", *(p.name for p in space), "epochs", "seconds"], rows)
