"""Is a multimodal model imbalanced, which modality is starved, and what to try: the verdict and its evidence."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from counterpoise.analysis import BalanceCurves, overfitting_ratio
from counterpoise.studies.base import percent

ERRORS = 2.0
"""How many standard errors a difference must have to count as one."""
LEAST = 0.02
"""What a model must lose to another to count as worse, however many samples show it."""


@dataclass(frozen=True)
class Evidence:
    """What was measured of one modality with one seed. Accuracies in [0, 1], on the validation split.

    Attributes:
        samples: of it that have the modality.
        chance: accuracy of the most frequent class among them.
        alone: of the model trained on it alone.
        inside: of its own prediction inside the joint model.
        probe_alone: of a linear classifier on the encoder trained alone.
        probe_inside: the same on the joint model's encoder.
        contribution: Shapley share of the joint model's fused accuracy above chance.
        gradient: length of the fused loss's gradient by its own parameters, relative to theirs.
        alignment: cosine of that gradient with the one of its own loss; None where one is zero.
    """

    samples: int
    chance: float
    alone: float
    inside: float
    probe_alone: float
    probe_inside: float
    contribution: float
    gradient: float
    alignment: float | None


@dataclass(frozen=True)
class Measured:
    """Everything that was measured with one seed.

    Attributes:
        seed: of the runs.
        samples: of the validation split, which everything was measured on.
        chance: accuracy of the most frequent class.
        fused: accuracy of the joint model.
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
    subsets: Mapping[str, float]
    modalities: Mapping[str, Evidence]
    curves: Mapping[str, Sequence[float]]
    balance: BalanceCurves | None
    alone: Mapping[str, BalanceCurves | None]
    epochs: Mapping[str, int]


@dataclass(frozen=True)
class Diagnosis:
    """The measurements of all seeds.

    Attributes:
        method: that was looked at.
        monitor: the score in the curves.
        measured: one per seed, at least one.
    """

    method: str
    monitor: str
    measured: Sequence[Measured]

    def __str__(self) -> str:
        return "\n".join([headline(self), *recommend(self)])

    @property
    def modalities(self) -> tuple[str, ...]:
        """Names, in order."""
        return tuple(self.measured[0].modalities)

    @property
    def samples(self) -> int:
        """Of the validation split."""
        return min(one.samples for one in self.measured)

    @property
    def fused(self) -> np.ndarray:
        """(seeds,) accuracy of the joint model."""
        return np.array([one.fused for one in self.measured])

    def of(self, modality: str, what: str) -> np.ndarray:
        """(seeds,) one field of ``Evidence``; nan for None."""
        found = [getattr(one.modalities[modality], what) for one in self.measured]
        return np.array([math.nan if value is None else value for value in found], dtype=float)

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
        return np.array([_mean(getattr(one.balance, what)[:, place]) for one in self.measured if one.balance])

    def conflict(self) -> dict[tuple[str, str], float]:
        """Pair of modalities -> mean cosine of their gradients by shared parameters; without pairs that share none."""
        found = {}
        for (i, a), (j, b) in combinations(enumerate(self.modalities), 2):
            mean = _mean(np.array([_mean(one.balance.conflict[:, i, j]) for one in self.measured if one.balance]))
            if math.isfinite(mean):
                found[a, b] = mean
        return found


def _overfitting(one: Measured, curves: BalanceCurves, modality: str | None, epoch: int) -> tuple[float, ...]:
    rows = [int(np.flatnonzero(curves.epoch == at)[0]) for at in (0, epoch) if at in curves.epoch]
    if len(rows) < 2:
        return (math.nan,) * 3
    train, val = losses(curves, list(one.modalities), modality)
    found = overfitting_ratio(train[rows].tolist(), val[rows].tolist())
    gain = float(found.gain[0])
    return float(found.overfitting[0]), gain, float(found.ratio[0]) if gain > 0 else math.inf


def losses(curves: BalanceCurves, names: Sequence[str], modality: str | None) -> tuple[np.ndarray, np.ndarray]:
    """(rows,) training and validation loss of a modality's own prediction, or of the fused one for None."""
    if modality is None:
        return curves.fused_train_loss, curves.fused_val_loss
    place = list(names).index(modality)
    return curves.train_loss[:, place], curves.val_loss[:, place]


def _mean(values: np.ndarray) -> float:
    there = values[np.isfinite(values)]
    return float(there.mean()) if len(there) else math.nan


