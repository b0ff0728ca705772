"""What is predicted: one class of several, any number of labels, or numbers.

A task says what the outputs of a model mean: (batch, width), whatever a fusion gives, or (modalities, batch, width)
where those of several modalities are stacked. ``target`` is what the task's encoding of the labels is.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from counterpoise._checks import did_you_mean
from counterpoise.functional import precision, rules
from counterpoise.functional.entropy import class_certainty, label_certainty
from counterpoise.functional.modulation import true_probability
from counterpoise.metrics import classification, multilabel, regression
from counterpoise.metrics.imported import imported
from counterpoise.metrics.metric import Metric
from counterpoise.metrics.scoring import score
from counterpoise.types import Present

BINS = 10
"""Into how many quantiles numbers are divided, so that a random split has each of them on both sides."""


class Task(ABC):
    """What is predicted.

    Attributes:
        names: of the classes, the labels or the numbers, in order.
        kind: the task's name on the command line and in files.
        plural: what ``names`` are.
        monitor: the metric that selects weights unless another is named.
        reported: the metrics that are reported unless others are named.
        yardstick: the metric in [0, 1] by which methods and studies compare modalities: the mean of ``hits``.
    """

    kind: ClassVar[str]
    plural: ClassVar[str]
    monitor: ClassVar[str]
    reported: ClassVar[tuple[str, ...]]
    yardstick: ClassVar[str] = "accuracy"
    names: tuple[str, ...]

    @property
    def width(self) -> int:
        """How many numbers a model gives for a sample."""
        return len(self.names)

    @property
    @abstractmethod
    def metrics(self) -> Mapping[str, Metric]:
        """Name -> metric, of what ``shown`` gives."""

    @property
    @abstractmethod
    def constructed(self) -> Mapping[str, Any]:
        """What the constructors of torchmetrics' classes are given, where they have such arguments."""

    def taken(self, shown: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Predictions and target as torchmetrics' classes take them."""
        return self.predictions(shown), target

    def metric(self, name: str) -> Metric:
        """One of ``metrics``, or a class of torchmetrics by its import path; ValueError for anything else."""
        if name in self.metrics:
            return self.metrics[name]
        if "." in name:
            return imported(name, self.kind, self.width, self.constructed, self.taken)
        raise ValueError(did_you_mean("metric", name, self.metrics))

    @abstractmethod
    def check(self, target: Tensor) -> None:
        """ValueError unless this is a target of the task."""

    @abstractmethod
    def strata(self, target: Tensor) -> np.ndarray:
        """What a random split keeps in proportion: (n,) whole numbers, or (n, labels) of zeros and ones."""

    @abstractmethod
    def losses(self, outputs: Tensor, target: Tensor) -> Tensor:
        """(batch,) loss of each sample: minus the log-likelihood of its target."""

    def score(self, outputs: Tensor, target: Tensor) -> Tensor:
        """(batch,) in [0, 1]: the likelihood of the target, by which methods see who leads."""
        return (-self.losses(outputs, target)).exp()

    @abstractmethod
    def hits(self, outputs: Tensor, target: Tensor) -> Tensor:
        """(batch,) in [0, 1]: how far the prediction itself is right."""

    @abstractmethod
    def constant(self, target: Tensor) -> Tensor:
        """Outputs (batch, width) of the best that can be predicted without looking at a sample."""

    def chance(self, target: Tensor) -> float:
        """The mean of ``hits`` of ``constant``."""
        return float(self.hits(self.constant(target), target).mean())

    @abstractmethod
    def certainty(self, outputs: Tensor) -> Tensor:
        """(..., batch): minus the entropy of the predicted distribution, up to a constant."""

    @abstractmethod
    def mean(self, outputs: Tensor, present: Tensor | None = None) -> Tensor:
        """Outputs (batch, width) of the mean of what the modalities predict; see ``functional.rules``."""

    def shown(self, outputs: Tensor) -> Tensor:
        """What metrics take: the outputs, and numbers in the units of the target."""
        return outputs

    def unshown(self, shown: Tensor) -> Tensor:
        """The outputs again."""
        return shown

    @abstractmethod
    def predictions(self, outputs: Tensor) -> Tensor:
        """What users are given: probabilities, or numbers in the units of the target."""

    @abstractmethod
    def said(self, predictions: Tensor) -> list[str]:
        """The predictions in words: a class, the labels with a bar between, or the numbers."""

    def scores(
        self,
        outputs: Mapping[str, Tensor],
        target: Tensor,
        present: Present = None,
        metrics: Sequence[str] | None = None,
        loss: Callable[[Tensor, Tensor, Tensor | None], float | None] | None = None,
        weight: Tensor | None = None,
    ) -> dict[str, float]:
        """As ``metrics.score`` gives them; ``loss`` is that of training, which alone counts the ``weight`` (n,)."""
        among = {**self.metrics, **{name: self.metric(name) for name in metrics or ()}}
        if loss is not None:
            among["loss"] = Metric(lambda u, y, w: loss(self.unshown(u), y, w), True, share=False, weighs=True)
        scores: dict[str, float] = {}
        for name, values in outputs.items():  # one after the other, as float64 is twice as large
            scores |= score({name: self.shown(values.detach().cpu().double())}, target, present, metrics, among, weight)
        return scores

    def to_dict(self) -> dict[str, Any]:
        """Plain values; ``task_of`` makes the task of them again."""
        return {"kind": self.kind, "names": list(self.names)}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Task) and self.to_dict() == other.to_dict()

    def __hash__(self) -> int:
        return hash((self.kind, self.names))

    def __repr__(self) -> str:
        shown = ", ".join(map(repr, self.names[:5])) + (", ..." if len(self.names) > 5 else "")
        return f"{type(self).__name__}({len(self.names)}: {shown})"


