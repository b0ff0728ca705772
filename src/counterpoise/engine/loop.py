"""The loop: phases, epochs, batches, and what happens between them."""

from __future__ import annotations

import math
from importlib import import_module
from typing import TYPE_CHECKING

import torch

from counterpoise._checks import whole
from counterpoise.engine.cost import Meter, uncounted
from counterpoise.engine.interrupt import Interrupt, Interrupted, shared
from counterpoise.engine.replicas import any_of, together
from counterpoise.engine.reuse import encode_once
from counterpoise.engine.setup import check_rows, warn_if_scales_cancel
from counterpoise.engine.state import mix, seed_everything
from counterpoise.engine.step import Step, scalar
from counterpoise.metrics import BACKEND
from counterpoise.types import Phase

if TYPE_CHECKING:
    from counterpoise.engine.trainer import Trainer


def run_phases(trainer: Trainer, resume: bool) -> None:
    """The whole of ``fit`` once the data are checked; ReplicaLostError when another process of the run ended."""
    with together(trainer.fabric):
        _run_phases(trainer, resume)


def _run_phases(trainer: Trainer, resume: bool) -> None:
    trainer.reset()
    trainer.model.uncalibrate()
    import_module(BACKEND)  # takes a second or two, which are not training
    with Meter(trainer) as meter:
        _run(trainer, resume, meter)
    with uncounted():
        trainer.keeper.select_best()


def _run(trainer: Trainer, resume: bool, meter: Meter) -> None:
    encode_once(trainer)
    seed_everything(mix(trainer.seed, "setup"))
    trainer.method.setup(trainer)
    trainer.fabric.to_device(trainer.method)
    trainer.make_optimizer()
    warn_if_scales_cancel(trainer)
    trainer.keeper.open(resume)
    trainer.loaders.keep(trainer.train_split, trainer.val_split)
    with shared as interrupt:
        for observer in trainer.observers:
            observer.on_fit_start(trainer)
        trainer.keeper.restore_observers()
        try:
            meter.skip()
            if trainer.state.phase is None:
                trainer.method.on_start(trainer)
                _enter(trainer, 0)
            trainer.select()
            while trainer.state.phase is not None:
                while trainer.state.epoch_in_phase < trainer.state.phase.epochs:
                    _epoch(trainer, interrupt, meter)
                _enter(trainer, trainer.state.phase_index + 1)
            meter.add()
        finally:
            for observer in trainer.observers:
                observer.on_fit_end(trainer)
            trainer.keeper.close()
            trainer.loaders.close()
            _release(trainer)


def _enter(trainer: Trainer, index: int) -> None:
    seed_everything(mix(trainer.seed, "phase", index))  # a run resumed at this boundary draws the same
    state, phase = trainer.state, trainer.method.phase(index, trainer)
    if phase is None and index == 0:
        raise ValueError(f"{type(trainer.method).__name__}.phase(0) is None: there is nothing to train.")
    state.phase, state.phase_index, state.epoch_in_phase = phase, index, 0
    if phase is None:
        return
    if not isinstance(phase, Phase):
        raise ValueError(f"{type(trainer.method).__name__}.phase must return a Phase or None; got {phase!r}.")
    whole("phase epochs", phase.epochs, low=1)
    trainer.model.select(phase.train)
    if phase.fresh_optimizer and index > 0:
        trainer.make_optimizer()
    if phase.fresh_optimizer or index == 0:
        trainer.schedule.reset()
        state.schedule_epoch, state.schedule_span = 0, phase.epochs if phase.fresh_optimizer else trainer.epochs
    trainer.select()


def _epoch(trainer: Trainer, interrupt: Interrupt, meter: Meter) -> None:
    state = trainer.state
    if state.batch_in_epoch == 0:
        seed_everything(mix(trainer.seed, state.epoch, trainer.fabric.global_rank))
        trainer.method.on_epoch_start(trainer)
    trainer.select()
    check_rows(trainer)
    phase, total = trainer.phase, trainer.num_batches
    names = trainer.model.select(phase.read or phase.train)
    batches = trainer.loader(trainer.train_split).batches(
        names,
        order_seed=mix(trainer.seed, state.epoch, "order"),
        augment_seed=mix(trainer.seed, state.epoch, "augment"),
        drop_last=True,
        skip=state.batch_in_epoch,
        rows=trainer.rows,
        visible=trainer.visible,
    )
    for index, batch in enumerate(batches, start=state.batch_in_epoch):
        trainer.set_lr(index)
        batch = trainer.fabric.to_device(batch)
        for observer in trainer.observers:
            observer.on_batch_start(trainer, batch)
        loss = trainer.method.step(Step(trainer, batch, index, total))
        scalar(f"What {type(trainer.method).__name__}.step returns", loss)
        trainer.log({"loss": loss})
        state.batch_in_epoch = index + 1
        for observer in trainer.observers:
            observer.on_batch_end(trainer)
        if interrupt.requested and trainer.fabric.world_size == 1:
            meter.add()
            _interrupted(trainer)
    _end_epoch(trainer, meter)
    if any_of(interrupt.requested, trainer.fabric):  # the signal may have reached one replica only
        _interrupted(trainer)


def _end_epoch(trainer: Trainer, meter: Meter) -> None:
    state = trainer.state
    if trainer.fabric.world_size > 1:  # running statistics saw different samples: take those of rank 0
        for buffer in trainer.model.buffers():
            torch.distributed.broadcast(buffer, src=0)
    train = {f"train/{name}": float(trainer.mean(total / count)) for name, (total, count) in trainer.totals.items()}
    trainer.totals = {}
    if not math.isfinite(train["train/loss"]):
        raise FloatingPointError(
            f"The training loss of epoch {state.epoch + 1} is {train['train/loss']}: training diverged. "
            f"Lower the learning rate (lr={trainer.settings.lr:g}) or set clip_norm."
        )
    with uncounted():
        scores = trainer.scores("val")
    better = trainer.keeper.consider(scores)
    trainer.schedule.observe(trainer.keeper.sign * scores[f"fused/{trainer.monitor}"])
    lr = trainer.lr_now
    trainer.method.on_epoch_end(trainer, scores)
    state.epoch += 1
    state.epoch_in_phase += 1
    state.schedule_epoch += 1
    state.batch_in_epoch = 0
    if state.stopping:
        state.epoch_in_phase, state.stopping = trainer.phase.epochs, False
    meter.add()
    record = {
        "epoch": state.epoch,
        "phase": trainer.phase.name,
        "seconds": round(state.seconds, 3),
        "lr": lr,
        **train,
        **{f"val/{name}": value for name, value in scores.items()},
    }
    trainer.history.append(record)
    for observer in trainer.observers:  # before the checkpoint, which holds what they have seen
        observer.on_epoch_end(trainer, record)
    trainer.keeper.end_epoch(record, better)
    meter.skip()


def _release(trainer: Trainer) -> None:
    """What could be trained before can be again, and the model is in evaluation mode."""
    for p in trainer.model.parameters():
        p.requires_grad_(trainer.owns(p))
    trainer.model.eval()
    trainer.method.eval()


def _interrupted(trainer: Trainer) -> None:
    if trainer.is_trial:
        raise Interrupted("Stopped during a trial run of the method; resuming starts that trial again.")
    where = trainer.keeper.pause()
    raise Interrupted(
        f"Stopped after epoch {trainer.state.epoch}, batch {trainer.state.batch_in_epoch}. "
        + (f"Saved {where}; run the same command with --resume (fit(..., resume=True)) to continue."
           if where else "Without run_dir nothing was saved.")
    )  # fmt: skip
