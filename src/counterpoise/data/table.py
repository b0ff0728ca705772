"""Any data as a table: one row per sample, one column per modality."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from counterpoise._checks import choice, spelled, whole
from counterpoise.task import TASKS, Task

from .arrays import complete, shares
from .cache import DecodeCache
from .columns import Columns
from .folds import GROUP, Pairs, column_of_folds, folds_of, is_column, parts_of
from .guessed_columns import guessed, reader_of
from .labels import PARTS, part_of
from .notes import notes
from .readers import READERS, Reader, ReadError, Tabular
from .split import Splits, lacking
from .table_flaws import Flaw, flaws_of, without_label
from .table_labels import Labels, read_labels
from .table_split import TableSplit
from .table_weights import read_weights
from .tabular_columns import decided
from .targets import standardised


@spelled
class Table:
    """A data set written as a CSV, TSV or Parquet file, or held in a DataFrame.

    =====  =======  =====  ============  =================
    id     label    split  audio         text
    =====  =======  =====  ============  =================
    s1     happy    train  wav/s1.wav    what a nice day
    s2     angry    test   wav/s2.wav
    =====  =======  =====  ============  =================

    A cell holds a path (relative to ``root``) or a text, whichever the modality's reader
    takes. An empty cell means that the sample lacks the modality. Rows are counted from 1 in messages.

    Args:
        path: the file; or a DataFrame of pandas or polars, or a table of Arrow.
        modalities: column -> reader, or the name of a reader with its default settings, or options of the reader that
            is guessed. None takes every column that is not named below, with a reader guessed from its cells, those of
            numbers and categories as one modality ``tabular``; ``describe()`` tells which.
        root: folder that paths are relative to; the table's own folder when None, of a frame the current one.
        label: column of class names or numbers, of label sets as "a|b" ("|" is none), or of numbers; or columns: of
            zeros and ones, one per label, or of numbers. May be missing where only predictions are asked for.
        id: column of sample names; row numbers when there is none.
        split: column of "train", "val", "test". Without it (or without "val" in it) shares are split
            off by ``seed``, every class in proportion.
        group: column of names (speakers, say) that no split made here may separate.
        weight: column of numbers >= 0, how much each sample counts in the loss.
        val: share for validation, where the table names none.
        test: share for the test, where there is no ``split`` column; 0 for none.
        classes: names of classes, labels or numbers in order; the sorted distinct labels, or columns, when None.
        task: "single-label", "multi-label" or "regression"; guessed from the labels when None.
        seed: which random split.
        cache: folder to keep decoded files in; None decodes every time.
        folds: instead of shares, divide all rows into so many folds; "group", or a column, leaves out one of its values
            at a time; or a splitter of scikit-learn with its number of folds, as "GroupKFold:5". See ``folds_of``.
        fold: which of the folds is the test part, from 0.

    Raises:
        FileNotFoundError: no such table.
        ValueError: not a table, no rows, a column that is not there, an unknown reader.
    """

    def __init__(
        self,
        path: Any,
        modalities: Mapping[str, Reader | str | Mapping[str, Any]] | None = None,
        *,
        root: str | Path | None = None,
        label: str | Sequence[str] = "label",
        id: str = "id",
        split: str = "split",
        group: str = "group",
        weight: str = "sample_weight",
        val: float = 0.15,
        test: float = 0.15,
        classes: Sequence[str] | None = None,
        task: Task | str | None = None,
        seed: int = 0,
        cache: str | Path | None = None,
        folds: str | int | None = None,
        fold: int = 0,
    ):
        self.path, self.modalities, self.root = path, modalities, root
        self.label, self.id, self.split, self.group, self.weight = label, id, split, group, weight
        self.val, self.test, self.classes, self.seed, self.cache = val, test, classes, seed, cache
        self.label_columns = (label,) if isinstance(label, str) else tuple(label)
        self.columns = Columns(path, numbers=(*self.label_columns, weight))
        self.folds, self.fold = None if folds is None else str(folds), whole("fold", fold, low=0)
        if is_column(self.folds):
            self.group = group = column_of_folds(str(folds), group, self.columns.names)
        self.folder = Path(root).expanduser() if root is not None else self.columns.folder
        if not self.folder.is_dir():
            raise FileNotFoundError(f"root must be a folder; there is no {self.folder}.")
        self.task = task if task is None or isinstance(task, Task) else choice("task", task, TASKS)
        roles = {"id": id, "split": split, "group": group, "sample_weight": weight}
        taken = (*self.label_columns, *roles.values())
        for default, name in roles.items():  # a name the user chose must exist; the default ones are optional
            if name != default:
                self.columns.require(name)
        self.ignored: dict[str, str] = {}
        self.guesses: list[str] = []
        self.readers = self._guessed(set(taken)) if modalities is None else self._stated(modalities)
        joined = {m: r.columns for m, r in self.readers.items() if isinstance(r, Tabular) and r.columns != [m]}
        single = [m for m in self.readers if m not in joined]
        self.columns.keep([*single, *(c for c in taken if c in self.columns and c not in single)], joined)
        self.caches = {
            m: DecodeCache(Path(cache).expanduser(), reader)
            for m, reader in self.readers.items()
            if cache is not None and reader.reads_files
        }

        self._bind()

    def __len__(self) -> int:
        return len(self.columns)

    def __repr__(self) -> str:
        read = ", ".join(f"{m}: {type(reader).__name__}" for m, reader in self.readers.items())
        label = " and ".join(map(repr, self.label_columns))
        return f"Table({str(self.columns.path)!r}: {len(self)} rows of {read}; label {label})"

    def _bind(self) -> None:
        """Let readers learn from one file what they cannot know: the shape of an array, say."""
        for m, reader in self.readers.items():
            if reader.shape is not None:
                continue
            for row in self.columns.filled(m).nonzero().flatten()[:5].tolist():
                try:
                    reader.bind(self.source(row, m) or "")
                    break
                except ReadError:  # a bad file is reported where it is read or checked
                    continue

    def _stated(self, modalities: Mapping[str, Reader | str | Mapping[str, Any]]) -> dict[str, Reader]:
        if not modalities:
            raise ValueError("modalities must name at least one column; leave it out to use every column.")
        if not isinstance(modalities, Mapping):
            raise ValueError(f"modalities must map columns to readers, as {{'audio': 'audio'}}; got {modalities!r}.")
        for m, reader in modalities.items():
            if not isinstance(reader, Reader | str | Mapping):
                given = f"the class {reader.__name__}" if isinstance(reader, type) else repr(reader)
                raise ValueError(f"modalities[{m!r}] must be a reader such as Audio(), or its name; got {given}.")
        return {m: self._one_stated(m, reader) for m, reader in modalities.items()}

    def _one_stated(self, modality: str, reader: Reader | str | Mapping[str, Any]) -> Reader:
        if isinstance(reader, Mapping):
            column = self.columns.require(modality)
            try:
                reader, guesses = reader_of(self.columns, column, self.folder, reader)
            except ValueError as error:
                raise ValueError(f"modalities[{modality!r}]: its cells {error}") from error
            self.guesses += guesses
            return reader
        made = READERS[choice("reader", reader, READERS)]() if isinstance(reader, str) else reader
        if not isinstance(made, Tabular):
            self.columns.require(modality)
            return made
        roles = dict.fromkeys(self.label_columns, "the labels")
        roles |= {self.id: "the ids", self.split: "the split", self.weight: "the weights of samples"}
        made, guesses = decided(modality, made, self.columns, roles)
        self.guesses += guesses
        return made

    def _guessed(self, taken: set[str]) -> dict[str, Reader]:
        readers, self.ignored, self.guesses = guessed(self.columns, self.folder, taken, self.label_columns)
        if not readers:
            why = "; ".join(f"{name!r} is none: {reason}" for name, reason in self.ignored.items())
            columns = ", ".join(self.columns.names)
            raise ValueError(
                f"{self.columns.path} has no column that could be a modality; its columns are {columns}. {why}"
            )
        return readers

    def place(self, row: int) -> str:
        """How messages name a row."""
        name = self.columns.cell(self.id, row) if self.id in self.columns else None
        return f"{self.columns.path}, row {row + 1}" + (f" (id {name!r})" if name else "")

    def source(self, row: int, modality: str) -> str | None:
        """What the reader of ``modality`` is given for this row: a full path or a text; None when absent."""
        cell = self.columns.cell(modality, row)
        return str(self.folder / cell) if cell is not None and self.readers[modality].reads_files else cell

    def sources(self, rows: Sequence[int], modality: str) -> list[str | None]:
        """`source` of many rows, several times as fast."""
        cells = self.columns.at(modality, rows)
        if not self.readers[modality].reads_files:
            return cells
        folder, paths = str(self.folder), []
        for cell in cells:
            plain = bool(cell) and cell[0] not in "./" and cell[-1] != "/" and "/." not in cell and "//" not in cell
            paths.append(f"{folder}/{cell}" if plain else None if cell is None else str(self.folder / cell))
        return paths

    @cached_property
    def present(self) -> dict[str, Tensor] | None:
        """Modality -> (rows,) bool, for modalities that some row lacks."""
        return lacking({m: self.columns.filled(m) for m in self.readers})

    @cached_property
    def labels(self) -> Labels:
        """The labels of every row, and what they are; ValueError where they are none of the task."""
        return read_labels(self)

    @cached_property
    def weights(self) -> Tensor | None:
        """(rows,) how much each counts in the loss, None when all count alike; ValueError naming a wrong row."""
        return read_weights(self)

    @cached_property
    def part_of_rows(self) -> np.ndarray:
        """(rows,) the place in ``PARTS`` that the column ``split`` says of each row; -1 where it names no part."""
        codes, texts = self.columns.coded(self.split)
        parts = [part_of(name) for name in texts.to_pylist()]
        return np.array([*(PARTS.index(part) if part else -1 for part in parts), -1], np.int8)[codes]

    def flaws(self) -> Iterator[Flaw]:
        """What makes training on this table impossible, without opening any file."""
        return flaws_of(self)

    def _sound(self) -> None:
        flaws = list(self.flaws())
        if flaws:
            lines = [f.text if f.row is None else f"{self.place(f.row)} {f.text}" for f in flaws[:5]]
            more = (
                f"\n... and {len(flaws) - 5} more; `counterpoise data check` lists them all" if len(flaws) > 5 else ""
            )
            raise ValueError("\n".join(lines) + more)

    def rows(self) -> dict[str, np.ndarray]:
        """Part name -> row numbers, as training uses them; deterministic by ``seed``."""
        self._sound()
        strata = self.labels.task.strata(self.labels.target)
        group = self._group()
        if self.folds is not None:
            return self._fold(group)
        if self.split not in self.columns:
            return shares(strata, self.val, self.test, self.seed, group)
        part = self.part_of_rows
        named = {name: np.flatnonzero(part == i) for i, name in enumerate(PARTS) if (part == i).any()}
        return complete(named, strata, self.val, self.seed, group)

    @cached_property
    def pairs(self) -> Pairs:
        """Row numbers to learn from and to test on of each fold, where there are folds."""
        folds = GROUP if is_column(self.folds) else self.folds
        if folds is None:
            return []
        return folds_of(folds, self.labels.task.strata(self.labels.target), self._group(), self.seed)

    def _group(self) -> np.ndarray | None:
        """(rows,) a number for the group of each; None without that column."""
        return self.columns.coded(self.group).ranks() if self.group in self.columns else None

    @property
    def held(self) -> str:
        """The groups of the test part of the fold, where they are few; else nothing."""
        if self.folds is None or self.group not in self.columns:
            return ""
        codes, texts = self.columns.coded(self.group)
        names = [str(texts[int(code)]) for code in np.unique(codes[self.pairs[self.fold][1]])]
        return ", ".join(names) if len(names) <= 3 else ""

    def _fold(self, group: np.ndarray | None) -> dict[str, np.ndarray]:
        if self.fold >= len(self.pairs):
            raise ValueError(f"fold must be in 0..{len(self.pairs) - 1}; got {self.fold}.")
        target, task = self.labels.target, self.labels.task
        return parts_of(self.pairs[self.fold], task, target, group, self.val, self.seed)

    def splits(self) -> Splits:
        """The parts to train and evaluate on; ValueError listing what makes that impossible."""
        made = self._parts(self.rows())
        return Splits(made["train"], made["val"], made.get("test"))

    def _parts(self, rows: Mapping[str, np.ndarray]) -> dict[str, TableSplit]:
        chosen = {name: torch.from_numpy(where) for name, where in rows.items()}
        task = standardised(self.labels.task, self.task, self.labels.target[chosen["train"]])
        readers = self.fitted_on(chosen["train"])
        for m, reader in self.readers.items():
            if reader.fitted not in (None, readers[m].fitted):
                raise ValueError(
                    f"{self.columns.path}: what the reader of {m!r} has learned is not what it learns from "
                    "the training rows of this split. Leave fitted out to have it learned anew "
                    f"(--data.modalities.{m}.fitted {{}})."
                )
        return {name: TableSplit(self, where, task, self.weights, readers) for name, where in chosen.items()}

    def fitted_on(self, rows: Tensor) -> dict[str, Reader]:
        """The readers, with what they learn from samples learned from these rows.

        Raises:
            ReadError: naming the row that cannot be read.
        """
        return {m: self._fit(m, reader, rows) if reader.learns else reader for m, reader in self.readers.items()}

    def _fit(self, modality: str, reader: Reader, rows: Tensor) -> Reader:
        try:
            return reader.fit(self.columns.taken(modality, rows))
        except ReadError:
            for row in rows.tolist():
                cell = self.source(row, modality)
                reason = None if cell is None else reader.problems(cell)
                if reason is not None:
                    raise ReadError(f"{self.place(row)}, column {modality!r}", reason) from None
            raise

    @cached_property
    def fitted(self) -> dict[str, Reader]:
        """The readers as training uses them: what they learn is learned from the training rows, or stated."""
        if all(reader.fitted is not None for reader in self.readers.values() if reader.learns):
            return self.readers
        return self.fitted_on(torch.from_numpy(self.rows()["train"]))

    def samples(self, part: str | None = None, *, labelled: bool = False) -> TableSplit:
        """Every row, or the rows of one part, to predict or evaluate.

        Args:
            part: "train", "val" or "test"; None for every row, whatever the ``split`` column says. Its readers are
                those of the table: what they learn from training rows must be in them.
            labelled: refuse rows without a label. Otherwise their target is -1, or NaN.
        """
        if part is None:
            missing = self.labels.missing
            if labelled and not self.columns.any_of(self.label_columns):
                raise ValueError(without_label(self))
            if labelled and missing.any():
                row, count = int(missing.int().argmax()), int(missing.sum())
                raise ValueError(f"{self.place(row)} has no {', '.join(self.label_columns)} ({count} rows in all).")
            return TableSplit(self, torch.arange(len(self)), self.labels.task, self.weights if labelled else None)
        rows = self.rows()
        if choice("part", part, PARTS) not in rows:
            raise ValueError(f"{self.columns.path} has no rows for {part!r}.")
        return self._parts(rows)[part]

    @cached_property
    def fingerprint(self) -> str:
        """A hash of the cells in use and of how they are read; the files' bytes are not part of it."""
        state = hashlib.blake2b(digest_size=16)
        for name in (*self.readers, *(c for c in (*self.label_columns, self.id) if c in self.columns)):
            reader = self.readers.get(name)
            state.update(f"{name} {reader.fingerprint() if reader else ''}\0".encode())
            for block in self.columns.blocks(name):
                state.update(repr(block).encode())
        return state.hexdigest()

    def describe(self) -> str:
        """Which columns are read how, in a few lines of text."""
        how = "guessed" if self.modalities is None else "stated"
        lines = [f"{self.columns.path}: {len(self)} rows, paths relative to {self.folder.resolve()}"]
        for m, reader in self.readers.items():
            absent = 0 if self.present is None or m not in self.present else int((~self.present[m]).sum())
            name = next((n for n, c in READERS.items() if type(reader) is c), type(reader).__name__)
            lines.append(f"  {m}: reader {name} ({how})" + (f", absent in {absent} rows" if absent else ""))
        for role, names in (
            ("label", self.label_columns),
            *((r, (getattr(self, r),)) for r in ("id", "split", "group", "weight")),
        ):
            columns = ", ".join(repr(name) for name in names if name in self.columns)
            lines.append(f"  {role}: " + (f"column {columns}" if columns else "no such column"))
        lines += [f"  {note}" for note in notes(self)]
        return "\n".join(lines)
