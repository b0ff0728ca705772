"""Whether a run on a GPU is the run that it is on the CPU: what `benchmarks/gpu.py` sees to before it measures."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from counterpoise import methods, testing
from counterpoise.engine import Observer, Run
from counterpoise.method import Method
from counterpoise.testing import CHECKS, NAMES, trainer_for

NEAR = 1e-3
"""How far, of the largest change, a float32 change of a weight may be from the float64 one."""
SHORT: dict[str, dict[str, Any]] = {
    "Unimodal": {"modality": NAMES[0]},
    "GBlending": {"super_epoch": 2},
    "MSES": {"patience": 1},
    "OPM": {"warmup": 0},
    "SMV": {"warmup": 1},
    "UMT": {"teacher_epochs": 1},
}
DRAW = ("OGMGE", "OPM")
"""They draw numbers in the precision of the run, so their reference is float32 as well."""
GENTLE = {"DOMFN": 0.01, "UMT": 0.01}
"""Learning rates where the usual one is steep, as in the contract tests."""


def makers() -> dict[str, Callable[[], Method]]:
    """Every method of the library, with settings that do something within a few steps."""
    return {name: partial(getattr(methods, name), **SHORT.get(name, {})) for name in methods.__all__}


@contextlib.contextmanager
def in_float64() -> Iterator[None]:
    """Everything that the engine makes is float64, what it calls float32 included."""
    single = torch.Tensor.float
    torch.set_default_dtype(torch.float64)
    torch.Tensor.float = torch.Tensor.double  # type: ignore[method-assign]
    try:
        yield
    finally:
        torch.Tensor.float = single  # type: ignore[method-assign]
        torch.set_default_dtype(torch.float32)


def changes(make: Callable[[], Method], accelerator: str, lr: float, *, double: bool = False) -> dict[str, Tensor]:
    """How the parameters change in two epochs of two steps each, as float64 on the CPU."""
    trainer, data = trainer_for(make, NAMES[:3], epochs=2, batch_size=27, lr=lr, accelerator=accelerator, norm=False)
    before = {name: value.detach().cpu().double() for name, value in trainer.model.named_parameters()}
    with in_float64() if double else contextlib.nullcontext():
        if double:
            trainer.model.double()
            inputs: dict[str, Tensor] = data.train.whole.inputs  # type: ignore[attr-defined]  # of all parts
            inputs.update({m: x.double() for m, x in inputs.items()})
        trainer.fit(data.train, data.val)
    return {name: value.detach().cpu().double() - before[name] for name, value in trainer.model.named_parameters()}


def error(make: Callable[[], Method], accelerator: str, lr: float, *, double: bool) -> float:
    """The largest difference between the changes here and the CPU's (in float64), over the largest change."""
    here, exact = changes(make, accelerator, lr), changes(make, "cpu", lr, double=double)
    largest = max(float(change.abs().max()) for change in exact.values())
    if not largest:
        raise AssertionError("no parameter changed")
    return max(float((here[name] - exact[name]).abs().max()) for name in exact) / largest


class Strict(Observer):
    """CUDA refuses to wait for the device in every batch but the first of an epoch, at which SAM checks its radius."""

    def __init__(self) -> None:
        self.steps = 0

    def on_batch_start(self, run: Run, batch: Any) -> None:
        if run.state.batch_in_epoch > 0:
            torch.cuda.set_sync_debug_mode("error")
            self.steps += 1

    def on_batch_end(self, run: Run) -> None:
        torch.cuda.set_sync_debug_mode("default")

    on_fit_end = on_batch_end  # also after an error


def no_waiting(make: Callable[[], Method], lr: float) -> None:
    """Train with `Strict` looking on."""
    strict = Strict()
    trainer, data = trainer_for(make, epochs=3, batch_size=12, lr=lr, accelerator="gpu", observers=[strict])
    trainer.fit(data.train, data.val)
    if strict.steps < 4:
        raise AssertionError(f"only {strict.steps} steps were looked at")


def checked(device: str, names: list[str] | None = None) -> dict[str, dict[str, str]]:
    """Method -> check -> "ok", a number, or what went wrong.

    The checks: a step against the CPU's in float64; those of the contract suite, on this device; and, on a GPU, that no
    step waits for it.
    """
    accelerator = "gpu" if device == "cuda" else "cpu"
    chosen = {name: make for name, make in makers().items() if names is None or name in names}
    # the checks of the suite train on the CPU unless told otherwise
    with mock.patch.object(testing, "trainer_for", partial(trainer_for, accelerator=accelerator)):
        return {name: _checked(name, make, accelerator) for name, make in chosen.items()}


def _checked(name: str, make: Callable[[], Method], accelerator: str) -> dict[str, str]:
    lr = GENTLE.get(name, testing.LR)

    def near() -> str:
        off = error(make, accelerator, lr, double=name not in DRAW)
        if not off <= NEAR or math.isnan(off):
            raise AssertionError(f"{off:.1e} of the largest change, where {NEAR:g} is allowed")
        return f"{off:.0e}"

    tests: dict[str, Callable[[], object]] = {"step": near}
    for check in CHECKS:
        tests[check.__name__] = partial(check, make, NAMES[:2], None, lr)
    if accelerator == "gpu" and name != "SMV":  # which hides modalities of samples: the host must know which rows run
        tests["no_waiting"] = partial(no_waiting, make, lr)
    return {title: _outcome(test) for title, test in tests.items()}


def _outcome(test: Callable[[], object]) -> str:
    try:
        said = test()
    except Exception as failure:  # whatever it is, the others are still of interest
        return f"{type(failure).__name__}: {str(failure).splitlines()[0] if str(failure) else ''}"[:300]
    return said if isinstance(said, str) else "ok"
