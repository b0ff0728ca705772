"""The loop: phases, epochs, batches, and what happens between them."""

from __future__ import annotations

import math
from importlib import import_module

import torch
from torch import Tensor

from counterpoise._checks import whole
from counterpoise.engine.accumulating import step_in_parts
from counterpoise.engine.cost import Meter, longest_epoch, uncounted
from counterpoise.engine.interrupt import Interrupt, Interrupted, shared
from counterpoise.engine.replicas import any_of, on_device, together
from counterpoise.engine.reuse import encode_once
from counterpoise.engine.rows import Rows
from counterpoise.engine.run import Run
from counterpoise.engine.saving import Checkpoints
from counterpoise.engine.selection import consider, monitored, select_best
from counterpoise.engine.setup import check_rows, check_training, warn_if_scales_cancel
from counterpoise.engine.state import mix, seed_everything, untouched_randomness
from counterpoise.engine.step import Step, scalar
from counterpoise.metrics import BACKEND
from counterpoise.types import Batch, Phase


def fit(
    run: Run,
    checkpoints: Checkpoints | None = None,
    *,
    resume: bool = False,
    config: str | None = None,
    data: str = "",
) -> None:
    """Train a run on its splits from the start, or from a checkpoint, and leave its best weights in the model.

    Args:
        run: forgets what it was before.
        checkpoints: where it is written to; None writes nothing.
        resume: go on from the last checkpoint when there is one.
        config: what to write as ``config.yaml``.
        data: name of the data set.
    """
    check_training(
        run.model, run.method, run.splits, batch_size=run.batch_size, monitor=run.monitor, metrics=run.metrics
    )
    checkpoints = checkpoints or Checkpoints(None, run.fabric)
    with untouched_randomness(), together(run.fabric):
        run.reset()
        run.loss.fit(run.train_split.target)
        run.model.uncalibrate()
        import_module(BACKEND)  # takes a second or two, which are not training
        encoders = () if run.compile else run.model.encoders.values()
        with Meter(run.state, encoders, run.device, inside=run.is_trial) as meter:
            if not run.is_trial:  # a trial runs on the splits of its run
                reads = run.method.reads(run.model.modalities)
                for name, split in run.splits.items():
                    run.splits[name] = encode_once(split, run.model, reads, run.evaluator, run.fabric)
            seed_everything(mix(run.seed, "setup"))
            run.set_up()
            run.make_optimizer()
            optimizer = run.optimizer_settings
            warn_if_scales_cancel(run.method, type(optimizer).__name__, optimizer.scale_free)
            checkpoints.open(run, resume=resume, config=config, data=data)
            _run_phases(run, checkpoints, meter)
        with uncounted():
            if select_best(run):
                checkpoints.write_best(run)


def _run_phases(run: Run, checkpoints: Checkpoints, meter: Meter) -> None:
    state = run.state
    run.loaders.keep(run.train_split, run.val_split)
    with shared as interrupt:
        for observer in run.observers:
            observer.on_fit_start(run)
        checkpoints.restore_observers(run)
        try:
            meter.skip()
            if state.phase is None:
                run.method.on_start(run)
                _enter(run, 0)
            run.select()
            while state.phase is not None:
                while state.epoch_in_phase < state.phase.epochs and not any_of(_out_of_time(run), run.fabric):
                    _epoch(run, checkpoints, interrupt, meter)
                if state.epoch_in_phase < state.phase.epochs:
                    break
                _enter(run, state.phase_index + 1)
            meter.add()
        finally:
            for observer in run.observers:
                observer.on_fit_end(run)
            run.loaders.close()
            run.evaluator.forget()
            _release(run)


def _enter(run: Run, index: int) -> None:
    seed_everything(mix(run.seed, "phase", index))  # a run resumed at this boundary draws the same
    state, phase = run.state, run.method.phase(index, run)
    if state.phase is not None:
        _had_stage(run, over=True)
    if phase is None and index == 0:
        raise ValueError(f"{type(run.method).__name__}.phase(0) is None: there is nothing to train.")
    state.phase, state.phase_index, state.epoch_in_phase = phase, index, 0
    if phase is None:
        return
    if not isinstance(phase, Phase):
        raise ValueError(f"{type(run.method).__name__}.phase must return a Phase or None; got {phase!r}.")
    whole("phase epochs", phase.epochs, low=1)
    run.model.select(phase.train)
    if phase.fresh_optimizer and index > 0:
        run.make_optimizer()
    if phase.fresh_optimizer or index == 0:
        run.schedule.reset()
        state.schedule_epoch, state.schedule_span = 0, phase.epochs if phase.fresh_optimizer else run.epochs
    run.select()


def _out_of_time(run: Run) -> bool:
    """Whether another epoch as long as the longest so far would not end within the budget; one is always trained."""
    if run.budget is None or not run.history:
        return False
    return run.history[-1]["seconds"] + longest_epoch(run.history) > run.budget


