"""What a run costs: seconds, passes through the encoders, memory."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from counterpoise.engine.state import State

MB = 2**20
_validating: ContextVar[bool] = ContextVar("validating", default=False)


@contextmanager
def uncounted() -> Iterator[None]:
    """Passes inside are not the method's: validation, of this run and of its trial runs."""
    token = _validating.set(True)
    try:
        yield
    finally:
        _validating.reset(token)


def longest_epoch(history: Sequence[Mapping[str, Any]]) -> float:
    """Seconds of the longest epoch, of the lines of ``metrics.jsonl``; 0 without any."""
    ends = [0.0, *(record["seconds"] for record in history)]
    return max((after - before for before, after in pairwise(ends)), default=0.0)


class _Counter:
    """Counts the passes of the encoders that it hangs on, and of their copies, which share it.

    Attributes:
        state: where to count; None when the fit is over, so that it holds nothing and can be pickled.
    """

    def __init__(self, state: State):
        self.state: State | None = state

    def __deepcopy__(self, memo: object) -> _Counter:
        return self

    def __call__(self, module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
        if self.state is None or _validating.get() or not isinstance(output, Tensor) or not output.ndim:
            return  # of what is no tensor the model says what is wrong
        self.state.forward += output.shape[0]
        if output.requires_grad:
            output.register_hook(self._backward)

    def _backward(self, gradient: Tensor) -> None:
        if self.state is not None:
            self.state.backward += gradient.shape[0]


class Meter:
    """Adds up in ``state`` what a fit costs; a resumed run goes on adding.

    Passes are counted in samples at the encoders, whoever runs them: copies of an encoder (of a trial run, a
    teacher) count with it. Only those of the validation after an epoch do not.

    Args:
        state: where to add.
        encoders: whose passes count; none of a run with ``compile``, or the counting would be compiled too.
        device: whose memory counts.
        inside: of another fit, whose peak of memory must stay known.
    """

    def __init__(self, state: State, encoders: Iterable[nn.Module], device: torch.device, *, inside: bool):
        self._state, self._encoders, self._device, self._inside = state, list(encoders), device, inside

    def __enter__(self) -> Meter:
        self._counter = _Counter(self._state)
        self._handles = [encoder.register_forward_hook(self._counter) for encoder in self._encoders]
        if not self._inside:
            _forget_peak(self._device)
        self._start, _ = memory(self._device)
        self.skip()
        return self

    def __exit__(self, *error: object) -> None:
        for handle in self._handles:
            handle.remove()
        self._counter.state = None  # copies of the encoders keep it

    def skip(self) -> None:
        """The time since the last look was not the method's."""
        self._wall, self._cpu = time.monotonic(), time.process_time()

    def add(self) -> None:
        """Count the time since the last look, and look at the memory."""
        state, wall, cpu = self._state, self._wall, self._cpu
        self.skip()
        state.seconds += self._wall - wall
        state.cpu_seconds += self._cpu - cpu
        _, peak = memory(self._device)
        state.peak_memory = max(state.peak_memory, peak)
        state.rise = max(state.rise, peak - self._start)


def summary(state: State, device: torch.device, *, epoch: float, counted: bool) -> dict[str, Any]:
    """What ``result.json`` says of the cost, besides the seconds.

    Args:
        state: where a ``Meter`` added up.
        device: whose memory it was.
        epoch: samples times modalities of a pass over the training data, of this replica.
        counted: whether passes were counted.
    """
    return {
        "cpu_seconds": round(state.cpu_seconds, 3),
        "forward": round(state.forward / epoch, 3) if counted else None,
        "backward": round(state.backward / epoch, 3) if counted else None,
        "peak_memory_mb": round(state.peak_memory / MB, 1),
        "memory_rise_mb": round(state.rise / MB, 1),
        "memory_of": "tensors on the GPU" if device.type == "cuda" else "process (resident set, libraries included)",
    }


def memory(device: torch.device) -> tuple[int, int]:
    """Bytes in use now, and at most since the peak was forgotten: tensors on a GPU, or the whole process."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device), torch.cuda.max_memory_allocated(device)
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        lines = []
    sizes = {key: int(rest.split()[0]) * 1024 for key, _, rest in (line.partition(":") for line in lines) if key in _OF}
    if len(sizes) == len(_OF):
        return sizes["VmRSS"], sizes["VmHWM"]
    try:
        import resource
    except ImportError:  # neither Linux nor Unix
        return 0, 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return peak, peak


_OF = ("VmRSS", "VmHWM")


def _forget_peak(device: torch.device) -> None:
    """Peaks of what the process did before (a fork has its parent's) are not this run's."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:  # the peak then includes what came before
        return
