"""The evidence in sentences, for somebody who decides."""

from __future__ import annotations

from collections.abc import Mapping

from counterpoise.answer.evidence import Evidence, Interval
from counterpoise.functional.pool_fitting import MIN_SAMPLES
from counterpoise.types import FUSED

SPLITS = {"test": "test", "val": "validation"}


def percent(value: float) -> str:
    """One digit after the point."""
    return f"{100 * value:.1f}"


def signed(share: float) -> str:
    """In points, with its sign."""
    return f"{100 * share:+.1f}".replace("-", "\N{MINUS SIGN}")


def spanned(found: Interval, *, sign: bool = False) -> str:
    """A number in per cent or points, with its interval."""
    written = signed if sign else percent
    return f"{written(found.value)} [{written(found.low)}, {written(found.high)}]"


def headline(found: Evidence) -> str:
    """The answer in one sentence."""
    n = found.samples[found.part]
    return f"The model reaches {spanned(found.score)} % {found.yardstick} on {n} {SPLITS[found.part]} samples."


def sentences(found: Evidence) -> list[str]:
    """The answer, what it rests on, and what to doubt."""
    said = [headline(found), _best(found), _adds(found)]
    said.append(
        f"The pool gives {spanned(found.gain, sign=True)} points over the fused prediction without it"
        + (f"; {percent(found.trust)} % of it is the best expert, held on to as a fallback." if found.trust else ".")
    )
    if found.against is not None:
        label, gain = found.against
        said.append(f"Over {label}, on the same samples: {spanned(gain, sign=True)} points.")
    if missing := _missing(found):
        said.append(missing)
    said += _doubts(found)
    said.append(_cost(found.cost))
    return said


def _best(found: Evidence) -> str:
    alone = {name: e.score for name, e in found.experts.items() if e.score is not None and name != FUSED}
    best = max(alone, key=lambda name: alone[name])
    listed = ", ".join(f"{name} {percent(score)}" for name, score in alone.items())
    return f"By the heads of single modalities: {listed} %; the best of them is {best}."


def _adds(found: Evidence) -> str:
    listed = ", ".join(f"{m} {signed(share)}" for m, share in found.shares.items())
    return f"Of the {percent(found.score.value)} %, chance gives {percent(found.chance)}; in points, {listed}."


def _missing(found: Evidence) -> str:
    whole, lost = found.subsets.get("+".join(found.shares)), {}
    for m in found.shares:
        rest = "+".join(name for name in found.shares if name != m)
        if rest in found.subsets and whole is not None:
            lost[m] = found.subsets[rest] - whole
    if not lost:
        return ""
    listed = ", ".join(f"without {m} {signed(change)}" for m, change in lost.items())
    return f"When a modality is missing, in points: {listed}."


def _doubts(found: Evidence) -> list[str]:
    said, n = [], found.samples["val"]
    if n < MIN_SAMPLES:
        said.append(
            f"With {n} validation samples no weights were fitted ({MIN_SAMPLES} are needed): all experts count alike. "
            "More validation data would help."
        )
    elif found.uncertain:
        widest = max(found.experts, key=lambda name: found.experts[name].spread or 0)
        expert = found.experts[widest]
        said.append(
            f"More validation data would help: on {n} samples drawn again the weight of {widest} "
            f"({expert.weight:.2f}) varies by ±{expert.spread or 0:.2f}."
        )
    if found.part == "val":
        said.append("There is no test split: the scores are of the samples that selected and fitted, so they flatter.")
    if found.out_of_time:
        said.append("The budget ended the run before its last epoch; with a larger one it goes on (resume).")
    failed = [trial for trial in found.trials if trial.loss is None]
    if failed:
        said.append(f"Training diverged at the learning rate {', '.join(f'{t.rate:g}' for t in failed)}.")
    return said


def _cost(cost: Mapping[str, float]) -> str:
    tried = cost["seconds of trials"]
    return (
        f"Cost: {cost['parameters']:,.0f} parameters, {cost['milliseconds a sample']:.2f} ms a sample at prediction, "
        f"{cost['seconds of training']:.1f} s of training"
        + (f" and {tried:.1f} s of trials of the learning rate." if tried else ".")
    )
