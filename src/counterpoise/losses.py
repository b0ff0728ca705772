"""What training minimises: losses of single samples, and how much each sample counts in a mean."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from counterpoise._checks import Spelled, number
from counterpoise.task import MultiLabel, Regression, SingleLabel, Task

BALANCED = "balanced"


class Loss(Spelled, nn.Module):
    """A loss; a subclass defines ``forward``.

    Settings are kept as attributes of the same names. What a loss learns from the training targets lives in buffers.

    Attributes:
        tasks: those it is defined for.
        task: what is predicted; the trainer says it.
    """

    tasks: ClassVar[tuple[type[Task], ...]] = (SingleLabel, MultiLabel, Regression)
    task: Task

    def prepare(self, task: Task) -> None:
        """Take the task; ValueError when the loss is not defined for it, or its settings do not fit."""
        if not isinstance(task, self.tasks):
            kinds = " and ".join(kind.kind for kind in self.tasks)
            raise ValueError(f"loss: {type(self).__name__} is for {kinds} targets; these are {task.kind}.")
        self.task = task

    def fit(self, target: Tensor) -> None:
        """Take what the loss needs from the targets of the training samples."""

    def forward(self, outputs: Tensor, target: Tensor) -> Tensor:
        """(batch,) loss of each sample, from what the model gives and targets as the task has them."""
        raise NotImplementedError(f"{type(self).__name__} must define forward(outputs, target).")

    def weights(self, target: Tensor) -> Tensor | None:
        """(batch,) how much each sample counts in a mean; None when all count alike."""
        return None

    def counted(self, target: Tensor, weight: Tensor | None) -> Tensor | None:
        """(batch,) how much each sample counts, by its target and by its own ``weight``; None when all count alike."""
        weights = self.weights(target)
        if weights is None or weight is None:
            return weight if weights is None else weights
        return weights * weight

    def mean(self, outputs: Tensor, target: Tensor, weight: Tensor | None = None) -> float | None:
        """The weighted mean over samples; None when none of them counts."""
        losses, weights = self(outputs, target), self.counted(target, weight)
        if weights is None:
            return float(losses.mean())
        weights = weights.to(losses)
        return float((losses * weights).sum() / weights.sum()) if weights.any() else None


class Likelihood(Loss):
    """The task's own loss: minus the log-likelihood of the target (``Task.losses``)."""

    def forward(self, outputs: Tensor, target: Tensor) -> Tensor:
        return self.task.losses(outputs, target)


class _Weighted(Loss):
    """Classes that count differently, each sample by its class.

    Args:
        class_weight: one number >= 0 per class, or "balanced": n / (classes · samples of the class) on the training
            samples.
    """

    tasks = (SingleLabel,)
    weight: Tensor

    def __init__(self, class_weight: Sequence[float] | str | None = None):
        super().__init__()
        self.class_weight = _stated("class_weight", class_weight)

    def prepare(self, task: Task) -> None:
        super().prepare(task)
        self.register_buffer("weight", _start("class_weight", self.class_weight, task))

    def fit(self, target: Tensor) -> None:
        if self.class_weight == BALANCED:
            counts = torch.bincount(target.cpu(), minlength=self.task.width).clamp(min=1)
            self.weight.copy_(len(target) / (len(counts) * counts))

    def weights(self, target: Tensor) -> Tensor | None:
        return None if self.class_weight is None else self.weight.to(target.device)[target]


class CrossEntropy(_Weighted):
    r"""Cross-entropy of one class of several.

    .. math:: -(1 - s) \log p_y - \frac{s}{C} \sum_c \log p_c

    Args:
        class_weight: one number >= 0 per class, or "balanced": n / (classes · samples of the class) on the training
            samples. A mean over samples is weighted by it, and so is its denominator.
        label_smoothing: s, in [0, 1).
    """

    def __init__(self, class_weight: Sequence[float] | str | None = None, label_smoothing: float = 0.0):
        super().__init__(class_weight)
        self.label_smoothing = number("label_smoothing", label_smoothing, low=0, below=1)

    def forward(self, outputs: Tensor, target: Tensor) -> Tensor:
        return F.cross_entropy(outputs, target, reduction="none", label_smoothing=self.label_smoothing)


