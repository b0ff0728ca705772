"""What a run shows of itself while it trains."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from counterpoise._checks import shown
from counterpoise.engine.run import Run
from counterpoise.observer import Observer

PAUSE = 10
"""Seconds without a line after which a batch is told; twice as many after each such line of an epoch."""


class ConsoleProgress(Observer):
    """A line an epoch; on a terminal above a live bar with the time left, elsewhere with lines within slow epochs."""

    def __init__(self) -> None:
        self._console = Console(stderr=True)
        self._live = self._console.is_terminal
        self._bar: Progress | None = None

    def on_fit_start(self, run: Run) -> None:
        self._started = self._said = time.monotonic()
        self._done, self._pause = 0, PAUSE
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
        batches = run.num_batches
        self._task = self._bar.add_task(
            type(run.method).__name__,
            total=run.method.length(run) * batches,
            completed=run.state.epoch * batches + run.state.batch_in_epoch,
        )
        self._bar.start()

    def on_batch_end(self, run: Run) -> None:
        if self._bar is not None:
            self._bar.advance(self._task)
            return
        now, state = time.monotonic(), run.state
        if now - self._said >= self._pause:
            self._said, self._pause = now, 2 * self._pause
            batch = f"epoch {state.epoch + 1}, batch {state.batch_in_epoch}/{run.num_batches}"
            print(f"{batch}  {now - self._started:.0f} s so far", file=sys.stderr, flush=True)

    def on_epoch_end(self, run: Run, record: Mapping[str, Any]) -> None:
        scores = "  ".join(
            f"{name} {record[f'val/{name}/{run.monitor}']:.3f}"
            for name in ("fused", *run.model.modalities)
            if f"val/{name}/{run.monitor}" in record
        )
        self._done += 1
        epochs = max(run.method.length(run), record["epoch"])
        line = shown(f"epoch {record['epoch']}/{epochs} {record['phase']}  loss {record['train/loss']:.4f}  {scores}")
        self._said, self._pause = time.monotonic(), PAUSE
        if self._bar is not None:
            self._bar.console.print(line, highlight=False, markup=False)
            self._bar.update(self._task, total=epochs * run.num_batches)
            return
        each = (time.monotonic() - self._started) / self._done
        left = (epochs - record["epoch"]) * each
        print(f"{line}  {each:.1f} s/epoch, {left:.0f} s left", file=sys.stderr, flush=True)

    def on_fit_end(self, run: Run) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
