"""A sensor log on the command line."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

from counterpoise._checks import choice
from counterpoise.data.layout import Layout
from counterpoise.data.log import Windows, splits_of, windows
from counterpoise.data.source import Source
from counterpoise.data.split import Splits
from counterpoise.task import TASKS


class Log(Source):
    """A sensor log, one row per time, cut into windows; each group of channels is a modality.

    Args:
        path: a CSV, TSV or Parquet file, or a folder with one for each recording.
        channels: modality -> its columns.
        length: of a window, in rows.
        stride: from the start of a window to that of the next, in rows; length when left out.
        id: column of the recordings, whose windows no split separates. In a folder the name of the file says it.
        time: column of numbers or dates.
        label: column of labels.
        rule: label of a window: majority, last, or mean (of numbers).
        group: column of subjects, say, that no split may separate.
        split: column of "train", "val", "test", one for each recording.
        val: share for validation, where the log names none.
        test: share for the test, where the log has no split column.
        classes: class names in order; the sorted labels by default.
        task: single-label or regression; classes when left out, unless they may be numbers.
        seed: which random split.
    """

    def __init__(
        self,
        path: str,
        channels: dict[str, list[str]],
        length: int,
        stride: int | None = None,
        id: str = "id",
        time: str = "time",
        label: str = "label",
        rule: str = "majority",
        group: str | None = None,
        split: str | None = None,
        val: float = 0.15,
        test: float = 0.15,
        classes: list[str] | None = None,
        task: str | None = None,
        seed: int = 0,
    ):
        self.name, self.path, self.channels, self.length = Path(path).resolve().stem, path, channels, length
        self.cut = {
            "stride": stride,
            "id": id,
            "time": time,
            "label": label,
            "rule": rule,
            "group": group,
            "split": split,
        }
        self.task = None if task is None else choice("task", task, TASKS)
        self.shares = {"val": val, "test": test, "seed": seed, "classes": classes}

    @cached_property
    def windows(self) -> Windows:
        """All of them."""
        return windows(self.path, self.channels, self.length, **self.cut)

    def splits(self) -> Splits:
        return splits_of(self.windows, task=self.task, **self.shares)

    def layouts(self) -> dict[str, Layout]:
        return {m: Layout("sequence", (self.length, len(names)), {}) for m, names in self.channels.items()}

    def describe(self) -> str:
        windows = self.windows
        recordings = len(set(windows.recording.tolist()))
        lines = [f"{self.path}: {len(windows.start)} windows of {self.length} rows, of {recordings} recordings"]
        for m, names in self.channels.items():
            absent = int((~windows.present[m]).sum())
            lines.append(f"  {m}: {', '.join(names)}" + (f", absent in {absent} windows" if absent else ""))
        return "\n".join([*lines, *(f"  {note}" for note in windows.notes)])

    def stated(self) -> dict[str, Any]:
        return {"path": str(Path(self.path).expanduser().resolve())}
