"""Where a run stands: what a checkpoint holds beside the weights."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Mapping
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
        stopping: the phase ends after the current epoch.
        staged: modalities that have had a stage: a phase that is over or trains all that the method reads.
        complete: an epoch that the method lets be selected has been.
        best_score: validation score of the selected weights, higher is better.
        best_epoch: the epoch (counted from 1) they come from.
        seconds: time spent so far.
        cpu_seconds: of all threads of this process so far.
        forward: samples that went through an encoder so far, validation not counted.
        backward: the same of gradients.
        peak_memory: bytes.
        rise: bytes above those in use when a fit began, at most.
        warned_rho: a SAM radius that does nothing was said already.
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
    stopping: bool = False
    staged: list[str] = field(default_factory=list)
    complete: bool = False
    best_score: float | None = None
    best_epoch: int | None = None
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    forward: int = 0
    backward: int = 0
    peak_memory: int = 0
    rise: int = 0
    warned_rho: bool = False

    def state_dict(self) -> dict[str, Any]:
        """Plain values, as a checkpoint stores them."""
        return asdict(self)

    def load_state_dict(self, values: dict[str, Any]) -> None:
        """Counterpart of ``state_dict``."""
        phase = None if values["phase"] is None else Phase(**values["phase"])
        vars(self).update(vars(State(**{**values, "phase": phase})))


def pairs(saved: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Of a checkpoint, where every value must be two things."""
    return {name: (first, second) for name, (first, second) in saved.items()}


def mix(*parts: object) -> int:
    """A seed that depends on all of ``parts``, the same on every machine."""
    digest = hashlib.blake2b("/".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and torch (all devices)."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def random_state() -> dict[str, Any]:
    """The global random numbers of Python, NumPy and torch (all devices) as plain values and tensors."""
    version, numbers, gauss = random.getstate()
    kind, keys, place, has_gauss, cached = np.random.get_state(legacy=True)
    return {
        "python": [version, list(numbers), gauss],
        "numpy": [kind, torch.from_numpy(np.asarray(keys).astype(np.int64)), place, has_gauss, cached],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def set_random_state(state: dict[str, Any]) -> None:
    """Counterpart of ``random_state``; devices that are not here any more are left out."""
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers), gauss))
    kind, keys, *rest = state["numpy"]
    np.random.set_state((kind, keys.cpu().numpy().astype(np.uint32), *rest))
    torch.set_rng_state(state["torch"].cpu())
    if torch.cuda.is_available():
        for device, value in zip(range(torch.cuda.device_count()), state["cuda"], strict=False):
            torch.cuda.set_rng_state(value.cpu(), device)


@contextmanager
def untouched_randomness() -> Iterator[None]:
    """Leave the global random numbers as they were."""
    before = random_state()
    try:
        yield
    finally:
        set_random_state(before)
