"""A learning rate from short runs that are judged on validation."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from counterpoise.data.split import Splits
from counterpoise.engine import Trainer
from counterpoise.engine.cost import longest_epoch

FACTORS = (0.3, 1.0, 3.0)
"""Rates that are tried, in units of the optimizer's own."""
SHARE, PART = 10, 4
"""A trial takes one epoch in ten, and all of them together at most a quarter of a budget."""


@dataclass(frozen=True)
class Trial:
    """One rate.

    Attributes:
        rate: that was tried.
        loss: the least validation loss of the fused prediction; None where training diverged.
        seconds: it took.
        epoch: seconds of its longest epoch.
    """

    rate: float
    loss: float | None
    seconds: float
    epoch: float


def rates_of(rate: float) -> list[float]:
    """What is tried around a rate."""
    return [float(f"{factor * rate:.6g}") for factor in FACTORS]


def try_rates(
    make: Callable[..., Trainer], data: Splits, rates: Sequence[float], epochs: int, budget: float | None
) -> list[Trial]:
    """Train for a few epochs at each rate.

    Args:
        make: a new trainer, given ``lr``, ``epochs`` and ``budget``; it writes nothing.
        data: the test split is not looked at.
        rates: to try.
        epochs: of the run that they are for.
        budget: seconds of that run; None for no limit.

    Raises:
        FloatingPointError: when training diverged at every rate.
    """
    limit = None if budget is None else budget / PART / len(rates)
    trials = [_tried(make(lr=rate, epochs=max(1, epochs // SHARE), budget=limit), data, rate) for rate in rates]
    if all(trial.loss is None for trial in trials):
        raise FloatingPointError(
            f"Training diverged at every learning rate that was tried ({', '.join(f'{rate:g}' for rate in rates)}). "
            "Look for values far out of range in the data, or give a smaller one (optimizer=SGD(lr=...), "
            "--optimizer.lr)."
        )
    return trials


def _tried(trainer: Trainer, data: Splits, rate: float) -> Trial:
    try:
        trainer.fit(data.train, data.val)
    except FloatingPointError:
        return Trial(rate, None, trainer.current.state.seconds, 0.0)
    history = trainer.history
    least = min(record["val/fused/loss"] for record in history)
    return Trial(rate, least if math.isfinite(least) else None, history[-1]["seconds"], longest_epoch(history))


def best_rate(trials: Sequence[Trial]) -> float:
    """The rate with the least loss."""
    return min((trial for trial in trials if trial.loss is not None), key=lambda t: t.loss or 0.0).rate


def left(budget: float | None, trials: Sequence[Trial]) -> float | None:
    """Seconds that remain for the run; ValueError when the trials left too few for one epoch."""
    if budget is None or not trials:
        return budget
    spent, epoch = sum(trial.seconds for trial in trials), max(trial.epoch for trial in trials)
    if budget - spent < epoch:
        raise ValueError(
            f"budget={budget:g} seconds is too little for one run: trying learning rates took {spent:.1f} s and an "
            f"epoch takes {epoch:.1f} s. Give at least {math.ceil(2 * spent + 10 * epoch)} s, or name the learning "
            "rate, which is then not tried (optimizer=SGD(lr=...), --optimizer.lr)."
        )
    return budget - spent


def to_plain(trials: Sequence[Trial]) -> list[dict[str, Any]]:
    """As JSON holds them."""
    return [asdict(trial) for trial in trials]
