"""Features that are in memory already."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from counterpoise._checks import number, per_modality
from counterpoise.task import SingleLabel, Task

from .labels import alike, parts, plain_array
from .readers.base import Reader
from .split import Split, Splits, digest, lacking, weighed
from .splitting import holdout
from .targets import checked_weights, encoded, standardised
from .tensors import tensor_of


class ArraySplit(Split):
    """Samples in memory; a batch is one ``index_select``.

    Args:
        inputs: modality -> (n, ...) tensor. Rows of absent samples should be zero.
        target: (n,) class numbers, int64, or what the task has.
        task: what is predicted, or the class names of one class of several.
        ids: one name per sample; their positions when None.
        present: modality -> (n,) bool, where some sample lacks that modality.
        weight: (n,) numbers >= 0, how much each sample counts in the loss; None when all count alike.
        readers: modality -> what made the tensors of other values, if anything did.
    """

    def __init__(
        self,
        inputs: Mapping[str, Tensor],
        target: Tensor,
        task: Task | Sequence[str],
        *,
        ids: Sequence[str] | None = None,
        present: Mapping[str, Tensor] | None = None,
        weight: Tensor | None = None,
        readers: Mapping[str, Reader] | None = None,
    ):
        self.readers = readers or {}
        self.inputs = dict(inputs)
        self.modalities = tuple(inputs)
        self.task = task if isinstance(task, Task) else SingleLabel(task)
        self.target = target
        self.ids = [str(i) for i in range(len(target))] if ids is None else list(ids)
        self.present, self.weight = lacking(present), weight

    def batch(self, indices: Sequence[int], modality: str, seed: int | None) -> Tensor:
        return self.inputs[modality].index_select(0, torch.as_tensor(indices, dtype=torch.int64))

    @cached_property
    def _content(self) -> str:
        masks = [part for m, mask in (self.present or {}).items() for part in (m, mask)]
        inputs = (part for m, x in self.inputs.items() for part in (m, x))
        return digest(*_text(self.task), self.target, *masks, *inputs, *weighed(self.weight))

    def fingerprint(self) -> str:
        return self._content


def _text(task: Task) -> tuple[str, ...]:
    """The task, for a hash."""
    return task.names if isinstance(task, SingleLabel) else (repr(task.to_dict()),)


def from_arrays(
    inputs: Mapping[str, Any],
    y: Any,
    *,
    split: Any | None = None,
    val: float = 0.15,
    test: float = 0.15,
    group: Any | None = None,
    present: Mapping[str, Any] | None = None,
    seed: int = 0,
    classes: Sequence[str] | None = None,
    task: Task | str | None = None,
    sample_weight: Any | None = None,
) -> Splits:
    """A data set from features in memory.

    >>> import numpy as np
    >>> from counterpoise.data import from_arrays
    >>> data = from_arrays({"audio": np.zeros((60, 8)), "video": np.ones((60, 4))}, y=np.arange(60) % 3)
    >>> len(data.train), len(data.val), len(data.classes)
    (42, 9, 3)

    Floats become float32; integers (token numbers) stay. Read-only and memory-mapped arrays are not copied
    when their type fits.

    Args:
        inputs: modality -> NumPy array or tensor, samples on the first axis.
        y: (n,) labels, integers or strings; for other tasks label names or zeros and ones per sample, or numbers.
        split: (n,) names out of "train", "val", "test". Without it, or without "val" in it, a share
            is split off by ``seed``, every class, label or quantile in proportion.
        val: share of all samples for validation (of the training samples when ``split`` names no "val").
        test: share of all samples for the test; 0 for none. Unused with ``split``.
        group: (n,) names (speakers, say); no group is on two sides of a share split off by seed.
        present: modality -> (n,) bool, False where the sample lacks that modality. What such a row
            holds does not matter. A row of NaN is an error, never a silent absence.
        seed: which random split.
        classes: names of the classes, labels or numbers in order; the sorted distinct labels when None.
        task: "single-label", "multi-label", "regression", or the task of another data set. None is one of several
            classes, and an error for whole numbers that may be either, such as ratings from 1 to 5.
        sample_weight: (n,) numbers >= 0, how much each sample counts in the loss, training or other.

    Raises:
        ValueError: lengths differ, NaN or infinity, fewer than two classes, labels or split names
            that make no sense; the message names the modality and the sample.
    """
    _check_mapping(inputs)
    target, kind = encoded(y, task, classes)
    for line in alike(kind.names):
        warnings.warn(f"y: {line}.", stacklevel=2)
    masks = {m: mask_of(m, mask, len(target)) for m, mask in (present or {}).items()}
    per_modality("present", masks, inputs)
    tensors = {m: _features(m, x, len(target), masks.get(m)) for m, x in inputs.items()}
    whole = ArraySplit(tensors, target, kind, present=masks)
    return divide(whole, split=split, val=val, test=test, group=group, seed=seed, task=task, weight=sample_weight)


def divide(
    whole: Split,
    *,
    split: Any | None,
    val: float,
    test: float,
    group: Any | None,
    seed: int,
    task: Task | str | None,
    weight: Any | None,
) -> Splits:
    """The parts of ``whole`` by the arguments of `from_arrays`; weights and statistics of training are set here."""
    count, strata = len(whole), whole.task.strata(whole.target)
    group = _groups(group, count)
    rows = shares(strata, val, test, seed, group) if split is None else parts(split, count)
    rows = complete(rows, strata, val, seed, group)
    whole.task = standardised(whole.task, task, whole.target[torch.from_numpy(rows["train"])])
    if weight is not None:
        whole.weight = checked_weights(weight, count, "sample_weight", "sample {}".format)
    return assemble(whole, rows)


def _groups(group: Any | None, count: int) -> np.ndarray | None:
    names = None if group is None else plain_array(group, "group")
    if names is not None and names.shape != (count,):
        raise ValueError(f"group must have one entry per sample: {count} samples, shape {names.shape}.")
    return names


def _check_mapping(inputs: object) -> None:
    if not isinstance(inputs, Mapping):
        kind = type(inputs).__name__
        raise ValueError(f"inputs must map modalities to arrays, as {{'audio': A, 'video': V}}; got {kind}.")
    if not inputs:
        raise ValueError("inputs must hold at least one modality; got none.")


def shares(strata: np.ndarray, val: float, test: float, seed: int, group: np.ndarray | None) -> dict[str, np.ndarray]:
    """Train, val and test positions; ``val`` and ``test`` are shares of all samples."""
    number("val", val, above=0, below=1)
    number("test", test, low=0, below=1)
    if val + test >= 1:
        raise ValueError(f"val + test must leave something to train on; got {val} + {test}.")
    rest, held = np.arange(len(strata)), {}
    if test > 0:
        rest, held["test"] = holdout(strata, test, seed, group)
    train, chosen = holdout(strata[rest], val / (1 - test), seed + 1, None if group is None else group[rest])
    return {"train": rest[train], "val": rest[chosen], **held}


def complete(
    rows: dict[str, np.ndarray], strata: np.ndarray, val: float, seed: int, group: np.ndarray | None
) -> dict[str, np.ndarray]:
    """The same parts, with a validation part split off train when there is none; ValueError without train."""
    if "train" not in rows:
        raise ValueError(f"split: no sample is in 'train'; found only {', '.join(map(repr, rows)) or 'nothing'}.")
    if "val" in rows:
        return rows
    train = rows["train"]
    kept, held = holdout(strata[train], val, seed, None if group is None else group[train])
    return {**rows, "train": train[kept], "val": train[held]}


def assemble(whole: Split, rows: Mapping[str, np.ndarray]) -> Splits:
    """The parts of ``whole`` at these positions."""
    made = {name: whole.subset(torch.from_numpy(where)) for name, where in rows.items()}
    return Splits(made["train"], made["val"], made.get("test"))


def _features(modality: str, values: Any, size: int, mask: Tensor | None) -> Tensor:
    if np.ma.is_masked(values):
        first = int(np.argwhere(np.ma.getmaskarray(values))[0][0])
        raise ValueError(
            f"inputs[{modality!r}] has masked values, the first in sample {first}. Pass x.filled(value), or say that "
            f"samples lack this modality: present={{{modality!r}: mask}} and x.filled(0)."
        )
    x = tensor_of(values, f"inputs[{modality!r}]")
    if x.ndim < 1 or len(x) != size:
        raise ValueError(f"inputs[{modality!r}] must have {size} rows, one per label; got shape {tuple(x.shape)}.")
    if x.ndim == 1:
        raise ValueError(f"inputs[{modality!r}] must be (n, ...); got one number per sample. Pass x[:, None].")
    if x.is_floating_point():
        x = x.to(torch.float32)
    absent = torch.zeros(size, dtype=torch.bool) if mask is None else ~mask
    if absent.any():
        x = x.clone()
        x[absent] = 0
    if x.is_floating_point():
        for start in range(0, size, 4096):  # in pieces: a memory-mapped array may be larger than the memory
            good = x[start : start + 4096].flatten(1).isfinite().all(1)
            if not good.all():
                row = start + int((~good).nonzero()[0])
                raise ValueError(
                    f"inputs[{modality!r}] has NaN or infinity in sample {row}. Clean it, or say that the sample "
                    f"lacks this modality: present={{{modality!r}: mask}} with mask[{row}] False."
                )
    return x


def mask_of(modality: str, mask: Any, size: int) -> Tensor:
    """``present[modality]`` as (size,) bool; ValueError for anything else."""
    found = torch.as_tensor(mask.detach().cpu() if isinstance(mask, Tensor) else np.array(mask))
    if found.dtype != torch.bool or found.shape != (size,):
        raise ValueError(
            f"present[{modality!r}] must be ({size},) booleans; got {found.dtype} of shape {tuple(found.shape)}."
        )
    return found
