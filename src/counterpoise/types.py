"""The values that travel through one training step."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

Present = Mapping[str, Tensor] | None
"""Who is there: modality -> (samples,) bool. Every sample has a modality that is not named; None names none."""


def who_has(modality: str, present: Present, count: int, device: torch.device | str = "cpu") -> Tensor:
    """(count,) bool: which samples have this modality."""
    mask = (present or {}).get(modality)
    return torch.ones(count, dtype=torch.bool, device=device) if mask is None else mask.to(device)


def stack_present(modalities: Iterable[str], present: Present) -> Tensor | None:
    """(modalities, samples) bool, in their order; None when every sample has all of them."""
    masks = [(present or {}).get(m) for m in modalities]
    known = next((mask for mask in masks if mask is not None), None)
    if known is None:
        return None
    return torch.stack([torch.ones_like(known) if mask is None else mask for mask in masks])


class Batch(NamedTuple):
    """Samples as the loader gives them.

    Attributes:
        inputs: modality -> (batch, ...) tensor. Only the modalities that were asked for are there.
        target: as the task has it; of one class of several (batch,) class numbers, int64.
        index: (batch,) positions in the split, int64.
        present: modality -> (batch,) bool, False where the sample lacks that modality.
            None when every sample has every modality (the common case, which costs nothing).
        weight: (batch,) numbers >= 0, how much each sample counts in the loss; None when all count alike.
    """

    inputs: dict[str, Tensor]
    target: Tensor
    index: Tensor  # pyright: ignore[reportIncompatibleMethodOverride]
    present: dict[str, Tensor] | None = None
    weight: Tensor | None = None

    def moved(self, move: Callable[[Tensor], Tensor]) -> Batch:
        """With ``move`` of every tensor."""
        inputs = {m: move(x) for m, x in self.inputs.items()}
        present = None if self.present is None else {m: move(mask) for m, mask in self.present.items()}
        weight = None if self.weight is None else move(self.weight)
        return Batch(inputs, move(self.target), move(self.index), present, weight)


class Output(NamedTuple):
    """What the model says about a batch; float32 whatever the precision, attached to the graph.

    Attributes:
        logits: (batch, classes), fused; of other tasks logits of labels, or standardised numbers.
        unimodal: modality -> the same shape, what that modality says alone.
        features: modality -> (batch, dim), rows of absent samples are zero.
        present: the masks it was fused with, as in ``Batch``. A row of zeros alone does not tell: a sample that is
            there can have such a feature.
    """

    logits: Tensor
    unimodal: dict[str, Tensor]
    features: dict[str, Tensor]
    present: Present = None

    def alone(self, modality: str) -> Output:
        """As if this modality were the only one: its logits are the fused ones too. Rows that lack it mean nothing."""
        logits = self.unimodal[modality]
        return Output(logits, {modality: logits}, {modality: self.features[modality]})

    def there(self) -> Tensor | None:
        """(modalities, batch) bool in the order of ``unimodal``: who has what; None when everyone has everything."""
        return stack_present(self.unimodal, self.present)


FUSED = "fused"
"""Name of the fused prediction beside those of the modalities."""


@dataclass(frozen=True)
class Phase:
    """A stretch of epochs during which the same parameters train.

    Attributes:
        epochs: how many; at least 1.
        train: modalities that train, None for all. Training reads and decodes only these
            unless ``read`` says otherwise; the branches of the others are in evaluation mode.
        read: modalities the loader delivers, when more than those that train are needed.
        fresh_optimizer: forget momentum and moments, and restart the learning-rate schedule.
        name: shown in the progress bar and in ``metrics.jsonl``.
    """

    epochs: int
    train: tuple[str, ...] | None = None
    read: tuple[str, ...] | None = None
    fresh_optimizer: bool = False
    name: str = "fit"
