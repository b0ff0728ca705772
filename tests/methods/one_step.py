"""One real step of a method on the tiny task, for tests that look at gradients."""

from __future__ import annotations

import pytest
import torch

from counterpoise.engine import Step, loop
from counterpoise.testing import everything, task, trainer_for
from counterpoise.types import Batch


def first_step(make, modalities=("first", "second"), fusion=None, *, epoch=0, absent=0.0, rows=slice(0, 18), **options):
    """A trainer that is set up, and its step on some rows of the training split."""
    trainer, data = trainer_for(make, modalities, fusion, norm=False, **options)
    trainer.current.open(data.train, data.val)
    if absent:
        trainer.current.open(task(modalities, absent=absent).train, None)
    trainer.method.setup(trainer.current)
    trainer.current.state.epoch = epoch
    return trainer, step_on(trainer, torch.arange(len(trainer.current.train_split))[rows])


def step_on(trainer, rows):
    split = trainer.current.train_split
    present = None if split.present is None else {m: p[rows] for m, p in split.present.items()}
    inputs = {m: split.batch(rows.tolist(), m, None) for m in trainer.model.modalities}
    weight = None if split.weight is None else split.weight[rows]
    return Step(trainer.current, Batch(inputs, split.target[rows], rows, present, weight), 0, 1)


def fit_to_the_last(trainer, data):
    """Trains, and leaves the last weights and not the best ones."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "select_best", lambda run: False)
        trainer.fit(data.train, data.val)


def gradients(trainer, step):
    """Run forward, loss, backward and modulate, but no update: (output, loss, parameter name -> gradient)."""
    for p in trainer.model.parameters():
        p.grad = None
    output = trainer.method(step)
    loss = trainer.method.loss(output, step)
    step.backward(loss)
    trainer.method.modulate(output, step)
    return output, loss, {n: None if p.grad is None else p.grad.clone() for n, p in trainer.model.named_parameters()}


def fitted(make, modalities=("first", "second"), fusion=None, **options):
    """Every tensor of the model after a short real training run."""
    trainer, data = trainer_for(make, modalities, fusion, **{"epochs": 3, **options})
    trainer.fit(data.train, data.val)
    return {k: v for k, v in everything(trainer).items() if k.startswith("model.")}


def in_other_order(make, modalities, fusion=None, **options):
    """Gradients of the same weights, method and batch with the modalities as given and reversed."""
    found, weights = [], None
    for names in (modalities, modalities[::-1]):
        trainer, _ = first_step(make, names, fusion, **options)
        if weights is None:
            weights, split = trainer.model.state_dict(), trainer.current.train_split
        trainer.model.load_state_dict(weights)
        trainer.current.open(split, None)
        trainer.method.setup(trainer.current)
        trainer.method.on_epoch_start(trainer.current)
        found.append(gradients(trainer, step_on(trainer, torch.arange(18)))[2])
    return found
