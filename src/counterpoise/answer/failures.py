"""Going on without the experts that fail in training."""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, Protocol

from counterpoise._files import write_text
from counterpoise.answer.rates import PART, Trial
from counterpoise.data.split import Splits
from counterpoise.engine import Trainer
from counterpoise.engine.record import MODEL, RATES, WITHOUT
from counterpoise.types import FUSED

OF_RUN = ("config.yaml", MODEL, RATES, "environment.json", "metrics.jsonl", "last.ckpt", "best.ckpt", "best.next.ckpt")
"""Files that a failed attempt leaves."""


@dataclass(frozen=True)
class Attempt:
    """A run that came to its end.

    Attributes:
        trainer: with the selected weights.
        trials: of learning rates.
        result: of the run.
    """

    trainer: Trainer
    trials: list[Trial]
    result: dict[str, Any]


class Attempted(Protocol):
    """Trains without the experts that failed, within so many seconds; FloatingPointError where training diverges."""

    def __call__(self, failed: Sequence[str], seconds: float | None, resume: bool) -> Attempt: ...


def sound(
    attempt: Attempted,
    alone: Callable[[str, Sequence[str], float | None], Trainer],
    data: Splits,
    budget: float | None,
    run_dir: str | PathLike[str] | None,
    *,
    resume: bool,
) -> tuple[Attempt, tuple[str, ...]]:
    """The first attempt that does not diverge, and the experts it goes without.

    When one diverges, each modality is trained alone. Those that diverge so, too, are left out of the next attempt;
    when none does it is the fused prediction, and the heads of the modalities only vote.

    Args:
        attempt: trains.
        alone: a new trainer of one modality, which writes nothing, within so many seconds.
        data: the data set.
        budget: seconds of all training.
        run_dir: where the attempt writes; what a failed one wrote is removed.
        resume: go on with what is in ``run_dir``.

    Raises:
        FloatingPointError: when every expert fails.
        ValueError: when failed attempts left too few seconds.
    """
    path = None if run_dir is None else Path(run_dir) / WITHOUT
    failed: tuple[str, ...] = ()
    if resume and path is not None and path.is_file():
        failed = tuple(json.loads(path.read_text(encoding="utf-8")))
    started = time.perf_counter()
    rest = budget
    while True:
        try:
            return attempt(failed, rest, resume), failed
        except FloatingPointError as error:
            more = _failing(alone, data, failed, rest)
            left = [m for m in data.modalities if m not in (*failed, *more)]
            if FUSED in failed or not left:
                raise FloatingPointError(
                    f"Every expert failed: {', '.join((*failed, *more, FUSED))}. Look for values far out of range in "
                    "the data, give a lower learning rate (optimizer=SGD(lr=...), --optimizer.lr), or look at the "
                    f"encoders. The last failure: {error}"
                ) from error
            failed += more
            what = "The fused prediction" if more == (FUSED,) else ", ".join(map(repr, more))
            warnings.warn(f"{what} failed in training, which goes on without it: {error}", stacklevel=3)
            if path is not None:
                for name in OF_RUN:
                    with suppress(FileNotFoundError):
                        (path.parent / name).unlink()
                write_text(path, json.dumps(failed) + "\n")
            resume = False
            rest = None if budget is None else max(0.0, budget - (time.perf_counter() - started))


def _failing(
    alone: Callable[[str, Sequence[str], float | None], Trainer],
    data: Splits,
    failed: Sequence[str],
    seconds: float | None,
) -> tuple[str, ...]:
    """The modalities that diverge alone; the fused prediction when none does."""
    names = [m for m in data.modalities if m not in failed]
    share = None if seconds is None else max(1e-9, seconds / PART / len(names))
    more = []
    for m in names:
        try:
            alone(m, failed, share).fit(data.train, data.val)
        except FloatingPointError:
            more.append(m)
    return tuple(more) or (FUSED,)
