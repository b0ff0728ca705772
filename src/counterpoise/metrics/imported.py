"""Metrics of torchmetrics, by the import path of their class."""

from __future__ import annotations

import inspect
import math
import warnings
from collections.abc import Callable, Mapping
from functools import lru_cache
from importlib import import_module
from typing import TYPE_CHECKING, Any

from torch import Tensor, float64

from counterpoise._checks import nearest
from counterpoise.metrics.metric import Metric
from counterpoise.metrics.scoring import LOWER_IS_BETTER

if TYPE_CHECKING:
    from torchmetrics import Metric as Accumulated


@lru_cache
def metric_class(path: str) -> type[Accumulated]:
    """The class at an import path; its module is imported, and nothing of it is called.

    Raises:
        ValueError: there is no such module or name, or it is no subclass of ``torchmetrics.Metric``.
    """
    from torchmetrics import Metric as Base

    module, _, name = path.rpartition(".")
    try:
        there = import_module(module)
    except ImportError as error:
        raise ValueError(f"metrics: {path!r} cannot be imported: {error}.") from error
    metric = getattr(there, name, None)
    if not inspect.isclass(metric) or not issubclass(metric, Base):
        what = "there is no such name in the module" if metric is None else f"it is {metric!r:.80}"
        known = [n for n, kind in vars(there).items() if inspect.isclass(kind) and issubclass(kind, Base)]
        raise ValueError(
            f"metrics: {path!r} must be a subclass of torchmetrics.Metric; {what}.{nearest(name, known)} Nothing of "
            "it was called."
        )
    return metric


def imported(
    path: str, kind: str, width: int, given: Mapping[str, Any], taken: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
) -> Metric:
    """The metric of a class of torchmetrics, or of a subclass of one.

    Args:
        path: of the class.
        kind: of the task, for messages.
        width: how many numbers a prediction has.
        given: arguments that its constructor gets where it has them; others must have defaults.
        taken: outputs and target -> predictions and target as torchmetrics takes them.

    Raises:
        ValueError: ``metric_class`` says when; or the constructor needs or refuses something.
    """
    made = _made(path, metric_class(path), given)
    better = made.higher_is_better
    if better is False:
        LOWER_IS_BETTER.add(path)

    def function(shown: Tensor, target: Tensor) -> float | None:
        metric = _made(path, metric_class(path), given)
        try:
            metric.update(*taken(shown, target))
            value = metric.compute()
        except Exception as error:  # whatever a class of somebody's own does
            raise ValueError(f"metrics: {path} cannot be computed of {kind} predictions: {error}") from error
        if not isinstance(value, Tensor) or value.numel() not in ((1, width) if kind == "regression" else (1,)):
            got = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise ValueError(f"metrics: {path} must give one number; it gave {got}.")
        number = float(value.double().mean())  # of several numbers to predict, as our own
        return None if math.isnan(number) else number

    return Metric(function, None if better is None else not better, share=False)


def _made(path: str, kind: type[Accumulated], given: Mapping[str, Any]) -> Accumulated:
    known = inspect.signature(kind).parameters
    arguments = {name: value for name, value in given.items() if name in known}
    open_ended = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    needed = [
        name for name, p in known.items()
        if p.default is p.empty and p.kind not in open_ended and name not in arguments
    ]  # fmt: skip
    cure = f"Name a subclass whose constructor needs at most {', '.join(given)}."
    if needed:
        raise ValueError(f"metrics: {path} needs {', '.join(needed)}, which nothing here can give it. {cure}")
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Metric .* will save all")  # one split, which we hold anyway
            metric = kind(**arguments)
    except Exception as error:  # whatever a class of somebody's own does
        raise ValueError(f"metrics: {path} cannot be made with {arguments}: {error} {cure}") from error
    metric.distributed_available_fn = _alone  # every process has all predictions
    return metric.set_dtype(float64)


def _alone() -> bool:
    return False
