"""The rules of a diagnosis: what counts as a difference, and which modality is what."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from counterpoise.studies.diagnosis.diagnosis import Diagnosis

ERRORS = 2.0
"""How many standard errors a difference must have to count as one."""
LEAST = 0.02
"""What a model must lose to another to count as worse, however many samples show it."""


@dataclass(frozen=True)
class TrackRecord:
    """What training in turns did on test in the units of a benchmark for which a part of the verdict was the same.

    Attributes:
        units: how many.
        gained: in how many it gained two points at least, and clearly.
        lost: in how many it lost as much.
    """

    units: int
    gained: int
    lost: int


TRACK_RECORDS: Mapping[str, tuple[TrackRecord, TrackRecord]] = {
    "apart": (TrackRecord(2, 1, 0), TrackRecord(20, 2, 1)),
    "hurts": (TrackRecord(3, 2, 0), TrackRecord(19, 1, 1)),
    "starved": (TrackRecord(1, 1, 0), TrackRecord(21, 2, 1)),
    "hidden": (TrackRecord(1, 0, 0), TrackRecord(21, 3, 1)),
}
"""Part of the verdict -> where it was given, and where it was not: ``benchmarks/diagnosis.py``, docs/studies.md."""


def clearly_better(
    better: float | np.ndarray,
    worse: float | np.ndarray,
    samples: int,
    errors: float = ERRORS,
    *,
    differ: float | np.ndarray | None = None,
) -> bool:
    """Whether one score exceeds another by more than the draw of samples and seeds explains.

    With several seeds the mean difference counts, its variance over the seeds is added, and every seed must agree on
    the sign; that of sampling is not divided by them, as all are measured on the same samples.

    Args:
        better: a mean of samples' scores in [0, 1], or (seeds,) of them.
        worse: the same.
        samples: each was measured on.
        errors: standard errors that the difference must exceed.
        differ: mean squared difference of the samples' scores, or (seeds,) of it, where both were measured on the same
            samples: their difference varies by these alone. Of right and wrong it is the share of the samples on which
            exactly one of the two is right. None treats the two as independent, which is cautious for two models and
            right for a model and a constant.
    """
    high, low = np.broadcast_arrays(np.atleast_1d(better).astype(float), np.atleast_1d(worse).astype(float))
    gap = high - low

    def smooth(part: np.ndarray) -> float:  # one of each kind added: a share of 0 or 1 is not known without error
        return (float(part.mean()) * samples + 1) / (samples + 2)

    if differ is None:
        variance = sum(p * (1 - p) for p in map(smooth, (high, low))) / samples
    else:
        variance = max(smooth(np.atleast_1d(differ)) - float(gap.mean()) ** 2, 0.0) / samples
    if len(gap) > 1:
        variance += float(gap.var(ddof=1)) / len(gap)
    return bool(gap.mean() > errors * math.sqrt(variance) and (gap > 0).all())


@dataclass(frozen=True)
class Verdict:
    """Which modality is what; a modality in no list is not held back as far as the samples tell.

    Attributes:
        weak: has little to learn: alone not clearly above chance.
        starved: its encoder learned less than alone.
        unused: its encoder learned as much, but its own prediction inside is worse than alone, and its share of all
            contributions less than half of its share of what the modalities reach alone above chance.
        hidden: its encoder learned as much and it contributes its share, but its own prediction inside keeps less than
            half of what it reaches alone above chance.
        hurts: the best modality alone beats the joint model.
        apart: the models of one modality each, averaged, beat the joint model: what training in turns keeps.
        together: the joint model beats them: what training in turns gives up.
    """

    weak: tuple[str, ...]
    starved: tuple[str, ...]
    unused: tuple[str, ...]
    hidden: tuple[str, ...]
    hurts: bool
    apart: bool
    together: bool


def judge(diagnosis: Diagnosis) -> Verdict:
    """The verdict; gradients and overfitting do not enter it."""
    kinds: dict[str, list[str]] = {"weak": [], "starved": [], "unused": [], "hidden": []}
    of = diagnosis.of
    for m in diagnosis.modalities:
        n, chance = diagnosis.samples_of(m), of(m, "chance")
        alone, probe = of(m, "alone"), of(m, "probe_alone")
        # both: the epoch was selected on these samples, so the prediction alone flatters where there is nothing
        if not (
            _above_chance(diagnosis, m, alone, "alone_differ") and _above_chance(diagnosis, m, probe, "probe_differ")
        ):
            kinds["weak"].append(m)
        elif _clearly_worse(of(m, "probe_inside"), probe, n, of(m, "probes_differ")):
            kinds["starved"].append(m)
        elif _clearly_worse(inside := of(m, "inside"), alone, n, of(m, "own_differ")):
            if 2 * share_of_contributions(diagnosis, m) < share_of_contributions(diagnosis, m, fair=True):
                kinds["unused"].append(m)
            elif 2 * float((inside - chance).mean()) < float((alone - chance).mean()):
                kinds["hidden"].append(m)
    best, n = diagnosis.best, diagnosis.samples
    fused, apart, differ = (diagnosis.whole(what) for what in ("fused", "apart", "apart_differ"))
    return Verdict(
        tuple(kinds["weak"]),
        tuple(kinds["starved"]),
        tuple(kinds["unused"]),
        tuple(kinds["hidden"]),
        hurts=_clearly_worse(
            of(best, "fused"), of(best, "alone"), diagnosis.samples_of(best), of(best, "fused_differ")
        ),
        apart=_clearly_worse(fused, apart, n, differ),
        together=_clearly_worse(apart, fused, n, differ),
    )


def _above_chance(diagnosis: Diagnosis, modality: str, score: np.ndarray, differ: str) -> bool:
    """Whether a score is clearly above chance."""
    apart = diagnosis.of(modality, differ)
    chance, n = diagnosis.of(modality, "chance"), diagnosis.samples_of(modality)
    return clearly_better(score, chance, n, differ=None if np.isnan(apart).any() else apart)


def _clearly_worse(model: np.ndarray, other: np.ndarray, samples: int, differ: np.ndarray) -> bool:
    return clearly_better(other, model, samples, differ=differ) and float((other - model).mean()) >= LEAST


def share_of_contributions(diagnosis: Diagnosis, modality: str, *, fair: bool = False) -> float:
    """Its part in the contributions of all; ``fair``: in what each reaches alone above chance."""
    of, parts = diagnosis.of, {}
    for m in diagnosis.modalities:
        part = of(m, "alone") - of(m, "chance") if fair else of(m, "contribution")
        parts[m] = max(0.0, float(part.mean()))
    return parts[modality] / max(sum(parts.values()), 1e-12)


def not_judged(diagnosis: Diagnosis, verdict: Verdict) -> list[str]:
    """The weak ones whose own prediction alone is above chance: more than selecting the epoch gives, or less."""
    return [m for m in verdict.weak if _above_chance(diagnosis, m, diagnosis.of(m, "alone"), "alone_differ")]
