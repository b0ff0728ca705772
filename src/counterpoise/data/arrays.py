"""Features that are in memory already."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from counterpoise._checks import number, per_modality, spelled
from counterpoise._digests import digest
from counterpoise.task import SingleLabel, Task
from counterpoise.types import Present

from .labels import alike, parts, plain_array
from .layout import Layout
from .readers import Reader
from .split import Split, Splits, lacking, weighed
from .splitting import holdout
from .targets import checked_weights, encoded, standardised
from .tensors import tensor_of
from .values import Decoded, as_numbers, guessed, is_absent, one_by_one, reader_of, spelt


class ArraySplit(Split):
    """Samples in memory; a batch is one ``index_select``, or what a reader makes of them.

    Args:
        inputs: modality -> (n, ...) tensor, or values that a reader has decoded. Rows of absent samples should be zero.
        target: (n,) class numbers, int64, or what the task has.
        task: what is predicted, or the class names of one class of several.
        ids: one name per sample; their positions when None.
        present: modality -> (n,) bool, where some sample lacks that modality.
        weight: (n,) numbers >= 0, how much each sample counts in the loss; None when all count alike.
        readers: modality -> what made the tensors of other values, if anything did.
        recorded: modality -> these values, (n,) of what its reader takes, where they are kept.
    """

    def __init__(
        self,
        inputs: Mapping[str, Tensor | Decoded],
        target: Tensor,
        task: Task | Sequence[str],
        *,
        ids: Sequence[str] | None = None,
        present: Present = None,
        weight: Tensor | None = None,
        readers: Mapping[str, Reader] | None = None,
        recorded: Mapping[str, Sequence[Any]] | None = None,
    ):
        self.readers, self.recorded = readers or {}, dict(recorded or {})
        self.inputs = dict(inputs)
        self.modalities = tuple(inputs)
        self.task = task if isinstance(task, Task) else SingleLabel(task)
        self.target = target
        self.ids = [str(i) for i in range(len(target))] if ids is None else list(ids)
        self.present, self.weight = lacking(present), weight

    def batch(self, indices: Sequence[int], modality: str, seed: int | None) -> Tensor:
        x = self.inputs[modality]
        if isinstance(x, Decoded):
            return x.batch(indices, seed)
        return x.index_select(0, torch.as_tensor(indices, dtype=torch.int64))

    def recording(self, modality: str) -> str:
        kept = modality in self.recorded or isinstance(self.inputs[modality], Decoded)
        return self.readers[modality].recording if kept else super().recording(modality)

    def altered(self, index: int, modality: str, alter: Callable[[Any], Any]) -> Tensor:
        x = self.inputs[modality]
        if isinstance(x, Decoded):
            return x.altered(index, alter)
        if modality in self.recorded:
            return self.readers[modality].altered(self.recorded[modality][index], alter)
        return super().altered(index, modality, alter)

    def layout(self, modality: str) -> Layout:
        x = self.inputs[modality]
        if isinstance(x, Decoded):
            return x.layout()
        if x.ndim == 2 and not x.is_floating_point():  # token numbers
            return Layout("text", tuple(x.shape[1:]), {"vocab_size": max(2, int(x.max()) + 1)})
        return super().layout(modality)

    @cached_property
    def _content(self) -> str:
        masks = [part for m, mask in (self.present or {}).items() for part in (m, mask)]
        content = {m: x.content() if isinstance(x, Decoded) else [x] for m, x in self.inputs.items()}
        inputs = (part for m, parts in content.items() for part in (m, *parts))
        return digest(*_text(self.task), self.target, *masks, *inputs, *weighed(self.weight))

    def fingerprint(self) -> str:
        return self._content


def _text(task: Task) -> tuple[str, ...]:
    """The task, for a hash."""
    return task.names if isinstance(task, SingleLabel) else (repr(task.to_dict()),)


@spelled
def from_arrays(
    inputs: Mapping[str, Any],
    y: Any,
    *,
    readers: Mapping[str, Reader | str] | None = None,
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
    """A data set from features in memory, or from texts, pictures and sounds that readers make features of.

    >>> import numpy as np
    >>> from counterpoise.data import from_arrays
    >>> data = from_arrays({"audio": np.zeros((60, 8)), "video": np.ones((60, 4))}, y=np.arange(60) % 3)
    >>> len(data.train), len(data.val), len(data.classes)
    (42, 9, 3)

    Floats become float32. Integers from 0 up are token numbers and stay; others become float32, and so do booleans.
    Pictures of uint8 become floats in [0, 1] with their colours first; all else of uint8 is refused. Read-only and
    memory-mapped arrays are not copied when their type fits. What readers take is decoded here, once, and kept. Without
    a reader texts, names of files and pictures of PIL are recognised, which a warning says.

    Args:
        inputs: modality -> NumPy array or tensor, samples on the first axis; or one value per sample for a reader: a
            text, a picture (of PIL, or uint8), a waveform with its rate as (array, 16000), a name or bytes of a file.
            None, and a blank text, is an absent one.
        y: (n,) labels, integers or strings; for other tasks label names or zeros and ones per sample, or numbers.
        readers: modality -> reader, or the name of one with its default settings.
        split: (n,) names out of "train", "val", "test". Without it, or without "val" in it, a share is split off by
            ``seed``, every class, label or quantile in proportion.
        val: share of all samples for validation (of the training samples when ``split`` names no "val").
        test: share of all samples for the test; 0 for none. Unused with ``split``.
        group: (n,) names (speakers, say); no group is on two sides of a share split off by seed.
        present: modality -> (n,) bool, False where the sample lacks it, whatever such a row holds. NaN is an error.
        seed: which random split.
        classes: names of the classes, labels or numbers in order; the sorted distinct labels when None.
        task: "single-label", "multi-label", "regression", or the task of another data set. None is one of several
            classes, and an error for whole numbers that may be either, such as ratings from 1 to 5.
        sample_weight: (n,) numbers >= 0, how much each sample counts in the loss, training or other.

    Raises:
        ValueError: lengths differ, NaN or infinity, fewer than two classes, labels that make no sense; it says where.
    """
    _check_mapping(inputs)
    target, kind = encoded(y, task, classes)
    for line in alike(kind.names):
        warnings.warn(f"y: {line}.", stacklevel=3)
    masks = {m: mask_of(m, mask, len(target)) for m, mask in (present or {}).items()}
    per_modality("present", masks, inputs)
    per_modality("readers", readers or {}, inputs)
    ready = _ready(inputs, readers or {}, len(target), masks)
    made = {m: x.reader for m, x in ready.items() if isinstance(x, Decoded)}
    whole = ArraySplit(ready, target, kind, present=masks, readers=made)
    return divide(whole, split=split, val=val, test=test, group=group, seed=seed, task=task, weight=sample_weight)


def _ready(
    inputs: Mapping[str, Any], readers: Mapping[str, Reader | str], count: int, masks: dict[str, Tensor]
) -> dict[str, Tensor | Decoded]:
    """Numbers, decoded where a modality has or gets a reader; ``masks`` learns who lacks it then."""
    ready: dict[str, Tensor | Decoded] = {}
    for m, x in inputs.items():
        reader, note = _reader(m, x, readers.get(m))
        if reader is None:
            ready[m], note = _features(m, x, count, masks.get(m))
        else:
            ready[m], masks[m] = _decoded(m, reader, x, count, masks.get(m))
        if note:
            warnings.warn(f"inputs[{m!r}]: {note}.", stacklevel=4)
    return ready


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
    return assemble(whole, rows, group)


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


def assemble(whole: Split, rows: Mapping[str, np.ndarray], group: np.ndarray | None = None) -> Splits:
    """The parts of ``whole`` at these positions, and the (n,) groups of all samples."""
    made = {name: whole.subset(torch.from_numpy(where)) for name, where in rows.items()}
    return Splits(made["train"], made["val"], made.get("test"), group)


def _reader(modality: str, values: Any, stated: Reader | str | None) -> tuple[Reader | None, str]:
    """What reads the values, None when they are numbers, and what to say of a guess."""
    if stated is not None:
        return reader_of(modality, stated), ""
    each = one_by_one(values)
    try:
        reader = None if each is None else guessed(each)
    except ValueError as error:
        raise ValueError(
            f"inputs[{modality!r}]: its values {error}. Pass numbers, or a reader for them: readers="
        ) from error
    if each is not None and reader is None:
        kind = type(next(value for value in each if not is_absent(value))).__name__
        raise ValueError(
            f"inputs[{modality!r}] holds values such as a {kind}, and nothing says how they are read. Pass a reader: "
            f"readers={{{modality!r}: Audio()}}, say."
        )
    return reader, "" if reader is None else f"its values are read by {spelt(reader)}; state it or another: readers="


def _decoded(modality: str, reader: Reader, values: Any, size: int, mask: Tensor | None) -> tuple[Decoded, Tensor]:
    """What the reader makes of the values, and which are there."""
    if not hasattr(values, "__len__") or len(values) != size:
        given = len(values) if hasattr(values, "__len__") else type(values).__name__
        raise ValueError(f"inputs[{modality!r}] must hold {size} values, one per label; got {given}.")
    each = list(values)
    there = torch.tensor([not is_absent(value) for value in each], dtype=torch.bool)
    if mask is not None and (mask & ~there).any():
        row = int((mask & ~there).int().argmax())
        raise ValueError(f"inputs[{modality!r}]: sample {row} holds nothing, and present[{modality!r}] says otherwise.")
    there = there if mask is None else mask
    if not there.any():
        raise ValueError(f"inputs[{modality!r}]: every sample lacks it; leave it out.")
    return Decoded(modality, reader, each, there), there


def _features(modality: str, values: Any, size: int, mask: Tensor | None) -> tuple[Tensor, str]:
    """The numbers of all samples, and what to say of them."""
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
    x, note = as_numbers(modality, x)
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
    return x, note


def mask_of(modality: str, mask: Any, size: int) -> Tensor:
    """``present[modality]`` as (size,) bool; ValueError for anything else."""
    entries = torch.as_tensor(mask.detach().cpu() if isinstance(mask, Tensor) else np.array(mask))
    if entries.dtype != torch.bool or entries.shape != (size,):
        raise ValueError(
            f"present[{modality!r}] must be ({size},) booleans; got {entries.dtype} of shape {tuple(entries.shape)}."
        )
    return entries
