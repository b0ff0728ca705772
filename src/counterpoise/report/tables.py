"""Records to HTML tables. Everything that comes from a file is escaped here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from html import escape

from counterpoise.benchmark.cells import Cell, cell_text, column_title, small_print
from counterpoise.benchmark.summary import Summary
from counterpoise.metrics import subset_name, subsets
from counterpoise.report.collect import Run


def html_table(header: Sequence[str], rows: Sequence[Sequence[str]], *, numbers: int = 0) -> str:
    """A table of texts, escaped; the last ``numbers`` columns are right-aligned."""
    first = len(header) - numbers

    def line(tag: str, texts: Sequence[str]) -> str:
        cells = [
            f"<{tag}{' class=number' if position >= first else ''}>{escape(text)}</{tag}>"
            for position, text in enumerate(texts)
        ]
        return f"<tr>{''.join(cells)}</tr>"

    body = "\n".join(line("td", row) for row in rows)
    return f'<div class="wide"><table><thead>{line("th", header)}</thead><tbody>\n{body}\n</tbody></table></div>'


def summary_html(summary: Summary, titles: Mapping[str, str] | None = None) -> str:
    """The comparison table: best bold, second underlined, differences in small print, notes below."""
    titles = titles or {column: column_title(column) for column in summary.columns}
    head = "".join(f"<th class=number>{escape(titles[column])}</th>" for column in summary.columns)
    lines = []
    for label, cells in summary.rows.items():
        own = " class=baseline" if label == summary.baseline else ""
        texts = "".join(_cell_html(column, cells.get(column)) for column in summary.columns)
        lines.append(f"<tr{own}><th scope=row>{escape(label)}</th>{texts}</tr>")
    notes = "".join(f"<p>{escape(note)}</p>" for note in summary.notes())
    return (
        f'<div class="wide"><table><thead><tr><th>method</th>{head}</tr></thead>\n<tbody>'
        + "\n".join(lines)
        + f'</tbody></table></div>\n<div class="notes">{notes}</div>'
    )


def sets_html(
    summaries: Mapping[str, Summary], columns: Mapping[str, Sequence[str]], groups: Mapping[str, Sequence[str]]
) -> str:
    """One table over several data sets: a row per method, the scores of each set side by side.

    Args:
        summaries: name of the set -> its comparison; ranks and marks are those within the set.
        columns: name of the set -> scores to show.
        groups: heading -> labels of its rows.
    """
    shown = [(name, column) for name in summaries for column in columns[name]]
    top = "".join(f"<th class=number colspan={len(columns[name])}>{escape(name)}</th>" for name in summaries)
    head = "".join(f"<th class=number>{escape(column_title(c).removeprefix('fused '))}</th>" for _, c in shown)
    lines = []
    for heading, labels in groups.items():
        lines.append(f"<tr><th scope=rowgroup colspan={1 + len(shown)}><em>{escape(heading)}</em></th></tr>")
        for label in labels:
            found = [(c, summaries[name].rows.get(label, {}).get(c)) for name, c in shown]
            cells = "".join(
                _cell_html(c, None if cell is None else replace(cell, difference=None)) for c, cell in found
            )
            lines.append(f"<tr><th scope=row>{escape(label)}</th>{cells}</tr>")
    notes = "".join(f"<p>{escape(f'{name}: {note}')}</p>" for name, s in summaries.items() for note in s.notes()[:1])
    notes += "<p>†: below the best modality trained alone, on that set.</p>"
    return (
        f'<div class="wide"><table><thead><tr><th rowspan=2>method</th>{top}</tr><tr>{head}</tr></thead>\n<tbody>\n'
        + "\n".join(lines)
        + f'</tbody></table></div>\n<div class="notes">{notes}</div>'
    )


def _cell_html(column: str, cell: Cell | None) -> str:
    style = {1: " best", 2: " second"}.get((cell.rank if cell else None) or 0, "")
    values = "" if cell is None else ", ".join(f"seed {seed}: {value:.6g}" for seed, value in cell.values.items())
    below = small_print(column, cell)
    small = f"<small>{escape(below)}</small>" if below else ""
    return (
        f'<td class="number{style}" title="{escape(values)}"><span>{escape(cell_text(column, cell))}</span>{small}</td>'
    )


def subset_records(runs: Sequence[Run], metric: str, split: str) -> tuple[list[dict], dict[str, str]]:
    """Records whose scores are those of the subsets of modalities, for ``summarize``, and the columns' titles."""
    modalities = list(dict.fromkeys(m for run in runs for m in (run.result or {}).get("modalities", ())))
    titles = {f"{subset_name(subset)}/{metric}": " + ".join(subset) for subset in subsets(modalities)}
    records = []
    for run in runs:
        found = (run.result or {}).get("subsets") or {}
        scores = {f"{name}/{metric}": values[metric] for name, values in found.items() if metric in values}
        if scores:
            plain = {key: run.record.get(key) for key in ("method", "seed", "data", "label")}
            records.append({**plain, split: scores})
    known = {column for record in records for column in record[split]}
    return records, {column: title for column, title in titles.items() if column in known}


def runs_rows(runs: Sequence[Run], split: str) -> tuple[list[str], list[list[str]]]:
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
