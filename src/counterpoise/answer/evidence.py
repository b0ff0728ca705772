"""What is known of a model with a pool: its experts, what each modality adds, how sure it is, and what it cost."""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from counterpoise.answer.kept import Kept, at_prediction
from counterpoise.answer.rates import Trial
from counterpoise.data.split import Split, Splits
from counterpoise.engine import Predictions, Run, Trainer
from counterpoise.engine.selection import unpooled
from counterpoise.functional.pool_fitting import MIN_SAMPLES
from counterpoise.functional.pooling import Pool
from counterpoise.functional.shapley import coalitions, sampled_orders, shapley
from counterpoise.fusions.pool import ExpertPool
from counterpoise.metrics import subset_name, subsets
from counterpoise.task import SingleLabel, Task
from counterpoise.types import FUSED, who_has

DRAWS, REFITS = 1000, 20
"""Samples drawn again for an interval; fits on validation samples drawn again."""
BINS, IN_A_BIN = 10, 20
"""Of confidence: so many at most, and so many samples in each at least."""


@dataclass(frozen=True)
class Expert:
    """One prediction in the pool.

    Attributes:
        score: alone, in the yardstick, on the samples that have it; None where no sample does.
        weight: in the pool, the mean over labels or numbers where there are several.
        spread: standard deviation of the weight over fits on validation samples drawn again; None on too few.
        temperature: that its probabilities are tempered by; None of numbers.
    """

    score: float | None
    weight: float
    spread: float | None
    temperature: float | None