class SingleLabel(Task):
    """One of several classes; the target is (n,) class numbers, int64, and outputs are logits.

    Args:
        classes: their names in order, or how many there are.
    """

    kind = "single-label"
    plural = "classes"
    monitor = "accuracy"
    reported = ("accuracy", "macro_f1", "map", "ece")

    def __init__(self, classes: Sequence[str] | int):
        self.names = tuple(map(str, range(classes) if isinstance(classes, int) else classes))

    @property
    def metrics(self) -> Mapping[str, Metric]:
        return classification.METRICS

    @property
    def constructed(self) -> Mapping[str, Any]:
        return {"task": "multiclass", "num_classes": self.width}

    def check(self, target: Tensor) -> None:
        if target.ndim != 1 or target.dtype.is_floating_point:
            raise ValueError(f"target must be (n,) class numbers; got {target.dtype} of shape {tuple(target.shape)}.")
        low, high = int(target.min()), int(target.max())
        if low < 0 or high >= len(self.names):
            raise ValueError(
                f"Labels must lie in 0..{len(self.names) - 1}; found {low if low < 0 else high}. "
                "Unlabelled rows can be predicted, not trained on or evaluated."
            )

    def strata(self, target: Tensor) -> np.ndarray:
        return target.numpy()

    def losses(self, outputs: Tensor, target: Tensor) -> Tensor:
        return F.cross_entropy(outputs, target, reduction="none")

    def score(self, outputs: Tensor, target: Tensor) -> Tensor:
        return true_probability(outputs, target)

    def hits(self, outputs: Tensor, target: Tensor) -> Tensor:
        return (outputs.argmax(1) == target).to(outputs.dtype)

    def constant(self, target: Tensor) -> Tensor:
        return target.bincount(minlength=self.width).float().expand(len(target), -1)

    def certainty(self, outputs: Tensor) -> Tensor:
        return class_certainty(outputs)

    def mean(self, outputs: Tensor, present: Tensor | None = None) -> Tensor:
        return rules.mean(outputs, present)

    def predictions(self, outputs: Tensor) -> Tensor:
        return outputs.softmax(-1)

    def said(self, predictions: Tensor) -> list[str]:
        return [self.names[best] for best in predictions.argmax(-1).tolist()]


