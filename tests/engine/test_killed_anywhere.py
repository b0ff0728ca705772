"""A process that is killed at its N-th write, flush, rename or deletion, again and again, and started anew.

Killed inside a write, half of what was to be written is there. In the end the run has the weights, scores, counters and
records of observers of one that was never killed, and nothing else is left in its directory.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
from pathlib import Path

import numpy as np
import pytest
import torch

from counterpoise import _files
from counterpoise.analysis import BalanceWatch, GradientChange
from counterpoise.engine import SGD, Observer
from counterpoise.engine.checkpoint import load
from counterpoise.methods import IGM, MLA, OGMGE
from counterpoise.metrics.result import read_result
from counterpoise.testing import trainer_for

METHODS = {"MLA": MLA, "IGM": lambda: IGM(stages=[2, 2], mixup=0.5), "OGMGE": lambda: OGMGE(start=0)}
KILLS = 34  # of each method
TIMES = {"seconds", "cpu_seconds", "peak_memory", "peak_memory_mb", "rise", "memory_rise_mb"}


class Counts(Observer):
    """An observer of somebody's own, with a counter."""

    def __init__(self, run_dir: Path) -> None:
        self.run_dir, self.batches, self.epochs = run_dir, 0, 0

    def on_fit_start(self, trainer) -> None:
        self.batches, self.epochs = 0, 0

    def on_batch_end(self, trainer) -> None:
        self.batches += 1

    def on_epoch_end(self, trainer, record) -> None:
        self.epochs += 1

    def on_fit_end(self, trainer) -> None:
        _files.write_text(self.run_dir / "counts.txt", f"{self.batches} {self.epochs}")

    def state_dict(self):
        return {"batches": self.batches, "epochs": self.epochs}

    def load_state_dict(self, state) -> None:
        self.batches, self.epochs = state["batches"], state["epochs"]


class Hook:
    """Counts system calls of the files of a run, and kills the process at one of them."""

    def __init__(self, at: int | None, path: Path):
        self.at, self.path, self.count = at, path, 0

    def reached(self) -> bool:
        self.count += 1
        return self.count == self.at

    def killing(self, call):
        def inner(*given, **named):
            if self.reached():
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*given, **named)

        return inner

    def file(self, beside):
        def inner(*given):
            return Writes(beside(*given), self)

        return inner

    def install(self, patch) -> None:
        for name in ("fsync", "replace", "unlink", "mkdir"):
            patch.setattr(os, name, self.killing(getattr(os, name)))
        patch.setattr(_files, "_beside", self.file(_files._beside))
        patch.setattr(_files, "lock", self.killing(_files.lock))


class Writes:
    """A file; killed inside a write, half of it is on the disk."""

    def __init__(self, file, hook: Hook):
        self._file, self._hook = file, hook

    def write(self, data):
        if self._hook.reached():
            self._file.write(data[: len(data) // 2])
            self._file.flush()
            os.kill(os.getpid(), signal.SIGKILL)
        return self._file.write(data)

    def __getattr__(self, name):
        return getattr(self._file, name)

    def __enter__(self):
        return self

    def __exit__(self, *error) -> None:
        self._file.close()


def train(name: str, path: Path, at: int | None) -> int:
    """Train to the end or to the kill; how many calls there were."""
    torch.set_num_threads(1)
    observers = [
        GradientChange(path=path / "gradient-change.npz"), BalanceWatch(16, path=path / "balance.npz"), Counts(path),
    ]  # fmt: skip
    trainer, data = trainer_for(METHODS[name], run_dir=path, observers=observers, optimizer=SGD(lr=0.3))
    hook = Hook(at, path)
    with pytest.MonkeyPatch.context() as patch:
        hook.install(patch)
        trainer.run(data, resume=True)
    return hook.count


def plain(value):
    """Without times and memory, and with arrays as lists."""
    if isinstance(value, torch.Tensor | np.ndarray):
        return [str(value.dtype), value.tolist()]
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items() if k not in TIMES}
    return [plain(v) for v in value] if isinstance(value, list | tuple) else value


def left(path: Path) -> str:
    """All that a run leaves behind, as text, in which two values that are no numbers are equal."""
    files = {}
    for file in ("gradient-change.npz", "balance.npz"):
        with np.load(path / file) as arrays:
            files[file] = {key: arrays[key] for key in arrays.files}
    for file in ("last.ckpt", "best.ckpt"):
        files[file] = {k: v for k, v in load(path / file).items() if k != "random"}  # of the middle of an epoch only
    files["result"] = read_result(path)
    files["counts"] = (path / "counts.txt").read_text()
    names = [p.name for p in path.iterdir()]
    return repr(plain({**files, "names": sorted(names)}))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("name", METHODS)
def test_killed_at_any_call_nothing_is_lost_or_left(tmp_path, name):
    total = train(name, tmp_path / "whole", None)
    expected = left(tmp_path / "whole")
    assert total > 150
    draw, context, killed, runs = random.Random(name), multiprocessing.get_context("fork"), 0, 0
    while killed < KILLS:
        path, runs = tmp_path / str(runs), runs + 1
        for at in [*(draw.randint(1, max(60, total // 2)) for _ in range(6)), None]:
            process = context.Process(target=train, args=(name, path, at))
            process.start()
            process.join()
            if process.exitcode == 0:
                break
            assert process.exitcode == -signal.SIGKILL
            killed += 1
        assert left(path) == expected
    assert runs >= 4
