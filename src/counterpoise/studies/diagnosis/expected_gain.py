"""What a pool of experts may gain over the looked-at model, or how many samples would tell."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from counterpoise.studies.diagnosis.verdict import ERRORS, LEAST

if TYPE_CHECKING:
    from counterpoise.studies.diagnosis.diagnosis import Diagnosis


@dataclass(frozen=True)
class ExpectedGain:
    """How far a rival is above the looked-at model on validation.

    Attributes:
        value: the mean difference, in [-1, 1].
        error: its standard error; that of the seeds counts where there are several.
        needed: validation samples on which a difference of this size would be clear; None where it is or there is none.
    """

    value: float
    error: float
    needed: int | None

    @property
    def verdict(self) -> str:
        """One of "gain", "none", and "undecided" where the samples show neither."""
        if self.value > ERRORS * self.error and self.value >= LEAST:
            return "gain"
        return "none" if self.value + ERRORS * self.error < LEAST else "undecided"


def expected_gain(diagnosis: Diagnosis) -> ExpectedGain:
    """That of the models of one modality each: averaged, or the best of them where it is better."""
    best, of, whole = diagnosis.best, diagnosis.of, diagnosis.whole
    rivals = [
        (whole("apart") - whole("fused"), whole("apart_differ"), diagnosis.samples),
        (of(best, "alone") - of(best, "fused"), of(best, "fused_differ"), diagnosis.samples_of(best)),
    ]
    difference, differ, samples = max(rivals, key=lambda rival: rival[0].mean())
    value, varies = float(difference.mean()), max(float(differ.mean()), 1 / samples)
    variance = max(varies - value**2, 0.0) / samples
    if len(difference) > 1:
        variance += float(difference.var(ddof=1)) / len(difference)
    decided = ExpectedGain(value, math.sqrt(variance), None)
    if decided.verdict != "undecided" or value <= 0:
        return decided
    least = max(value, LEAST)
    needed = math.ceil(ERRORS**2 * max(varies - least**2, 0) / least**2)
    return ExpectedGain(value, math.sqrt(variance), max(samples + 1, needed))


def gain_sentence(diagnosis: Diagnosis) -> str:
    """A sentence on ``auto``: what it may gain here."""
    expected = expected_gain(diagnosis)
    low, high = (100 * (expected.value + side * ERRORS * expected.error) for side in (-1, 1))
    shown = f"{100 * expected.value:+.1f} points [{low:+.1f}, {high:+.1f}]"
    text = (
        "One run of `counterpoise auto` has experts of all modalities and of each, and pools them by what they are "
        f"worth on validation; by the models of one modality each, it may gain {shown} over {diagnosis.method}"
    )
    if expected.verdict == "gain":
        return f"{text}: start there."
    if expected.verdict == "none":
        return f"{text}: not to be expected here."
    needed = f", which about {expected.needed} validation samples would decide" if expected.needed else ""
    return f"{text}: undecided{needed}."
