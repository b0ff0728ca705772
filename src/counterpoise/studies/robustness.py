"""A score while modalities go missing, or get noise: trained models on worse test samples."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from counterpoise._checks import number, spelled
from counterpoise.benchmark.cells import Difference, change_text, named
from counterpoise.benchmark.plan import Row, method_names
from counterpoise.benchmark.summary import mean_sd, paired_difference
from counterpoise.data.corruption import (
    ABSENT,
    CORRUPTIONS,
    Corrupted,
    corruptions_of,
    deviations,
    levels_of,
    refuse_misfit,
)
from counterpoise.data.split import Split, Splits
from counterpoise.engine import Trainer
from counterpoise.metrics import SHARES, effective_robustness, lower_is_better, relative_robustness
from counterpoise.recipe.messages import Options, UsageError, usage
from counterpoise.recipe.trained import open_run
from counterpoise.report.charts import sweep
from counterpoise.report.markup import Score, html_table
from counterpoise.studies.base import (
    SPLITS,
    Given,
    Picture,
    Trained,
    cell,
    common_split,
    metric_option,
    told,
    unit,
)
from counterpoise.types import FUSED, who_has

TITLE = "Robustness"
ABOUT = (
    "The fused score of trained models, nothing trained again, while one modality of the test samples is absent for a "
    "share of those that have it, or gets noise, blur and the like, before anything is resized, normalised or turned "
    "into a spectrogram; numbers as encoders get them. What is drawn belongs to the run's seed and the sample: all "
    "methods see the same. Samples that nothing is left of do not count. Relative robustness is the mean height of a "
    "curve, effective robustness the mean height above the baseline's, moved to the same clean score: MultiBench "
    "(Liang et al., 2021), but that it sums the latter, compares with late fusion, and scales both to [0, 1] among the "
    "methods. Not in the poster, so there is no original to be unknown."
)
SHARES_ABSENT = (0.0, 0.25, 0.5, 0.75, 1.0)
NOISE = Mapping[str, Mapping[str, Sequence[float] | None]]
"""Modality -> corruption -> its levels, None for the default ones."""


class Curve(NamedTuple):
    """Which scores belong together: one modality, what happens to it, and how much of it, beginning with nothing."""

    modality: str
    name: str
    levels: list[float]

    @property
    def title(self) -> str:
        """With the unit of the levels."""
        return f"{self.modality}: {'share absent' if self.name == ABSENT else CORRUPTIONS[self.name].unit}"

    @property
    def places(self) -> list[float]:
        """Where the levels stand."""
        return self.levels if self.name == ABSENT else CORRUPTIONS[self.name].places(self.levels)

    @property
    def labels(self) -> list[str]:
        """The levels as people read them."""
        return ["clean" if math.isinf(level) else f"{level:g}" for level in self.levels]


# -- what is measured ----------------------------------------------------------------------------------
@spelled
def robustness(
    trainer: Trainer,
    data: Splits,
    *,
    absent: Sequence[float] = SHARES_ABSENT,
    noise: NOISE | None = None,
    metric: str | None = None,
    seed: int = 0,
) -> dict[str, dict[float, float]]:
    """The fused score of a trained model while one modality of the test samples is absent or gets worse.

    Args:
        trainer: trained.
        data: the test part is scored, the validation part where there is none; noise is relative to training.
        absent: shares, in [0, 1], of the samples that have a modality; empty for none.
        noise: modality -> name of a corruption (``counterpoise.data.CORRUPTIONS``) -> its levels, None for the default
            ones. None takes all that fit each modality, an empty mapping none.
        metric: one that the trainer reports; None for the one that selected the weights.
        seed: of what is drawn; models scored with one seed see the same.

    Returns:
        ``"audio absent"``, ``"audio snr"``, ... -> level -> score; the first level is the clean one.

    Raises:
        ValueError: an unknown modality or corruption, one that does not fit, a level out of range.
    """
    part = data.val if data.test is None else data.test
    curves = curves_of(part, absent, noise)
    scores = measured(trainer, part, curves, _scales(data.train, curves), metric or trainer.monitor, seed)
    return {f"{c.modality} {c.name}": dict(zip(c.levels, s, strict=True)) for c, s in zip(curves, scores, strict=True)}


def curves_of(split: Split, absent: Sequence[float], noise: NOISE | None) -> list[Curve]:
    """The curves to measure, absences first; ValueError as from ``robustness``."""
    shares = sorted({0.0, *(float(number("absent", share, low=0, high=1)) for share in absent)})
    curves = [Curve(m, ABSENT, shares) for m in split.modalities if len(split.modalities) > 1 and len(shares) > 1]
    if noise is None:
        noise = {m: dict.fromkeys(corruptions_of(split, m)) for m in split.modalities}
    for m, kinds in noise.items():
        for name, levels in kinds.items():
            refuse_misfit(split, m, name)
            curves.append(Curve(m, name, levels_of(name, levels, f"levels of {m}.{name}")))
    if not curves:
        raise ValueError("There is nothing to measure: no share of absent samples, and no corruption that fits.")
    return curves


def _scales(train: Split, curves: Sequence[Curve]) -> dict[str, Tensor]:
    return {curve.modality: deviations(train, curve.modality) for curve in curves if curve.name == "noise"}


def measured(
    trainer: Trainer, part: Split, curves: Sequence[Curve], scales: Mapping[str, Tensor], metric: str, seed: int
) -> list[list[float]]:
    """The score of each level of each curve; a modality is encoded again only where it changes."""
    run = trainer.current
    reads = run.method.reads(run.model.modalities)
    clean, mine = run.evaluator.features(part, reads)

    def score(features: Mapping[str, Tensor], split: Split) -> float:
        predictions = run.evaluator.fused(features, mine, split)
        some = predictions.anything()
        if not some.any():
            return math.nan
        weight = None if predictions.weight is None else predictions.weight[some]
        logits, target = {FUSED: predictions.fused[some]}, predictions.target[some]
        return run.task.scores(logits, target, None, (metric,), run.loss.mean, weight)[f"{FUSED}/{metric}"]

    plain = score(clean, part)

    def worse(curve: Curve, level: float) -> float:
        m = curve.modality
        if m not in clean:
            return plain  # which the method does not read
        split = Corrupted(part, m, curve.name, level, seed=seed, scale=scales.get(m))
        if curve.name == ABSENT:
            there = who_has(m, split.present, len(split), clean[m].device)[mine]
            return score({**clean, m: clean[m] * there.unsqueeze(1)}, split)
        return score({**clean, m: run.evaluator.features(split, [m])[0][m]}, split)

    return [[plain, *(worse(curve, level) for level in curve.levels[1:])] for curve in curves]


# -- the study -----------------------------------------------------------------------------------------
def add_options(parser: Options) -> None:
    """``--methods``, ``--metric``, ``--absent``, ``--noise``."""
    parser.add_argument("--methods", default="Joint,IGM,ModalityDropout", help="names with commas, or 'all'")
    metric_option(parser)
    parser.add_argument("--absent", default="0,0.25,0.5,0.75,1", help="shares of samples that lack a modality; or none")
    parser.add_argument(
        "--noise",
        nargs="+",
        default=["all"],
        metavar="MODALITY.NAME=LEVELS",
        help=f"as audio.snr=20,10,0 or image.jpeg; all that fit by default, or none. Names: {', '.join(CORRUPTIONS)}",
    )


def plan(given: Given) -> list[Row]:
    """The methods; options that fit no modality are refused before anything is trained."""
    with usage():
        _curves(given)
    return [Row(name, name) for name in method_names(given.own.methods, given.task)]


def _curves(given: Given) -> list[Curve]:
    splits = given.recipe.splits
    return curves_of(
        splits.val if splits.test is None else splits.test, _absent(given.own.absent), _noise(given.own.noise)
    )


def _absent(text: str) -> list[float]:
    return [] if text.strip().casefold() == "none" else _numbers("--absent", text)


def _noise(texts: Sequence[str]) -> dict[str, dict[str, list[float] | None]] | None:
    """What ``--noise`` names, as ``robustness`` takes it."""
    if [text.casefold() for text in texts] in (["all"], ["none"]):
        return None if texts[0].casefold() == "all" else {}
    wanted: dict[str, dict[str, list[float] | None]] = {}
    for text in texts:
        which, _, levels = text.partition("=")
        modality, _, name = which.rpartition(".")
        if not modality or not name:
            raise UsageError(f"--noise must be all, none, or as audio.snr=20,10,0; got {text!r}.")
        wanted.setdefault(modality, {})[name] = _numbers(f"--noise {which}", levels) if levels else None
    return wanted


def _numbers(option: str, text: str) -> list[float]:
    try:
        return [float(one) for one in text.split(",")]
    except ValueError:
        raise UsageError(f"{option} must be numbers with commas; got {text!r}.") from None


def compute(runs: Sequence[Trained], given: Given) -> dict[str, Any]:
    """The scores of every curve, of each method and seed."""
    curves, metric = _curves(given), given.metric
    scales = _scales(given.recipe.splits.train, curves)
    kept = {c.title: {"levels": c.labels, "places": c.places, "rows": {}} for c in curves}
    for run in runs:
        trainer, job, _ = open_run(str(run.directory), trust=True)
        part = job.splits.val if job.splits.test is None else job.splits.test
        for curve, scores in zip(curves, measured(trainer, part, curves, scales, metric, run.seed), strict=True):
            kept[curve.title]["rows"].setdefault(run.row, {})[str(run.seed)] = scores
    rows = list(dict.fromkeys(run.row for run in runs))
    baseline = "Joint" if "Joint" in rows else rows[0]
    return {"split": common_split(runs), "metric": metric, "baseline": baseline, "curves": kept}


# -- what is shown -------------------------------------------------------------------------------------
def _seeds(curve: Mapping[str, Any], row: str) -> dict[int, list[float]]:
    """Seed -> the scores of a row; one that is not finite is null in the file."""
    rows = curve["rows"].get(row, {})
    return {int(seed): [math.nan if v is None else v for v in scores] for seed, scores in rows.items()}


def _relative(curve: Mapping[str, Any], row: str) -> dict[int, float]:
    return {seed: relative_robustness(s, curve["places"]) for seed, s in _seeds(curve, row).items()}


def _effective(curve: Mapping[str, Any], row: str, baseline: str) -> Difference | None:
    """Above the baseline, on the seeds that both have."""
    own, other = _seeds(curve, row), _seeds(curve, baseline)
    both = {seed: effective_robustness(s, other[seed]) for seed, s in own.items() if seed in other}
    return paired_difference(both, dict.fromkeys(both, 0.0), 0.95)


def finding(data: Mapping[str, Any]) -> str:
    """Where the baseline loses most, and whose curves are higher in the mean."""
    metric, baseline, curves = data["metric"], data["baseline"], data["curves"]
    ends = {
        title: [mean_sd([s[i] for s in _seeds(c, baseline).values()])[0] for i in (0, -1)]
        for title, c in curves.items()
    }
    sign = -1 if lower_is_better(metric) else 1
    worst = min(ends, key=lambda title: sign * (ends[title][1] - ends[title][0]))
    level = curves[worst]["levels"][-1]
    rows = dict.fromkeys(row for curve in curves.values() for row in curve["rows"])
    effects = {row: _mean_difference(curves, row, baseline) for row in rows if row != baseline}
    beside = f" Mean height of all {len(curves)} curves beside {baseline}: {told(effects, metric)}" if effects else ""
    return (
        f"Fused {SPLITS[data['split']]} {named(metric)}{unit(metric)}: {baseline} loses most with {worst} at {level}, "
        f"from {cell([ends[worst][0]], metric)} to {cell([ends[worst][1]], metric)}.{beside}"
    )


def _mean_difference(curves: Mapping[str, Any], row: str, baseline: str) -> Difference | None:
    """Of the mean relative robustness over the curves."""
    return paired_difference(_mean_height(curves, row), _mean_height(curves, baseline), 0.95)


def _mean_height(curves: Mapping[str, Any], row: str) -> dict[int, float]:
    each = [_relative(curve, row) for curve in curves.values()]
    return {seed: sum(one[seed] for one in each) / len(each) for seed in each[0]}


def draw(data: Mapping[str, Any], folder: Path) -> list[Picture | str]:
    """A panel per curve, a table of their heights, and one of all scores."""
    metric, curves = data["metric"], data["curves"]
    rows = list(dict.fromkeys(row for curve in curves.values() for row in curve["rows"]))
    label = f"fused {SPLITS[data['split']]} {named(metric)}"
    panels = {title: {row: _by_level(curve, row) for row in curve["rows"]} for title, curve in curves.items()}
    ticks = {title: curve["levels"] for title, curve in curves.items()}
    return [
        Picture(
            "curves",
            lambda: sweep(panels, y=label, share=metric in SHARES, ticks=ticks),
            f"{label.capitalize()} over how bad one modality of the samples is; everything else as it was.",
        ),
        f"Relative robustness: the mean height of each curve{unit(metric)}. Below it, effective robustness: the mean "
        f"height above {data['baseline']}'s curve moved to the same clean score, with its 95 % interval over seeds.",
        _heights(data, rows),
        f"All scores: {label}{unit(metric)}, mean ± standard deviation over seeds.",
        html_table(["level", *rows], _scores(curves, rows, metric), numbers=len(rows)),
    ]


def _by_level(curve: Mapping[str, Any], row: str) -> dict[float, list[float]]:
    seeds = _seeds(curve, row).values()
    return {float(i): [scores[i] for scores in seeds] for i in range(len(curve["levels"]))}


def _heights(data: Mapping[str, Any], rows: Sequence[str]) -> str:
    metric, baseline, curves = data["metric"], data["baseline"], data["curves"]
    first = next(iter(curves.values()))
    table = []
    for row in rows:
        clean = cell([scores[0] for scores in _seeds(first, row).values()], metric)
        above = [None if row == baseline else _effective(curve, row, baseline) for curve in curves.values()]
        heights = [cell(_relative(curve, row).values(), metric) for curve in curves.values()]
        small = ["" if d is None else change_text(metric, d) for d in above]
        table.append([row, clean, *(Score(text, small=s) for text, s in zip(heights, small, strict=True))])
    return html_table(["method", "clean", *curves], table, numbers=len(curves) + 1, baseline=baseline)


def _scores(curves: Mapping[str, Any], rows: Sequence[str], metric: str) -> list[Sequence[str] | str]:
    lines: list[Sequence[str] | str] = []
    for title, curve in curves.items():
        lines.append(title)
        levels = {row: _by_level(curve, row) for row in rows}
        for i, level in enumerate(curve["levels"]):
            lines.append([level, *(cell(levels[row][i], metric) if levels[row][i] else "–" for row in rows)])
    return lines
