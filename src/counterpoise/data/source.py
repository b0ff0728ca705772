"""Where the command line's ``--data`` comes from: a table, arrays in a file, or the embedded digits."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterator
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any
from zipfile import is_zipfile

import numpy as np
from torch import Tensor

from counterpoise._checks import choice, did_you_mean, nearest, settings, whole
from counterpoise.data.arrays import from_arrays
from counterpoise.data.digits import digits, readers
from counterpoise.data.folds import Pairs, folds_of, parts_of
from counterpoise.data.layout import OF_AXES, Layout, layout_of_reader
from counterpoise.data.readers import Reader, ReadError
from counterpoise.data.readers.base import without_window
from counterpoise.data.readers.stored import arrays_of
from counterpoise.data.split import Split, Splits
from counterpoise.data.table import Table as _Table
from counterpoise.data.targets import encoded
from counterpoise.task import TASKS, Task


class Source(ABC):
    """A data set by name and options."""

    name: str
    folder: str | None = None
    """Where the files are that samples are read from; None when there are none."""

    @abstractmethod
    def splits(self) -> Splits:
        """The parts to train, select and evaluate on."""

    @property
    def folds(self) -> int:
        """How many folds there are to train on; 0 where there are none."""
        return 0

    @abstractmethod
    def layouts(self) -> dict[str, Layout]:
        """What each modality looks like."""

    def describe(self) -> str:
        """A few lines for people."""
        return self.name

    def stated(self) -> dict[str, Any]:
        """Arguments that read the same data the same way from any folder: nothing left to guess."""
        return {}


class Table(Source):
    """A CSV, TSV or Parquet file with one row per sample.

    Args:
        path: the file.
        modalities: column -> reader with its options; left out, every column with a reader guessed.
        root: folder that paths are relative to; the table's own folder by default.
        label: column of class names, of label sets as "a|b", or of a number; or a list of columns.
        id: column of sample names.
        split: column of "train", "val", "test".
        group: column of names (speakers, say) that no split may separate.
        weight: column of numbers >= 0, how much each sample counts in the loss.
        val: share for validation, where the table names none.
        test: share for the test, where the table has no split column.
        classes: class names in order; the sorted labels by default.
        task: single-label, multi-label or regression; guessed from the labels when left out.
        seed: which random split.
        cache: folder to keep decoded files in.
        folds: divide all rows into so many folds instead; "group" or a column leaves out one of its values at a time; a
            splitter of scikit-learn with its number of folds, as "GroupKFold:5".
        fold: which of the folds is the test part, from 0.
    """

    def __init__(
        self,
        path: str,
        modalities: dict[str, Reader] | None = None,
        root: str | None = None,
        label: str | list[str] = "label",
        id: str = "id",
        split: str = "split",
        group: str = "group",
        weight: str = "sample_weight",
        val: float = 0.15,
        test: float = 0.15,
        classes: list[str] | None = None,
        task: str | None = None,
        seed: int = 0,
        cache: str | None = None,
        folds: str | None = None,
        fold: int = 0,
    ):
        # tables that `data prepare` writes all have one name; their folders tell them apart
        self.name = Path(path).resolve().parent.name if Path(path).name == "manifest.csv" else Path(path).stem
        self.table = _Table(
            path, modalities, root=root, label=label, id=id, split=split, group=group, weight=weight, val=val,
            test=test, classes=classes, task=task, seed=seed, cache=cache,
            folds=folds, fold=fold,
        )  # fmt: skip
        if any(reader.reads_files for reader in self.table.readers.values()):
            self.folder = str(self.table.folder.resolve())

    def splits(self) -> Splits:
        splits = self.table.splits()
        gone = self._gone()
        lines = [f"{self.table.place(row)}, column {m!r}: {path}: no such file" for row, m, path in islice(gone, 5)]
        if lines:
            left = sum(1 for _ in gone)
            more = f"\n... and {left} more" if left else ""
            raise FileNotFoundError("\n".join(lines) + f"{more}\n`counterpoise data check` lists every problem.")
        return splits

    def _gone(self) -> Iterator[tuple[int, str, Path]]:
        """Row, column and path of each file that is not there; nothing is opened."""
        table = self.table
        for m in (m for m, reader in table.readers.items() if reader.reads_files):
            row = 0
            for block in table.columns.blocks(m):
                cells = {cell for cell in block if cell is not None}
                gone = {cell for cell in cells if not os.path.exists(table.folder / without_window(cell))}
                for i in (i for i, cell in enumerate(block) if cell in gone) if gone else ():
                    yield row + i, m, table.folder / (block[i] or "")
                row += len(block)

    def stated(self) -> dict[str, Any]:
        table = self.table
        readers = {
            m: {"class_path": f"{type(reader).__module__}.{type(reader).__qualname__}", "init_args": settings(reader)}
            for m, reader in table.fitted.items()
        }
        places = {"path": table.columns.path, "root": table.root, "cache": table.cache}
        return {
            "modalities": readers,
            **{name: str(Path(place).expanduser().resolve()) for name, place in places.items() if place is not None},
        }

    @property
    def pairs(self) -> Pairs:
        """Row numbers to learn from and to test on of each fold, where there are folds."""
        return self.table.pairs

    @property
    def held(self) -> str:
        """The groups that the fold leaves out, where they are few."""
        return self.table.held

    @property
    def folds(self) -> int:
        return len(self.pairs)

    def samples(self, *, labelled: bool = False) -> Split:
        """Every row; ``labelled`` refuses rows without a label."""
        return self.table.samples(labelled=labelled)

    def layouts(self) -> dict[str, Layout]:
        return {m: layout_of_reader(m, reader) for m, reader in self.table.fitted.items()}

    def describe(self) -> str:
        return self.table.describe()


class Digits(Source):
    """Handwritten digits with a synthesised spoken one each; embedded, nothing is downloaded.

    Args:
        seed: of voices, noise, what is absent, and the split.
        audio_noise: noise in the sound, relative to the voice.
        image_noise: noise in the picture, relative to its grey values.
        absent: share of samples that lack the sound, and as many others the picture; below 0.5.
        size: how many digits; all 1797 by default.
    """

    name = "digits"

    def __init__(
        self,
        seed: int = 0,
        audio_noise: float = 0.3,
        image_noise: float = 0.3,
        absent: float = 0.0,
        size: int | None = None,
    ):
        self.options = {
            "seed": seed, "audio_noise": audio_noise, "image_noise": image_noise, "absent": absent, "size": size,
        }  # fmt: skip

    def splits(self) -> Splits:
        return digits(**self.options)

    def layouts(self) -> dict[str, Layout]:
        # 10 classes of tiny pictures and half-second sounds need no wide network
        return {m: layout_of_reader(m, reader)._replace(options={"dim": 32}) for m, reader in readers().items()}


class Arrays(Source):
    """An ``.npz`` file of features computed already: one array per modality and one of labels.

    Args:
        path: the file; first axis of every array is the sample. A modality's array of 2 axes is a vector per
            sample, of 3 a sequence of vectors, of 4 an image; `kinds` can say otherwise.
        kinds: modality -> "array", "sequence", "image", "spectrogram" or "text" (token numbers, 0 is padding).
        label: name of the array of class names or numbers.
        split: name of an array of "train", "val", "test"; without it, shares are split off.
        group: name of an array of names that no split may separate.
        weight: name of an array of numbers >= 0, how much each sample counts in the loss.
        val: share for validation.
        test: share for the test.
        task: single-label, multi-label or regression; classes when left out, unless they may be numbers.
        seed: which random split.
        folds: divide all samples into so many folds instead; "group" leaves out one group at a time; a splitter of
            scikit-learn with its number of folds, as "GroupKFold:5".
        fold: which of the folds is the test part, from 0.
    """

    def __init__(
        self,
        path: str,
        kinds: dict[str, str] | None = None,
        label: str = "y",
        split: str = "split",
        group: str = "group",
        weight: str = "sample_weight",
        val: float = 0.15,
        test: float = 0.15,
        task: str | None = None,
        seed: int = 0,
        folds: str | None = None,
        fold: int = 0,
    ):
        self.folding, self.fold = folds, whole("fold", fold, low=0)
        self.task = None if task is None else choice("task", task, TASKS)
        self.name, self.path = Path(path).stem, path
        arrays = _opened(path)
        if label not in arrays:
            unknown = did_you_mean("label array", label, arrays)
            raise ValueError(f"{path}: {unknown} Name the array of the labels: --data.label ARRAY.")
        self.y, self.parts, self.groups = arrays.pop(label), arrays.pop(split, None), arrays.pop(group, None)
        self.weight = arrays.pop(weight, None)
        if self.weight is None and weight != "sample_weight":
            raise ValueError(f"{path}: " + did_you_mean("weight array", weight, arrays))
        for name, array in arrays.items():
            if array.dtype.kind not in "fiub":
                raise ValueError(
                    f"{path}: array {name!r} must be numbers, as every array but labels, split, group and weights; it "
                    f"holds {array.dtype}. Leave it out of the file."
                )
        self.inputs, self.val, self.test, self.seed = arrays, val, test, seed
        self.kinds = {m: choice(f"kinds[{m!r}]", kind, _ARRAY_KINDS) for m, kind in (kinds or {}).items()}
        for m in self.kinds:
            if m not in arrays:
                raise ValueError("kinds: " + did_you_mean("modality", m, arrays))

    @cached_property
    def _target(self) -> tuple[Tensor, Task]:
        return encoded(self.y, self.task, None)

    @cached_property
    def pairs(self) -> Pairs:
        """Positions to learn from and to test on of each fold, where there are folds."""
        target, task = self._target
        group = None if self.groups is None else np.asarray(self.groups)
        return [] if self.folding is None else folds_of(self.folding, task.strata(target), group, self.seed)

    @property
    def folds(self) -> int:
        return len(self.pairs)

    def _parts(self) -> np.ndarray | None:
        """The part of each sample, where there are folds; else what the file says."""
        if self.folding is None:
            return self.parts
        if self.fold >= self.folds:
            raise ValueError(f"fold must be in 0..{self.folds - 1}; got {self.fold}.")
        target, task = self._target
        group = None if self.groups is None else np.asarray(self.groups)
        parts = np.full(len(target), "unused")
        for name, rows in parts_of(self.pairs[self.fold], task, target, group, self.val, self.seed).items():
            parts[rows] = name
        return parts

    def splits(self) -> Splits:
        inputs = {m: self._numbers(m, array) for m, array in self.inputs.items()}
        try:
            return from_arrays(
                inputs,
                self.y,
                split=self._parts(),
                group=self.groups,
                val=self.val,
                test=self.test,
                seed=self.seed,
                task=self.task,
                sample_weight=self.weight,
            )
        except ValueError as error:
            raise ValueError(f"{self.path}: {error}") from error

    def _numbers(self, modality: str, array: np.ndarray) -> np.ndarray:
        """Token numbers as int64, other whole numbers as float32, as encoders take them."""
        text = self.kinds.get(modality) == "text"
        return array if array.dtype.kind == "f" else array.astype(np.int64 if text else np.float32)

    def stated(self) -> dict[str, Any]:
        return {"path": str(Path(self.path).resolve())}

    def layouts(self) -> dict[str, Layout]:
        return {m: self._layout(m, array) for m, array in self.inputs.items()}

    def _layout(self, modality: str, array: np.ndarray) -> Layout:
        kind = self.kinds.get(modality) or OF_AXES.get(array.ndim - 1)
        if kind is None:
            raise ValueError(
                f"Array {modality!r} must have 2, 3 or 4 axes, samples first, or a kind; it has shape {array.shape}."
            )
        if kind != "text":
            return Layout(kind, array.shape[1:], {})
        if array.ndim != 2 or array.dtype.kind not in "iu" or array.min(initial=0) < 0:
            raise ValueError(
                f"kinds: the text {modality!r} must be (samples, length) token numbers, whole and at least 0; "
                f"found {array.dtype} of shape {array.shape}."
            )
        return Layout(kind, array.shape[1:], {"vocab_size": max(2, int(array.max(initial=0)) + 1)})


def _opened(path: str) -> dict[str, np.ndarray]:
    """Every array of an ``.npz`` file; nothing in it is executed."""
    if not Path(path).is_file():
        beside = [p.name for p in Path(path).parent.glob("*.npz")]
        raise FileNotFoundError(f"There is no file {path}.{nearest(Path(path).name, beside, cutoff=0.82)}")
    if not is_zipfile(path):
        raise ValueError(f"{path} is no .npz file. Write one with numpy.savez({path!r}, audio=..., video=..., y=...).")
    try:
        return dict(arrays_of(path))
    except ReadError as error:
        raise ValueError(f"{path}: {error.reason}") from error


_ARRAY_KINDS = ("array", "sequence", "image", "spectrogram", "text")
