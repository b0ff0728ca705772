"""Sensor logs: rows of time and channels, cut into windows."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from counterpoise._checks import choice, whole
from counterpoise.task import Regression, Task

from .arrays import ArraySplit, divide
from .labels import alike
from .log_rows import Rows, read_rows
from .split import Splits
from .targets import encoded

RULES = ("majority", "last", "mean")


@dataclass
class Windows:
    """Stretches of recordings, all equally long.

    Attributes:
        inputs: modality -> (n, length, channels) float32; zeros where a window lacks it.
        present: modality -> (n,) bool.
        label: (n,) of each window, None when the log has no labels.
        recording: (n,) the name of the recording.
        start: (n,) the time at which the window begins.
        group: (n,) what no split may separate: the recording, or what was named.
        split: (n,) the part that the log says; None when it says none.
        notes: what was sorted, is irregular, too short or left over.
    """

    inputs: dict[str, np.ndarray]
    present: dict[str, np.ndarray]
    label: np.ndarray | None
    recording: np.ndarray
    start: np.ndarray
    group: np.ndarray
    split: np.ndarray | None
    notes: list[str] = field(default_factory=list)


def from_log(
    log: Any,
    channels: Mapping[str, Sequence[str]],
    length: int,
    stride: int | None = None,
    *,
    id: str = "id",
    time: str = "time",
    label: str = "label",
    rule: str = "majority",
    group: str | None = None,
    split: str | None = None,
    val: float = 0.15,
    test: float = 0.15,
    seed: int = 0,
    classes: Sequence[str] | None = None,
    task: Task | str | None = None,
) -> Splits:
    """A data set of windows of a sensor log; each group of channels is a modality of sequences (length, channels).

    All windows of a recording, or of a group, are in one part. Channels keep their units: the encoders of sequences
    standardise them. What had to be sorted, is irregular or too short is warned of.

    Args:
        log: path of a CSV, TSV or Parquet file with a row per time, or of a folder with such a file for each
            recording; or a frame of pandas, polars or pyarrow, or a mapping of names to arrays.
        channels: modality -> its columns. A window in which all of them are empty lacks the modality.
        length: of a window, in rows.
        stride: from the start of a window to that of the next, in rows; ``length`` when None.
        id: column of the recordings. In a folder the name of the file says it.
        time: column of numbers or dates, in any order.
        label: column of labels, of every row.
        rule: the label of a window: that of most of its rows (of equally many the earlier), of the last, or the mean.
        group: column of subjects, say, that no split may separate; one for each recording.
        split: column of "train", "val", "test", one for each recording.
        val: share of the windows for validation, where the log names none.
        test: share of the windows for the test, without ``split``.
        seed: which random split.
        classes: names of the classes, labels or numbers in order.
        task: what is predicted, as of `from_arrays`.

    Raises:
        ValueError: a column that is not there, a time that a recording has twice, a cell that is no number, missing
            values within a window, no recording of ``length``; with the row.
    """
    windowed = windows(
        log, channels, length, stride, id=id, time=time, label=label, rule=rule, group=group, split=split
    )
    for note in windowed.notes:
        warnings.warn(note, stacklevel=2)
    return splits_of(windowed, val=val, test=test, seed=seed, classes=classes, task=task)


def splits_of(
    windowed: Windows, *, val: float, test: float, seed: int, classes: Sequence[str] | None, task: Task | str | None
) -> Splits:
    """The parts of windows; ValueError when they have no labels, or none of the task."""
    target, kind = encoded(windowed.label, task, classes, name="label")
    for line in alike(kind.names) if not isinstance(kind, Regression) else ():
        warnings.warn(f"label: {line}.", stacklevel=3)
    inputs = {m: torch.from_numpy(x) for m, x in windowed.inputs.items()}
    present = {m: torch.from_numpy(mask) for m, mask in windowed.present.items()}
    ids = [f"{name}@{start:.10g}" for name, start in zip(windowed.recording, windowed.start, strict=True)]
    every = ArraySplit(inputs, target, kind, ids=ids, present=present)
    return divide(
        every, split=windowed.split, val=val, test=test, group=windowed.group, seed=seed, task=task, weight=None
    )


def windows(
    log: Any,
    channels: Mapping[str, Sequence[str]],
    length: int,
    stride: int | None = None,
    *,
    id: str = "id",
    time: str = "time",
    label: str | None = "label",
    rule: str = "majority",
    group: str | None = None,
    split: str | None = None,
) -> Windows:
    """Windows of a sensor log; the arguments are those of `from_log`, but that ``label`` may be None."""
    stride = whole("length", length, low=1) if stride is None else whole("stride", stride, low=1)
    choice("rule", rule, RULES)
    if not isinstance(channels, Mapping) or not channels or not all(channels.values()):
        raise ValueError(f"channels must map modalities to columns, as {{'acc': ['ax', 'ay']}}; got {channels!r}.")
    signals = list(dict.fromkeys(name for names in channels.values() for name in _listed(names)))
    roles = [name for name in (label, group, split) if name is not None]
    rows = read_rows(log, list(dict.fromkeys([id, time, *signals, *roles])), id)
    recordings, cut = rows.names(id), _Cut(rows, channels, length, stride)
    times, values = rows.times(time), {name: rows.numbers(name) for name in signals}
    labels = None if label is None else _labels(rows, label, rule)
    for name, at in _each(recordings):
        cut.add(name, at, times, values)
    if not cut.starts:
        raise ValueError(f"No recording has {length} rows, the length of a window; the longest has {cut.longest}.")
    return cut.made(labels, rule, recordings, group, split)


def _labels(rows: Rows, name: str, rule: str) -> np.ndarray:
    """(rows,) whole numbers, other numbers or names, whichever all of them are."""
    if rule == "mean":
        return rows.filled(name, rows.numbers(name))
    names = rows.names(name)
    for kind in (np.int64, np.float64):
        with suppress(ValueError):
            return names.astype(kind)
    return names


def _listed(names: Sequence[str]) -> Sequence[str]:
    if isinstance(names, str):
        raise ValueError(f"channels must map modalities to lists of columns, as {{'acc': [{names!r}]}}; got {names!r}.")
    return names


def _each(recordings: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """Each recording and its rows, in the order in which they first appear."""
    names, first, number = np.unique(recordings, return_index=True, return_inverse=True)
    order = np.argsort(number, kind="stable")
    ends = np.searchsorted(number[order], np.arange(len(names)), side="right")
    for i in np.argsort(first).tolist():
        yield str(names[i]), order[ends[i - 1] if i else 0 : ends[i]]


class _Cut:
    """Windows as they are cut, and what was met on the way."""

    def __init__(self, rows: Rows, channels: Mapping[str, Sequence[str]], length: int, stride: int):
        self.rows, self.channels, self.length, self.stride = rows, channels, length, stride
        self.starts: list[np.ndarray] = []  # of each window, the rows of the log
        self.begins: list[float] = []
        self.inputs: dict[str, list[np.ndarray]] = {m: [] for m in channels}
        self.unsorted, self.irregular, self.short, self.over = [list[str]() for _ in range(4)]
        self.left, self.longest, self.count = 0, 0, 0

    def add(self, name: str, at: np.ndarray, times: np.ndarray, values: Mapping[str, np.ndarray]) -> None:
        """The windows of a recording, which is in these rows of the log."""
        self.count, self.longest = self.count + 1, max(self.longest, len(at))
        if (np.diff(times[at]) < 0).any():
            self.unsorted.append(name)
            at = at[np.argsort(times[at], kind="stable")]
        steps = np.diff(times[at])
        if not steps.all():
            twice = int(np.flatnonzero(steps == 0)[0])
            first, second = sorted((int(at[twice]), int(at[twice + 1])))
            raise ValueError(
                f"{self.rows.place(second)}: recording {name!r} has this time already ({self.rows.place(first)}). "
                "Every row of a recording needs a time of its own."
            )
        if len(steps) and steps.max() > 1.5 * np.median(steps):
            self.irregular.append(f"{name} ({np.median(steps):.4g} to {steps.max():.4g})")
        if len(at) < self.length:
            self.short.append(name)
            return
        begins = range(0, len(at) - self.length + 1, self.stride)
        left = len(at) - (begins[-1] + self.length)
        if left:
            self.left += left
            self.over.append(name)
        for begin in begins:
            self._window(at[begin : begin + self.length], times, values)

    def _window(self, at: np.ndarray, times: np.ndarray, values: Mapping[str, np.ndarray]) -> None:
        self.starts.append(at)
        self.begins.append(float(times[at[0]]))
        for m, names in self.channels.items():
            signal = np.stack([values[name][at] for name in names], 1)
            empty = np.isnan(signal)
            if empty.any() and not empty.all():
                step, channel = np.argwhere(empty)[0]
                raise ValueError(
                    f"{self.rows.place(int(at[step]))}: {names[channel]} is empty, and other values of {m} in its "
                    "window are not. Fill it in, or leave the row out; a window without any value lacks the modality."
                )
            self.inputs[m].append(signal.astype(np.float32))

    def made(
        self,
        labels: np.ndarray | None,
        rule: str,
        recordings: np.ndarray,
        group: str | None,
        split: str | None,
    ) -> Windows:
        """All windows, with their labels."""
        inputs = {m: np.stack(cut) for m, cut in self.inputs.items()}
        present = {m: ~np.isnan(x[:, 0, 0]) for m, x in inputs.items()}
        for m, x in inputs.items():
            x[~present[m]] = 0
        first = np.array([at[0] for at in self.starts])
        label = None if labels is None else np.array([_label(labels[at], rule) for at in self.starts])
        apart = recordings if group is None else self._of_recordings(recordings, group)
        parts = None if split is None else self._of_recordings(recordings, split)[first]
        return Windows(
            inputs, present, label, recordings[first], np.array(self.begins), apart[first], parts, list(self.notes())
        )

    def _of_recordings(self, recordings: np.ndarray, name: str) -> np.ndarray:
        """(rows,) a column that has one value for each recording; ValueError naming a row that has another."""
        rows, first = self.rows, {}
        values = rows.names(name)
        for row, (recording, value) in enumerate(zip(recordings.tolist(), values.tolist(), strict=True)):
            if first.setdefault(recording, value) != value:
                raise ValueError(
                    f"{rows.place(row)}: {name} must be one for all of a recording; {recording!r} has {value!r} here "
                    f"and {first[recording]!r} before."
                )
        return values

    def notes(self) -> Iterator[str]:
        """What there is to say, a line each."""
        said = (
            ("are not in the order of time and were sorted", self.unsorted),
            ("have gaps, or steps of time that differ; windows count rows", self.irregular),
            (f"are shorter than a window of {self.length} rows and are not used", self.short),
            (f"end in rows that fill no window, {self.left} in all", self.over),
        )
        for what, names in said:
            if names:
                more = ", ..." if len(names) > 3 else ""
                yield f"{len(names)} of {self.count} recordings {what}: {', '.join(names[:3])}{more}"


def _label(labels: np.ndarray, rule: str) -> Any:
    if rule == "mean":
        return float(labels.mean())
    return labels[-1] if rule == "last" else Counter(labels.tolist()).most_common(1)[0][0]
