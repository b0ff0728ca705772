"""What a diagnosis measures, with one seed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from counterpoise.analysis import BalanceCurves


@dataclass(frozen=True)
class ModalityEvidence:
    """What was measured of one modality with one seed: means of ``Task.hits`` in [0, 1], on the validation split.

    Attributes:
        samples: of it that have the modality.
        chance: of the best that can be said without looking at them; of classes, of the most frequent one.
        alone: of the model trained on it alone.
        inside: of its own prediction inside the joint model.
        probe_alone: of a linear prediction from the encoder trained alone.
        probe_inside: the same on the joint model's encoder.
        fused: of the joint model, on these samples.
        own_differ: mean squared difference of the hits of ``alone`` and ``inside``: of what is right or wrong, the
            share of the samples on which exactly one of them is right.
        probes_differ: the same of the two linear predictions.
        fused_differ: the same of ``fused`` and ``alone``.
        contribution: Shapley share of the joint model's fused hits above chance.
        gradient: length of the fused loss's gradient by its own parameters, relative to theirs.
        alignment: cosine of that gradient with the one of its own loss; None where one is zero.
        alone_differ: as ``own_differ``, of ``alone`` and what is said without looking; None where that is a level only.
        probe_differ: the same of ``probe_alone``.
    """

    samples: int
    chance: float
    alone: float
    inside: float
    probe_alone: float
    probe_inside: float
    fused: float
    own_differ: float
    probes_differ: float
    fused_differ: float
    contribution: float
    gradient: float
    alignment: float | None
    alone_differ: float | None = None
    probe_differ: float | None = None


@dataclass(frozen=True)
class SeedEvidence:
    """Everything that was measured with one seed.

    Attributes:
        seed: of the runs.
        samples: of the validation split, which everything was measured on.
        chance: of the best that can be said without looking at a sample.
        fused: mean hits of the joint model.
        apart: of the models of one modality each, what they predict averaged.
        apart_differ: mean squared difference of the hits of ``fused`` and ``apart``.
        subsets: of the same model with these modalities only.
        modalities: name -> evidence.
        curves: series -> validation score per epoch.
        balance: of the joint run, before training and after every epoch; None where it was not recorded.
        alone: modality -> the same of the run on it alone.
        epochs: the epoch that each run's weights are of: method or modality -> number.
    """

    seed: int
    samples: int
    chance: float
    fused: float
    apart: float
    apart_differ: float
    subsets: Mapping[str, float]
    modalities: Mapping[str, ModalityEvidence]
    curves: Mapping[str, Sequence[float]]
    balance: BalanceCurves | None
    alone: Mapping[str, BalanceCurves | None]
    epochs: Mapping[str, int]


def finite_mean(values: np.ndarray) -> float:
    """The mean of the finite ones; nan when there is none."""
    there = values[np.isfinite(values)]
    return float(there.mean()) if len(there) else math.nan
