"""From result records to mean, spread and paired differences; and those as text, Markdown or a dict."""

from __future__ import annotations

import math
import statistics
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from counterpoise._checks import shown
from counterpoise.benchmark.cells import (
    NAMES,
    PASSES,
    Cell,
    Difference,
    cell_text,
    column_title,
    difference_text,
    metric_of,
    number_text,
    says_how_good,
    small_print,
)
from counterpoise.benchmark.notes import difference_notes, read_out_notes, selection_notes
from counterpoise.metrics import SHARES, gap, lower_is_better
from counterpoise.metrics.comparing import holm, t_interval

if TYPE_CHECKING:
    from rich.table import Table

Record = Mapping[str, Any]
"""The content of a ``result.json``, plus an optional ``"label"`` that tells settings of one method apart, and
``"candidates"``, the validation scores that its weights were selected by (``notes.with_candidates``)."""


@dataclass(frozen=True)
class Summary:
    """A comparison table.

    Attributes:
        rows: method label -> column -> cell. A column is a score such as ``"fused/accuracy"``,
            ``"gap"`` (best minus worst modality) or ``"seconds"``.
        columns: in the order in which they are shown.
        split: ``"test"`` or ``"val"``.
        baseline: label the differences refer to; None when there is no such row.
        asked: seeds per cell.
        confidence: of the intervals.
        references: fused column -> (label, mean) of the modality that is best alone on validation.
        unimodal: label -> what predicts from one modality alone in that row, where the record says it.
        remarks: further sentences that belong below the table.
        ratio: test samples per sample that a fold learns from, which widens the intervals; 0 for seeds.
    """

    rows: Mapping[str, Mapping[str, Cell]]
    columns: Sequence[str]
    split: str
    baseline: str | None
    asked: int
    confidence: float
    references: Mapping[str, tuple[str, float]] = field(default_factory=dict)
    unimodal: Mapping[str, str] = field(default_factory=dict)
    remarks: Sequence[str] = ()
    ratio: float = 0.0

    @property
    def units(self) -> str:
        """What the numbers of a cell are over."""
        return "folds" if self.ratio else "seeds"

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        rows = {
            label: {column: {**asdict(cell), "n": cell.n} for column, cell in cells.items()}
            for label, cells in self.rows.items()
        }
        shared = ("columns", "split", "baseline", "asked", "confidence", "ratio")
        more = {"references": dict(self.references), "unimodal": dict(self.unimodal), "rows": rows}
        return {**{key: getattr(self, key) for key in shared}, **more}

    def to_markdown(self) -> str:
        """A Markdown table: best bold, second underlined, notes below it."""
        header = ["method", *(column_title(column) for column in self.columns)]
        lines = ["| " + " | ".join(_md(h) for h in header) + " |", "|---" + "|---:" * len(self.columns) + "|"]
        for label, cells in self.rows.items():
            texts = [_md(label)]
            for column in self.columns:
                text = cell_text(column, cells.get(column))
                cell = cells.get(column)
                marks = {1: ("**", "**"), 2: ("<u>", "</u>")}.get((cell.rank if cell else None) or 0, ("", ""))
                below = small_print(column, cell)
                texts.append(marks[0] + text + marks[1] + (f"<br>{below}" if below else ""))
            lines.append("| " + " | ".join(texts) + " |")
        return "\n".join([*lines, "", *self.notes()]) + "\n"

    def to_rich(self, width: int | None = None) -> Table:
        """A table for the terminal: best bold, second underlined, notes as the caption.

        Args:
            width: characters there are room for, the terminal's by default. Columns that do not fit are
                left out and named below the table: first the further fused scores, then the gap.
        """
        from rich import box
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        room = width or Console().width
        fitting, broken = self._fitting(room), False
        if any(c not in fitting for c in self.columns if "/" in c and not c.startswith("fused/")):
            fitting, broken = self._fitting(room, broken=True), True  # a modality matters more than a short table
        hidden = [column_title(column) for column in self.columns if column not in fitting]
        notes = self.notes() + ([f"No room for: {', '.join(hidden)}."] if hidden else [])
        table = Table(
            box=box.SIMPLE_HEAD, caption=Text(shown("\n".join(notes))), caption_justify="left", padding=(0, 1)
        )
        table.add_column("method", no_wrap=True)
        for column in fitting:
            table.add_column(Text(shown(_heading(column, broken))), justify="right", no_wrap=True)
        for label, cells in self.rows.items():
            texts = []
            for column in fitting:
                cell = cells.get(column)
                style = {1: "bold", 2: "underline"}.get((cell.rank if cell else None) or 0, "")
                text = Text(cell_text(column, cell), style=style)
                below = _below(column, cell, broken)
                texts.append(Text.assemble(text, "\n", (below, "dim")) if below else text)
            table.add_row(Text(shown(label)), *texts)
        return table

    def _fitting(self, width: int, *, broken: bool = False) -> list[str]:
        """The most important columns that fit next to each other, in the order of the table.

        Args:
            width: characters there are room for.
            broken: intervals stand below their differences, and titles have a line for each word.
        """
        later = {"gap": 2, **dict.fromkeys(PASSES, 3)}
        order = sorted(self.columns, key=lambda c: (c != self.columns[0], later.get(c, int(c.startswith("fused/")))))
        used = 4 + max((len(label) for label in ("method", *self.rows)), default=0)
        chosen = []
        for column in order:
            cells = [cells.get(column) for cells in self.rows.values()]
            below = "\n".join(_below(column, c, broken) for c in cells)
            texts = [*_heading(column, broken).split("\n"), *(cell_text(column, c) for c in cells), *below.split("\n")]
            used += 3 + max(map(len, texts))  # padding and divider
            if used <= width or not chosen:
                chosen.append(column)
        return [column for column in self.columns if column in chosen]

    def notes(self) -> list[str]:
        """What a reader must know to read the table, one sentence each."""
        cells = [cell for row in self.rows.values() for cell in row.values()]
        over = "One seed" if self.asked == 1 else f"Mean ± standard deviation over {self.asked} {self.units}"
        notes = [f"{over}, {SPLITS[self.split]} split."]
        if any(cell.rank for cell in cells):
            notes[0] += " Bold: best; underlined: second."
        if "gap" in self.columns:
            notes.append("gap: score of the best modality minus that of the worst.")
        if any(difference_text(column, cell) for row in self.rows.values() for column, cell in row.items()):
            notes += difference_notes(self)
        if any(cell.below for cell in cells):
            best = [
                f"{metric_of(c)} {number_text(c, value)} of {label}" for c, (label, value) in self.references.items()
            ]
            notes.append(f"†: worse than the modality trained alone that is best on validation ({', '.join(best)}).")
        if any(column in PASSES for column in self.columns):
            notes.append("Passes: 1 is every encoder over every training sample once, validation left out.")
        notes += self.remarks
        if any("/" in column and not column.startswith("fused/") for column in self.columns):
            notes += read_out_notes(self.unimodal)
        if any(not cell.complete for cell in cells):
            notes.append(f"n=a/b: only a of b {self.units} are there, so the cell is not ranked.")
        return notes


