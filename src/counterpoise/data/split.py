"""What training reads: one part of a data set, and the three parts together."""

from __future__ import annotations

import operator
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from counterpoise._digests import digest
from counterpoise.data.layout import Layout, layout_of_sample
from counterpoise.task import Regression, SingleLabel, Task
from counterpoise.types import Present, who_has

if TYPE_CHECKING:
    import numpy as np

    from counterpoise.data.readers import Reader


_NONE: Mapping[str, Any] = {}
"""Of no modality; never written to, and a plain dict so that splits travel to workers."""


class Parts(NamedTuple):
    """One modality of some samples, read as far as it is before it goes to the device.

    Attributes:
        values: (n, ...); samples as the encoder gets them, or what ``Reader.transform_batch`` makes these of.
        drawn: (n, k) what that takes beside them; None when it is done.
    """

    values: Tensor
    drawn: Tensor | None = None


class Split(ABC):
    """One part of a data set: n labelled samples of one or more modalities.

    The extension point for data: a subclass sets the attributes below and writes ``batch`` and ``fingerprint``, and
    everything in this library trains on it (the guide has an example). Where one reading gives all modalities of a
    sample, it overrides ``read_together`` too.

    Attributes:
        modalities: names, in order.
        task: what is predicted.
        ids: one name per sample, for messages and predictions.
        target: as the task has it; of one class of several (n,) class numbers, int64.
        present: modality -> (n,) bool, for the modalities that some sample lacks; None when no
            sample lacks any.
        weight: (n,) numbers >= 0, how much each sample counts in the loss; None when all count alike.
        readers: modality -> what made its tensors of files, texts or other values; without one they came as they are.
        collate: modality -> what makes one tensor of samples that differ in shape, where they do.
    """

    modalities: tuple[str, ...]
    task: Task
    ids: Sequence[str]
    target: Tensor
    present: dict[str, Tensor] | None
    weight: Tensor | None = None
    readers: Mapping[str, Reader] = _NONE
    collate: Mapping[str, Callable[[list[Tensor]], Tensor]] = _NONE

    def __len__(self) -> int:
        return len(self.target)

    def __getitem__(self, index: Any) -> Any:
        """One sample, read as for evaluation; of a slice, the split of these samples.

        Returns:
            modality -> tensor, None where the sample lacks it; and ``"label"`` -> its entry of ``target``.
        """
        if isinstance(index, slice):
            return self.subset(range(*index.indices(len(self))))
        if "label" in self.modalities:
            raise ValueError("A modality is called 'label', as the label of a sample is: use batch(...) and target.")
        at = operator.index(index) + (len(self) if operator.index(index) < 0 else 0)
        if not 0 <= at < len(self):
            raise IndexError(f"There are {len(self)} samples; got the position {index}.")
        there = [m for m in self.modalities if self.present is None or m not in self.present or self.present[m][at]]
        read = self.read_together([at], there, None)
        return {**{m: read[m][0] if m in read else None for m in self.modalities}, "label": self.target[at]}

    def __repr__(self) -> str:
        lacking = [f"{int((~mask).sum())} without {m}" for m, mask in (self.present or {}).items()]
        parts = [f"{len(self)} samples of {', '.join(self.modalities)}", *lacking]
        return f"{type(self).__name__.lstrip('_')}({', '.join(parts)}; {self.task!r})"

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, labels or numbers that are predicted; set, they make the task one class of these."""
        return self.task.names

    @classes.setter
    def classes(self, names: Sequence[str]) -> None:
        self.task = SingleLabel(names)

    @abstractmethod
    def batch(self, indices: Sequence[int], modality: str, seed: int | None) -> Tensor:
        """One modality of some samples, and nothing else: (len(indices), ...).

        Args:
            indices: positions in this split. Absent samples give zeros of the right shape.
            modality: which one to read.
            seed: None reads for evaluation (no augmentation). A number asks for training
                augmentation whose randomness depends only on (seed, index, modality), so that
                workers, resumed runs and replicas agree.
        """

    def read_together(
        self,
        indices: Sequence[int],
        modalities: Sequence[str],
        seed: int | None,
        present: Present = None,
    ) -> dict[str, Tensor]:
        """Several modalities of some samples, as loaders ask for them: modality -> (len(indices), ...).

        Args:
            indices: positions in this split.
            modalities: which to read, and no others.
            seed: as in ``batch``.
            present: modality -> (len(indices),) bool, where it is asked for; everywhere when not named. Other rows
                are zeros and are not read. What nobody is asked for is (len(indices),) zeros.
        """
        read = {}
        for m in modalities:
            if m not in (present or {}):
                read[m] = self.batch(indices, m, seed)
                continue
            there = who_has(m, present, len(indices)).nonzero().flatten()
            x = self.batch([indices[i] for i in there.tolist()], m, seed) if len(there) else None
            read[m] = placed(x, there, len(indices))
        return read

    def parts(
        self, indices: Sequence[int], modality: str, seed: int | None, empty: Callable[..., Tensor] = torch.empty
    ) -> Parts | None:
        """As ``batch``, leaving to ``readers[modality].transform_batch`` what can be done for all samples at once.

        Args:
            indices: positions in this split, of samples that have the modality.
            modality: which one to read.
            seed: as in ``batch``.
            empty: makes the memory that is read into, of a shape and a ``dtype``.

        Returns:
            None where nothing is left to do, or it is not known how: ``batch`` and ``read_together`` read it then.
        """
        return None

    def recording(self, modality: str) -> str:
        """What ``altered`` hands over of a modality: its "waveform", "pixels" or "words"; "numbers" of all else."""
        return "numbers"

    def altered(self, index: int, modality: str, alter: Callable[[Any], Any]) -> Tensor:
        """One sample that has the modality, as evaluation reads it after ``alter`` of what was recorded.

        Args:
            index: its position.
            modality: which one to read.
            alter: of a waveform (samples,), pixels (..., C, H, W) uint8 or a list of words, as ``recording`` says; of
                "numbers", the sample as the encoder gets it.
        """
        return alter(self.batch([index], modality, None)[0])

    def layout(self, modality: str) -> Layout:
        """What a default encoder needs to know of a modality; read off a sample where nothing else says it."""
        mask = (self.present or {}).get(modality)
        first = 0 if mask is None or not mask.any() else int(mask.int().argmax())
        return layout_of_sample(modality, self.batch([first], modality, None)[0])

    def example(self, modality: str) -> Tensor | None:
        """The first sample that has the modality, as evaluation reads it; None when none has."""
        present = None if self.present is None else self.present.get(modality)
        rows = torch.arange(len(self)) if present is None else present.nonzero().flatten()
        return self.batch([int(rows[0])], modality, None)[0] if len(rows) else None

    @abstractmethod
    def fingerprint(self) -> str:
        """A short hash of what is read and how; a run refuses to resume on another one."""

    def fitted(self, indices: Sequence[int] | Tensor) -> Split:
        """The same samples, with all that is learned from data learned from these alone: the training part of a fold.

        That is how numbers to predict are standardised, and what readers learn (the means of a `Tabular`, say).
        """
        if not isinstance(self.task, Regression):
            return self
        again = self.subset(range(len(self)))
        again.task = Regression.fitted(self.task.names, self.target[positions(indices, len(self))])
        return again

    def subset(self, indices: Sequence[int] | Tensor) -> Split:
        """These samples only, in this order. Positions may repeat; IndexError when one is out of range."""
        return _Subset(self, positions(indices, len(self)))


class _Subset(Split):
    def __init__(self, whole: Split, indices: Tensor):
        self.whole, self.indices = whole, indices
        self.modalities, self.task, self.readers = whole.modalities, whole.task, whole.readers
        self.collate = whole.collate
        self.ids = [whole.ids[int(i)] for i in indices]
        self.target = whole.target[indices]
        self.present = lacking(whole.present, indices)
        self.weight = None if whole.weight is None else whole.weight[indices]

    def batch(self, indices: Sequence[int], modality: str, seed: int | None) -> Tensor:
        return self.whole.batch(self._rows(indices), modality, seed)

    def read_together(
        self,
        indices: Sequence[int],
        modalities: Sequence[str],
        seed: int | None,
        present: Present = None,
    ) -> dict[str, Tensor]:
        return self.whole.read_together(self._rows(indices), modalities, seed, present)

    def parts(
        self, indices: Sequence[int], modality: str, seed: int | None, empty: Callable[..., Tensor] = torch.empty
    ) -> Parts | None:
        return self.whole.parts(self._rows(indices), modality, seed, empty)

    def _rows(self, indices: Sequence[int]) -> list[int]:
        return self.indices[torch.as_tensor(indices, dtype=torch.int64)].tolist()

    def recording(self, modality: str) -> str:
        return self.whole.recording(modality)

    def altered(self, index: int, modality: str, alter: Callable[[Any], Any]) -> Tensor:
        return self.whole.altered(int(self.indices[index]), modality, alter)

    def layout(self, modality: str) -> Layout:
        return self.whole.layout(modality)

    def fingerprint(self) -> str:
        return digest(self.whole.fingerprint(), self.indices)


@dataclass(frozen=True, repr=False)
class Splits:
    """The parts of a data set. Training is given ``train`` and ``val``; only ``evaluate`` gets ``test``.

    Attributes:
        group: (n,) name of the group (speaker, recording) of each sample of the whole, which no division separates;
            None where there are none.
    """

    train: Split
    val: Split
    test: Split | None = None
    group: np.ndarray | None = field(default=None, compare=False)

    def __repr__(self) -> str:
        test = 0 if self.test is None else len(self.test)
        counts = f"{len(self.train)} samples to train on, {len(self.val)} to select by, {test} to test on"
        return f"Splits({counts}; {', '.join(self.modalities)}; {self.task!r})"

    @property
    def modalities(self) -> tuple[str, ...]:
        """Names of the modalities, in order."""
        return self.train.modalities

    @property
    def task(self) -> Task:
        """What is predicted."""
        return self.train.task

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes in the order of the class numbers, or of the labels or numbers that are predicted."""
        return self.train.classes


