"""Where a run stands: what a checkpoint holds beside the weights."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch

from counterpoise.types import Phase


@dataclass
class State:
    """Counters and decisions of a run; plain values only.

    Attributes:
        phase: what trains now; None before the first phase.
        phase_index: its number.
        epoch: epochs finished in the run.
        epoch_in_phase: epochs finished in the phase.
        batch_in_epoch: batches done in the current epoch.
        schedule_epoch: epochs since the learning-rate schedule (re)started.
        schedule_span: epochs the schedule is laid out for.
        frozen: modalities frozen for good.
        scales: modality -> learning-rate factor.
        best_score: validation score of the selected weights, higher is better.
        best_epoch: the epoch (counted from 1) they come from.
        seconds: time spent so far.
    """

    phase: Phase | None = None
    phase_index: int = 0
    epoch: int = 0
    epoch_in_phase: int = 0
    batch_in_epoch: int = 0
    schedule_epoch: int = 0
    schedule_span: int = 1
    frozen: list[str] = field(default_factory=list)
    scales: dict[str, float] = field(default_factory=dict)
    best_score: float | None = None
    best_epoch: int | None = None
    seconds: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as a checkpoint stores them."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> State:
        """Counterpart of ``to_dict``."""
        return cls(**{**values, "phase": None if values["phase"] is None else Phase(**values["phase"])})


def mix(*parts: object) -> int:
    """A seed that depends on all of ``parts``, the same on every machine."""
    digest = hashlib.blake2b("/".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and torch (all devices)."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


@contextmanager
def untouched_randomness() -> Iterator[None]:
    """Leave the global random numbers as they were."""
    python, numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng():
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)
