"""Everything that is wrong with a table, found before training starts."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from .labels import PARTS
from .table import Table

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
        summary: rows, classes per part, absent samples per modality and part, files read.
    """

    path: str
    errors: list[Problem] = field(default_factory=list)
    warnings: list[Problem] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Nothing that training would stumble over."""
        return not self.errors

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {**asdict(self), "ok": self.ok}

    def __str__(self) -> str:
        lines = [f"{self.path}: {self.summary['rows']} rows, {self.summary['files']} files read"]
        for part, counts in self.summary["classes"].items():
            lines.append(
                f"  {part}: {sum(counts.values())} samples; " + ", ".join(f"{c} {n}" for c, n in counts.items())
            )
        for modality, absent in self.summary["absent"].items():
            lines.append(f"  {modality} absent: " + ", ".join(f"{n} in {part}" for part, n in absent.items()))
        for title, problems in (("error", self.errors), ("warning", self.warnings)):
            lines.append(f"{len(problems)} {title}{'s' * (len(problems) != 1)}")
            kinds = defaultdict(list)
            for problem in problems:
                kinds[problem.kind].append(problem)
            for kind, found in kinds.items():
                lines += [f"  [{kind}] {problem}" for problem in found[:SHOWN]]
                if len(found) > SHOWN:
                    lines.append(f"  [{kind}] ... and {len(found) - SHOWN} more")
        return "\n".join(lines)


def check(table: Table, *, read: bool = True, workers: int = 4, progress: bool = False) -> Report:
    """Look for every problem of a table and of the files that it names.

    Errors: no label, a repeated id, an unknown split, a class that no training sample has, a missing,
    damaged or unreadable file, NaN, a sample without any modality. Warnings: a class that is missing
    in validation or test, the same content or the same group in two parts.

    Args:
        table: what to check.
        read: False looks at the table alone and opens no file.
        workers: threads that read.
        progress: show a bar when reading takes more than two seconds.
    """
    report = Report(str(table.columns.path))
    for flaw in table.flaws():
        kind = "present" if "every modality" in flaw.text else "table"
        report.errors.append(_problem(table, kind, flaw.text, flaw.row))
    part_of = _parts(table)
    report.summary = {"rows": len(table), "classes": {}, "absent": {}, "files": 0}
    _count(table, part_of, report)
    _groups(table, part_of, report)
    jobs = [(m, cell, rows) for m in table.readers for cell, rows in _cells(table, m).items()] if read else []
    run = _bar if progress else _quietly
    with ThreadPoolExecutor(max_workers=workers) as pool:
        found = pool.map(lambda job: table.readers[job[0]].problems(job[1]), jobs)
        for (m, cell, rows), wrong in zip(jobs, run(found, len(jobs), "reading"), strict=True):
            report.summary["files"] += table.readers[m].reads_files
            if wrong is not None:
                more = f" (and {len(rows) - 1} more rows with this cell)" if len(rows) > 1 else ""
                file = cell if table.readers[m].reads_files else None
                report.errors.append(_problem(table, "file", wrong + more, rows[0], m, file))
        _duplicates(table, part_of, jobs, report, lambda f, xs: run(pool.map(f, xs), len(xs), "comparing"))
    return report


def _problem(
    table: Table, kind: str, message: str, row: int | None, modality: str | None = None, file: str | None = None
) -> Problem:
    name = table.columns.cell(table.id, row) if row is not None and table.id in table.columns else None
    return Problem(kind, message, None if row is None else row + 1, name, modality, file)


def _parts(table: Table) -> list[str | None]:
    """The part of every row: what the table says; "all" when it says nothing, since shares are disjoint by design."""
    if table.split not in table.columns:
        return ["all"] * len(table)
    return [c if c in PARTS else None for c in table.columns.cells(table.split)]


def _count(table: Table, part_of: Sequence[str | None], report: Report) -> None:
    try:
        target, classes = table.labels
    except ValueError:  # reported as a flaw already
        target, classes = torch.full((len(table),), -1), ()
    names = [p for p in ("all", *PARTS) if p in part_of]
    for part in names:
        chosen = torch.tensor([p == part for p in part_of])
        labels = target[chosen & (target >= 0)]
        counts = torch.bincount(labels, minlength=len(classes)).tolist()
        report.summary["classes"][part] = dict(zip(classes, counts, strict=True))
        for m, mask in (table.present or {}).items():
            report.summary["absent"].setdefault(m, {})[part] = int((~mask[chosen]).sum())
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


def _groups(table: Table, part_of: Sequence[str | None], report: Report) -> None:
    if table.group not in table.columns or table.split not in table.columns:
        return
    parts: dict[str, dict[str, int]] = defaultdict(dict)
    for row, name in enumerate(table.columns.cells(table.group)):
        part = part_of[row]
        if name is not None and part is not None:
            parts[name].setdefault(part, row)
    for name, where in parts.items():
        if len(where) > 1:
            rows = " and ".join(f"{p} (row {r + 1})" for p, r in where.items())
            message = f"{table.group} {name!r} is in {rows}"
            report.warnings.append(_problem(table, "leak", message, min(where.values())))


def _cells(table: Table, modality: str) -> dict[str, list[int]]:
    """Each distinct source of a modality with the rows that use it."""
    rows: dict[str, list[int]] = defaultdict(list)
    for row, cell in enumerate(table.columns.cells(modality)):
        if cell is not None:
            rows[str(table.folder / cell) if table.readers[modality].reads_files else cell].append(row)
    return rows


def _duplicates(
    table: Table,
    part_of: Sequence[str | None],
    jobs: Sequence[tuple[str, str, list[int]]],
    report: Report,
    map_: Callable[[Callable[..., Any], Sequence[Any]], Iterable[Any]],
) -> None:
    """Samples whose cells have the same content although they are in different parts."""
    if len({p for p in part_of if p}) < 2:
        return
    by_size: dict[tuple[str, int], list[tuple[str, list[int]]]] = defaultdict(list)
    for m, cell, rows in jobs:
        size = _size(table, m, cell)
        if size is not None:
            by_size[m, size].append((cell, rows))
    # Only files of equal size can be equal, so few are read again.
    alike = [(m, cell, rows) for (m, _), group in by_size.items() for cell, rows in group if _spans(part_of, group)]
    same: dict[tuple[str, str], list[tuple[str, list[int]]]] = defaultdict(list)
    for (m, cell, rows), content in zip(alike, map_(lambda job: _content(table, job[0], job[1]), alike), strict=True):
        if content is not None:
            same[m, content].append((cell, rows))
    for (m, _), group in same.items():
        if not _spans(part_of, group):
            continue
        first: dict[str, tuple[int, str]] = {}
        for cell, rows in group:
            for row in rows:
                first.setdefault(part_of[row] or "", (row, cell))
        first.pop("", None)
        (row, cell), *_ = first.values()
        reads = table.readers[m].reads_files
        rest = [f"{p} (row {r + 1}{', ' + c if reads and c != cell else ''})" for p, (r, c) in first.items()]
        what = "the same content" if reads else "the same text"
        message = f"{what} in {' and '.join(rest)}"
        report.warnings.append(_problem(table, "leak", message, row, m, cell if reads else None))


def _spans(part_of: Sequence[str | None], group: Sequence[tuple[str, list[int]]]) -> bool:
    return len({part_of[row] for _, rows in group for row in rows} - {None}) > 1


def _size(table: Table, modality: str, cell: str) -> int | None:
    if not table.readers[modality].reads_files:
        return len(cell)
    try:
        return sum(file.stat().st_size for file in table.readers[modality].files(cell))
    except (OSError, ValueError):  # reported as an unreadable file
        return None


def _content(table: Table, modality: str, cell: str) -> str | None:
    if not table.readers[modality].reads_files:
        return cell
    state = hashlib.blake2b(digest_size=16)
    try:
        for file in table.readers[modality].files(cell):
            state.update(Path(file).read_bytes())
    except (OSError, ValueError):
        return None
    return state.hexdigest()


def _quietly(items: Iterable[Any], total: int, title: str) -> Iterable[Any]:
    return items


def _bar(items: Iterable[Any], total: int, title: str) -> Iterable[Any]:
    """The items, with a bar once two seconds have passed."""
    import time

    from rich.progress import Progress

    start, bar, task = time.monotonic(), Progress(transient=True), None
    try:
        for done, item in enumerate(items):
            if task is None and time.monotonic() - start > 2:
                task = bar.add_task(title, total=total)
                bar.start()
            if task is not None:
                bar.update(task, completed=done + 1)
            yield item
    finally:
        bar.stop()


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
    split = table.samples()
    number = int(split.target[row])
    label = table.labels[1][number] if number >= 0 else None
    lines = [table.place(row), f"  label: {label}"]
    seen: dict[str, Any] = {}
    for m, reader in table.readers.items():
        source = table.source(row, m)
        if source is None:
            seen[m] = None
            lines.append(f"  {m}: absent")
            continue
        x = split.batch([row], m, None)[0]
        values = x.double()
        seen[m] = {
            "reader": type(reader).__name__,
            "source": source,
            "shape": list(x.shape),
            "dtype": str(x.dtype).removeprefix("torch."),
            "min": float(values.min()),
            "mean": float(values.mean()),
            "max": float(values.max()),
        }
        value = seen[m]
        lines += [
            f"  {m}: {source}",
            f"    {value['reader']}, {' x '.join(map(str, x.shape))} {value['dtype']}, "
            f"min {value['min']:.4g}, mean {value['mean']:.4g}, max {value['max']:.4g}",
        ]
    return {
        "row": row + 1,
        "id": split.ids[row],
        "label": label,
        "classes": list(split.classes),
        "modalities": seen,
        "text": "\n".join(lines),
    }