def positions(indices: Sequence[int] | Tensor, size: int) -> Tensor:
    """``indices`` as an int64 tensor, each in [0, size); IndexError naming the first that is not."""
    chosen = torch.as_tensor(indices)
    if chosen.numel() and (chosen.dtype.is_floating_point or chosen.dtype == torch.bool):
        raise TypeError(f"indices must be integers; got {chosen.dtype}. For a mask pass mask.nonzero().flatten().")
    chosen = chosen.to("cpu", torch.int64).flatten()
    wrong = (chosen < 0) | (chosen >= size)
    if wrong.any():
        raise IndexError(f"indices must be in 0..{size - 1}; got {int(chosen[wrong][0])}.")
    return chosen


def lacking(present: Present, rows: Tensor | slice = slice(None)) -> dict[str, Tensor] | None:
    """The masks of those modalities that some sample of ``rows`` lacks; None when there is no such modality."""
    masks = {m: mask[rows] for m, mask in (present or {}).items()}
    return {m: mask for m, mask in masks.items() if not mask.all()} or None


def placed(read: Tensor | None, there: Tensor, count: int) -> Tensor:
    """(count, ...) with what was read at the positions ``there`` and zeros elsewhere; (count,) zeros for None."""
    if read is None:
        return torch.zeros(count)  # nothing to read; the model runs no row of it
    if len(there) == count:
        return read
    return read.new_zeros(count, *read.shape[1:]).index_copy(0, there, read)


def weighed(weight: Tensor | None) -> tuple[str | Tensor, ...]:
    """The weights of samples, for a hash; nothing when all count alike."""
    return () if weight is None else ("weight", weight)
