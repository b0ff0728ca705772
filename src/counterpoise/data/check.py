"""Everything that is wrong with a table, found before training starts."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from counterpoise.task import Regression, SingleLabel, Task

from .labels import PARTS, alike
from .progress import after_two_seconds
from .readers.array import RAGGED
from .readers.base import regular
from .table import Table
from .table_labels import Labels
from .table_split import TableSplit

_PARTS = ("", "all", *PARTS)  # of a row: its place here; "" for a row that is in no part
SHOWN = 20  # problems of one kind that the text lists; the data have all


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong.

    Attributes:
        kind: "table", "file", "label", "present" or "leak".
        message: one line.
        row: row of the table, counted from 1; None for the table as a whole.
        id: the sample's name.
        modality: column, where one is concerned.
        file: path or text of the cell, where one is concerned.
    """

    kind: str
    message: str
    row: int | None = None
    id: str | None = None
    modality: str | None = None
    file: str | None = None

    def __str__(self) -> str:
        where = "" if self.row is None else f"row {self.row}" + (f" (id {self.id!r})" if self.id else "") + ": "
        what = "" if self.modality is None else f"{self.modality}: "
        return f"{where}{what}" + (f"{self.file}: " if self.file else "") + self.message


@dataclass
class Report:
    """What `check` found.

    Attributes:
        path: the table.
        errors: what training would stumble over.
        warnings: what makes results doubtful (the same file in two parts, a class that is in one part only).
        summary: rows, files read; per part its samples, those of each class or label, the range of each number, and how
            many lack a modality.
        columns: what each column was taken for, a line each: guesses among them.
    """

    path: str
    errors: list[Problem] = field(default_factory=list)
    warnings: list[Problem] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    columns: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Nothing that training would stumble over."""
        return not self.errors

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {**asdict(self), "ok": self.ok}

    def __str__(self) -> str:
        lines = [f"{self.path}: {self.summary['rows']} rows, {self.summary['files']} files read"]
        for part, count in self.summary["samples"].items():
            counts = [f"{name} {n}" for name, n in self.summary["classes"][part].items()]
            counts += [f"{name} {low:g} to {high:g}" for name, (low, high) in self.summary["ranges"][part].items()]
            lines.append(f"  {part}: {count} samples; " + ", ".join(counts))
        for modality, absent in self.summary["absent"].items():
            lines.append(f"  {modality} absent: " + ", ".join(f"{n} in {part}" for part, n in absent.items()))
        lines += [f"  {line}" for line in self.columns]
        for title, problems in (("error", self.errors), ("warning", self.warnings)):
            lines.append(f"{len(problems)} {title}{'s' * (len(problems) != 1)}")
            kinds = defaultdict(list)
            for problem in problems:
                kinds[problem.kind].append(problem)
            for kind, problems in kinds.items():
                lines += [f"  [{kind}] {problem}" for problem in problems[:SHOWN]]
                if len(problems) > SHOWN:
                    lines.append(f"  [{kind}] ... and {len(problems) - SHOWN} more")
        return "\n".join(lines)


def check(table: Table, *, read: bool = True, workers: int = 4, progress: bool = False) -> Report:
    """Look for every problem of a table and of the files that it names.

    Errors: no label, a repeated id, an unknown split, a class or modality that no training sample has, a missing,
    damaged or unreadable file, NaN, a sample without any modality. Warnings: a class that is missing
    in validation or test, the same content or the same group in two parts.

    Args:
        table: what to check.
        read: False looks at the table alone and opens no file.
        workers: threads that read.
        progress: show a bar when reading takes more than two seconds.
    """
    report = Report(str(table.columns.path), columns=_described(table)[1:])
    for flaw in table.flaws():
        kind = "present" if "every modality" in flaw.text else "table"
        report.errors.append(_problem(table, kind, flaw.text, flaw.row))
    part_of = _parts(table)
    report.summary = {"rows": len(table), "samples": {}, "classes": {}, "ranges": {}, "absent": {}, "files": 0}
    _count(table, part_of, report)
    _groups(table, part_of, report)
    run = after_two_seconds if progress else _quietly
    cells = {m: _Cells(table, m, part_of) for m in table.readers} if read else {}
    for m, there in cells.items():
        if len(there):  # here, so that libraries are imported before several threads want them
            table.readers[m].problems(there.source(0))
    with ThreadPoolExecutor(max_workers=workers) as pool:
        for m, there in cells.items():
            reads, ragged = table.readers[m].reads_files, dict[int, str]()
            reasons = _mapped(pool, table.readers[m].problems, there.sources())
            for i, wrong in enumerate(run(reasons, len(there), f"reading {m}")):
                report.summary["files"] += reads
                if wrong is not None and RAGGED.search(wrong):
                    ragged[i] = wrong
                elif wrong is not None:
                    more = f" (and {there.count[i] - 1} more rows with this cell)" if there.count[i] > 1 else ""
                    file = there.source(i) if reads else None
                    report.errors.append(_problem(table, "file", wrong + more, int(there.first[i]), m, file))
            if ragged:
                report.errors.append(_ragged(there, ragged))
        for there in (there for there in cells.values() if not there.reader.repeats):
            _duplicates(there, report, pool, run)
    return report


def _described(table: Table) -> list[str]:
    return [line.strip() for line in table.describe().splitlines()]


def _problem(
    table: Table, kind: str, message: str, row: int | None, modality: str | None = None, file: str | None = None
) -> Problem:
    name = table.columns.cell(table.id, row) if row is not None and table.id in table.columns else None
    return Problem(kind, message, None if row is None else row + 1, name, modality, file)


def _parts(table: Table) -> np.ndarray:
    """(n,) the part of every row as its place in ``_PARTS``: what the table says, 0 where that is no part.

    "all" when it says nothing, since shares are disjoint by design.
    """
    if table.split not in table.columns:
        return np.full(len(table), _PARTS.index("all"))
    return np.array([*(_PARTS.index(name) for name in PARTS), 0])[table.part_of_rows]


def _count(table: Table, part_of: np.ndarray, report: Report) -> None:
    try:
        labels = table.labels
    except ValueError:  # reported as a flaw already
        labels = Labels(torch.full((len(table),), -1), SingleLabel(()), torch.ones(len(table), dtype=torch.bool))
    classes = () if isinstance(labels.task, Regression) else labels.task.names
    names = [part for i, part in enumerate(_PARTS) if part and (part_of == i).any()]
    for part in names:
        chosen = torch.from_numpy(part_of == _PARTS.index(part))
        target = labels.target[chosen & ~labels.missing]
        single = isinstance(labels.task, SingleLabel)
        counts = torch.bincount(target, minlength=len(classes)) if single else target.sum(0).int()
        report.summary["samples"][part] = len(target)
        report.summary["classes"][part] = dict(zip(classes, counts.tolist(), strict=bool(classes)))
        columns = target.unbind(1) if isinstance(labels.task, Regression) and len(target) else ()
        ranges = {n: [float(c.min()), float(c.max())] for n, c in zip(labels.task.names, columns, strict=False)}
        report.summary["ranges"][part] = ranges
        for m, mask in (table.present or {}).items():
            report.summary["absent"].setdefault(m, {})[part] = int((~mask[chosen]).sum())
    for m, mask in (table.present or {}).items():
        if not mask.any():
            report.errors.append(Problem("present", "every cell is empty; leave the column out", modality=m))
        elif not mask[torch.from_numpy(np.isin(part_of, [_PARTS.index("all"), _PARTS.index("train")]))].any():
            there = ", ".join(p for p in names if mask[torch.from_numpy(part_of == _PARTS.index(p))].any())
            report.errors.append(Problem("present", f"is in {there} but in no row of train", modality=m))
    report.warnings += [Problem("label", line) for line in alike(classes)]
    tables = report.summary["classes"]
    for c in classes if table.split in table.columns else ():
        lacks = [p for p in names if not tables[p][c]]
        if len(lacks) == len(names):
            report.warnings.append(Problem("label", f"class {c!r} has no sample"))
        elif "train" in lacks:
            there = ", ".join(p for p in names if p not in lacks)
            report.errors.append(Problem("label", f"class {c!r} is in {there} but not in train"))
        elif lacks:
            report.warnings.append(Problem("label", f"class {c!r} is not in {', '.join(lacks)}"))


def _groups(table: Table, part_of: np.ndarray, report: Report) -> None:
    if table.group not in table.columns or table.split not in table.columns:
        return
    codes, texts = column = table.columns.coded(table.group)
    rows_of = column.rows()
    for i in np.flatnonzero(_several(_in_parts(codes, len(texts), part_of))).tolist():
        first = _first_rows(rows_of(i), part_of)
        rows = " and ".join(f"{p} (row {r + 1})" for p, r in first.items())
        message = f"{table.group} {texts[i].as_py()!r} is in {rows}"
        report.warnings.append(_problem(table, "leak", message, min(first.values())))


def _ragged(cells: _Cells, wrong: dict[int, str]) -> Problem:
    """One line for all sequences of other lengths than the first."""
    i, text = min(wrong.items())
    if len(wrong) > 1:
        steps = [int(n) for match in map(RAGGED.search, wrong.values()) if match for n in match.groups()]
        text = (
            f"sequences have {min(steps)} to {max(steps)} steps, {len(wrong)} of {len(cells)} another number than the "
            f"first; set length, {max(steps)} to lose nothing (--data.modalities.{cells.modality}.length)"
        )
    return _problem(cells.table, "file", text, int(cells.first[i]), cells.modality, cells.source(i))


def _in_parts(codes: np.ndarray, count: int, part_of: np.ndarray) -> np.ndarray:
    """(count,) a bit for each part that a row with this code is in."""
    parts = np.zeros(count, np.int64)
    for i in range(1, len(_PARTS)):
        parts[codes[(part_of == i) & (codes >= 0)]] |= 1 << i
    return parts


def _several(bits: np.ndarray) -> np.ndarray:
    """Whether more than one bit is set."""
    return (bits & (bits - 1)) != 0


def _first_rows(rows: np.ndarray, part_of: np.ndarray) -> dict[str, int]:
    """Part -> its first row among these ascending ones, in the order of the rows."""
    first: dict[str, int] = {}
    for row in rows.tolist():
        first.setdefault(_PARTS[part_of[row]], row)
    first.pop("", None)
    return first


class _Cells:
    """The distinct cells of a modality, as numbers that index its arrays.

    Attributes:
        first: first row of each cell.
        count: rows that have it.
        parts: a bit for each part that has it.
        rows: which rows have a cell, by its number.
    """

    def __init__(self, table: Table, modality: str, part_of: np.ndarray):
        self.table, self.modality, self.reader, self.part_of = table, modality, table.readers[modality], part_of
        codes, self._texts = column = table.columns.coded(modality)
        self.first, self.count = column.first(), np.bincount(codes[codes >= 0], minlength=len(self._texts))
        self.parts, self.rows = _in_parts(codes, len(self._texts), part_of), column.rows()

    def __len__(self) -> int:
        return len(self._texts)

    def source(self, i: int) -> str:
        """What the reader is given: a full path or a text."""
        cell = self._texts[i].as_py()
        return str(self.table.folder / cell) if self.reader.reads_files else cell

    def sources(self) -> Iterator[str]:
        return map(self.source, range(len(self)))

    def size(self, source: str) -> int:
        """Bytes of the files, length of a text; -1 when it cannot be said, which is reported as unreadable."""
        if not self.reader.reads_files:
            return len(source)
        try:
            return sum(regular(str(file)) for file in self.reader.files(source))
        except (OSError, ValueError):
            return -1

    def content(self, source: str) -> str | None:
        """The same for equal files or texts; None for what cannot be read."""
        if not self.reader.reads_files:
            return source
        state = hashlib.blake2b(digest_size=16)
        try:
            for file in self.reader.files(source):
                state.update(Path(file).read_bytes())
        except (OSError, ValueError):
            return None
        return state.hexdigest()


def _duplicates(cells: _Cells, report: Report, pool: ThreadPoolExecutor, run: Callable[..., Iterable[Any]]) -> None:
    """Samples whose cells have the same content although they are in different parts."""
    if len(np.unique(cells.part_of[cells.part_of > 0])) < 2:
        return
    sizes = np.fromiter(map(cells.size, cells.sources()), np.int64, len(cells))
    # Only files of equal size can be equal, so few are read again.
    distinct, number = np.unique(sizes, return_inverse=True)
    together = np.zeros(len(distinct), np.int64)
    np.bitwise_or.at(together, number, cells.parts)
    alike = np.flatnonzero(_several(together)[number] & (sizes >= 0)).tolist()
    same: dict[str, list[int]] = defaultdict(list)
    contents = _mapped(pool, cells.content, map(cells.source, alike))
    for i, content in zip(alike, run(contents, len(alike), f"comparing {cells.modality}"), strict=True):
        if content is not None:
            same[content].append(i)
    reads = cells.reader.reads_files
    for group in same.values():
        if not _several(np.bitwise_or.reduce(cells.parts[group], keepdims=True))[0]:
            continue
        first: dict[str, int] = {}
        for i in group:
            for part, row in _first_rows(cells.rows(i), cells.part_of).items():
                first.setdefault(part, row)
        row, *_ = first.values()
        cell = cells.table.source(row, cells.modality)
        others = {p: cells.table.source(r, cells.modality) for p, r in first.items()}
        rest = [f"{p} (row {r + 1}{f', {others[p]}' if reads and others[p] != cell else ''})" for p, r in first.items()]
        what = "the same content" if reads else "the same text"
        message = f"{what} in {' and '.join(rest)}"
        report.warnings.append(_problem(cells.table, "leak", message, row, cells.modality, cell if reads else None))


def _mapped(pool: ThreadPoolExecutor, function: Callable[[str], Any], items: Iterator[str]) -> Iterator[Any]:
    """``pool.map``, a thousand at a time: it would make a job of each item before the first is done."""
    while block := list(islice(items, 1024)):
        yield from pool.map(function, block)


def _quietly(items: Iterable[Any], total: int, title: str) -> Iterable[Any]:
    return items


def _label(task: Task, target: Tensor) -> str:
    if isinstance(task, SingleLabel):
        return task.names[int(target)]
    return task.said(target.unsqueeze(0))[0]


def show(table: Table, row: int = 0) -> dict[str, Any]:
    """One sample as an encoder gets it: per modality the cell, shape, type and range of values.

    Args:
        table: where it is.
        row: which one, from 0.

    Returns:
        Plain values, and under "text" the same as lines to print.
    """
    if not 0 <= row < len(table):
        raise IndexError(f"row must be in 0..{len(table) - 1}; got {row}.")
    split = TableSplit(table, torch.arange(len(table)), table.labels.task, readers=table.fitted)
    label = None if table.labels.missing[row] else _label(split.task, split.target[row])
    lines = [table.describe(), table.place(row), f"  label: {label}"]
    seen: dict[str, Any] = {}
    for m, reader in table.readers.items():
        source = table.source(row, m)
        if source is None:
            seen[m] = None
            lines.append(f"  {m}: absent")
            continue
        x = split.batch([row], m, None)[0]
        values = x.double()
        seen[m] = value = {
            "reader": type(reader).__name__,
            "source": reader.said(source),
            "shape": list(x.shape),
            "dtype": str(x.dtype).removeprefix("torch."),
            "min": float(values.min()),
            "mean": float(values.mean()),
            "max": float(values.max()),
        }
        lines += [
            f"  {m}: {value['source']}",
            f"    {value['reader']}, {' x '.join(map(str, x.shape))} {value['dtype']}, "
            f"min {value['min']:.4g}, mean {value['mean']:.4g}, max {value['max']:.4g}",
        ]
    return {
        "row": row + 1,
        "id": split.ids[row],
        "label": label,
        "classes": list(split.classes),
        "modalities": seen,
        "columns": _described(table)[1:],
        "text": "\n".join(lines),
    }
