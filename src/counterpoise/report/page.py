"""One self-contained HTML page from run directories."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from markupsafe import Markup

from counterpoise.benchmark.cells import change_text, named, number_text
from counterpoise.benchmark.summary import SPLITS, Summary, summarize
from counterpoise.metrics import SHARES
from counterpoise.report.charts import curves, points, score_dots
from counterpoise.report.collect import OWN_TO_A_RUN, StoredRun, collect
from counterpoise.report.markup import Picture, html_figure, html_table, render, write_page
from counterpoise.report.tables import common_and_different, runs_rows, subset_records, summary_html
from counterpoise.types import FUSED


def write_report(
    directories: Path | str | Iterable[Path | str],
    out: Path | str,
    *,
    title: str = "Counterpoise report",
    baseline: str = "Joint",
    seeds: int | None = None,
    labels: Mapping[Path, str] | None = None,
    before: Sequence[Markup] = (),
) -> Path:
    """Write the report of all runs in and below the directories; nothing is trained.

    The page holds its style and figures inside and asks no server for anything.

    Args:
        directories: run directories, or directories that hold them (a benchmark's).
        out: the HTML file; replaced when it exists.
        title: of the page.
        baseline: the method that the others are compared with.
        seeds: how many seeds were asked for; by default as many as occur in the runs of a data set.
        labels: run directory -> its name here; by default what the run says.
        before: sections that come first.

    Returns:
        The path of the page.

    Raises:
        FileNotFoundError: when a directory does not exist or holds no run.
    """
    runs = collect(directories, labels)
    by_data: dict[str, list[StoredRun]] = {}
    for run in runs:
        by_data.setdefault(run.data, []).append(run)
    sections = [
        _section(data, members, baseline, seeds, number) for number, (data, members) in enumerate(by_data.items())
    ]
    body = render(
        "report",
        notable=[run for run in runs if not run.finished or run.problems],
        head=_head(runs),
        sections=[*sections, *_environment(runs)],
    )
    return write_page(Path(out), title, [*before, body])


NAMES = {"single-label": ("class", "classes"), "multi-label": ("label", "labels"), "regression": ("number", "numbers")}
"""Kind of task -> what is predicted, one and several."""


class Part(NamedTuple):
    """A heading with what stands below it."""

    title: str
    text: str
    content: Markup


class Section(NamedTuple):
    """A part of the page: about one data set, or the environment."""

    title: str
    lead: str
    parts: Sequence[Part]
    folded: Sequence[tuple[str, Markup]] = ()


def _section(data: str, runs: Sequence[StoredRun], baseline: str, seeds: int | None, number: int) -> Section:
    """Everything about one data set."""
    first = ["Unimodal", baseline]
    runs = sorted(runs, key=lambda run: first.index(run.method) if run.method in first else len(first))
    done = [run for run in runs if run.finished]
    split = "test" if done and all((run.result or {}).get("test") for run in done) else "val"
    asked = seeds or len({run.seed for run in runs if run.seed is not None}) or None
    summary = summarize([run.record for run in done], baseline=baseline, seeds=asked, split=split)
    metric = str(next(((run.result or {}).get("monitor") for run in done), None) or "accuracy")
    modalities = list(dict.fromkeys(m for run in done for m in (run.result or {}).get("modalities", ())))
    parts = []
    if summary.rows:
        parts.append(Part("Comparison", _split_note(split, metric), summary_html(summary)))
    if any(f"fused/{metric}" in cells for cells in summary.rows.values()):
        parts.append(_scores(summary, metric, modalities, number))
    parts += _curves(runs, modalities, metric, number)
    if sum(f"fused/{metric}" in cells and "seconds" in cells for cells in summary.rows.values()) > 1:
        parts.append(_time(summary, metric, number))
    parts += _subsets(done, metric, split, baseline, asked)
    listed = (_count(len(runs), "run"), html_table(*runs_rows(runs, split), numbers=4))
    return Section(data or "Runs", _lead(summary, done, modalities, metric), parts, [*_configuration(runs), listed])


def _split_note(split: str, metric: str) -> str:
    if split == "test":
        return f"Scores on the test split. The weights were chosen by the validation {metric}."
    return (
        f"Scores on the validation split, because not every run has test scores. The weights were chosen by the "
        f"{metric} on the same split, so these scores are optimistic."
    )


def _lead(summary: Summary, done: Sequence[StoredRun], modalities: Sequence[str], metric: str) -> str:
    """What was compared and what came out, in two sentences."""
    if not done:
        return "No run has finished yet."
    classes = next((len(c) for run in done if (c := (run.result or {}).get("classes"))), None)
    kind = next(str((run.result or {}).get("task")) for run in done)
    one, many = NAMES.get(kind, NAMES["single-label"])
    counted = [
        _count(len(summary.rows), "method"),
        _count(len({run.seed for run in done}), "seed"),
        f"modalities {', '.join(modalities)}" if modalities else "",
        _count(classes, one, many) if classes else "",
    ]
    column = f"fused/{metric}"
    best = [
        (label, cells[column]) for label, cells in summary.rows.items() if column in cells and cells[column].rank == 1
    ]
    text = " · ".join(part for part in counted if part) + "."
    if len(best) == 1:
        label, cell = best[0]
        spread = "" if cell.sd is None else f" ± {number_text(column, cell.sd)}"
        unit = " %" if metric in SHARES else ""
        text += (
            f" Best: {label} with {number_text(column, cell.mean)}{spread}{unit} fused {SPLITS[summary.split]} {metric}"
        )
        if cell.difference is not None:
            d = cell.difference
            unclear = "" if d.low is None or d.without_zero else "; the interval includes zero"
            text += f"; difference to {summary.baseline}: {change_text(column, d)}{unclear}"
        text += "."
    return text


def _count(number: int, one: str, many: str | None = None) -> str:
    return f"{number} {one if number == 1 else many or one + 's'}"


def _scores(summary: Summary, metric: str, modalities: Sequence[str], number: int) -> Part:
    caption = "Large marks: mean over seeds with its standard deviation; small strokes: single seeds."
    if summary.baseline is not None:
        caption += (
            f" Right: seed-by-seed difference of the fused score to {summary.baseline}; filled where the "
            f"{100 * summary.confidence:g} % interval excludes zero."
        )
    return Part(
        "Each modality and their fusion",
        "How well each modality predicts alone inside the trained model, and what their fusion adds.",
        html_figure(Picture(f"scores-{number}", lambda: score_dots(summary, metric, modalities), caption)),
    )


def _curves(runs: Sequence[StoredRun], modalities: Sequence[str], metric: str, number: int) -> list[Part]:
    """Learning curves of the finished runs; of the unfinished ones where a method has no other."""
    labels: dict[str, list[StoredRun]] = {}
    for run in runs:
        labels.setdefault(run.label, []).append(run)
    labels = {label: [run for run in members if run.finished] or members for label, members in labels.items()}
    shown = [run.history for members in labels.values() for run in members]
    epochs = sorted({int(entry["epoch"]) for history in shown for entry in history})
    keys = dict.fromkeys(key for history in shown for entry in history for key in entry)
    scored = [key.split("/")[1] for key in keys if key.startswith("val/") and key.endswith(f"/{metric}")]
    panels = {}
    for label, members in labels.items():
        series = {
            name: [score_curve(run.history, f"val/{name}/{metric}", epochs) for run in members]
            for name in [*(modalities or sorted(set(scored) - {FUSED})), FUSED]
        }
        panels[label] = {name: lines for name, lines in series.items() if any(map(math.isfinite, chain(*lines)))}
    panels = {label: series for label, series in panels.items() if series}
    if not panels:
        return []
    phases = {label: _phases(members) for label, members in labels.items()}
    picture = Picture(
        f"curves-{number}",
        lambda: curves(
            panels, y=f"validation {named(metric)}", positions=epochs, share=metric in SHARES,
            order=[FUSED, *modalities], phases=phases,
        ),
        f"Validation {metric}. Lines: mean over the n seeds that reached the epoch; bands: ± one standard deviation. "
        "Dotted lines: a new phase of the method begins.",
    )  # fmt: skip
    about = "Who learns when: a modality that rises late was held back."
    return [Part("Learning curves", about, html_figure(picture))]


def score_curve(history: Iterable[Mapping[str, Any]], key: str, epochs: Iterable[int]) -> list[float]:
    """One score of a run at these epochs; NaN where there is none."""
    scores = {int(entry["epoch"]): entry.get(key) for entry in history}
    return [float(value) if isinstance(value := scores.get(epoch), int | float) else math.nan for epoch in epochs]


def _phases(runs: Sequence[StoredRun]) -> dict[int, str]:
    """First epoch of each phase of the longest history."""
    history = max((run.history for run in runs), key=len)
    starts: dict[int, str] = {}
    previous = None
    for entry in history:
        if (phase := str(entry.get("phase", ""))) != previous:
            starts[int(entry["epoch"])] = previous = phase
    return starts


def _time(summary: Summary, metric: str, number: int) -> Part:
    places = {
        label: (list(cells["seconds"].values.values()), list(cells[f"{FUSED}/{metric}"].values.values()))
        for label, cells in summary.rows.items()
        if f"{FUSED}/{metric}" in cells and "seconds" in cells
    }
    score = f"fused {SPLITS[summary.split]} {named(metric)}"
    picture = Picture(
        f"time-{number}",
        lambda: points(places, x="training time (s)", y=score, share=metric in SHARES),
        f"Training time against {score}. Times of runs that shared a machine with others are upper bounds.",
    )
    return Part("Training time", f"What the fused {metric} costs.", html_figure(picture))


def _subsets(done: Sequence[StoredRun], metric: str, split: str, baseline: str, asked: int | None) -> list[Part]:
    records, titles = subset_records(done, metric, split)
    if not titles:
        return []
    summary = summarize(records, columns=list(titles), baseline=baseline, seeds=asked, split=split)
    unit = " (%)" if metric in SHARES else ""
    about = (
        f"{SPLITS[split].capitalize()} {metric}{unit} of the same trained models when only these modalities are given."
    )
    return [Part("Missing modalities", about, summary_html(summary, titles))]


def _configuration(runs: Sequence[StoredRun]) -> list[tuple[str, Markup]]:
    items: dict[str, list[Mapping[str, object]]] = {}
    for run in runs:
        plain = {key: value for key, value in run.config.items() if key.rsplit(".", 1)[-1] not in OWN_TO_A_RUN}
        if plain:
            items.setdefault(run.label, []).append(plain)
    if not items:
        return []
    common, different = common_and_different(items)
    own = [
        [label, "; ".join(f"{key} = {value}" for key, value in values.items())]
        for label, values in different.items()
        if values
    ]
    shared = html_table(["setting", "value"], list(common.items()))
    differing = [("What differs between the methods", html_table(["method", "settings"], own))] if own else []
    return [(f"Shared by all runs ({len(common)} settings)", shared), *differing]


def _environment(runs: Sequence[StoredRun]) -> list[Section]:
    items = {
        str(run.directory): [{key: value for key, value in run.environment.items() if key not in OWN_TO_A_RUN}]
        for run in runs
        if run.environment
    }
    if not items:
        return []
    common, different = common_and_different(items)
    varying: dict[str, dict[str, None]] = {}
    for values in different.values():
        for key, value in values.items():
            varying.setdefault(key, {})[value] = None
    rows = [*common.items(), *((f"{key} (differs)", " / ".join(values)) for key, values in varying.items())]
    return [Section("Environment", "", [Part("", "", html_table(["", "value"], rows))])]


def _head(runs: Sequence[StoredRun]) -> str:
    """What is said above the runs that are not in the numbers, or were damaged."""
    waiting = sum(not run.finished for run in runs)
    if not waiting:
        return "Damaged files."
    return f"{waiting} of {len(runs)} runs have not finished and are not in the tables."
