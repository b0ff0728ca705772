"""Every metric of every set of predictions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from torch import Tensor

from counterpoise._checks import did_you_mean
from counterpoise.metrics import classification, multilabel, regression
from counterpoise.metrics.metric import Metric
from counterpoise.types import Present

OF_TASKS = (classification.METRICS, multilabel.METRICS, regression.METRICS)
LOWER_IS_BETTER = {"gap", "seconds", *(n for known in OF_TASKS for n, m in known.items() if m.lower_is_better)}
"""Names of the quantities where less is better; everything else is better when larger. Imported metrics add theirs."""
SHARES = {"gap", "likelihood", *(n for known in OF_TASKS for n, m in known.items() if m.share)}
"""Names of the quantities between 0 and 1, which tables show in per cent."""


def lower_is_better(name: str) -> bool:
    """Whether less is better, for a metric (``"loss"``) or a score of a run (``"audio/loss"``)."""
    return name.rsplit("/", 1)[-1] in LOWER_IS_BETTER


def score(
    outputs: Mapping[str, Tensor],
    target: Tensor,
    present: Present = None,
    metrics: Sequence[str] | None = None,
    among: Mapping[str, Metric] = classification.METRICS,
    weight: Tensor | None = None,
) -> dict[str, float]:
    """Every metric of every set of predictions.

    Args:
        outputs: ``"fused"`` or a modality -> (n, classes) logits, or what else the metrics take.
        target: (n,) class numbers, or (n, labels or numbers).
        present: modality -> (n,) bool. A modality is scored on the samples that have it, and left
            out when no sample has it; names that are not in ``present`` are scored on all samples.
        metrics: names from ``among``; None for all of them.
        among: name -> metric.
        weight: (n,) how much each sample counts, for metrics that weigh samples; None when all count alike.

    Returns:
        ``"fused/accuracy"``, ``"audio/accuracy"``, ... A metric that the target leaves undefined, such as the average
        precision of labels that no sample has, is left out. Outputs that are not finite (a run that diverged) score
        ``nan`` in every metric.

    Raises:
        ValueError: for an unknown metric, one that is not finite for finite outputs, no samples, or shapes and class
            numbers that do not fit.
    """
    metrics = tuple(among) if metrics is None else metrics
    for metric in metrics:
        if metric not in among:
            raise ValueError(did_you_mean("metric", metric, among))
    target = target.detach().cpu()
    scores: dict[str, float] = {}
    for name, values in outputs.items():
        # Float64 on the CPU: ranks and bins do not depend on the device or on float32 saturation.
        values = _checked(name, values, target)
        truth, counts = target, weight
        if present is not None and name in present:
            rows = present[name].detach().cpu()
            values, truth, counts = values[rows], target[rows], None if weight is None else weight[rows]
        if not len(truth):
            continue
        finite = bool(values.isfinite().all())
        for metric in metrics:
            value = among[metric](values, truth, counts) if finite else math.nan
            if value is None:
                continue
            if finite and not math.isfinite(value):
                raise ValueError(
                    f"Metric {metric!r} is {value} for the {name} prediction of {len(truth)} samples, which is finite. "
                    "A metric must be a finite number there, or None where the target leaves it undefined."
                )
            scores[f"{name}/{metric}"] = value
    return scores


def _checked(name: str, outputs: Tensor, target: Tensor) -> Tensor:
    fits = outputs.shape == target.shape if target.ndim == 2 else target.ndim == 1 and outputs.ndim == 2
    if not fits or len(outputs) != len(target):
        raise ValueError(
            f"Scores need logits (n, classes) and target (n,), or outputs and target of one shape; {name!r} has "
            f"logits {tuple(outputs.shape)} and target {tuple(target.shape)}."
        )
    if not len(target):
        raise ValueError(f"Scores of {name!r} need at least one sample; got none.")
    if target.ndim == 1 and (target.min() < 0 or target.max() >= outputs.shape[1]):
        raise ValueError(
            f"target must be class numbers from 0 to {outputs.shape[1] - 1} (the logits of {name!r} have "
            f"{outputs.shape[1]} classes); found {int(target.min())} to {int(target.max())}."
        )
    return outputs.detach().cpu().double()