SPLITS = {"test": "test", "val": "validation"}


def summarize(
    records: Iterable[Record],
    *,
    columns: Sequence[str] | None = None,
    baseline: str | None = "Joint",
    seeds: int | None = None,
    split: str = "test",
    confidence: float = 0.95,
    unimodal: str = "Unimodal",
    ratio: float = 0.0,
) -> Summary:
    """Aggregate the runs of one data set over their seeds, or over folds that stand in their place.

    Args:
        records: contents of ``result.json`` files; rows are told apart by ``"label"``, or else ``"method"``.
        columns: scores to show; by default every fused score, the accuracy (or whatever was monitored) of each
            modality, the gap between modalities in per cent, the seconds, and the passes of training.
        baseline: row the differences refer to; without such a row there are no differences.
        seeds: how many were asked for; by default as many as occur anywhere in the records.
        split: ``"test"`` or ``"val"``; records without it are skipped.
        confidence: of the t interval of the paired differences.
        unimodal: the method that trains one modality alone, one row each; the one of these rows that is best on
            validation is what every other method should not fall below.
        ratio: of folds of one data set, test samples per sample learned from; see ``t_interval``.

    Raises:
        ValueError: when the records are of several data sets, or one row has a seed twice.
    """
    records = [record for record in records if record.get(split)]
    data = sorted({str(record.get("data") or "") for record in records})
    if len(data) > 1:
        raise ValueError(f"A summary compares runs on one data set; found {', '.join(data)}. Call it for each of them.")
    scores = _by_label(records, split)
    asked = seeds or len({seed for row in scores.values() for seed in row})
    columns = list(columns or _columns(records, split))
    base = scores.get(baseline, {}) if baseline else {}
    rows = {}
    for label, by_seed in scores.items():
        cells = {}
        for column in columns:
            if values := _of_column(by_seed, column):
                others = {} if label == baseline else _of_column(base, column)
                difference = paired_difference(values, others, confidence, ratio)
                cells[column] = Cell(values, *mean_sd(values.values()), asked, difference)
        rows[label] = cells
    rows = corrected(rows, 1 - confidence)
    alone = {_label(record) for record in records if record["method"] == unimodal}
    references = _references(rows, columns, alone, records)
    return Summary(
        _marked(rows, columns, references, alone),
        columns,
        split,
        baseline if base else None,
        asked,
        confidence,
        references,
        {_label(record): str(record["unimodal"]) for record in records if record.get("unimodal")},
        selection_notes(records, split),
        ratio,
    )


