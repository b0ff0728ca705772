"""A diagnosis in words: the answer, what the numbers say, and what to try."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from counterpoise.benchmark.summary import percent
from counterpoise.studies.diagnosis.evidence import finite_mean
from counterpoise.studies.diagnosis.expected_gain import gain_sentence
from counterpoise.studies.diagnosis.verdict import (
    ERRORS,
    LEAST,
    TRACK_RECORDS,
    Verdict,
    judge,
    not_judged,
    share_of_contributions,
)
from counterpoise.task import SingleLabel

if TYPE_CHECKING:
    from counterpoise.studies.diagnosis.diagnosis import Diagnosis


def headline(diagnosis: Diagnosis) -> str:
    """The answer in one sentence."""
    verdict = judge(diagnosis)
    if verdict.starved:
        return f"Imbalanced: {diagnosis.method} training starves {_and(verdict.starved)}."
    if verdict.unused:
        return f"Imbalanced: the fusion hardly uses what it has learned of {_and(verdict.unused)}."
    if len(verdict.weak) == len(diagnosis.modalities):
        return "No answer yet: no modality alone is clearly above chance."
    if verdict.hurts:
        return f"No modality is held back, but fusing costs {diagnosis.score}."
    if verdict.apart:
        return "No modality is held back by itself, but trained apart they predict better together."
    if verdict.hidden and not verdict.together:
        return (
            "Not settled: no loss is shown, but inside the joint model the prediction of "
            f"{_and(verdict.hidden)} keeps less than half of what it reaches alone."
        )
    if open_ := not_judged(diagnosis, verdict):
        return f"No imbalance shown: {_and(open_)} could not be judged, and no other modality is held back."
    if verdict.weak:
        return (
            f"Not imbalanced: there is little to learn from {_and(verdict.weak)}, and no other modality is held back."
        )
    return f"Balanced: no modality is held back, as far as {diagnosis.samples} validation samples tell."


def sentences(diagnosis: Diagnosis) -> list[str]:
    """What the numbers say, each sentence with them; the last one says what to do."""
    verdict, said = judge(diagnosis), []
    for m in diagnosis.modalities:
        n = diagnosis.samples_of(m)
        alone, inside, probe_alone, probe_inside, chance = (
            f"{percent(diagnosis.of(m, what))} %"
            for what in ("alone", "inside", "probe_alone", "probe_inside", "chance")
        )
        if m in verdict.weak:
            said.append(
                f"{m}: alone it reaches {alone} and a {diagnosis.probe} on its encoder {probe_alone}, not both clearly "
                f"above chance ({chance}) on {n} samples: they are too few to tell, or this encoder and training find "
                "little in it, which balancing does not change."
            )
        elif m in verdict.starved:
            said.append(
                f"{m}: starved. A {diagnosis.probe} on its encoder reaches {probe_inside} after joint training "
                f"and {probe_alone} after training alone ({n} samples)."
            )
        elif m in verdict.unused:
            made, fair = (100 * share_of_contributions(diagnosis, m, fair=fair) for fair in (False, True))
            said.append(
                f"{m}: learned but hardly used. Its own prediction reaches {inside} inside the joint model, "
                f"{alone} alone, while a {diagnosis.probe} on its joint encoder reaches {probe_inside}; it makes "
                f"{made:.0f} % of the contributions, {fair:.0f} % by what each modality reaches alone above chance."
            )
        elif m in verdict.hidden:
            said.append(
                f"{m}: hidden. Its own prediction reaches {inside} inside the joint model, {alone} alone "
                f"(chance {chance}); on {n} samples the {diagnosis.probe}s, {probe_inside} and {probe_alone}, show no "
                "worse encoder."
            )
        else:
            said.append(
                f"{m}: not starved as far as {n} samples tell: {inside} inside, {alone} alone; "
                f"{diagnosis.probe}s {probe_inside} and {probe_alone}."
            )
    top = f"{percent(diagnosis.of(diagnosis.best, 'alone'))} %"
    said.append(
        f"Fused, the joint model reaches {percent(diagnosis.whole('fused'))} %; "
        f"the best modality alone, {diagnosis.best}, {top}"
        + (f": fusing costs {diagnosis.score}." if verdict.hurts else ".")
    )
    said.append(
        f"The models of one modality each, averaged, reach {percent(diagnosis.whole('apart'))} %: "
        + (
            "clearly more than the joint model, which loses what training apart keeps."
            if verdict.apart
            else "clearly less than the joint model, which learns what they cannot tell apart."
            if verdict.together
            else "no clear difference from the joint model."
        )
    )
    said += _explanations(diagnosis)
    said += [_track_record(diagnosis, verdict), f"{_advice(diagnosis, verdict)} {gain_sentence(diagnosis)}"]
    return said


def _track_record(diagnosis: Diagnosis, verdict: Verdict) -> str:
    """How often training in turns gained on test where the benchmark found the same as here."""
    if diagnosis.task != SingleLabel.kind:
        return (
            "How often this is right: not measured for such targets, but for clear cases of made-up data. Of "
            "single-label ones a verdict tells what was learned, not reliably what a remedy gains (docs/studies.md)."
        )
    names = {"apart": "better apart", "hurts": "fusing costs accuracy"}
    parts = []
    for part, records in TRACK_RECORDS.items():
        given = bool(getattr(verdict, part))
        same = records[0] if given else records[1]
        which = "with" if given else "without"
        parts.append(
            f'of {same.units} units {which} "{names.get(part, part)}" {same.gained} gained and {same.lost} lost'
        )
    return (
        f"How often this is right: by training in turns, {', '.join(parts)} two points or more of the fused "
        "test accuracy (benchmarks/diagnosis.py, docs/studies.md)."
    )


def _explanations(diagnosis: Diagnosis) -> list[str]:
    """What explains a verdict without deciding it."""
    shares = ", ".join(f"{m} {100 * diagnosis.of(m, 'contribution').mean():+.1f}" for m in diagnosis.modalities)
    said = [f"Shapley contributions to the fused {diagnosis.score} above chance, in points: {shares}."]
    if all(one.balance is None for one in diagnosis.measured):
        return said
    pull = ", ".join(f"{m} {finite_mean(diagnosis.over_training(m, 'relative')):.3g}" for m in diagnosis.modalities)
    said.append(f"Mean gradient of the fused loss over training, relative to each modality's weights: {pull}.")
    angles = [f"{m} {finite_mean(diagnosis.over_training(m, 'alignment')):+.2f}" for m in diagnosis.modalities]
    pairs = [f"{a} and {b} {value:+.2f}" for (a, b), value in diagnosis.conflict().items()]
    said.append(
        f"Mean cosine of that gradient with the one of the modality's own loss: {', '.join(angles)}"
        + (f"; between modalities, in the parameters they share: {', '.join(pairs)}." if pairs else ".")
    )
    alone = ", ".join(f"{m} {_ratio(diagnosis.overfitting(m, alone=True))}" for m in diagnosis.modalities)
    said.append(
        "Overfitting-to-generalisation ratio from the start to the selected epoch: "
        f"fused {_ratio(diagnosis.overfitting())}; alone, {alone}."
    )
    return said


def _ratio(rows: np.ndarray) -> str:
    return "without gain" if np.isinf(rows[:, 2]).any() else f"{finite_mean(rows[:, 2]):.2f}"


def _advice(diagnosis: Diagnosis, verdict: Verdict) -> str:
    if verdict.apart:
        return f"Recommendation: {_in_turns(diagnosis, verdict)}"
    if verdict.starved and not verdict.hurts:
        return f"Recommendation: {_against_starving(diagnosis, verdict)}"
    if verdict.unused and not verdict.hurts:
        return (
            f"Recommendation: the encoder of {_and(verdict.unused)} is good, its part in the fusion is not. Try a "
            "fusion whose modalities have heads of their own (--fusion Late), or a loss per modality (MMPareto), "
            "before anything that slows another modality down."
        )
    if len(verdict.weak) == len(diagnosis.modalities):
        return (
            "Recommendation: nothing here is clearly above chance yet. Train longer, or look at the data and the "
            "learning rate, and ask again."
        )
    if verdict.hurts:
        return f"Recommendation: {_against_fusing(diagnosis, verdict)}"
    if verdict.hidden and not verdict.together:
        least = max(LEAST, ERRORS * math.sqrt(float(diagnosis.whole("apart_differ").mean()) / diagnosis.samples))
        return (
            "Recommendation: compare with training in turns before you stay with joint training, by `counterpoise "
            f"benchmark --methods Joint,MLA,IGM`; {diagnosis.samples} validation samples show no difference below "
            f"{100 * least:.1f} points."
        )
    if open_ := not_judged(diagnosis, verdict):
        return f"Recommendation: judge {_and(open_)} on more samples; until then nothing calls for balancing."
    if verdict.weak:
        return f"Recommendation: look at the data and the encoder of {_and(verdict.weak)}; nothing calls for balancing."
    return "Recommendation: stay with joint training; nothing here calls for balancing."


def _methods_in_turns(diagnosis: Diagnosis) -> str:
    """The methods that take turns and are defined for what is predicted."""
    return "MLA, IGM" + (", ReconBoost" if diagnosis.task == SingleLabel.kind else "")


def _in_turns(diagnosis: Diagnosis, verdict: Verdict) -> str:
    """What the averaged models of one modality each have shown to be better."""
    held = [*verdict.starved, *verdict.unused]
    text = f"keep {_and(held)} from being held back: train" if held else "train"
    opposed = [pair for pair, cosine in diagnosis.conflict().items() if cosine < 0]
    if opposed:
        text += f" (the gradients of {' and '.join('/'.join(pair) for pair in opposed)} oppose each other)"
    return (
        f"{text} the modalities in turns ({_methods_in_turns(diagnosis)}), which keeps what they learn apart. "
        "Compare over several seeds by `counterpoise benchmark --methods Joint,MLA,IGM`."
    )


def _against_starving(diagnosis: Diagnosis, verdict: Verdict) -> str:
    """A starved encoder, without a sign that training apart predicts better."""
    text = (
        "training in turns (MLA, IGM) would give up what the joint model learns from the modalities together"
        if verdict.together
        else f"nothing shows that training in turns (MLA, IGM) would raise the fused {diagnosis.score}"
    )
    against = [m for m in verdict.starved if finite_mean(diagnosis.over_training(m, "alignment")) < 0]
    if against:
        text += f", and the fused loss's gradient points away from what {_and(against)} would learn by itself"
    return (
        f"keep {_and(verdict.starved)} from being held back where each modality must serve alone. For the fused "
        f"prediction {text}; so keep the fused loss and add one per modality (MMPareto, MSES), and compare over "
        "several seeds by `counterpoise benchmark --methods Joint,MMPareto,MSES`."
    )


def _against_fusing(diagnosis: Diagnosis, verdict: Verdict) -> str:
    """The best modality alone is better than the joint model."""
    fused, alone = (
        rows[:, 2].mean() for rows in (diagnosis.overfitting(), diagnosis.overfitting(diagnosis.best, alone=True))
    )
    held = [*verdict.starved, *verdict.unused]
    text = f"{_and(held)} held back, and fusing hurts" if held else "no modality is held back, but fusing hurts"
    text += (
        ": train the modalities in turns (MLA, IGM) or stop each when it overfits (MSES), and compare with "
        f"{diagnosis.best} alone by `counterpoise benchmark --methods Joint,MLA,IGM,MSES`; then another fusion "
        "(--fusion Late, Gated)."
    )
    if fused > alone:
        text += f" The joint model overfits more than {diagnosis.best} alone: GBlending weighs losses by that."
    return text


def _and(names: Iterable[str]) -> str:
    return " and ".join(names)