class MultiLabel(Task):
    """Any number of labels; the target is (n, labels) of zeros and ones, float32, and outputs are logits of yes.

    The loss is the mean binary cross-entropy of the labels, so the likelihood is a geometric mean over them.

    Args:
        labels: their names in order, at least one, or how many there are.
    """

    kind = "multi-label"
    plural = "labels"
    monitor = "map"
    reported = ("map", "micro_f1", "macro_f1", "auroc", "subset_accuracy", "accuracy")

    def __init__(self, labels: Sequence[str] | int):
        self.names = tuple(map(str, range(labels) if isinstance(labels, int) else labels))
        if not self.names:
            raise ValueError("labels: there must be at least 1; got none.")

    @property
    def metrics(self) -> Mapping[str, Metric]:
        return multilabel.METRICS

    @property
    def constructed(self) -> Mapping[str, Any]:
        return {"task": "multilabel", "num_labels": self.width}

    def taken(self, shown: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        return self.predictions(shown), target.long()

    def check(self, target: Tensor) -> None:
        if target.ndim != 2 or target.shape[1] != len(self.names) or not ((target == 0) | (target == 1)).all():
            raise ValueError(
                f"target must be (n, {len(self.names)}) of zeros and ones, a column per label; got {target.dtype} of "
                f"shape {tuple(target.shape)}."
            )

    def strata(self, target: Tensor) -> np.ndarray:
        return target.numpy() > 0.5

    def losses(self, outputs: Tensor, target: Tensor) -> Tensor:
        return F.binary_cross_entropy_with_logits(outputs, target.to(outputs.dtype), reduction="none").mean(-1)

    def hits(self, outputs: Tensor, target: Tensor) -> Tensor:
        return ((outputs > 0) == (target > 0.5)).to(outputs.dtype).mean(-1)

    def constant(self, target: Tensor) -> Tensor:
        return (target.mean(0) - 0.5).expand(len(target), -1)

    def certainty(self, outputs: Tensor) -> Tensor:
        return label_certainty(outputs)

    def mean(self, outputs: Tensor, present: Tensor | None = None) -> Tensor:
        return rules.mean_of_labels(outputs, present)

    def predictions(self, outputs: Tensor) -> Tensor:
        return outputs.sigmoid()

    def said(self, predictions: Tensor) -> list[str]:
        return ["|".join(n for n, p in zip(self.names, row, strict=True) if p > 0.5) for row in predictions.tolist()]


class Regression(Task):
    """Numbers; the target is (n, numbers), float64, in the user's units, and outputs are standardised.

    The loss is half the squared error in standard deviations, mean over the numbers: up to a constant, minus the
    log-likelihood of a normal distribution with that standard deviation. The likelihood is relative to its peak.

    Args:
        names: of the numbers, at least one.
        mean: of each on the training samples.
        scale: standard deviation of each, > 0.
    """

    kind = "regression"
    plural = "numbers"
    monitor = "rmse"
    reported = ("rmse", "mae", "r2", "pearson", "spearman", "ccc")
    yardstick = "likelihood"

    def __init__(self, names: Sequence[str], mean: Sequence[float] | None = None, scale: Sequence[float] | None = None):
        self.names = tuple(map(str, names))
        self.center = tuple(map(float, mean if mean is not None else [0.0] * len(self.names)))
        self.scale = tuple(map(float, scale if scale is not None else [1.0] * len(self.names)))
        if not self.names or not len(self.names) == len(self.center) == len(self.scale):
            raise ValueError(f"names, mean and scale must be of one length, at least 1; got {self.to_dict()}.")
        if not all(s > 0 and math.isfinite(s) for s in self.scale):
            raise ValueError(f"scale must be finite and > 0; got {self.scale}.")

    @classmethod
    def fitted(cls, names: Sequence[str], target: Tensor) -> Regression:
        """Standardised by these training samples, (n, numbers); ValueError when a number is constant in them."""
        scale = target.double().std(0, correction=0)
        for name, spread in zip(names, scale.tolist(), strict=True):
            if not spread > 0:
                raise ValueError(f"{name!r} has one value in all {len(target)} training samples: nothing to predict.")
        return cls(names, target.double().mean(0).tolist(), scale.tolist())

    @property
    def metrics(self) -> Mapping[str, Metric]:
        def standard(function: Any) -> Any:
            return lambda shown, target: float(function(self.standardised(shown), target).mean())

        return {
            **regression.METRICS,
            "likelihood": Metric(standard(self.hits)),
            "loss": Metric(standard(self.losses), lower_is_better=True, share=False),
        }

    @property
    def constructed(self) -> Mapping[str, Any]:
        return {"num_outputs": self.width}

    def taken(self, shown: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        return (shown, target) if self.width > 1 else (shown.squeeze(1), target.squeeze(1))

    def standardised(self, numbers: Tensor) -> Tensor:
        """Numbers in the units of the target, in standard deviations from the mean."""
        return (numbers - _constant(self.center, numbers.device)) / _constant(self.scale, numbers.device)

    def check(self, target: Tensor) -> None:
        if target.ndim != 2 or target.shape[1] != len(self.names) or not target.isfinite().all():
            raise ValueError(
                f"target must be (n, {self.width}) finite numbers; got {target.dtype} of shape {tuple(target.shape)}."
            )

    def strata(self, target: Tensor) -> np.ndarray:
        level = self.standardised(target).mean(1).numpy()
        bins = max(1, min(BINS, len(level) // 4))
        return np.searchsorted(np.unique(np.quantile(level, np.arange(1, bins) / bins)), level, side="right")

    def losses(self, outputs: Tensor, target: Tensor) -> Tensor:
        error = outputs - self.standardised(target).to(outputs.dtype)
        return error.square().mean(-1) / 2

    hits = Task.score

    def constant(self, target: Tensor) -> Tensor:
        return torch.zeros_like(target)  # the mean of the training samples

    def certainty(self, outputs: Tensor) -> Tensor:
        return torch.zeros_like(outputs[..., 0])  # every prediction has the same error

    def mean(self, outputs: Tensor, present: Tensor | None = None) -> Tensor:
        return rules.mean_of_numbers(outputs, present)

    def shown(self, outputs: Tensor) -> Tensor:
        return outputs * _constant(self.scale, outputs.device) + _constant(self.center, outputs.device)

    def unshown(self, shown: Tensor) -> Tensor:
        return self.standardised(shown)

    def predictions(self, outputs: Tensor) -> Tensor:
        return self.shown(outputs.to(precision.widest(outputs.device)))

    def said(self, predictions: Tensor) -> list[str]:
        return ["|".join(f"{value:.6g}" for value in row) for row in predictions.tolist()]

    def to_dict(self) -> dict[str, Any]:
        return {**super().to_dict(), "mean": list(self.center), "scale": list(self.scale)}


@lru_cache(maxsize=32)
def _constant(values: tuple[float, ...], device: torch.device) -> Tensor:
    """Made once, so that no step of training waits for a copy to the device."""
    return torch.tensor(values, dtype=precision.widest(device), device=device)


TASKS = {task.kind: task for task in (SingleLabel, MultiLabel, Regression)}


def task_of(values: Mapping[str, Any]) -> Task:
    """The task that ``Task.to_dict`` described."""
    rest = {name: value for name, value in values.items() if name not in ("kind", "names")}
    return TASKS[values["kind"]](values["names"], **rest)