def mean_sd(values: Iterable[float]) -> tuple[float, float | None]:
    """Mean and sample standard deviation (None for a single value)."""
    values = list(values)
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None


def percent(numbers: Iterable[float]) -> str:
    """Mean ± standard deviation of shares, in per cent."""
    mean, sd = mean_sd(numbers)
    return f"{100 * mean:.1f}" + ("" if sd is None else f" ± {100 * sd:.1f}")


def paired_difference(
    values: Mapping[int, float], baseline: Mapping[int, float], confidence: float = 0.95, ratio: float = 0.0
) -> Difference | None:
    """Mean difference on the seeds or folds that both have, with its ``t_interval``; None without any."""
    differences = [values[seed] - baseline[seed] for seed in values if seed in baseline]
    if not differences:
        return None
    interval = t_interval(differences, ratio=ratio, confidence=confidence)
    return Difference(interval.mean, interval.low, interval.high, len(differences), interval.p)


def corrected(rows: Mapping[str, Mapping[str, Cell]], level: float) -> dict[str, dict[str, Cell]]:
    """The rows with what Holm's correction makes of the differences: in each column all rows are one family."""
    made = {label: dict(cells) for label, cells in rows.items()}
    for column in dict.fromkeys(column for cells in rows.values() for column in cells):
        differences = {label: cells[column].difference for label, cells in rows.items() if column in cells}
        known = {label: d.p for label, d in differences.items() if d is not None and d.p is not None}
        for label, p in holm(known).items():
            cell = made[label][column]
            assert cell.difference is not None
            made[label][column] = replace(cell, difference=replace(cell.difference, corrected=p, clear=p < level))
    return made


def _heading(column: str, broken: bool) -> str:
    """The title in two lines, or ``broken`` at every space."""
    return column_title(column).replace(" ", "\n", -1 if broken else 1)


def _below(column: str, cell: Cell | None, broken: bool) -> str:
    """The small print, its interval on a line of its own where it is ``broken``."""
    text = small_print(column, cell)
    return text.replace(" [", "\n[").replace(" · ", "\n") if broken else text


def _of_column(by_seed: Mapping[int, Mapping[str, float]], column: str) -> dict[int, float]:
    return {seed: scores[column] for seed, scores in sorted(by_seed.items()) if _known(scores.get(column))}


