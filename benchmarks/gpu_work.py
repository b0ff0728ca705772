"""Training on made-up data that waits in pinned memory, through the engine and by hand."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import counterpoise as cp
from counterpoise.data import Split
from counterpoise.engine import Observer, Run, Trainer
from counterpoise.task import SingleLabel

CLASSES = 6
SHAPES = {"audio": (1, 257, 188), "image": (3, 224, 224)}
"""Of CREMA-D: a spectrogram and a frame."""
SMALL = {"audio": (1, 40, 32), "image": (3, 32, 32)}


class Waiting(Split):
    """One batch, asked for again and again: reading costs nothing but the way to the device."""

    def __init__(self, inputs: dict[str, Tensor], n: int):
        self.modalities, self.task, self.present = tuple(inputs), SingleLabel(CLASSES), None
        self.ids, self.target = [str(i) for i in range(n)], torch.arange(n) % CLASSES
        self.inputs = inputs

    def batch(self, indices: Sequence[int], modality: str, seed: int | None) -> Tensor:
        return self.inputs[modality][: len(indices)]

    def fingerprint(self) -> str:
        return "made up"


class Clock(Observer):
    """Seconds from the end of the first batch of the last epoch to the end of its last one."""

    def __init__(self, wait: Callable[[], None]):
        self.wait, self.seconds = wait, 0.0

    def on_batch_end(self, run: Run) -> None:
        if run.state.batch_in_epoch == 1:
            self.wait()
            self.started = time.perf_counter()
        elif run.state.batch_in_epoch == run.num_batches:
            self.wait()
            self.seconds = time.perf_counter() - self.started


class Work:
    """Two ResNet-18 and what trains them.

    Args:
        device: "cuda" or "cpu".
        batch: samples of a step.
        steps: that are timed.
        small: small inputs, for a try on the CPU.
    """

    def __init__(self, device: str, batch: int, steps: int, *, small: bool = False):
        torch.manual_seed(0)
        torch.set_float32_matmul_precision("high")  # TF32, of both sides
        self.device, self.batch, self.steps = torch.device(device), batch, steps
        self.shapes = SMALL if small else SHAPES
        inputs = {m: torch.randn(batch, *shape) for m, shape in self.shapes.items()}
        if self.device.type == "cuda":
            inputs = {m: x.pin_memory() for m, x in inputs.items()}
        self.train, self.val = Waiting(inputs, batch * (steps + 1)), Waiting(inputs, max(2 * CLASSES, batch // 4))

    def encoders(self) -> dict[str, nn.Module]:
        """New ones."""
        return {m: cp.encoders.ResNet18(shape[0]) for m, shape in self.shapes.items()}

    def wait(self) -> None:
        """Until the device has done what it was given."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def forget_peak(self) -> None:
        """Count peak memory from here."""
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()

    def peak(self) -> float:
        """The most memory of the device that was in use, in MiB; 0 on the CPU."""
        return torch.cuda.max_memory_allocated() / 2**20 if self.device.type == "cuda" else 0.0

    def trainer(self, method: cp.Method, phases: int, precision: str, *, compiled: bool, watch: Observer) -> Trainer:
        """The engine, with ``watch`` looking on."""
        model = cp.build_model(
            self.encoders(), method.default_fusion, num_classes=CLASSES, heads=method.own_heads, example=self.train
        )
        return Trainer(
            model, method, epochs=phases, batch_size=self.batch, precision=precision, compile=compiled, progress=False,
            accelerator="gpu" if self.device.type == "cuda" else "cpu", observers=[watch],
            optimizer=cp.engine.SGD(lr=1e-3),
        )  # fmt: skip

    def engine(self, method: cp.Method, phases: int, precision: str, *, compiled: bool) -> Callable[[], float]:
        """A case: seconds of the steps of the last of ``phases`` phases."""
        clock = Clock(self.wait)
        trainer = self.trainer(method, phases, precision, compiled=compiled, watch=clock)

        def case() -> float:
            trainer.fit(self.train, self.val)
            return clock.seconds

        return case

    def by_hand(self, precision: str, *, compiled: bool) -> Callable[[], float]:
        """A case: the loop anybody would write, with the same encoders, head and update."""
        encoders = {m: encoder.to(self.device) for m, encoder in self.encoders().items()}
        dim = sum(int(e.dim) for e in encoders.values())  # pyright: ignore[reportArgumentType]
        head = nn.Linear(dim, CLASSES).to(self.device)
        parameters = [p for module in (*encoders.values(), head) for p in module.parameters()]
        optimizer = torch.optim.SGD(parameters, lr=1e-3, momentum=0.9, weight_decay=1e-4, fused=True)
        run: dict[str, Any] = {m: torch.compile(e) if compiled else e for m, e in encoders.items()}
        mixed = torch.autocast(self.device.type, torch.bfloat16) if precision == "bf16-mixed" else nullcontext()

        def step() -> None:
            with mixed:
                z = [encoder(self.train.inputs[m].to(self.device, non_blocking=True)) for m, encoder in run.items()]
                logits = head(torch.cat(z, 1))
            F.cross_entropy(logits.float(), y.to(self.device, non_blocking=True)).backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

        y = self.train.target[: self.batch]
        y = y.pin_memory() if self.device.type == "cuda" else y

        def case() -> float:
            step()
            self.wait()
            started = time.perf_counter()
            for _ in range(self.steps):
                step()
            self.wait()
            return time.perf_counter() - started

        return case

    def profile(self, method: cp.Method, phases: int, precision: str) -> dict[str, Any]:
        """The kernels that take most of the last phase's steps, and the share of the time in which any runs."""
        activities = [torch.profiler.ProfilerActivity.CPU]
        if self.device.type == "cuda":
            activities.append(torch.profiler.ProfilerActivity.CUDA)
        watch = _Profiled(torch.profiler.profile(activities=activities), phases, self.wait)
        trainer = self.trainer(method, phases, precision, compiled=False, watch=watch)
        trainer.fit(self.train, self.val)
        on_gpu = self.device.type == "cuda"
        events = [e for e in watch.profiler.key_averages() if not on_gpu or str(e.device_type).endswith("CUDA")]
        times = {e.key: (e.self_device_time_total if on_gpu else e.self_cpu_time_total) / 1e3 for e in events}
        first = sorted(events, key=lambda e: -times[e.key])[:12]
        return {
            "steps": self.steps,
            "busy": sum(times.values()) / 1e3 / watch.seconds if on_gpu else None,
            "kernels": [{"name": e.key, "calls": e.count, "ms": times[e.key]} for e in first],
        }


class _Profiled(Observer):
    """Profiles the batches but the first of the last phase."""

    def __init__(self, profiler: Any, phases: int, wait: Callable[[], None]):
        self.profiler, self.phases, self.wait, self.seconds = profiler, phases, wait, 0.0

    def on_batch_end(self, run: Run) -> None:
        if run.state.epoch + 1 < self.phases:
            return
        if run.state.batch_in_epoch == 1:
            self.wait()
            self.profiler.start()
            self.started = time.perf_counter()
        elif run.state.batch_in_epoch == run.num_batches:
            self.wait()
            self.seconds = time.perf_counter() - self.started
            self.profiler.stop()
