"""The weights that were best on validation: remembered after an epoch, put back at the end."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from counterpoise.data.split import Split
from counterpoise.engine.evaluation import Predictions
from counterpoise.engine.run import Run
from counterpoise.metrics import lower_is_better
from counterpoise.types import Output


def monitored(run: Run, scores: Mapping[str, float]) -> float:
    """What selects, higher is better."""
    value = scores[f"fused/{run.monitor}"]
    return -value if lower_is_better(run.monitor) else value


def consider(run: Run, scores: Mapping[str, float]) -> bool:
    """Remember the weights when their validation score is the best so far.

    Before the method lets an epoch be selected, the best of those so far is kept, and given up for the first that may.
    """
    value, state = monitored(run, scores), run.state
    if run.method.selectable(run):
        state.best_score = state.best_score if state.complete else None
        state.complete = True
    elif state.complete:
        return False
    if state.best_score is not None and not value > state.best_score:
        return False
    state.best_score, state.best_epoch = value, state.epoch + 1
    run.best = {
        "epoch": state.best_epoch,
        "classes": list(run.train_split.classes),
        "task": run.task.to_dict(),
        "model": _on_cpu(run.model.state_dict()),
        "method": _on_cpu(run.method.state_dict()),
        "loss": _on_cpu(run.loss.state_dict()),
        "scores": dict(scores),
    }
    return True


def select_best(run: Run) -> bool:
    """Put the best weights into model and method, and fit what the model fits on validation; whether there was any."""
    if not run.state.complete:
        warnings.warn(
            f"{type(run.method).__name__} had no epoch that may be selected: the weights of epoch "
            f"{run.state.best_epoch} are, in which some modality was not trained yet.",
            stacklevel=2,
        )
    run.model.load_state_dict(run.best["model"])
    run.method.load_state_dict(run.best["method"])
    fitted = calibrate(run)
    if fitted:
        run.best["model"] = _on_cpu(run.model.state_dict())
    return fitted


def calibrate(run: Run) -> bool:
    """Fit what the model fits on validation; whether there is anything."""
    run.model.uncalibrate()
    predictions = unpooled(run, run.val_split)
    output = Output(predictions.fused, predictions.unimodal, {}, predictions.present)
    return run.model.calibrate(output, predictions.target)


def unpooled(run: Run, split: Split) -> Predictions:
    """What the pool of a run's model combines: logits of every sample, those that are not finite numbers included."""
    (predictions,) = run.evaluator.predict(split, [None], pooled=False)
    return predictions


def _on_cpu(state: Mapping[str, Any]) -> dict[str, Any]:
    """A copy; what ``get_extra_state`` gave may be anything plain."""
    return {
        name: value.detach().cpu().clone() if isinstance(value, Tensor) else copy.deepcopy(value)
        for name, value in state.items()
    }
