"""What a diagnosis has measured, over all seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from counterpoise.analysis import BalanceCurves, overfitting_ratio
from counterpoise.studies.diagnosis.evidence import SeedEvidence, finite_mean
from counterpoise.studies.diagnosis.words import headline, sentences
from counterpoise.task import TASKS, Regression, SingleLabel


@dataclass(frozen=True)
class Diagnosis:
    """The measurements of all seeds.

    Attributes:
        method: that was looked at.
        monitor: the score in the curves.
        measured: one per seed, at least one.
        task: kind of what is predicted.
    """

    method: str
    monitor: str
    measured: Sequence[SeedEvidence]
    task: str = SingleLabel.kind

    def __str__(self) -> str:
        return "\n".join([headline(self), *sentences(self)])

    @property
    def score(self) -> str:
        """What everything is measured in."""
        return TASKS[self.task].yardstick

    @property
    def probe(self) -> str:
        """What is fitted to features."""
        return "linear regression" if self.task == Regression.kind else "linear classifier"

    @property
    def modalities(self) -> tuple[str, ...]:
        """Names, in order."""
        return tuple(self.measured[0].modalities)

    @property
    def samples(self) -> int:
        """Of the validation split."""
        return min(one.samples for one in self.measured)

    def whole(self, what: str) -> np.ndarray:
        """(seeds,) one of ``fused``, ``apart`` and ``apart_differ``."""
        return np.array([getattr(one, what) for one in self.measured], dtype=float)

    def of(self, modality: str, what: str) -> np.ndarray:
        """(seeds,) one field of ``ModalityEvidence``; nan for None."""
        values = [getattr(one.modalities[modality], what) for one in self.measured]
        return np.array([math.nan if value is None else value for value in values], dtype=float)

    def samples_of(self, modality: str) -> int:
        """Validation samples that have the modality."""
        return int(self.of(modality, "samples").min())

    @property
    def best(self) -> str:
        """The modality that is best alone."""
        return max(self.modalities, key=lambda m: self.of(m, "alone").mean())

    def overfitting(self, modality: str | None = None, *, alone: bool = False) -> np.ndarray:
        """(seeds, 3) growth of the gap, gain, and their ratio from the start to the selected weights.

        Args:
            modality: whose own prediction; None for the fused one.
            alone: of the run on that modality alone.

        Returns:
            nan where it was not recorded; the ratio is infinite where the validation loss did not fall.
        """
        rows = []
        for one in self.measured:
            curves = one.alone[modality] if alone and modality is not None else one.balance
            epoch = one.epochs[modality if alone and modality is not None else self.method]
            rows.append((math.nan,) * 3 if curves is None else _overfitting(one, curves, modality, epoch))
        return np.array(rows, dtype=float)

    def over_training(self, modality: str, what: str) -> np.ndarray:
        """(seeds,) mean of a column of ``BalanceCurves`` from the start to the last epoch of the joint run."""
        place = self.modalities.index(modality)
        return np.array([finite_mean(getattr(one.balance, what)[:, place]) for one in self.measured if one.balance])

    def conflict(self) -> dict[tuple[str, str], float]:
        """Pair of modalities -> mean cosine of their gradients by shared parameters; without pairs that share none."""
        cosines = {}
        for (i, a), (j, b) in combinations(enumerate(self.modalities), 2):
            mean = finite_mean(
                np.array([finite_mean(one.balance.conflict[:, i, j]) for one in self.measured if one.balance])
            )
            if math.isfinite(mean):
                cosines[a, b] = mean
        return cosines


def _overfitting(one: SeedEvidence, curves: BalanceCurves, modality: str | None, epoch: int) -> tuple[float, ...]:
    rows = [int(np.flatnonzero(curves.epoch == at)[0]) for at in (0, epoch) if at in curves.epoch]
    if len(rows) < 2:
        return (math.nan,) * 3
    train, val = losses(curves, list(one.modalities), modality)
    overfitting = overfitting_ratio(train[rows].tolist(), val[rows].tolist())
    gain = float(overfitting.gain[0])
    return float(overfitting.overfitting[0]), gain, float(overfitting.ratio[0]) if gain > 0 else math.inf


def losses(curves: BalanceCurves, names: Sequence[str], modality: str | None) -> tuple[np.ndarray, np.ndarray]:
    """(rows,) training and validation loss of a modality's own prediction, or of the fused one for None."""
    if modality is None:
        return curves.fused_train_loss, curves.fused_val_loss
    place = list(names).index(modality)
    return curves.train_loss[:, place], curves.val_loss[:, place]
