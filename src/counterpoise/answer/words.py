"""The evidence in sentences, for somebody who decides."""

from __future__ import annotations

from collections.abc import Mapping

from counterpoise.answer.evidence import Evidence, Interval
from counterpoise.answer.kept import ONE, Kept
from counterpoise.functional.pool_fitting import MIN_SAMPLES
from counterpoise.metrics import SHARES
from counterpoise.types import FUSED

SPLITS = {"test": "test", "val": "validation"}


def percent(value: float) -> str:
    """One digit after the point."""
    return f"{100 * value:.1f}"


def signed(share: float) -> str:
    """In points, with its sign."""
    return f"{100 * share:+.1f}".replace("-", "\N{MINUS SIGN}")


def spanned(interval: Interval, *, sign: bool = False) -> str:
    """A number in per cent or points, with its interval."""
    written = signed if sign else percent
    return f"{written(interval.value)} [{written(interval.low)}, {written(interval.high)}]"


def headline(evidence: Evidence) -> str:
    """The answer in one sentence."""
    n = evidence.samples[evidence.part]
    return f"The model reaches {spanned(evidence.score)} % {evidence.yardstick} on {n} {SPLITS[evidence.part]} samples."


def sentences(evidence: Evidence) -> list[str]:
    """The answer, what it rests on, and what to doubt."""
    said = [headline(evidence), *_failed(evidence), _best(evidence), _adds(evidence)]
    share = percent(evidence.trust)
    held = f"; {share} % of it is the best expert, held on to as a fallback" if float(share) else ""
    gained = spanned(evidence.gain, sign=True)
    said.append(f"The pool gives {gained} points over the fused prediction without it{held}.")
    if evidence.against is not None:
        label, gain = evidence.against
        said.append(f"Over {label}, on the same samples: {spanned(gain, sign=True)} points.")
    if evidence.kept is not None:
        said += _kept(evidence.kept)
    if missing := _missing(evidence):
        said.append(missing)
    said += _doubts(evidence)
    said.append(_cost(evidence.cost))
    return said


def _failed(evidence: Evidence) -> list[str]:
    """Which experts the answer goes without, and why."""
    said = []
    for name in evidence.without:
        who = "The fused prediction" if name == FUSED else f"The modality {name}"
        said.append(f"{who} failed in training (NaN or infinite numbers): the model was trained without it.")
    for name, parts in evidence.broken.items():
        counts = " and ".join(
            f"{count} of {evidence.samples[part]} {SPLITS[part]} samples" for part, count in parts.items()
        )
        who = "The fused prediction" if name == FUSED else f"The head of {name}"
        said.append(f"{who} gives no finite numbers for {counts}: the pool goes on without it there.")
    return said


def _best(evidence: Evidence) -> str:
    alone = {name: e.score for name, e in evidence.experts.items() if e.score is not None and name != FUSED}
    if not alone:
        return "No head of a single modality predicts."
    best = max(alone, key=lambda name: alone[name])
    listed = ", ".join(f"{name} {percent(score)}" for name, score in alone.items())
    return f"By the heads of single modalities: {listed} %; the best of them is {best}."


def _adds(evidence: Evidence) -> str:
    listed = ", ".join(f"{m} {signed(share)}" for m, share in evidence.shares.items())
    return f"Of the {percent(evidence.score.value)} %, chance gives {percent(evidence.chance)}; in points, {listed}."


def _kept(kept: Kept) -> list[str]:
    """What a student keeps, and what that saves."""
    factor, unit = (100, " %") if kept.metric in SHARES else (1, "")
    said = {who: f"{factor * scores[kept.part]:.{1 if unit else 3}f}{unit}" for who, scores in kept.scores.items()}
    both = f"{said['student']} {kept.metric} on {SPLITS[kept.part]}, its teacher ({kept.teacher}) {said['teacher']}"
    more = f" {kept.unlabelled} samples without labels were learned from, too." if kept.unlabelled else ""
    ways = [f"The student reaches {both}.{more}"]
    if ONE in said:
        share = "none" if kept.share is None or kept.share <= 0 else f"{100 * kept.share:.0f} %"
        gain = f"of what the teacher gains over that, the student keeps {share}"
        ways.append(f"One of the teacher's runs reaches {said[ONE]} on average; {gain}.")
    teacher, student = (
        f"{cost['parameters']:,.0f} parameters and {cost['milliseconds a sample']:.2f} ms a sample"
        for cost in (kept.cost["teacher"], kept.cost["student"])
    )
    return [*ways, f"At prediction the teacher costs {teacher}, the student {student}."]


def _missing(evidence: Evidence) -> str:
    whole, lost = evidence.subsets.get("+".join(evidence.shares)), {}
    for m in evidence.shares:
        rest = "+".join(name for name in evidence.shares if name != m)
        if rest in evidence.subsets and whole is not None:
            lost[m] = evidence.subsets[rest] - whole
    if not lost:
        return ""
    listed = ", ".join(f"without {m} {signed(change)}" for m, change in lost.items())
    return f"When a modality is missing, in points: {listed}."


def _doubts(evidence: Evidence) -> list[str]:
    said, n = [], evidence.samples["val"]
    if n < MIN_SAMPLES:
        said.append(
            f"With {n} validation samples no weights were fitted ({MIN_SAMPLES} are needed): all experts count alike. "
            "More validation data would help."
        )
    elif evidence.uncertain:
        widest = max(evidence.experts, key=lambda name: evidence.experts[name].spread or 0)
        expert = evidence.experts[widest]
        said.append(
            f"More validation data would help: on {n} samples drawn again the weight of {widest} "
            f"({expert.weight:.2f}) varies by ±{expert.spread or 0:.2f}."
        )
    if evidence.part == "val":
        said.append("There is no test split: the scores are of the samples that selected and fitted, so they flatter.")
    if evidence.out_of_time:
        said.append("The budget ended the run before its last epoch; with a larger one it goes on (resume).")
    failed = [trial for trial in evidence.trials if trial.loss is None]
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
