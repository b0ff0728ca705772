"""A run whose loop, optimizer, devices and processes are somebody else's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, NoReturn, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn

from counterpoise.data.split import Split
from counterpoise.engine import SGD, Constant, Run, Step
from counterpoise.engine.replicas import Fabric
from counterpoise.integrations.rates import Rates
from counterpoise.losses import Loss
from counterpoise.method import Method
from counterpoise.model import MultimodalModel
from counterpoise.types import Batch

EVALUATED = 64
"""Samples of a batch, where a method asks for outputs or scores of a split."""


class HostFabric:
    """What the engine asks a Fabric, answered by what the host has set up: nothing is started or moved.

    Args:
        model: it says the device.

    Attributes:
        dtype: of the host's autocast while it runs a batch; None for full precision.
    """

    def __init__(self, model: nn.Module):
        self._model = model
        self.dtype: torch.dtype | None = None
        self.strategy, self._precision = _Replicas(), _Unscaled()

    @property
    def device(self) -> torch.device:
        """Where the model is now."""
        return next(self._model.parameters()).device

    @property
    def world_size(self) -> int:
        """Processes that train together."""
        return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1

    @property
    def global_rank(self) -> int:
        """Number of this one."""
        return dist.get_rank() if self.world_size > 1 else 0

    @property
    def is_global_zero(self) -> bool:
        """Whether it is the first."""
        return self.global_rank == 0

    def to_device(self, value: Any) -> Any:
        """Batches, tensors and modules to the device of the model."""
        if isinstance(value, Tensor | nn.Module):
            return value.to(self.device)
        if isinstance(value, Batch):
            return Batch(*map(self.to_device, value))
        return {k: self.to_device(v) for k, v in value.items()} if isinstance(value, dict) else value

    def autocast(self) -> AbstractContextManager[Any]:
        """The host's precision. What it rounds is not kept: within the host's context SAM would meet old weights."""
        if self.dtype is None:
            return nullcontext()
        return torch.autocast(self.device.type, self.dtype, cache_enabled=False)


class _Replicas:
    def setup_module(self, module: nn.Module) -> nn.Module:
        """As it is: the host makes the replicas start from the same weights."""
        return module


class _Unscaled:
    precision = "32-true"  # the engine scales no losses: the host does


class OwnLoopError(ValueError):
    """A method asks for what only the engine's own loop can give."""


def _refused(what: str) -> Callable[..., NoReturn]:
    def refuse(self: HostRun, *_: object, **__: object) -> NoReturn:
        raise OwnLoopError(
            f"{type(self.method).__name__} {what}, which a loop of somebody else does not let it do. Train it with "
            "counterpoise.Trainer; if it is yours, say so in its must_own_loop()."
        )

    return refuse


@dataclass(eq=False, repr=False)
class HostRun(Run):
    """A run of which the host does the loop; a method asks it for the same things.

    Attributes:
        batches: in an epoch.
        rates: where learning rates are multiplied.
        scaler: the host's gradient scaler, in half precision.
        updates: how often the method was done with the gradients of this batch.
    """

    batches: int = 0
    rates: Rates | None = None
    scaler: torch.amp.GradScaler | None = None
    updates: int = 0

    @classmethod
    def of(
        cls, model: MultimodalModel, method: Method, loss: Loss, *, epochs: int, batches: int, sam: float, seed: int
    ) -> HostRun:
        """A run of these parts. What concerns the engine's own loop, optimizer and selection is not used."""
        return cls(
            model, method, loss, cast(Fabric, HostFabric(model)), train=_refused("trains further models"),
            epochs=epochs, batch_size=EVALUATED, optimizer_settings=SGD(), schedule=Constant(), sam=sam,
            clip_norm=None, monitor=model.task.monitor, metrics=(), seed=seed, num_workers=0, compile=False,
            sampler=None, early_stopping=None, budget=None, batches=batches,
        )  # fmt: skip

    @property
    def num_batches(self) -> int:
        return self.batches

    def split(self, split: Split | str) -> Split:
        if isinstance(split, str) and split not in self.splits:
            use = {"train": "the training samples", "val": "scores on validation samples"}[split]
            raise ValueError(
                f"{type(self.method).__name__} looks at {use} between epochs: pass {split}=data.{split} of a data set "
                "such as from_arrays(...) makes."
            )
        return super().split(split)

    def update(self) -> None:
        """The method is done with ``.grad``; the host's optimizer takes it from here."""
        self.updates += 1
        if self.updates > 1:
            _refused("updates more than once per batch")(self)

    def rescale(self, modality: str, factor: float) -> None:
        super().rescale(modality, factor)
        if self.rates is None:
            raise ValueError(
                f"{type(self.method).__name__} sets the learning rate of each modality: pass optimizer=... too, made "
                "over counterpoise.integrations.parameter_groups(model)."
            )
        self.rates.changed()

    def _parts(self) -> dict[str, tuple[Callable[[], Any], Callable[[Any], object]]]:
        parts = super()._parts()
        return {name: parts[name] for name in ("state", "generator", "method", "totals")}  # the rest is the host's

    fork = _refused("trains further models")
    resample = _refused("chooses the samples of an epoch")
    freeze = _refused("freezes a modality")
    load_best = _refused("goes back to the weights that were best on validation")
    stop = _refused("ends a phase")


class HostStep(Step):
    """A step whose backward passes are scaled as the host's scaler would, and the gradients unscaled at once."""

    def _factor(self) -> Tensor | None:
        """The scaler's, left on the device: to read it would wait for all that was launched; None without."""
        scaler = cast(HostRun, self._run).scaler
        if scaler is None or not scaler.is_enabled():
            return None
        return cast(Tensor, scaler.scale(torch.ones((), device=self._fabric.device)))

    def _unscaled(self, grads: Sequence[Tensor], factor: Tensor) -> list[Tensor]:
        return [g / factor for g in grads]  # what overflowed, the host must see


class _WithGradient(torch.autograd.Function):
    """A number whose gradient is known already."""

    @staticmethod
    def forward(ctx: Any, loss: Tensor, grads: Sequence[Tensor], *parameters: Tensor) -> Tensor:
        ctx.grads = grads
        return loss.clone()

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> Any:
        (upstream,) = grad_outputs
        return None, None, *(g * upstream for g in ctx.grads)


def with_gradient(loss: Tensor, parameters: Sequence[nn.Parameter]) -> Tensor:
    """The number ``loss``, such that its backward pass gives each parameter the gradient that ``.grad`` holds now."""
    moved = [p for p in parameters if p.grad is not None]
    return cast(Tensor, _WithGradient.apply(loss.detach(), [p.grad for p in moved], *moved))
