"""What a student keeps of its teacher: the scores of both, the gain over one run, what they cost at prediction."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from counterpoise.data.split import Split, Splits
from counterpoise.engine import Trainer
from counterpoise.metrics import lower_is_better
from counterpoise.types import FUSED

ONE = "one run"


@dataclass(frozen=True)
class Kept:
    """A student beside its teacher.

    Attributes:
        teacher: what it is called.
        metric: the monitor, which the scores are in.
        part: "test", or "val" where there is no test.
        scores: "teacher", "student", and "one run" (the mean over the teacher's runs, where it has several) -> "val"
            and "test", where there is one.
        share: of what the teacher gains over one of its runs on that part, the student's part; None where it has no
            runs, or gains nothing.
        cost: "teacher" and "student" -> parameters, milliseconds a sample.
        unlabelled: samples without labels that the student learned from, too.
    """

    teacher: str
    metric: str
    part: str
    scores: Mapping[str, Mapping[str, float]]
    share: float | None
    cost: Mapping[str, Mapping[str, float]]
    unlabelled: int


def compare(
    name: str,
    teacher: Trainer,
    runs: Mapping[str, Any],
    student: Trainer,
    result: Mapping[str, Any],
    data: Splits,
    unlabelled: int,
) -> Kept:
    """Measure both on the same samples.

    Args:
        name: of the teacher.
        teacher: with its weights.
        runs: its result, which has the scores of each of several runs.
        student: with the selected weights.
        result: of the student's run.
        data: the data set.
        unlabelled: how many samples without labels the student had.
    """
    parts = {"val": data.val} if data.test is None else {"val": data.val, "test": data.test}
    part, metric, key = list(parts)[-1], student.monitor, f"{FUSED}/{student.monitor}"
    scores = {
        "teacher": {name: teacher.current.scores(split)[key] for name, split in parts.items()},
        "student": {name: result[name][key] for name in parts},
    }
    each = [one for one in runs.get("each", ()) if set(parts) <= set(one)] if runs.get("monitor") == metric else []
    if each:
        scores[ONE] = {name: sum(one[name] for one in each) / len(each) for name in parts}
    cost = {who: _cost(trainer, parts[part]) for who, trainer in (("teacher", teacher), ("student", student))}
    share = _share(metric, {who: values[part] for who, values in scores.items()})
    return Kept(name, metric, part, scores, share, cost, unlabelled)


def _share(metric: str, score: Mapping[str, float]) -> float | None:
    """Of the teacher's gain over one run, what the student has."""
    if ONE not in score:
        return None
    sign = -1 if lower_is_better(metric) else 1
    gain = sign * (score["teacher"] - score[ONE])
    return sign * (score["student"] - score[ONE]) / gain if gain > 0 else None


def _cost(trainer: Trainer, split: Split) -> dict[str, float]:
    started = time.perf_counter()
    trainer.predict(split)
    return at_prediction(trainer, (time.perf_counter() - started) / len(split))


def at_prediction(trainer: Trainer, seconds: float) -> dict[str, float]:
    """What a model costs that takes so many seconds a sample."""
    return {"parameters": sum(p.numel() for p in trainer.model.parameters()), "milliseconds a sample": 1000 * seconds}
