"""Trial runs: a method asks how a copy of the model would fare."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

from counterpoise.engine.optim import Constant
from counterpoise.method import Method
from counterpoise.model import MultimodalModel

if TYPE_CHECKING:
    from counterpoise.engine.trainer import Trainer


def make_trial(
    run: Trainer, method: Method, epochs: int, *, model: MultimodalModel | None, lr: float | None
) -> Trainer:
    """A trainer with the settings of ``run``, without its directory, observers and data."""
    settings, schedule = copy.deepcopy(run.settings), copy.deepcopy(run.schedule)
    if lr is not None:
        settings.lr, schedule = lr, Constant()
    if model is None:
        model = copy.deepcopy(run.model)
        for mine, other in zip(run.model.parameters(), model.parameters(), strict=True):
            other.requires_grad_(run.owns(mine))  # whatever the current phase trains
    trial = type(run)(
        model,
        method,
        epochs=epochs,
        batch_size=run.batch_size,
        optimizer=settings,
        schedule=schedule,
        sam=run.sam,
        clip_norm=run.clip_norm,
        monitor=run.monitor,
        metrics=run.metrics,
        seed=run.seed,
        num_workers=run.num_workers,
        compile=run.compile,
        progress=False,
        loss=copy.deepcopy(run.loss),
        fabric=run.fabric,
    )
    trial.is_trial = True
    return trial