@dataclass(frozen=True)
class Interval:
    """A score or a difference, and the interval that 95 of 100 drawn again lie in."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Evidence:
    """All that the page says.

    Attributes:
        task: kind of what is predicted.
        yardstick: the score in [0, 1] that everything is compared by.
        part: of the data that the scores are of: "test", or "val" where there is no test.
        samples: of training, validation and that part.
        experts: the fused prediction and that of each modality.
        trust: share of the best expert in the prediction, the mean over labels or numbers.
        score: of the model.
        gain: over the fused prediction without the pool.
        against: label of another model and the gain over it, when there is one.
        chance: what can be had without looking at a sample.
        shares: modality -> what it adds to the score above chance (Shapley).
        subsets: "audio+image" -> score when only these are there; without those that no sample has.
        metrics: metric -> without the pool, with it.
        reliability: "without the pool" and "with it" -> confidence, accuracy and share of the samples per bin.
        cost: parameters, milliseconds a sample, seconds of training and of trials, passes, epochs.
        out_of_time: a budget ended the run.
        trials: of learning rates.
        without: the experts that failed in training, which went on without them.
        broken: expert -> part -> samples of which it gave no finite numbers, for the others that have such samples.
        kept: of a student, what it keeps of its teacher.
    """

    task: str
    yardstick: str
    part: str
    samples: Mapping[str, int]
    experts: Mapping[str, Expert]
    trust: float
    score: Interval
    gain: Interval
    against: tuple[str, Interval] | None
    chance: float
    shares: Mapping[str, float]
    subsets: Mapping[str, float]
    metrics: Mapping[str, tuple[float | None, float]]
    reliability: Mapping[str, list[tuple[float, float, float]]]
    cost: Mapping[str, float]
    out_of_time: bool
    trials: tuple[Trial, ...]
    without: tuple[str, ...]
    broken: Mapping[str, Mapping[str, int]]
    kept: Kept | None = None

    @property
    def uncertain(self) -> bool:
        """Whether more validation samples would help: a weight varies by more than a tenth, or none could be fitted."""
        spreads = [expert.spread for expert in self.experts.values()]
        return any(spread is None or spread > 0.1 for spread in spreads)


def measure(
    trainer: Trainer,
    data: Splits,
    result: Mapping[str, Any],
    trials: list[Trial],
    against: tuple[str, Trainer] | None = None,
    without: Sequence[str] = (),
    kept: Kept | None = None,
) -> Evidence:
    """The evidence on a trained model with a pool.

    Args:
        trainer: of the model, with the selected weights.
        data: what it was trained on.
        result: of its run.
        trials: of the learning rate.
        against: what another trained model of the same data is called, and its trainer.
        without: the experts that failed in training.
        kept: of a student, what it keeps of its teacher.
    """
    model, task = trainer.model, trainer.model.task
    part, split = ("val", data.val) if data.test is None else ("test", data.test)
    started = time.perf_counter()
    with_pool = trainer.current.predict(split, keep=True)  # the data are read and encoded once for all that follows
    seconds = time.perf_counter() - started
    prediction = kept.cost["student"] if kept is not None else at_prediction(trainer, seconds / len(split))
    pool = model.pool
    assert pool is not None
    without_pool, val = (unpooled(trainer.current, samples) for samples in (split, data.val))
    hits, plain = _hits(task, with_pool), _hits(task, without_pool)
    rival = None
    if against is not None:
        rival = (against[0], interval(hits - _hits(task, against[1].predict(split))))
    before = _scores_without_pool(trainer.current, without_pool)
    after = _fused(trainer.evaluate(split))
    by_modality = _by_modality(trainer, split)
    trainer.current.evaluator.forget()
    return Evidence(
        task=task.kind,
        yardstick=task.yardstick,
        part=part,
        samples={"train": len(data.train), "val": len(data.val), part: len(split)},
        experts=_experts(trainer, without_pool, _spread(pool, val)),
        trust=float(pool.values.trust.mean()),
        score=interval(hits),
        gain=interval(hits - plain),
        against=rival,
        chance=task.chance(split.target),
        **by_modality,
        metrics={name: (before.get(name), value) for name, value in after.items()},
        reliability=_reliability(task, {"without the pool": without_pool, "with the pool": with_pool}),
        cost=_cost(prediction, result, trials),
        out_of_time=bool(result.get("out_of_time")),
        trials=tuple(trials),
        without=tuple(without),
        broken=_broken({"val": val, part: without_pool}),
        kept=kept,
    )


def interval(values: Tensor, draws: int = DRAWS) -> Interval:
    """The mean of (samples,) values, and where 95 of 100 means of samples drawn again (with seed 0) lie."""
    values = values.double()
    chosen = torch.randint(len(values), (draws, len(values)), generator=torch.Generator().manual_seed(0))
    low, high = values[chosen].mean(1).quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return Interval(float(values.mean()), low, high)


def _hits(task: Task, predictions: Predictions) -> Tensor:
    """(samples,) how far each is right; one without any modality, or without a finite prediction, counts as wrong."""
    right, finite = task.hits(predictions.fused.double(), predictions.target), predictions.fused.isfinite().all(1)
    return right.masked_fill(~(predictions.anything() & finite), 0)


def _broken(predictions: Mapping[str, Predictions]) -> dict[str, dict[str, int]]:
    """Expert -> part -> samples without finite numbers."""
    counts = dict[str, dict[str, int]]()
    for part, predicted in predictions.items():
        for name, rows in predicted.broken().items():
            counts.setdefault(name, {})[part] = len(rows)
    return counts


def _scores_without_pool(run: Run, predictions: Predictions) -> dict[str, float]:
    """Metric -> score of the fused prediction; empty where it is not finite."""
    if not predictions.fused.isfinite().all():
        return {}
    metrics = tuple(dict.fromkeys((*run.metrics, run.monitor, "loss")))
    fused, target, weight = {FUSED: predictions.fused}, predictions.target, predictions.weight
    return _fused(run.task.scores(fused, target, None, metrics, run.loss.mean, weight))


def _fused(scores: Mapping[str, float]) -> dict[str, float]:
    return {name.removeprefix(f"{FUSED}/"): value for name, value in scores.items() if name.startswith(f"{FUSED}/")}


def _experts(trainer: Trainer, predictions: Predictions, spread: Mapping[str, float]) -> dict[str, Expert]:
    task, pool, experts = trainer.model.task, trainer.model.pool, dict[str, Expert]()
    assert pool is not None
    values, reads = pool.values, predictions.named()
    total = sum(float(values.weight[..., pool.experts.index(name)].mean()) for name in reads)
    for name, outputs in reads.items():
        place = pool.experts.index(name)
        rows = predictions.anything() if name == FUSED else who_has(name, predictions.present, len(predictions.fused))
        rows = rows & outputs.isfinite().all(1)
        score = float(task.hits(outputs[rows].double(), predictions.target[rows]).mean()) if rows.any() else None
        temperature = float(values.temperature[..., place].mean()) if isinstance(values, Pool) else None
        weight = float(values.weight[..., place].mean()) / total
        experts[name] = Expert(score, weight, spread.get(name), temperature)
    return experts


def _spread(pool: ExpertPool, val: Predictions) -> dict[str, float]:
    """How much each weight varies over fits on validation samples drawn again; empty on too few samples."""
    count = len(val.target)
    if count < MIN_SAMPLES:
        return {}
    generator, reads = torch.Generator().manual_seed(0), list(val.named())
    places = [pool.experts.index(name) for name in reads]
    weights = []
    for _ in range(REFITS):
        rows = torch.randint(count, (count,), generator=generator)
        logits = {name: values[rows] for name, values in val.named().items()}
        present = None if val.present is None else {m: mask[rows] for m, mask in val.present.items()}
        again = ExpertPool(pool.experts, pool.task, first=pool.first)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of classes that these samples lack
            again.fit(logits, val.target[rows], present)
        weight = again.values.weight.reshape(-1, len(pool.experts)).mean(0)[places]
        weights.append(weight / weight.sum())
    return dict(zip(reads, torch.stack(weights).std(0).tolist(), strict=True))


def _by_modality(trainer: Trainer, split: Split) -> dict[str, Any]:
    """What each modality adds, and the score of every subset that some sample has."""
    task, names = trainer.model.task, trainer.method.reads(trainer.model.modalities)
    orders = sampled_orders(names)
    needed, listed = coalitions(names, orders), [frozenset(subset) for subset in subsets(names)]
    chosen = list(dict.fromkeys([*needed, *listed]))
    values = {frozenset[str](): torch.tensor(task.chance(split.target), dtype=torch.float64)}
    scores = {}
    for subset, predictions in zip(chosen, trainer.current.predict_subsets(split, chosen), strict=True):
        hits, there = _hits(task, predictions), predictions.anything()
        had = torch.stack([who_has(m, split.present, len(hits)) for m in subset]).any(0)
        values[subset] = torch.where(had & ~there, values[frozenset()], hits).mean()  # what fails knows nothing
        if subset in listed and there.any():
            scores[subset_name([m for m in names if m in subset])] = float(hits[there].mean())
    shares = {m: float(share) for m, share in shapley(values, names, orders).items()}
    return {"shares": shares, "subsets": scores}


def _reliability(task: Task, predictions: Mapping[str, Predictions]) -> dict[str, list[tuple[float, float, float]]]:
    """Mean confidence, accuracy and share of the samples, in bins of as many samples each; of classes only."""
    if not isinstance(task, SingleLabel):
        return {}
    curves = {}
    for name, predicted in predictions.items():
        finite = predicted.fused.isfinite().all(1)
        if not finite.any():
            continue
        sure, said = predicted.fused[finite].double().softmax(1).max(1)
        right, count = (said == predicted.target[finite]).double(), len(sure)
        bins = sure.argsort(stable=True).tensor_split(min(BINS, max(1, count // IN_A_BIN)))
        curves[name] = [(float(sure[rows].mean()), float(right[rows].mean()), len(rows) / count) for rows in bins]
    return curves


def _cost(prediction: Mapping[str, float], result: Mapping[str, Any], trials: list[Trial]) -> dict[str, float]:
    counted = {name: result["cost"][name] for name in ("forward", "backward") if result["cost"][name] is not None}
    return {
        **prediction,
        "seconds of training": result["seconds"],
        "seconds of trials": sum(trial.seconds for trial in trials),
        "epochs": result["epochs"],
        **{f"{name} passes": value for name, value in counted.items()},
    }
