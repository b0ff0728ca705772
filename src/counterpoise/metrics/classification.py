"""Classification scores: functions of logits (n, classes) and target (n,), on whole splits, never on batches."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from counterpoise.metrics.metric import Metric

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


def balanced_accuracy(logits: Tensor, target: Tensor) -> float:
    """Mean over the classes that occur of the share of their samples that is found."""
    right = (logits.argmax(1) == target).double()
    counts = torch.bincount(target, minlength=logits.shape[1])
    recall = torch.bincount(target, right, minlength=logits.shape[1]) / counts.clamp(min=1)
    return float(recall[counts > 0].mean())


def weighted_f1(logits: Tensor, target: Tensor) -> float:
    """Mean of the classes' F1, weighted by how often each occurs in the target."""
    from torchmetrics.functional.classification import multiclass_f1_score

    classes = logits.shape[1]
    return float(multiclass_f1_score(logits.argmax(1), target, classes, average="weighted", validate_args=False))


def area_under_roc(logits: Tensor, target: Tensor) -> float | None:
    """Area under the ROC curve of each class against the rest; mean over the classes that occur and do not fill it."""
    from counterpoise.metrics.multilabel import area_under_roc as of_labels

    return of_labels(logits.softmax(1), F.one_hot(target, logits.shape[1]))


def kappa(logits: Tensor, target: Tensor) -> float | None:
    """Cohen's kappa: agreement beyond chance, 1 at best; undefined where prediction and target are of one class."""
    from torchmetrics.functional.classification import multiclass_cohen_kappa

    value = float(multiclass_cohen_kappa(logits.argmax(1), target, logits.shape[1], validate_args=False))
    return None if math.isnan(value) else value


def matthews(logits: Tensor, target: Tensor) -> float:
    """Matthews' correlation of predicted and true classes, between -1 and 1."""
    from torchmetrics.functional.classification import multiclass_matthews_corrcoef

    return float(multiclass_matthews_corrcoef(logits.argmax(1), target, logits.shape[1], validate_args=False))


def brier(logits: Tensor, target: Tensor) -> float:
    """Brier score: squared distance of the probabilities from the one-hot class, mean over samples; in [0, 2]."""
    return float((logits.softmax(1) - F.one_hot(target, logits.shape[1])).square().sum(1).mean())


def loss(logits: Tensor, target: Tensor) -> float:
    """Mean cross-entropy, in nats."""
    return float(F.cross_entropy(logits, target))


METRICS = {
    "accuracy": Metric(accuracy),
    "map": Metric(mean_average_precision),
    "macro_f1": Metric(macro_f1),
    "balanced_accuracy": Metric(balanced_accuracy),
    "weighted_f1": Metric(weighted_f1),
    "auroc": Metric(area_under_roc),
    "kappa": Metric(kappa, share=False),
    "mcc": Metric(matthews, share=False),
    "brier": Metric(brier, lower_is_better=True, share=False),
    "ece": Metric(expected_calibration_error, lower_is_better=True),
    "loss": Metric(loss, lower_is_better=True, share=False),
}
"""Name -> metric of (logits, class numbers). Add your own under a new name."""