def _known(value: object) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)


def _label(record: Record) -> str:
    return str(record.get("label") or record["method"])


def _by_label(records: Sequence[Record], split: str) -> dict[str, dict[int, dict[str, float]]]:
    scores: dict[str, dict[int, dict[str, float]]] = {}
    for record in records:
        row = scores.setdefault(_label(record), {})
        seed = int(record["seed"])
        if seed in row:
            raise ValueError(
                f"Two records of {_label(record)!r} have seed {seed}; give them different labels or drop one of them."
            )
        cost = record.get("cost") or {}
        values = {**record[split], "seconds": record.get("seconds"), **{name: cost.get(name) for name in PASSES}}
        between = gap(record[split], record.get("modalities", ()), record.get("monitor", "accuracy"))
        row[seed] = values | ({} if between is None else {"gap": between})
    return scores


def _columns(records: Sequence[Record], split: str) -> list[str]:
    keys = list(dict.fromkeys(key for record in records for key in record[split]))
    monitored = list(dict.fromkeys(str(record.get("monitor", "accuracy")) for record in records)) or ["accuracy"]
    fused = [key for key in keys if key.startswith("fused/")]
    fused.sort(key=lambda key: metric_of(key) not in monitored)
    modalities = dict.fromkeys(m for record in records for m in record.get("modalities", ()))
    passes = [name for name in PASSES if any(_known((record.get("cost") or {}).get(name)) for record in records)]
    alone = [f"{m}/{metric}" for m in modalities for metric in monitored if f"{m}/{metric}" in keys]
    shares = len(alone) > 1 and SHARES.issuperset(monitored)  # a gap of numbers has no unit that all tables share
    return [*fused, *alone, *(["gap"] if shares else []), "seconds", *passes]


def _references(
    rows: Mapping[str, Mapping[str, Cell]], columns: Sequence[str], alone: Iterable[str], records: Sequence[Record]
) -> dict[str, tuple[str, float]]:
    """Fused column -> label and mean of that of the rows of one modality ``alone`` which is best on validation.

    The best on the split that is shown would be chosen by what it is compared in; only where the records have no score
    of the validation split is it that one.
    """
    alone = list(alone)
    references = {}
    for column in columns:
        means = {label: rows[label][column].mean for label in alone if column in rows[label]}
        if means and says_how_good(column):
            known = {label: [r["val"][column] for r in records if _label(r) == label and column in (r.get("val") or {})]
                     for label in means}  # fmt: skip
            chosen = {label: statistics.fmean(v) for label, v in known.items()} if all(known.values()) else means
            best = (min if lower_is_better(column) else max)(means, key=chosen.__getitem__)
            references[column] = (best, means[best])
    return references


def _marked(
    rows: Mapping[str, Mapping[str, Cell]],
    columns: Sequence[str],
    references: Mapping[str, tuple[str, float]],
    alone: Container[str],
) -> dict[str, dict[str, Cell]]:
    """The rows with rank and dagger filled in."""
    marked = {label: dict(cells) for label, cells in rows.items()}
    for column in columns:
        sign = -1 if lower_is_better(column) else 1
        complete = {label: sign * cells[column].mean for label, cells in rows.items() if _ranks(cells.get(column))}
        # Neither the gap nor the cost is a goal by itself: two modalities that learned nothing have no gap.
        contest = len(complete) > 1 and column not in ("gap", *NAMES)
        order = sorted(set(complete.values()), reverse=True)[:2] if contest else []
        for label, cells in rows.items():
            if column not in cells:
                continue
            rank = order.index(complete[label]) + 1 if complete.get(label) in order else None
            below = (
                label not in alone and column in references and sign * cells[column].mean < sign * references[column][1]
            )
            marked[label][column] = replace(cells[column], rank=rank, below=below)
    return marked


def _ranks(cell: Cell | None) -> bool:
    return cell is not None and cell.complete


def _md(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")
