"""What a run shows of itself while it trains."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from counterpoise.observer import Observer

if TYPE_CHECKING:
    from counterpoise.engine.trainer import Trainer


class ConsoleProgress(Observer):
    """A line an epoch; on a terminal above a live bar with the time left."""

    def __init__(self) -> None:
        self._console = Console(stderr=True)
        self._live = self._console.is_terminal
        self._bar: Progress | None = None
        self._started = time.monotonic()

    def on_fit_start(self, trainer: Trainer) -> None:
        self._started = time.monotonic()
        self._done = 0
        if not self._live:
            return
        self._bar = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("batches"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self._console,
        )
        batches = trainer.num_batches
        self._task = self._bar.add_task(
            type(trainer.method).__name__,
            total=trainer.method.length(trainer) * batches,
            completed=trainer.state.epoch * batches + trainer.state.batch_in_epoch,
        )
        self._bar.start()

    def on_batch_end(self, trainer: Trainer) -> None:
        if self._bar is not None:
            self._bar.advance(self._task)

    def on_epoch_end(self, trainer: Trainer, record: Mapping[str, Any]) -> None:
        scores = "  ".join(
            f"{name} {record[f'val/{name}/{trainer.monitor}']:.3f}"
            for name in ("fused", *trainer.model.modalities)
            if f"val/{name}/{trainer.monitor}" in record
        )
        self._done += 1
        epochs = max(trainer.method.length(trainer), record["epoch"])
        line = f"epoch {record['epoch']}/{epochs} {record['phase']}  loss {record['train/loss']:.4f}  {scores}"
        if self._bar is not None:
            self._bar.console.print(line, highlight=False, markup=False)
            self._bar.update(self._task, total=epochs * trainer.num_batches)
            return
        each = (time.monotonic() - self._started) / self._done
        left = (epochs - record["epoch"]) * each
        print(f"{line}  {each:.1f} s/epoch, {left:.0f} s left", file=sys.stderr, flush=True)

    def on_fit_end(self, trainer: Trainer) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