class Focal(_Weighted):
    r"""Focal loss, :math:`-(1 - p_y)^\gamma \log p_y`: what is easy counts less.

    Args:
        gamma: :math:`\gamma`, at least 0; 0 is cross-entropy.
        class_weight: as in ``CrossEntropy``.

    Source: Lin et al., Focal Loss for Dense Object Detection, ICCV 2017.
    """

    def __init__(self, gamma: float = 2.0, class_weight: Sequence[float] | str | None = None):
        super().__init__(class_weight)
        self.gamma = number("gamma", gamma, low=0)

    def forward(self, outputs: Tensor, target: Tensor) -> Tensor:
        nll = F.cross_entropy(outputs, target, reduction="none")
        return (-torch.expm1(-nll)) ** self.gamma * nll


class BinaryCrossEntropy(Loss):
    """Binary cross-entropy of labels, the mean over them.

    Args:
        pos_weight: how much a label that a sample has counts beside one that it has not: one number >= 0 per label, or
            "balanced": samples without the label / samples with it, on the training samples.
    """

    tasks = (MultiLabel,)
    weight: Tensor

    def __init__(self, pos_weight: Sequence[float] | str | None = None):
        super().__init__()
        self.pos_weight = _stated("pos_weight", pos_weight)

    def prepare(self, task: Task) -> None:
        super().prepare(task)
        self.register_buffer("weight", _start("pos_weight", self.pos_weight, task))

    def fit(self, target: Tensor) -> None:
        if self.pos_weight == BALANCED:
            positive = target.cpu().sum(0)
            self.weight.copy_((len(target) - positive) / positive.clamp(min=1))

    def forward(self, outputs: Tensor, target: Tensor) -> Tensor:
        weight, target = self.weight.to(outputs), target.to(outputs.dtype)
        return F.binary_cross_entropy_with_logits(outputs, target, reduction="none", pos_weight=weight).mean(-1)


class SquaredError(Likelihood):
    """Half the squared error of numbers in standard deviations, the mean over them."""

    tasks = (Regression,)


class AbsoluteError(Loss):
    """The absolute error of numbers in standard deviations, the mean over them."""

    tasks = (Regression,)

    def forward(self, outputs: Tensor, target: Tensor) -> Tensor:
        return _errors(self.task, outputs, target).abs().mean(-1)


class Huber(Loss):
    """Half the squared error below ``delta`` standard deviations, linear above it; the mean over the numbers.

    Args:
        delta: where the line begins, > 0.
    """

    tasks = (Regression,)

    def __init__(self, delta: float = 1.0):
        super().__init__()
        self.delta = number("delta", delta, above=0)

    def forward(self, outputs: Tensor, target: Tensor) -> Tensor:
        error = _errors(self.task, outputs, target)
        return F.huber_loss(error, torch.zeros_like(error), reduction="none", delta=self.delta).mean(-1)


def _errors(task: Task, outputs: Tensor, target: Tensor) -> Tensor:
    assert isinstance(task, Regression)
    return outputs - task.standardised(target).to(outputs.dtype)


def _stated(argument: str, weights: Sequence[float] | str | None) -> Sequence[float] | str | None:
    """Weights as they may be stated; ValueError otherwise."""
    if weights is None or weights == BALANCED:
        return weights
    if isinstance(weights, str):
        raise ValueError(f"{argument} must be 'balanced' or one number per class or label; got {weights!r}.")
    return [number(f"{argument}[{i}]", float(w), low=0) for i, w in enumerate(weights)]


def _start(argument: str, stated: Sequence[float] | str | None, task: Task) -> Tensor:
    """(classes or labels,) the stated weights; ones until they are fitted."""
    if stated is None or isinstance(stated, str):
        return torch.ones(task.width)
    if len(stated) != task.width:
        raise ValueError(f"{argument} must have {task.width} numbers, one for each of {task!r}; got {len(stated)}.")
    return torch.tensor(stated, dtype=torch.float32)


LOSSES = {loss.__name__: loss for loss in (CrossEntropy, Focal, BinaryCrossEntropy, SquaredError, AbsoluteError, Huber)}
"""By name, for the command line."""
