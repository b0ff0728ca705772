"""Classification scores: functions of logits (n, classes) and target (n,), on whole splits, never on batches."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from counterpoise._checks import did_you_mean

# torchmetrics takes a second to import, so each function imports what it needs. `validate_args=False`
# everywhere: `_checked` has looked at shapes and ranges once, with messages that name our arguments.
BACKEND = "torchmetrics.functional.classification"
"""What they import; who times training imports it before."""


def accuracy(logits: Tensor, target: Tensor) -> float:
    """Share of samples whose largest logit is that of their class."""
    from torchmetrics.functional.classification import multiclass_accuracy

    classes = logits.shape[1]
    return float(multiclass_accuracy(logits.argmax(1), target, classes, average="micro", validate_args=False))


def mean_average_precision(logits: Tensor, target: Tensor) -> float:
    """Average precision of each class against the rest, ranked by softmax; mean over the classes that occur."""
    from torchmetrics.functional.classification import multilabel_average_precision

    occurring = target.unique()
    scores = logits.softmax(1)[:, occurring]
    relevant = (target.unsqueeze(1) == occurring).long()
    return float(multilabel_average_precision(scores, relevant, len(occurring), average="macro", validate_args=False))


def macro_f1(logits: Tensor, target: Tensor) -> float:
    """Mean of the classes' F1, over the classes that occur in the target or in the prediction."""
    from torchmetrics.functional.classification import multiclass_f1_score

    classes = logits.shape[1]
    return float(multiclass_f1_score(logits.argmax(1), target, classes, average="macro", validate_args=False))


def expected_calibration_error(logits: Tensor, target: Tensor, bins: int = 15) -> float:
    r"""Expected calibration error of the softmax, :math:`\sum_b \frac{n_b}{n} |acc_b - conf_b|`.

    Bins of equal width over the confidence of the predicted class (Guo et al., ICML 2017).
    """
    from torchmetrics.functional.classification import multiclass_calibration_error

    # torchmetrics computes in float32 and its bins are open above: a confidence of 1 would get a bin of its own.
    scores = logits.softmax(1).clamp(max=1 - torch.finfo(torch.float32).eps)
    return float(multiclass_calibration_error(scores, target, logits.shape[1], n_bins=bins, validate_args=False))


def loss(logits: Tensor, target: Tensor) -> float:
    """Mean cross-entropy, in nats."""
    return float(F.cross_entropy(logits, target))


METRICS: dict[str, Callable[[Tensor, Tensor], float]] = {
    "accuracy": accuracy,
    "map": mean_average_precision,
    "macro_f1": macro_f1,
    "ece": expected_calibration_error,
    "loss": loss,
}
"""Name -> function of (logits, target). Add your own under a new name."""

LOWER_IS_BETTER = {"ece", "loss", "gap", "seconds"}
"""Names of the quantities where less is better; everything else is better when larger."""


def lower_is_better(name: str) -> bool:
    """Whether less is better, for a metric (``"loss"``) or a score of a run (``"audio/loss"``)."""
    return name.rsplit("/", 1)[-1] in LOWER_IS_BETTER


def score(
    logits_by_name: Mapping[str, Tensor],
    target: Tensor,
    present: Mapping[str, Tensor] | None = None,
    metrics: Sequence[str] = tuple(METRICS),
) -> dict[str, float]:
    """Every metric of every set of logits.

    Args:
        logits_by_name: ``"fused"`` or a modality -> (n, classes).
        target: (n,) class numbers.
        present: modality -> (n,) bool. A modality is scored on the samples that have it, and left
            out when no sample has it; names that are not in ``present`` are scored on all samples.
        metrics: names from ``METRICS``.

    Returns:
        ``"fused/accuracy"``, ``"audio/accuracy"``, ... Logits that are not finite (a run that
        diverged) score ``nan`` in every metric.

    Raises:
        ValueError: for an unknown metric, one that is not finite for finite logits, no samples, or shapes
            and class numbers that do not fit.
    """
    for metric in metrics:
        if metric not in METRICS:
            raise ValueError(did_you_mean("metric", metric, METRICS))
    target = target.detach().cpu()
    scores: dict[str, float] = {}
    for name, logits in logits_by_name.items():
        # Float64 on the CPU: ranks and bins do not depend on the device or on float32 saturation.
        logits = _checked(name, logits, target)
        truth = target
        if present is not None and name in present:
            rows = present[name].detach().cpu()
            logits, truth = logits[rows], target[rows]
        if not len(truth):
            continue
        finite = bool(logits.isfinite().all())
        for metric in metrics:
            value = METRICS[metric](logits, truth) if finite else math.nan
            if finite and not math.isfinite(value):
                raise ValueError(
                    f"Metric {metric!r} is {value} for the {name} prediction of {len(truth)} samples, whose logits are "
                    "finite. A metric must be a finite number there: define it for this case, or leave it out."
                )
            scores[f"{name}/{metric}"] = value
    return scores


def _checked(name: str, logits: Tensor, target: Tensor) -> Tensor:
    if target.ndim != 1 or logits.ndim != 2 or len(logits) != len(target):
        raise ValueError(
            f"Scores need logits (n, classes) and target (n,); {name!r} has logits {tuple(logits.shape)} "
            f"and target {tuple(target.shape)}."
        )
    if not len(target):
        raise ValueError(f"Scores of {name!r} need at least one sample; got none.")
    if target.min() < 0 or target.max() >= logits.shape[1]:
        raise ValueError(
            f"target must be class numbers from 0 to {logits.shape[1] - 1} (the logits of {name!r} have "
            f"{logits.shape[1]} classes); found {int(target.min())} to {int(target.max())}."
        )
    return logits.detach().cpu().double()
