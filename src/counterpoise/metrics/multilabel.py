"""Scores of label sets: functions of logits (n, labels) and target (n, labels) of zeros and ones.

What cannot be said, because no label occurs, or each fills the split, is None, and ``score`` leaves it out.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from counterpoise.metrics.metric import Metric


def accuracy(logits: Tensor, target: Tensor) -> float:
    """Share of all labels of all samples that are right, where a logit above 0 says yes: 1 - Hamming distance."""
    return float(((logits > 0) == (target > 0.5)).double().mean())


def hamming(logits: Tensor, target: Tensor) -> float:
    """Hamming distance: share of all labels of all samples that are wrong."""
    return 1 - accuracy(logits, target)


def subset_accuracy(logits: Tensor, target: Tensor) -> float:
    """Share of samples whose labels are all right."""
    return float(((logits > 0) == (target > 0.5)).all(1).double().mean())


def micro_f1(logits: Tensor, target: Tensor) -> float:
    """F1 over all labels of all samples; 0 where it is 0 / 0."""
    said, true = logits > 0, target > 0.5
    both = float((said & true).sum())
    return 2 * both / max(1.0, float(said.sum() + true.sum()))


def macro_f1(logits: Tensor, target: Tensor) -> float:
    """Mean of the labels' F1, over the labels that occur in the target or in the prediction."""
    said, true = logits > 0, target > 0.5
    sizes = (said.sum(0) + true.sum(0)).double()
    f1 = 2 * (said & true).sum(0) / sizes.clamp(min=1)
    return float(f1[sizes > 0].mean()) if (sizes > 0).any() else 0.0


def mean_average_precision(logits: Tensor, target: Tensor) -> float | None:
    """Average precision of each label; mean over the labels that occur."""
    from torchmetrics.functional.classification import multilabel_average_precision

    occurring = target.sum(0) > 0
    if not occurring.any():
        return None
    scores, relevant = logits[:, occurring].sigmoid(), target[:, occurring].long()
    return float(multilabel_average_precision(scores, relevant, int(occurring.sum()), validate_args=False))


def area_under_roc(logits: Tensor, target: Tensor) -> float | None:
    """Area under the ROC curve of each label; mean over the labels that some samples have and some have not."""
    from torchmetrics.functional.classification import multilabel_auroc

    counts = target.sum(0)
    mixed = (counts > 0) & (counts < len(target))
    if not mixed.any():
        return None
    ranked = logits[:, mixed].sigmoid()
    return float(multilabel_auroc(ranked, target[:, mixed].long(), int(mixed.sum()), validate_args=False))


def loss(logits: Tensor, target: Tensor) -> float:
    """Mean binary cross-entropy of the labels, in nats."""
    return float(F.binary_cross_entropy_with_logits(logits, target.to(logits.dtype)))


METRICS = {
    "accuracy": Metric(accuracy),
    "subset_accuracy": Metric(subset_accuracy),
    "hamming": Metric(hamming, lower_is_better=True),
    "micro_f1": Metric(micro_f1),
    "macro_f1": Metric(macro_f1),
    "map": Metric(mean_average_precision),
    "auroc": Metric(area_under_roc),
    "loss": Metric(loss, lower_is_better=True, share=False),
}
"""Name -> metric of (logits, labels)."""
