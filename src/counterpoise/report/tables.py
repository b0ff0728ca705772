"""Records to HTML tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from markupsafe import Markup

from counterpoise.benchmark.cells import Cell, cell_text, column_title, small_print
from counterpoise.benchmark.summary import Summary
from counterpoise.metrics import subset_name, subsets
from counterpoise.report.collect import StoredRun
from counterpoise.report.markup import Score, html_table


def summary_html(summary: Summary, titles: Mapping[str, str] | None = None) -> Markup:
    """The comparison table: best bold, second underlined, differences in small print, notes below."""
    titles = titles or {column: column_title(column) for column in summary.columns}
    rows = [
        [label, *(_score(column, cells.get(column)) for column in summary.columns)]
        for label, cells in summary.rows.items()
    ]
    header = ["method", *(titles[column] for column in summary.columns)]
    return html_table(header, rows, numbers=len(header) - 1, baseline=summary.baseline, notes=summary.notes())


def sets_html(
    summaries: Mapping[str, Summary], columns: Mapping[str, Sequence[str]], groups: Mapping[str, Sequence[str]]
) -> Markup:
    """One table over several data sets: a row per method, the scores of each set side by side.

    Args:
        summaries: name of the set -> its comparison; ranks and marks are those within the set.
        columns: name of the set -> scores to show.
        groups: heading -> labels of its rows.
    """
    shown = [(name, column) for name in summaries for column in columns[name]]
    rows: list[str | list[str | Score]] = []
    for heading, labels in groups.items():
        rows.append(heading)
        for label in labels:
            cells = [(c, summaries[name].rows.get(label, {}).get(c)) for name, c in shown]
            rows.append([label, *(_score(c, cell and replace(cell, difference=None)) for c, cell in cells)])
    notes = [f"{name}: {note}" for name, s in summaries.items() for note in s.notes()[:1]]
    return html_table(
        ["method", *(column_title(c).removeprefix("fused ") for _, c in shown)],
        rows,
        numbers=len(shown),
        over=[(name, len(columns[name])) for name in summaries],
        notes=[*notes, "†: worse than the best modality trained alone, on that set."],
    )


def _score(column: str, cell: Cell | None) -> Score:
    values = "" if cell is None else ", ".join(f"seed {seed}: {value:.6g}" for seed, value in cell.values.items())
    return Score(cell_text(column, cell), cell and cell.rank, small_print(column, cell), values)


def subset_records(runs: Sequence[StoredRun], metric: str, split: str) -> tuple[list[dict], dict[str, str]]:
    """Records whose scores are those of the subsets of modalities, for ``summarize``, and the columns' titles."""
    modalities = list(dict.fromkeys(m for run in runs for m in (run.result or {}).get("modalities", ())))
    titles = {f"{subset_name(subset)}/{metric}": " + ".join(subset) for subset in subsets(modalities)}
    records = []
    for run in runs:
        stored = (run.result or {}).get("subsets") or {}
        scores = {f"{name}/{metric}": values[metric] for name, values in stored.items() if metric in values}
        if scores:
            plain = {key: run.record.get(key) for key in ("method", "seed", "data", "label")}
            records.append({**plain, split: scores})
    known = {column for record in records for column in record[split]}
    return records, {column: title for column, title in titles.items() if column in known}


def runs_rows(runs: Sequence[StoredRun], split: str) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the list of runs."""
    header = ["run", "method", "seed", "state", "epochs", "best epoch", "fused score", "seconds"]
    rows = []
    for run in runs:
        result = run.result or {}
        score = (result.get(split) or {}).get(f"fused/{result.get('monitor', 'accuracy')}")
        rows.append(
            [
                run.directory.name,
                run.label,
                "?" if run.seed is None else str(run.seed),
                "; ".join([run.state, *run.problems]),
                str(result.get("epochs", len(run.history))),
                str(result.get("best_epoch", "–")),
                f"{score:.4f}" if isinstance(score, int | float) else "–",
                f"{result['seconds']:.1f}" if isinstance(result.get("seconds"), int | float) else "–",
            ]
        )
    return header, rows


def common_and_different(
    items: Mapping[str, Sequence[Mapping[str, object]]],
) -> tuple[dict[str, str], dict[str, dict[str, str]]]:
    """What all configurations agree on, and per label the rest (values of several runs side by side)."""
    everything = [flat for flats in items.values() for flat in flats]
    keys = list(dict.fromkeys(key for flat in everything for key in flat))
    common, different = {}, {label: {} for label in items}
    for key in keys:
        if len({repr(flat.get(key, "–")) for flat in everything}) == 1:
            common[key] = _text(everything[0][key])
            continue
        for label, flats in items.items():
            values = dict.fromkeys(_text(flat[key]) for flat in flats if key in flat)
            if values:
                different[label][key] = ", ".join(values)
    return common, different


def _text(value: object) -> str:
    return "none" if value is None else ", ".join(map(str, value)) if isinstance(value, list) else str(value)
