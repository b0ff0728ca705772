"""Samples without labels, from what users hold in their hands: one, several, a frame, a table, tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from counterpoise._checks import did_you_mean
from counterpoise._digests import digest
from counterpoise.data.readers import Array, Reader, ReadError
from counterpoise.data.split import Split, lacking
from counterpoise.data.table import Table
from counterpoise.data.targets import no_targets
from counterpoise.data.values import is_waveform
from counterpoise.task import Task
from counterpoise.trained.intake import Intake, columns_of, is_absent

TAKEN = (
    "a dict with one sample, as {'audio': 'a.wav', 'image': 'b.png'}; a list of such dicts; a dict of columns; a "
    "DataFrame; or the name of a CSV or Parquet file"
)


class RawSamples(Split):
    """Values that are read when a batch asks for them.

    Args:
        columns: modality -> one value per sample; what is absent is None.
        intakes: modality -> what makes tensors of them.
        task: what will be predicted.
        folder: what paths are relative to.
        ids: of the samples; their positions when None.
    """

    def __init__(
        self,
        columns: Mapping[str, Sequence[Any]],
        intakes: Mapping[str, Intake],
        task: Task,
        *,
        folder: Path,
        ids: Sequence[str] | None = None,
    ):
        self.columns, self.intakes, self.task, self.folder = columns, intakes, task, folder
        self.modalities = tuple(columns)
        count = len(next(iter(columns.values())))
        self.ids = list(map(str, range(count))) if ids is None else ids
        self.target = no_targets(task, count)
        there = {m: [not is_absent(value) for value in values] for m, values in columns.items()}
        self.present = lacking({m: torch.tensor(mask, dtype=torch.bool) for m, mask in there.items()})

    def batch(self, indices: Sequence[int], modality: str, seed: int | None) -> Tensor:
        read = {int(i): self._sample(int(i), modality) for i in indices}
        first, together = read[int(indices[0])], self.intakes[modality].collate
        if together is not None:
            return together([read[int(i)] for i in indices])
        for i, x in read.items():
            if x.shape != first.shape:
                other = f"{self._place(int(indices[0]), modality)} has {tuple(first.shape)}"
                raise ValueError(f"{self._place(i, modality)}: it has shape {tuple(x.shape)}, and {other}.")
        return torch.stack([read[int(i)] for i in indices])

    def _sample(self, index: int, modality: str) -> Tensor:
        value = self.columns[modality][index]
        try:
            return self.intakes[modality].sample(value, self.folder)
        except ReadError as error:
            raise ReadError(f"{self._place(index, modality)}: {error.cell}", error.reason) from error
        except (TypeError, ValueError) as error:
            raise type(error)(f"{self._place(index, modality)}: {error}.") from error

    def _place(self, index: int, modality: str) -> str:
        return f"sample {self.ids[index]}, {modality!r}"

    def fingerprint(self) -> str:
        return digest(*self.modalities, *self.ids)


def samples_of(
    data: Any, intakes: Mapping[str, Intake], reads: Sequence[str], task: Task, root: str | Path | None
) -> tuple[Split, bool]:
    """A split of what a user passes to ``predict``, and whether it is one sample.

    Args:
        data: ``TAKEN``, or a split.
        intakes: of the modalities of the model, in order.
        reads: those that are used.
        task: what is predicted.
        root: what paths are relative to; by default the folder of a table, the working directory otherwise.

    Raises:
        TypeError: something else.
        ValueError: unknown modalities, missing columns, columns of different lengths, no samples.
    """
    folder = Path(root).expanduser() if root is not None else Path()
    if isinstance(data, Split):
        return data, False
    if isinstance(data, str | Path):
        return _table(data, intakes, reads, task, root), False
    if columns := _columns_of(data):
        return RawSamples(_of_frame(columns, intakes, reads), intakes, task, folder=folder), False
    if isinstance(data, Mapping):
        data = _gathered(data, intakes)
    one = isinstance(data, Mapping) and not _is_columns(data, intakes)
    rows: Any = [data] if one else data
    if isinstance(rows, Mapping):
        return RawSamples(_of_columns(rows, intakes, reads), intakes, task, folder=folder), False
    if not isinstance(rows, Sequence) or not all(isinstance(row, Mapping) for row in rows):
        raise TypeError(f"Samples come as {TAKEN}; got {type(data).__name__}.")
    if not rows:
        raise ValueError("There are no samples in an empty list.")
    rows = [_gathered(row, intakes) for row in rows]
    for row in rows:
        _refuse_unknown(row, intakes)
    return RawSamples({m: [row.get(m) for row in rows] for m in reads}, intakes, task, folder=folder), one


def _refuse_unknown(named: Mapping[Any, Any], intakes: Mapping[str, Intake]) -> None:
    for name in named:
        if name not in intakes:
            raise ValueError(did_you_mean("modality", name, intakes))
    if not named:
        raise ValueError(f"A sample has at least one of the modalities {', '.join(intakes)}; got an empty dict.")


def _of_frame(
    columns: Mapping[str, Any], intakes: Mapping[str, Intake], reads: Sequence[str]
) -> dict[str, Sequence[Any]]:
    """Modality -> values, of a frame; ValueError for a column that is not there."""
    needed = {m: columns_of(intakes[m].reader) or (m,) for m in reads}
    for name in (name for names in needed.values() for name in names):
        if name not in columns:
            raise ValueError(
                f"The frame has no column {name!r}; its columns are {', '.join(columns)}. Where all samples lack a "
                "modality, add a column of None."
            )
    single = {m: columns[m]() for m, names in needed.items() if names == (m,)}
    joint = {m: _rows({n: columns[n]() for n in names}) for m, names in needed.items() if m not in single}
    return {m: single[m] if m in single else joint[m] for m in reads}


def _rows(columns: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def _gathered(named: Mapping[Any, Any], intakes: Mapping[str, Intake]) -> dict[Any, Any]:
    """With the columns that are one modality under its name; where they are lists, as a list of samples."""
    owner = {name: m for m, intake in intakes.items() for name in columns_of(intake.reader) if name not in intakes}
    gathered = {name: value for name, value in named.items() if name not in owner}
    for m in dict.fromkeys(owner[name] for name in named if name in owner):
        values = {name: value for name, value in named.items() if owner.get(name) == m}
        several = all(isinstance(value, list | tuple | np.ndarray) for value in values.values())
        gathered[m] = _rows(values) if several else values
    return gathered


def _columns_of(data: Any) -> dict[str, Any]:
    """Column -> what gives its cells as a list, of a frame of pandas, polars or Arrow; empty for anything else."""
    for names, cells in (("column_names", "to_pylist"), ("columns", "to_list")):
        known = getattr(data, names, None)
        if known is not None and hasattr(data, "__getitem__") and not isinstance(data, Mapping):
            if len({*known}) < len(list(known)):
                raise ValueError(f"The frame has a column twice: {', '.join(map(str, known))}.")
            return {str(name): getattr(data[name], cells) for name in known}
    return {}


def _is_columns(data: Mapping[str, Any], intakes: Mapping[str, Intake]) -> bool:
    """Whether a dict holds columns: lists, or tensors and arrays with one axis more than a sample."""
    _refuse_unknown(data, intakes)
    several_of = {m: _holds_several(value, intakes[m]) for m, value in data.items() if not is_absent(value)}
    if len(set(several_of.values())) > 1:
        one, more = (next(m for m, several in several_of.items() if several is which) for which in (False, True))
        raise ValueError(
            f"A dict holds one sample or columns of samples; here {one!r} holds one value and {more!r} several."
        )
    return any(several_of.values())


def _holds_several(value: Any, intake: Intake) -> bool:
    ready = isinstance(value, Tensor) or (isinstance(value, np.ndarray) and intake.reader is None)
    if ready:  # those that differ in shape come in lists
        return intake.shape is not None and value.ndim == len(intake.shape) + 1
    if isinstance(value, np.ndarray):
        return value.dtype.kind in "OU"
    if isinstance(value, list | tuple) and intake.reader is None:  # or the numbers of one sample
        first = next((item for item in value if not is_absent(item)), "")
        ragged = intake.shape is None and isinstance(first, Tensor | np.ndarray)
        return isinstance(first, str | Path) or ragged or np.ndim(first) == len(intake.shape or ())
    return isinstance(value, list | tuple) and not is_waveform(value)


def _of_columns(
    data: Mapping[str, Any], intakes: Mapping[str, Intake], reads: Sequence[str]
) -> dict[str, Sequence[Any]]:
    counts = {m: len(values) for m, values in data.items() if not is_absent(values)}
    if len(set(counts.values())) > 1:
        raise ValueError(f"Columns must be of one length; got {', '.join(f'{m}: {n}' for m, n in counts.items())}.")
    count = next(iter(counts.values()))
    if not count:
        raise ValueError("There are no samples: the columns are empty.")
    absent = [None] * count
    return {m: absent if is_absent(data.get(m)) else data[m] for m in reads}


def labelled_table(
    path: Any,
    intakes: Mapping[str, Intake],
    reads: Sequence[str],
    task: Task,
    root: str | Path | None,
    labels: Sequence[str],
) -> Split:
    """The rows of a table with their labels; ValueError where there is none."""
    if not isinstance(path, str | Path):
        raise ValueError(
            f"Labels are read from tables (CSV, Parquet), or come with a split; got {type(path).__name__}."
        )
    label = labels[0] if len(labels) == 1 else list(labels)
    table = Table(path, _readers(intakes, reads), root=root, label=label, classes=task.names, task=task)
    return table.samples(labelled=True)


def _table(
    path: str | Path, intakes: Mapping[str, Intake], reads: Sequence[str], task: Task, root: str | Path | None
) -> Split:
    # no column of labels: what a table says of them is of no concern here
    table = Table(path, _readers(intakes, reads), root=root, label=(), classes=task.names, task=task)
    return table.samples()


def _readers(intakes: Mapping[str, Intake], reads: Sequence[str]) -> dict[str, Reader]:
    return {m: intakes[m].reader or _stored(intakes[m]) for m in reads}


def _stored(intake: Intake) -> Reader:
    """For tensors: cells name ``.npy`` files."""
    reader = Array()
    if intake.shape is not None:
        reader.learn({"shape": intake.shape})
    if intake.dtype != torch.float32:
        raise TypeError(f"{intake.modality!r} was trained on {intake.dtype}, which no table holds; pass arrays.")
    return reader