# -- verdict -------------------------------------------------------------------------------------------
def clear(better: float | np.ndarray, worse: float | np.ndarray, samples: int, errors: float = ERRORS) -> bool:
    """Whether one accuracy exceeds another by more than the draw of samples and seeds explains.

    The two are treated as independent, which is cautious for two models on the same samples. With several seeds the
    mean difference counts, its variance over the seeds is added, and every seed must agree on the sign.

    Args:
        better: the accuracy, or (seeds,) of them.
        worse: the same.
        samples: each was measured on.
        errors: standard errors that the difference must exceed.
    """
    high, low = np.broadcast_arrays(np.atleast_1d(better).astype(float), np.atleast_1d(worse).astype(float))
    # one right and one wrong added to each: an accuracy of 0 or 1 is not known without error
    rates = [(float(part.mean()) * samples + 1) / (samples + 2) for part in (high, low)]
    variance = sum(p * (1 - p) for p in rates) / samples
    gap = high - low
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
        hurts: the best modality alone beats the joint model.
    """

    weak: tuple[str, ...]
    starved: tuple[str, ...]
    unused: tuple[str, ...]
    hurts: bool


def judge(found: Diagnosis) -> Verdict:
    """The verdict; gradients and overfitting do not enter it."""
    kinds: dict[str, list[str]] = {"weak": [], "starved": [], "unused": []}
    for m in found.modalities:
        n, chance = found.samples_of(m), found.of(m, "chance")
        alone, probe = found.of(m, "alone"), found.of(m, "probe_alone")
        # both: the epoch was selected on these samples, so the prediction alone flatters where there is nothing
        if not (clear(alone, chance, n) and clear(probe, chance, n)):
            kinds["weak"].append(m)
        elif _loses(found.of(m, "probe_inside"), probe, n):
            kinds["starved"].append(m)
        elif _loses(found.of(m, "inside"), alone, n) and 2 * _share(found, m) < _share(found, m, fair=True):
            kinds["unused"].append(m)
    hurts = _loses(found.fused, found.of(found.best, "alone"), found.samples)
    return Verdict(tuple(kinds["weak"]), tuple(kinds["starved"]), tuple(kinds["unused"]), hurts)


def _loses(model: np.ndarray, other: np.ndarray, samples: int) -> bool:
    return clear(other, model, samples) and float((other - model).mean()) >= LEAST


def _share(found: Diagnosis, modality: str, *, fair: bool = False) -> float:
    """Its part in the contributions of all; ``fair``: in what each reaches alone above chance."""
    parts = {
        m: max(
            0.0, float((found.of(m, "alone") - found.of(m, "chance") if fair else found.of(m, "contribution")).mean())
        )
        for m in found.modalities
    }
    return parts[modality] / max(sum(parts.values()), 1e-12)


def _unsure(found: Diagnosis, verdict: Verdict) -> list[str]:
    """The weak ones whose own prediction alone is above chance: more than selecting the epoch gives, or less."""
    return [m for m in verdict.weak if clear(found.of(m, "alone"), found.of(m, "chance"), found.samples_of(m))]


def headline(found: Diagnosis) -> str:
    """The answer in one sentence."""
    verdict = judge(found)
    if verdict.starved:
        return f"Imbalanced: {found.method} training starves {_and(verdict.starved)}."
    if verdict.unused:
        return f"Imbalanced: the fusion hardly uses what it has learned of {_and(verdict.unused)}."
    if len(verdict.weak) == len(found.modalities):
        return "No answer yet: no modality alone is clearly above chance."
    if verdict.hurts:
        return "No modality is held back, but fusing costs accuracy."
    if unsure := _unsure(found, verdict):
        return f"No imbalance shown: {_and(unsure)} could not be judged, and no other modality is held back."
    if verdict.weak:
        return (
            f"Not imbalanced: there is little to learn from {_and(verdict.weak)}, and no other modality is held back."
        )
    return f"Balanced: no modality is held back, as far as {found.samples} validation samples tell."


def recommend(found: Diagnosis) -> list[str]:
    """What the numbers say, each sentence with them; the last one says what to do."""
    verdict, said = judge(found), []
    for m in found.modalities:
        n = found.samples_of(m)
        alone, inside, probe_alone, probe_inside, chance = (
            f"{percent(found.of(m, what))} %" for what in ("alone", "inside", "probe_alone", "probe_inside", "chance")
        )
        if m in verdict.weak:
            said.append(
                f"{m}: alone it reaches {alone} and a linear classifier on its encoder {probe_alone}, not both clearly "
                f"above chance ({chance}) on {n} samples: they are too few to tell, or this encoder and training find "
                "little in it, which balancing does not change."
            )
        elif m in verdict.starved:
            said.append(
                f"{m}: starved. A linear classifier on its encoder reaches {probe_inside} after joint training "
                f"and {probe_alone} after training alone ({n} samples)."
            )
        elif m in verdict.unused:
            said.append(
                f"{m}: learned but hardly used. Its own prediction reaches {inside} inside the joint model, "
                f"{alone} alone, while a linear classifier on its joint encoder reaches {probe_inside}; it makes "
                f"{100 * _share(found, m):.0f} % of the contributions, {100 * _share(found, m, fair=True):.0f} % by "
                "what each modality reaches alone above chance."
            )
        else:
            said.append(
                f"{m}: not starved as far as {n} samples tell: {inside} inside, {alone} alone; "
                f"linear classifiers {probe_inside} and {probe_alone}."
            )
    top = f"{percent(found.of(found.best, 'alone'))} %"
    said.append(
        f"Fused, the joint model reaches {percent(found.fused)} %; the best modality alone, {found.best}, {top}"
        + (": fusing costs accuracy." if verdict.hurts else ".")
    )
    said += _beside(found)
    said.append(_advice(found, verdict))
    return said


def _beside(found: Diagnosis) -> list[str]:
    """What explains a verdict without deciding it."""
    shares = ", ".join(f"{m} {100 * found.of(m, 'contribution').mean():+.1f}" for m in found.modalities)
    said = [f"Shapley contributions to the fused accuracy above chance, in points: {shares}."]
    if all(one.balance is None for one in found.measured):
        return said
    pull = ", ".join(f"{m} {_mean(found.over_training(m, 'relative')):.3g}" for m in found.modalities)
    said.append(f"Mean gradient of the fused loss over training, relative to each modality's weights: {pull}.")
    angles = [f"{m} {_mean(found.over_training(m, 'alignment')):+.2f}" for m in found.modalities]
    pairs = [f"{a} and {b} {value:+.2f}" for (a, b), value in found.conflict().items()]
    said.append(
        f"Mean cosine of that gradient with the one of the modality's own loss: {', '.join(angles)}"
        + (f"; between modalities, in the parameters they share: {', '.join(pairs)}." if pairs else ".")
    )
    alone = ", ".join(f"{m} {_ratio(found.overfitting(m, alone=True))}" for m in found.modalities)
    said.append(
        "Overfitting-to-generalisation ratio from the start to the selected epoch: "
        f"fused {_ratio(found.overfitting())}; alone, {alone}."
    )
    return said


def _ratio(rows: np.ndarray) -> str:
    return "without gain" if np.isinf(rows[:, 2]).any() else f"{_mean(rows[:, 2]):.2f}"


def _advice(found: Diagnosis, verdict: Verdict) -> str:
    if verdict.starved:
        return f"Recommendation: {_against_starving(found, verdict.starved)}"
    if verdict.unused:
        return (
            f"Recommendation: the encoder of {_and(verdict.unused)} is good, its part in the fusion is not. Try a "
            "fusion whose modalities have heads of their own (--fusion Late), or a loss per modality (MMPareto), "
            "before anything that slows another modality down."
        )
    if len(verdict.weak) == len(found.modalities):
        return (
            "Recommendation: nothing here is clearly above chance yet. Train longer, or look at the data and the "
            "learning rate, and ask again."
        )
    if verdict.hurts:
        fused, alone = (rows[:, 2].mean() for rows in (found.overfitting(), found.overfitting(found.best, alone=True)))
        if fused > alone:
            return (
                f"Recommendation: no modality is starved, but fusing hurts, and the joint model overfits more than "
                f"{found.best} alone: try GBlending, which weighs losses by that, or UMT; then another fusion "
                "(--fusion Late, Gated)."
            )
        return "Recommendation: no modality is starved, but fusing hurts: try another fusion (--fusion Late, Gated)."
    if unsure := _unsure(found, verdict):
        return f"Recommendation: judge {_and(unsure)} on more samples; until then nothing calls for balancing."
    if verdict.weak:
        return f"Recommendation: look at the data and the encoder of {_and(verdict.weak)}; nothing calls for balancing."
    return "Recommendation: stay with joint training; nothing here calls for balancing."


def _against_starving(found: Diagnosis, starved: Sequence[str]) -> str:
    """By the gradients: against each other, or just weak."""
    against = [m for m in starved if _mean(found.over_training(m, "alignment")) < 0]
    opposed = ["/".join(pair) for pair, cosine in found.conflict().items() if cosine < 0 and set(pair) & set(starved)]
    text, first = f"keep {_and(starved)} from being held back. ", "MLA,IGM,OGM"
    if against:
        first = "MMPareto,MLA,IGM"
        text += (
            f"On average the fused loss's gradient points away from what {_and(against)} would learn by itself, so "
            "begin with MMPareto, which takes a direction that serves both. "
        )
    elif opposed:
        first = "MLA,IGM,OGM"
        text += (
            f"The gradients of {_and(opposed)} oppose each other in the parameters they share, so begin with MLA or "
            "IGM, which keep one modality's update out of what another relies on. "
        )
    return (
        f"{text}Methods that train in turns (MLA, ReconBoost, IGM) or hold the stronger modality back (OGM, PMR) are "
        "made for this; compare them with Joint over several seeds by "
        f"`counterpoise benchmark --methods Joint,{first}`."
    )


def _and(names: Iterable[str]) -> str:
    return " and ".join(names)