def _had_stage(run: Run, *, over: bool) -> None:
    """Note who has had a stage: who trains in the phase, when it is over or trains all that the method reads."""
    now, reads = run.model.select(run.phase.train), run.method.reads(run.model.modalities)
    if over or set(reads) <= set(now):
        run.state.staged += [m for m in now if m not in run.state.staged]


def _epoch(run: Run, checkpoints: Checkpoints, interrupt: Interrupt, meter: Meter) -> None:
    state = run.state
    if state.batch_in_epoch == 0:
        seed_everything(mix(run.seed, state.epoch, run.fabric.global_rank))
        run.method.on_epoch_start(run)
    run.select()
    check_rows(run.model, run.method, run.num_rows, run.rows.present, batch_size=run.batch_size)
    phase, total = run.phase, run.num_batches
    names = run.model.select(phase.read or phase.train)
    rows = _rows(run)
    batches = run.loaders.get(run.train_split).batches(
        names,
        order_seed=None if rows.ordered else mix(run.seed, state.epoch, "order"),
        augment_seed=mix(run.seed, state.epoch, "augment"),
        drop_last=True,
        skip=state.batch_in_epoch,
        rows=rows.indices,
        visible=rows.present,
    )
    step = step_in_parts if run.accumulate > 1 else _step
    for index, batch in enumerate(batches, start=state.batch_in_epoch):
        run.set_lr(index)
        batch = on_device(batch, run.fabric)
        for observer in run.observers:
            observer.on_batch_start(run, batch)
        loss = step(run, batch, index, total)
        scalar(f"What {type(run.method).__name__}.step returns", loss)
        run.log({"loss": loss})
        state.batch_in_epoch = index + 1
        for observer in run.observers:
            observer.on_batch_end(run)
        if interrupt.requested and run.fabric.world_size == 1:
            meter.add()
            _interrupted(run, checkpoints)
    _end_epoch(run, checkpoints, meter)
    if any_of(interrupt.requested, run.fabric):  # the signal may have reached one replica only
        _interrupted(run, checkpoints)


def _step(run: Run, batch: Batch, index: int, num_batches: int) -> Tensor:
    return run.method.step(Step(run, batch, index, num_batches))


def _rows(run: Run) -> Rows:
    """Which rows this epoch trains on: those that the method chose, or as many drawn from them."""
    if run.sampler is None:
        return run.rows
    return run.rows.balanced(run.train_split.target, mix(run.seed, run.state.epoch, "sampler"))


def _end_epoch(run: Run, checkpoints: Checkpoints, meter: Meter) -> None:
    state = run.state
    if run.fabric.world_size > 1:  # running statistics saw different samples: take those of rank 0
        for buffer in run.model.buffers():
            torch.distributed.broadcast(buffer, src=0)
    train = {f"train/{name}": float(run.mean(total / count)) for name, (total, count) in run.totals.items()}
    run.totals = {}
    if not math.isfinite(train["train/loss"]):
        raise FloatingPointError(
            f"The training loss of epoch {state.epoch + 1} is {train['train/loss']}: training diverged. "
            f"Lower the learning rate (lr={run.optimizer_settings.lr:g}) or set clip_norm."
        )
    with uncounted():
        scores = run.scores("val")
    _had_stage(run, over=state.stopping or state.epoch_in_phase + 1 >= run.phase.epochs)
    better = consider(run, scores)
    run.schedule.observe(monitored(run, scores))
    lr = run.lr_now
    run.method.on_epoch_end(run, scores)
    state.epoch += 1
    state.epoch_in_phase += 1
    state.schedule_epoch += 1
    state.batch_in_epoch = 0
    if run.early_stopping is not None and state.epoch - (state.best_epoch or 0) >= run.early_stopping:
        state.stopping = True
    if state.stopping:
        state.epoch_in_phase, state.stopping = run.phase.epochs, False
    meter.add()
    record = {
        "epoch": state.epoch,
        "phase": run.phase.name,
        "seconds": round(state.seconds, 3),
        "lr": lr,
        **train,
        **{f"val/{name}": value for name, value in scores.items()},
    }
    run.history.append(record)
    for observer in run.observers:  # before the checkpoint, which holds what they have seen
        observer.on_epoch_end(run, record)
    checkpoints.end_epoch(run, record, better=better)
    meter.skip()


def _release(run: Run) -> None:
    """What could be trained before can be again, and the model is in evaluation mode."""
    for p in run.model.parameters():
        p.requires_grad_(run.owns(p))
    run.model.eval()
    run.method.eval()


def _interrupted(run: Run, checkpoints: Checkpoints) -> None:
    if run.is_trial:
        raise Interrupted("Stopped during a trial run of the method; resuming starts that trial again.")
    where = checkpoints.pause(run)
    raise Interrupted(
        f"Stopped after epoch {run.state.epoch}, batch {run.state.batch_in_epoch}. "
        + (f"Saved {where}; run the same command with --resume (fit(..., resume=True)) to continue."
           if where else "Without run_dir nothing was saved.")
    )  # fmt: skip
