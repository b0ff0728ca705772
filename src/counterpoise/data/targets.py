"""Labels of every task as users write them, turned into targets."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from counterpoise._checks import choice, did_you_mean
from counterpoise.data.labels import at_least_two, doubtful, encode, natural, undecided
from counterpoise.task import TASKS, MultiLabel, Regression, SingleLabel, Task


def encoded(y: Any, task: Task | str | None, names: Sequence[str] | None, *, name: str = "y") -> tuple[Tensor, Task]:
    """The target of all samples, and what is predicted.

    Args:
        y: one class per sample; a collection of label names per sample, or (n, labels) of zeros and ones; (n,) or
            (n, numbers) of numbers.
        task: what is predicted, its name, or None for one of several classes, unless their numbers are ``doubtful``.
        names: of the classes, labels or numbers; None finds or numbers them.
        name: what to call the labels in messages.

    Returns:
        The target, and the task; a regression by name is not standardised yet (``standardised``).

    Raises:
        ValueError: for labels that are no target of the task.
    """
    if isinstance(task, Task):
        kind, names = task.kind, task.names
    else:
        kind = choice("task", task, TASKS) if task is not None else SingleLabel.kind
    if kind == MultiLabel.kind:
        target, known = _labels(y, names, name)
        return target, task if isinstance(task, Task) else MultiLabel(known)
    if kind == Regression.kind:
        target = _numbers(y, name)
        known = tuple(names or ([name] if target.shape[1] == 1 else [f"{name}{i}" for i in range(target.shape[1])]))
        regression = task if isinstance(task, Task) else Regression(known)
        regression.check(target)
        return target, regression
    number, known = encode(y, names, name=name)
    at_least_two(known, name)
    if task is None and names is None and not isinstance(next(iter(y)), str):
        values = [int(number) for number in known]
        if doubtful(values):
            raise ValueError(undecided(name, values))
    return torch.from_numpy(number), SingleLabel(known)


def checked_weights(weights: Any, size: int, name: str, place: Callable[[int], str]) -> Tensor | None:
    """(n,) float64, how much each sample counts in the loss; None when all count alike.

    Args:
        weights: one number >= 0 per sample.
        size: how many samples there are.
        name: what to call them in messages.
        place: how messages name a sample.

    Raises:
        ValueError: another shape, a negative, infinite or missing one, or nothing but zeros.
    """
    values = np.asarray(weights.detach().cpu() if isinstance(weights, Tensor) else weights)
    if values.shape != (size,) or values.dtype.kind not in "biuf":
        raise ValueError(f"{name} must be ({size},) numbers, one per sample; got {values.dtype} of {values.shape}.")
    weights = torch.from_numpy(values.astype(np.float64))
    wrong = (~(weights.isfinite() & (weights >= 0))).nonzero().flatten().tolist()
    if wrong:
        value, more = float(weights[wrong[0]]), f" ({len(wrong)} such samples in all)" if len(wrong) > 1 else ""
        raise ValueError(f"{name} must be finite numbers >= 0; {place(wrong[0])} has {value:g}{more}.")
    if not weights.any():
        raise ValueError(f"{name} is 0 for all {size} samples: nothing would count.")
    return None if bool((weights == weights[0]).all()) else weights


def no_targets(task: Task, count: int) -> Tensor:
    """The target of samples without one: -1, or NaN."""
    return torch.full((count,), -1) if isinstance(task, SingleLabel) else torch.full((count, task.width), torch.nan)


def standardised(task: Task, given: Task | str | None, target: Tensor) -> Task:
    """A regression that was asked for by name, standardised by these training samples; any other task as it is."""
    return Regression.fitted(task.names, target) if isinstance(task, Regression) and given is not task else task


def _labels(y: Any, names: Sequence[str] | None, name: str) -> tuple[Tensor, tuple[str, ...]]:
    sets = isinstance(y, Sequence | np.ndarray) and len(y) > 0 and isinstance(y[0], set | frozenset | list | tuple)
    if sets and not all(isinstance(value, int | float | np.number) for labels in y for value in labels):
        return _label_sets(y, names, name)
    values = np.asarray(y.detach().cpu() if isinstance(y, Tensor) else y)
    if values.ndim != 2 or values.dtype.kind not in "biuf" or not np.isin(values, (0, 1)).all():
        raise ValueError(
            f"{name} must be (n, labels) of zeros and ones, or a collection of label names per sample, as "
            f"[{{'joy', 'calm'}}, set()]; got {values.dtype} of shape {values.shape}."
        )
    known = tuple(map(str, names)) if names is not None else tuple(map(str, range(values.shape[1])))
    if len(known) != values.shape[1]:
        raise ValueError(f"{name} has {values.shape[1]} columns, and there are {len(known)} names of labels.")
    return torch.from_numpy(values.astype(np.float32)), known


def _label_sets(y: Any, names: Sequence[str] | None, name: str) -> tuple[Tensor, tuple[str, ...]]:
    for place, labels in enumerate(y):
        if isinstance(labels, str) or not isinstance(labels, Collection):
            raise ValueError(
                f"{name}: sample {place} must be a collection of label names, set() for none; got {labels!r}."
            )
    seen = sorted({str(label) for labels in y for label in labels}, key=natural)
    known = tuple(map(str, names)) if names is not None else tuple(seen)
    column = {label: i for i, label in enumerate(known)}
    target = torch.zeros(len(y), len(known))
    for place, labels in enumerate(y):
        for label in map(str, labels):
            if label not in column:
                raise ValueError(f"{name}: sample {place}: " + did_you_mean("label", label, known))
            target[place, column[label]] = 1
    return target, known


def _numbers(y: Any, name: str) -> Tensor:
    values = np.asarray(y.detach().cpu() if isinstance(y, Tensor) else y)
    if values.dtype.kind not in "biuf" or values.ndim not in (1, 2):
        raise ValueError(
            f"{name} must be (n,) or (n, numbers) of numbers for regression; got {values.dtype} of shape "
            f"{values.shape}."
        )
    target = torch.from_numpy(values.astype(np.float64).reshape(len(values), -1))
    wrong = (~target.isfinite().all(1)).nonzero().flatten().tolist()
    if wrong:
        raise ValueError(f"{name}: sample {wrong[0]} is NaN or infinite ({len(wrong)} in all).")
    return target
