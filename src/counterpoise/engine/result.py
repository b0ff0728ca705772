"""What a trained run is worth and what it cost: the content of ``result.json``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from counterpoise.data.split import Split
from counterpoise.engine import cost
from counterpoise.engine.run import Run
from counterpoise.functional.shapley import coalitions, sampled_orders, shapley, shapley_error
from counterpoise.metrics.balance import subset_name, subsets

SubsetScores = dict[str, dict[str, float]]
"""``"audio+image"`` -> metric -> score."""


class Result(dict[str, Any]):
    """What ``result.json`` holds, shown in a line."""

    def __repr__(self) -> str:
        part = "val" if self["test"] is None else "test"
        scores = [
            f"{name} {self[part][f'{name}/{self.monitor}']:.3f}"
            for name in ("fused", *self["modalities"])
            if f"{name}/{self.monitor}" in self[part]
        ]
        of = f"{self['label']} on {self['data']}" if self["data"] else self["label"]
        return (
            f"Result({of}: {part} {self.monitor} {', '.join(scores)}; epoch {self['best_epoch']} of {self['epochs']}, "
            f"{self['seconds']:.1f} s)"
        )

    @property
    def monitor(self) -> str:
        """The metric that selected the weights."""
        return self["monitor"]


def names_of(run: Run, *, data: str, label: str | None) -> dict[str, Any]:
    """What tables and reports call a run, known before it has begun.

    Args:
        run: any.
        data: name of the data set.
        label: of the run; None for the method's.
    """
    method = run.method
    return {"method": type(method).__name__, "label": label or method.label, "seed": run.seed, "data": data}


def result_of(run: Run, test: Split | None, *, data: str, label: str | None) -> Result:
    """Scores of validation and test, and all that tables say of a run.

    Args:
        run: trained, with the selected weights.
        test: may be None.
        data: name of the data set.
        label: of the run; None for the method's.
    """
    epoch = len(run.model.modalities) * len(run.train_split) / run.fabric.world_size
    content = {
        **names_of(run, data=data, label=label),
        "modalities": list(run.model.modalities),
        "task": run.task.kind,
        "classes": list(run.train_split.classes),
        "fusion": type(run.model.fusion).__name__,
        "unimodal": run.method.unimodal_by(run.model),
        "seconds": round(run.state.seconds, 3),
        "cost": cost.summary(run.state, run.device, epoch=epoch, counted=not run.compile),
        "epochs": run.state.epoch,
        "best_epoch": run.state.best_epoch,
        **({} if run.early_stopping is None else {"stopped_early": run.state.epoch < run.epochs}),
        **({} if run.state.phase is None else {"out_of_time": True}),
        "monitor": run.monitor,
        "val": run.evaluate(run.val_split),
        "test": None if test is None else run.evaluate(test),
        "subsets": {} if test is None else subset_scores(run, test),
        "contributions": {} if test is None else contributions(run, test),
    }
    return Result(content)


def subset_scores(run: Run, split: Split, named: Sequence[Sequence[str]] | None = None) -> SubsetScores:
    """The metrics of the fused prediction from subsets of the modalities: ``metrics.subsets``, or the ``named``."""
    reads = run.method.reads(run.model.modalities)
    chosen = list(subsets(reads) if named is None else map(run.model.select, named))
    results: SubsetScores = {}
    for names, predictions in zip(chosen, run.predict_subsets(split, chosen), strict=True):
        some = predictions.anything()
        scores = {}
        if some.any():
            logits, target = predictions.fused[some], predictions.target[some]
            weight = None if predictions.weight is None else predictions.weight[some]
            scores = run.task.scores({"fused": logits}, target, None, run.metrics, run.loss.mean, weight)
        results[subset_name(names)] = {name.removeprefix("fused/"): value for name, value in scores.items()}
    return results


def contributions(run: Run, split: Split) -> dict[str, dict[str, float]]:
    """Shapley share of each modality in the task's yardstick, sampled, where there are too many subsets to list.

    A sample that has none of a subset's modalities counts as wrong; nothing at all is worth ``Task.chance``.

    Returns:
        modality -> ``"share"`` and its standard ``"error"``; empty for up to ``LATTICE`` modalities.
    """
    names = run.method.reads(run.model.modalities)
    orders = sampled_orders(names)
    if orders is None:
        return {}
    values = {frozenset[str](): torch.tensor(run.task.chance(split.target), dtype=torch.float64)}
    chosen = coalitions(names, orders)
    for subset, predictions in zip(chosen, run.predict_subsets(split, chosen), strict=True):
        hits = run.task.hits(predictions.fused.double(), predictions.target)
        values[subset] = (hits * predictions.anything()).mean()
    shares, errors = shapley(values, names, orders), shapley_error(values, names, orders)
    return {m: {"share": float(shares[m]), "error": float(errors[m])} for m in names}
