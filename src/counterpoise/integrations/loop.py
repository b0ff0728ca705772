"""A method in a training loop of one's own: a loss whose backward pass gives the method's gradient."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor

from counterpoise._checks import did_you_mean, number, settings, spelled, whole
from counterpoise._names import made
from counterpoise.data.split import Split
from counterpoise.engine import passes
from counterpoise.engine.checkpoint import differences, fingerprint
from counterpoise.engine.evaluation import evaluating
from counterpoise.engine.setup import check_data, check_parts, warn_if_scales_cancel
from counterpoise.engine.torch_optim import scale_free
from counterpoise.integrations.host import HostFabric, HostRun, HostStep, OwnLoopError, with_gradient
from counterpoise.integrations.rates import Rates
from counterpoise.losses import BALANCED, Likelihood, Loss
from counterpoise.method import Method
from counterpoise.model import MultimodalModel
from counterpoise.types import Batch, Output, Present


def refuse_own_loop(method: Method) -> None:
    """OwnLoopError with the reason when a method cannot train in somebody else's loop."""
    if reason := method.must_own_loop():
        raise OwnLoopError(
            f"{type(method).__name__} cannot train in a loop of somebody else: {reason}. Train it with "
            "counterpoise.Trainer."
        )


@spelled
class Balance:
    """Trains a model by a method in a loop of one's own, around an optimizer of one's own.

    ``loss`` takes the place of the forward pass and the loss: ``loss(...).backward()`` leaves the method's gradient in
    ``.grad``, and the rest is the loop's: clipping, optimizer, schedule, and DDP or a gradient scaler if there is one.
    As a context it lets go of the optimizer at the end.

    In several processes of ``torch.distributed`` the gradient is that of the global batch, with or without DDP around
    the model; without, the loop must start them from the same weights.

    Args:
        method: a name stands for default options. A method that must own its loop is refused with the reason.
        model: what is trained.
        epochs: that the loop will train, at least 1.
        batches: in an epoch, as ``len(loader)`` says, at least 1.
        optimizer: needed only by a method that sets learning rates (MSLR).
        scaler: the loop's gradient scaler, where it trains in half precision.
        sam: radius of sharpness-aware minimisation, at least 0.
        loss: one of ``counterpoise.losses``; None for the task's own.
        train: the training samples, where the method looks at them between epochs (PMR).
        val: validation samples, where the method looks at their scores after an epoch (MSLR).
        seed: of the method's random numbers.

    Raises:
        OwnLoopError: when the method must own its loop.
        ValueError: when method, model and settings do not fit together.
    """

    def __init__(
        self,
        method: Method | str,
        model: MultimodalModel,
        *,
        epochs: int,
        batches: int,
        optimizer: torch.optim.Optimizer | None = None,
        scaler: torch.amp.GradScaler | None = None,
        sam: float = 0.0,
        loss: Loss | str | None = None,
        train: Split | None = None,
        val: Split | None = None,
        seed: int = 0,
    ):
        chosen, criterion = made("method", method), made("loss", loss)
        check_parts(model=model, method=chosen, loss=criterion)
        refuse_own_loop(chosen)
        self.model, self.method = model, cast(Method, chosen)
        criterion = cast(Loss, criterion or Likelihood())
        criterion.prepare(model.task)
        self._run = HostRun.of(
            model, self.method, criterion, epochs=whole("epochs", epochs, low=1),
            batches=whole("batches", batches, low=1), sam=number("sam", sam, low=0), seed=seed,
        )  # fmt: skip
        self._open(train, val)
        self._run.scaler = scaler
        if optimizer is not None:
            self.attach(optimizer)
        model.uncalibrate()
        self._run.set_up()

    def _open(self, train: Split | None, val: Split | None) -> None:
        run = self._run
        for split in (train, val):
            if split is not None:
                check_data(self.model, self.method, split)
        run.open(train, val)
        if type(self.method).on_epoch_end is not Method.on_epoch_end:
            run.split("val")
        if train is not None:
            run.loss.fit(train.target)
        elif BALANCED in settings(run.loss).values():
            raise ValueError(f"loss {type(run.loss).__name__} weighs by the training samples: pass train=data.train.")

    # -- what the loop asks ------------------------------------------------------------------------
    def loss(
        self,
        inputs: Mapping[str, Tensor],
        target: Tensor,
        *,
        present: Present = None,
        index: Tensor | None = None,
        weight: Tensor | None = None,
    ) -> Tensor:
        """The loss of a batch of training; its backward pass gives the gradient that the method makes of it.

        Gradients are computed here, from ``.grad`` as it were empty, and handed over by ``backward``.

        Args:
            inputs: modality -> (batch, ...) tensor on the model's device.
            target: of the samples, as the task has it.
            present: modality -> (batch,) bool, False where a sample lacks it; in several processes a modality that any
                of them names must be named by all.
            index: (batch,) numbers of the samples in the data, for methods that draw per sample; None counts them.
            weight: (batch,) how much each counts.

        Raises:
            ValueError: for inputs that do not fit, and after the last of ``epochs``.
        """
        if not torch.is_grad_enabled():
            raise ValueError("loss(...) is for training, and gradients are off here; evaluate by predict(...).")
        run, batch = self._run, self._batch(inputs, target, present, index, weight)
        with self._precision():
            self._advance(batch)
            parameters = run.trainable()
            before, run.updates = [p.grad for p in parameters], 0
            for p in parameters:
                p.grad = None
            try:
                value = self.method.step(HostStep(run, batch, run.state.batch_in_epoch, run.batches))
                if run.updates == 0:
                    raise OwnLoopError(f"{type(self.method).__name__}.step never calls step.update().")
                loss = with_gradient(value, parameters)
            finally:
                for p, old in zip(parameters, before, strict=True):
                    p.grad = old
        run.state.batch_in_epoch += 1
        return loss

    @torch.no_grad()
    def predict(self, inputs: Mapping[str, Tensor], present: Present = None) -> Output:
        """What the method predicts: ``logits`` (batch, classes) and ``unimodal``; evaluation mode, no gradient."""
        model, fabric = self.model, self._run.fabric
        self._fit(inputs)
        with self._precision(), evaluating(model, self.method):
            names = self.method.reads(model.modalities)
            features = passes.encode(model, fabric, inputs, names, present)
            return self._run.evaluator.decided(passes.fuse(model, fabric, features, present))

    @property
    def logged(self) -> dict[str, float]:
        """What the method noted in this epoch, such as ``audio/coefficient``: means over its batches so far."""
        return {name: float(total) / count for name, (total, count) in self._run.totals.items()}

    @torch.no_grad()
    def mean_loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """The mean loss of what was predicted."""
        return logits.new_tensor(self._run.loss.mean(logits, target) or 0.0)

    def begin(
        self,
        batches: int,
        optimizer: torch.optim.Optimizer,
        scaler: torch.amp.GradScaler | None = None,
        epochs: int | None = None,
    ) -> None:
        """What a trainer of somebody else knows only when training begins: see the arguments of the class."""
        run = self._run
        run.batches, run.scaler = whole("batches", batches, low=1), scaler
        run.epochs = run.epochs if epochs is None else whole("epochs", epochs, low=1)
        self.attach(optimizer)

    def attach(self, optimizer: torch.optim.Optimizer) -> None:
        """Take the loop's optimizer, for methods that set learning rates."""
        self.close()
        self._run.rates = Rates(optimizer, self.model, lambda: self._run.state.scales)
        warn_if_scales_cancel(self.method, type(optimizer).__name__, scale_free(type(optimizer)))

    def close(self) -> None:
        """Leave the optimizer alone."""
        if self._run.rates is not None:
            self._run.rates.close()
            self._run.rates = None

    def __enter__(self) -> Balance:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- what a checkpoint holds -------------------------------------------------------------------
    def state_dict(self) -> dict[str, Any]:
        """Where it stands, tensors and plain values, for the loop's checkpoint; model and optimizer are the loop's."""
        run = self._run
        return {
            "fingerprint": fingerprint(self.model, method=self.method),
            **run.state_dict(),
            "loss": run.loss.state_dict(),
        }

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Counterpart of ``state_dict``; ValueError for that of another method or model."""
        if lines := differences(saved["fingerprint"], fingerprint(self.model, method=self.method)):
            raise ValueError("This state belongs to another training: " + "; ".join(lines[:4]) + ".")
        run = self._run
        run.load_state_dict(saved)
        run.loss.load_state_dict(saved["loss"])
        if run.rates is not None:
            run.rates.changed()

    # -- between batches ---------------------------------------------------------------------------
    def _advance(self, batch: Batch) -> None:
        """What the method does at the boundaries that lie before this batch."""
        run, state, method = self._run, self._run.state, self.method
        run.fabric.to_device(method)
        run.fabric.to_device(run.loss)
        method.train()
        if state.phase is None:
            run.task.check(batch.target)
            method.on_start(run)
            state.phase = method.phase(0, run)
        if state.batch_in_epoch >= run.batches:
            self._end_epoch()
        if state.epoch >= run.epochs:
            raise ValueError(
                f"The {run.epochs} epochs of {run.batches} batches are over, and the loop goes on. Pass the epochs "
                "that it trains, and the batches of each."
            )
        if state.batch_in_epoch == 0:
            run.totals = {}
            method.on_epoch_start(run)

    def _end_epoch(self) -> None:
        run, state = self._run, self._run.state
        if type(self.method).on_epoch_end is not Method.on_epoch_end:
            self.method.on_epoch_end(run, run.scores("val"))
        state.epoch += 1
        state.epoch_in_phase += 1
        state.batch_in_epoch = 0

    def _batch(
        self,
        inputs: Mapping[str, Tensor],
        target: Tensor,
        present: Present,
        index: Tensor | None,
        weight: Tensor | None,
    ) -> Batch:
        self._fit(inputs)
        fabric, count = self._run.fabric, len(target)
        if index is None:  # counted through the epoch, so that no two samples of a global batch share a number
            start = self._run.state.batch_in_epoch % self._run.batches * count * fabric.world_size
            index = start + torch.arange(
                fabric.global_rank, count * fabric.world_size, fabric.world_size, device=target.device
            )
        for name, rows in {**inputs, "index": index, **({} if weight is None else {"weight": weight})}.items():
            if len(rows) != count:
                raise ValueError(f"{name} must have one row per target: {count} targets, {len(rows)} rows.")
        masks = dict(present) if present else None
        return Batch(dict(inputs), target, index.to(target.device), masks, weight)

    def _fit(self, inputs: Mapping[str, Tensor]) -> None:
        for name in inputs:
            if name not in self.model.modalities:
                raise ValueError("inputs: " + did_you_mean("modality", name, self.model.modalities))
        missing = [m for m in self.method.reads(self.model.modalities) if m not in inputs]
        if missing:
            raise ValueError(f"inputs: modality {missing[0]!r} is missing; got {', '.join(inputs) or 'none'}.")

    @contextmanager
    def _precision(self) -> Iterator[None]:
        """Encoders and fusion in the host's precision, everything else in full, as in the engine."""
        run, kind = self._run, self._run.fabric.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None
        if dtype == torch.float16 and run.scaler is None and torch.is_grad_enabled():
            raise ValueError("Half precision needs the loop's gradient scaler: pass scaler=..., or train in bfloat16.")
        cast(HostFabric, run.fabric).dtype = dtype
        with torch.autocast(kind, enabled=False):
            yield


balance = Balance  # as a ``with`` statement reads it
