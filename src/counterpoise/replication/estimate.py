"""How long the runs will take: a few batches of joint training, timed here, times what each row does more or less."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from counterpoise import methods
from counterpoise.benchmark.display import clock
from counterpoise.recipe.job import Job
from counterpoise.recipe.recipe import Recipe

BATCHES = 3
"""That are timed."""
INSTANT = 1e-6
"""Seconds of a budget after which the epoch that is always trained is the last."""


@dataclass(frozen=True)
class Estimate:
    """How long the runs that are left will take.

    Attributes:
        rows: label -> seconds of one run of it.
        seconds: of all that are left, one after the other.
        jobs: runs at the same time.
        how: how it was made, in a sentence.
    """

    rows: dict[str, float]
    seconds: float
    jobs: int
    how: str

    def text(self, left: int) -> str:
        """The estimate in a few lines; ``left`` is how many runs there are."""
        each = ", ".join(f"{label} {clock(seconds)}" for label, seconds in self.rows.items())
        together = f", {self.jobs} at a time: about {clock(self.seconds / self.jobs)}" if self.jobs > 1 else ""
        return f"{left} run(s) to go, about {clock(self.seconds)} one after the other{together}.\n{self.how}\n{each}"


def estimate(
    joint: Recipe,
    rows: dict[str, Sequence[Recipe]],
    done: Collection[str],
    seconds_of: Callable[[Recipe], float | None],
    jobs: int,
) -> Estimate:
    """Time what is left.

    Args:
        joint: joint training on this data set, which is timed for ``BATCHES`` batches.
        rows: label -> its runs, one per seed.
        done: ids of the runs that have a result.
        seconds_of: what a finished run took; None of one that does not say.
        jobs: runs at the same time.
    """
    passes = _seconds_of_a_pass(joint)
    per_run: dict[str, float] = {}
    for label, runs in rows.items():
        took = [t for run in runs if run.id in done and (t := seconds_of(run)) is not None]
        per_run[label] = sum(took) / len(took) if took else passes * _joint_passes(runs[0])
    left = {label: sum(run.id not in done for run in runs) for label, runs in rows.items()}
    how = (
        f"Estimated from {BATCHES} batches of joint training with their share of validation, timed on this machine "
        f"({clock(passes)} for a pass over the data), times the epochs of a row and the passes that its method states "
        f"(`counterpoise methods`: SMV can take five times as long, early stops less), the price of runs at the same "
        "time left out; rows that have finished runs, from those."
    )
    return Estimate(per_run, sum(per_run[label] * n for label, n in left.items()), jobs, how)


def _seconds_of_a_pass(joint: Recipe) -> float:
    """Seconds of an epoch of joint training, validation included."""
    job = Job(joint)
    trainer = job.trainer(run_dir=None, progress=False, budget=INSTANT)
    train, val = job.splits.train, job.splits.val
    taken = min(len(train), BATCHES * trainer.batch_size)
    share = taken / len(train)
    trainer.fit(train.subset(range(taken)), val.subset(range(max(1, round(share * len(val))))))
    return trainer.history[-1]["seconds"] / share


def _joint_passes(recipe: Recipe) -> float:
    """Passes of a run in units of an epoch of joint training: a backward pass counts as two forward passes."""
    trainer = Job(recipe).trainer(run_dir=None, progress=False, with_weights=False)
    count = len(trainer.model.modalities)
    info = getattr(methods, recipe.method).info
    forward, backward = (_leading(text, count) for text in (info.forward, info.backward))
    return trainer.method.length(trainer.current) * (forward + 2 * backward) / 3


def _leading(text: str, modalities: int) -> float:
    """``"2/M, and ..."`` of two modalities is 1."""
    number = re.match(r"(\d+)(/M)?", text)
    if number is None:
        raise ValueError(f"a method must state its passes as a number first; got {text!r}.")
    return int(number[1]) / (modalities if number[2] else 1)
