"""What training reads: one part of a data set, and the three parts together."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


class Split(ABC):
    """One part of a data set: n labelled samples of one or more modalities.

    Attributes:
        modalities: names, in order.
        classes: class names; ``target`` counts into them.
        ids: one name per sample, for messages and predictions.
        target: (n,) class numbers, int64.
        present: modality -> (n,) bool, for the modalities that some sample lacks; None when no
            sample lacks any.
    """

    modalities: tuple[str, ...]
    classes: tuple[str, ...]
    ids: Sequence[str]
    target: Tensor
    present: dict[str, Tensor] | None

    def __len__(self) -> int:
        return len(self.target)

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

    @abstractmethod
    def fingerprint(self) -> str:
        """A short hash of what is read and how; a run refuses to resume on another one."""

    def subset(self, indices: Sequence[int] | Tensor) -> Split:
        """These samples only, in this order."""
        return _Subset(self, torch.as_tensor(indices, dtype=torch.int64))


class _Subset(Split):
    def __init__(self, whole: Split, indices: Tensor):
        self.whole, self.indices = whole, indices
        self.modalities, self.classes = whole.modalities, whole.classes
        self.ids = [whole.ids[i] for i in indices.tolist()]
        self.target = whole.target[indices]
        self.present = None if whole.present is None else {m: p[indices] for m, p in whole.present.items()}

    def batch(self, indices: Sequence[int], modality: str, seed: int | None) -> Tensor:
        return self.whole.batch(self.indices[torch.as_tensor(indices)].tolist(), modality, seed)

    def fingerprint(self) -> str:
        return f"{self.whole.fingerprint()}[{hash(tuple(self.indices.tolist())) & 0xFFFFFFFF:08x}]"


@dataclass(frozen=True)
class Splits:
    """The parts of a data set. Training is given ``train`` and ``val``; only ``evaluate`` gets ``test``."""

    train: Split
    val: Split
    test: Split | None = None

    @property
    def modalities(self) -> tuple[str, ...]:
        """Names of the modalities, in order."""
        return self.train.modalities

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names, in the order of the class numbers."""
        return self.train.classes
