"""Optimizers and learning-rate schedules as small settings objects."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import torch

from counterpoise._checks import Spelled, number, whole
from counterpoise.engine.scaling import LossScale
from counterpoise.method import Method
from counterpoise.model import MultimodalModel


class Optimizer(Spelled, ABC):
    """Settings of an optimizer; ``build`` makes one over named parameter groups."""

    lr: float
    scale_free: bool = False  # a constant factor on the gradient cancels out

    @abstractmethod
    def build(self, groups: Iterable[dict[str, Any]]) -> torch.optim.Optimizer:
        """The optimizer over these groups (each has a ``name`` and its ``params``)."""


class SGD(Optimizer):
    """Stochastic gradient descent with momentum.

    Args:
        lr: learning rate, >= 0.
        momentum: in [0, 1).
        weight_decay: L2 coefficient added to the gradient, >= 0.
        nesterov: look ahead along the momentum.
    """

    def __init__(self, lr: float = 0.01, momentum: float = 0.9, weight_decay: float = 1e-4, nesterov: bool = False):
        self.lr = number("lr", lr, low=0)
        self.momentum = number("momentum", momentum, low=0, below=1)
        self.weight_decay = number("weight_decay", weight_decay, low=0)
        self.nesterov = nesterov

    def build(self, groups: Iterable[dict[str, Any]]) -> torch.optim.Optimizer:
        groups = list(groups)
        return torch.optim.SGD(
            groups,
            lr=self.lr,
            momentum=self.momentum,
            weight_decay=self.weight_decay,
            nesterov=self.nesterov,
            fused=fused(groups),
        )


class Adam(Optimizer):
    """Adam; ``weight_decay`` is L2 inside the gradient.

    Args:
        lr: learning rate, >= 0.
        betas: decay rates of the two moments, each in [0, 1).
        weight_decay: >= 0.
    """

    scale_free = True

    def __init__(self, lr: float = 1e-3, betas: tuple[float, float] = (0.9, 0.999), weight_decay: float = 0.0):
        self.lr = number("lr", lr, low=0)
        first, second = (number("betas", b, low=0, below=1) for b in betas)
        self.betas = (first, second)
        self.weight_decay = number("weight_decay", weight_decay, low=0)

    def build(self, groups: Iterable[dict[str, Any]]) -> torch.optim.Optimizer:
        groups = list(groups)
        return torch.optim.Adam(
            groups, lr=self.lr, betas=self.betas, weight_decay=self.weight_decay, fused=fused(groups)
        )


class AdamW(Adam):
    """Adam with decoupled weight decay.

    Args:
        lr: learning rate, >= 0.
        betas: decay rates of the two moments, each in [0, 1).
        weight_decay: >= 0.
    """

    def __init__(self, lr: float = 1e-3, betas: tuple[float, float] = (0.9, 0.999), weight_decay: float = 0.01):
        super().__init__(lr, betas, weight_decay)

    def build(self, groups: Iterable[dict[str, Any]]) -> torch.optim.Optimizer:
        groups = list(groups)
        return torch.optim.AdamW(
            groups, lr=self.lr, betas=self.betas, weight_decay=self.weight_decay, fused=fused(groups)
        )


def fused(groups: Iterable[dict[str, Any]]) -> bool | None:
    """Whether one kernel may update everything; None leaves the choice to torch.

    Fused updates walk a tensor in storage order, so every parameter must fill its storage.
    """
    fits = all(p.is_floating_point() and p.device.type in ("cpu", "cuda") and _dense(p) for p in _parameters(groups))
    return True if fits else None


def update(optimizer: torch.optim.Optimizer, scale: LossScale | None = None) -> None:
    """One step of the optimizer, whatever layout the gradients have, which are gone then; version counters advance.

    Args:
        optimizer: what moves the parameters that have a gradient.
        scale: of the losses; after an overflow nothing moves. Fused kernels read that where it is, others wait for it.
    """
    every = _parameters(optimizer.param_groups)
    moved = [p for p in every if p.grad is not None]
    for p in moved:
        if p.grad is not None and p.grad.stride() != p.stride():  # fused kernels would pair the wrong numbers
            p.grad = torch.empty_like(p, requires_grad=False).copy_(p.grad)
    groups = optimizer.param_groups
    if groups[0].get("fused") and all(group["lr"] == groups[0]["lr"] for group in groups):
        # groups differ in nothing else, and a call of the kernel costs more than small layers
        optimizer.param_groups = [{**groups[0], "params": moved}]
    try:
        if len(optimizer.state) < len(every):
            _start_momentum(optimizer, always=scale is not None)
        fused = all(group.get("fused") for group in groups)
        if scale is not None and fused:
            setattr(optimizer, "found_inf", scale.overflow.float())  # noqa: B010 - what kernels read, not declared
        if scale is None or fused or not scale.overflow:
            optimizer.step()
    finally:
        optimizer.param_groups = groups
    # fused kernels leave the counters by which autograd sees that a graph's weights have changed
    torch.autograd.graph.increment_version(moved)
    for p in moved:
        p.grad = None
    if scale is not None:
        scale.advance()


def _start_momentum(optimizer: torch.optim.Optimizer, *, always: bool) -> None:
    """Momentum zero, as before a first step, where only some of a group's weights have met a gradient before.

    The fused kernel of SGD takes all or none. It happens when a whole batch lacks a modality. A first step that is
    skipped would leave it without any value, hence ``always``.
    """
    for group in optimizer.param_groups:
        if not (group.get("fused") and group.get("momentum")):
            continue
        moved = [p for p in group["params"] if p.grad is not None]
        new = [p for p in moved if optimizer.state[p].get("momentum_buffer") is None]
        if always or len(new) < len(moved):
            for p in new:
                optimizer.state[p]["momentum_buffer"] = torch.zeros_like(p, requires_grad=False)


def restore(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """``load_state_dict``, with the layouts and kernels of this machine and not those of the checkpoint's."""
    kernels = [(group.get("fused"), group.get("foreach")) for group in optimizer.param_groups]
    optimizer.load_state_dict(state)
    for group, (one, each) in zip(optimizer.param_groups, kernels, strict=True):
        group["fused"], group["foreach"] = one, each
    for p, values in optimizer.state.items():
        for name, value in values.items():
            if isinstance(value, torch.Tensor) and value.shape == p.shape and value.stride() != p.stride():
                values[name] = torch.empty_like(p, requires_grad=False, dtype=value.dtype).copy_(value)


def _parameters(groups: Iterable[dict[str, Any]]) -> list[torch.nn.Parameter]:
    return [p for group in groups for p in group["params"]]


def _dense(x: torch.Tensor) -> bool:
    """Whether the elements fill their storage without gaps, in any order of the axes."""
    return x.permute(sorted(range(x.dim()), key=lambda axis: (-x.stride(axis), x.shape[axis]))).is_contiguous()


def parameter_groups(model: MultimodalModel, method: Method, trainable: Collection[int]) -> list[dict[str, Any]]:
    """Groups named after the modality that owns their parameters, or "shared", the method's own in it.

    One group per owner and ``factor`` on the learning rate. Factors come from modules that have a method
    ``lr_factors()`` giving (parameter, factor) pairs, as ``encoders.FineTuned``; all others are 1.

    Args:
        model: whose parameters of which ``trainable`` holds the ids.
        method: whose parameters train unless they say otherwise.
        trainable: ids of parameters.
    """
    stating: list[Any] = [module for module in model.modules() if hasattr(module, "lr_factors")]
    factors: dict[int, float] = {id(p): factor for module in stating for p, factor in module.lr_factors()}
    groups = {m: model.parameters_of(m) for m in model.modalities} | {"shared": model.shared_parameters()}
    groups = {name: [p for p in params if id(p) in trainable] for name, params in groups.items()}
    groups["shared"] += [p for p in method.parameters() if p.requires_grad]
    return [
        {"name": name, "factor": factor, "params": [p for p in params if factors.get(id(p), 1.0) == factor]}
        for name, params in groups.items()
        for factor in dict.fromkeys(factors.get(id(p), 1.0) for p in params)
    ]


class Schedule(Spelled, ABC):
    """The learning rate as a factor of how far training is; pure, so a resumed run agrees.

    Args:
        warmup: epochs (fractions count) over which the factor climbs linearly from 0.
    """

    def __init__(self, warmup: float = 0.0):
        self.warmup = number("warmup", warmup, low=0)

    def factor(self, epoch: float, epochs: int) -> float:
        """Factor at ``epoch`` (0 at the first batch, fractions inside an epoch) of ``epochs``."""
        ramp = min(1.0, epoch / self.warmup) if self.warmup else 1.0
        return ramp * self.shape(epoch, epochs)

    @abstractmethod
    def shape(self, epoch: float, epochs: int) -> float:
        """The factor without warm-up."""

    def observe(self, score: float) -> None:
        """The validation score after an epoch, higher is better."""

    def reset(self) -> None:
        """Start again; called where a phase asks for a fresh optimizer."""

    def state_dict(self) -> dict[str, float]:
        """What must survive a restart."""
        return {}

    def load_state_dict(self, state: dict[str, float]) -> None:
        """Counterpart of ``state_dict``."""
        for name, value in state.items():
            setattr(self, name, value)


class Constant(Schedule):
    """The same learning rate throughout (after warm-up).

    Args:
        warmup: epochs over which the factor climbs linearly from 0.
    """

    def shape(self, epoch: float, epochs: int) -> float:
        return 1.0


class StepDecay(Schedule):
    """Multiply by ``gamma`` every ``every`` epochs.

    Args:
        every: epochs between drops, > 0.
        gamma: factor of a drop, in (0, 1].
        warmup: epochs over which the factor climbs linearly from 0.
    """

    def __init__(self, every: int = 40, gamma: float = 0.1, warmup: float = 0.0):
        super().__init__(warmup)
        self.every = whole("every", every, low=1)
        self.gamma = number("gamma", gamma, above=0, high=1)

    def shape(self, epoch: float, epochs: int) -> float:
        return self.gamma ** (int(epoch) // self.every)


class Milestones(Schedule):
    """A factor on the learning rate from each of some epochs on, 1 before the first of them.

    ``{0: 0.5, 1: 1.0, 39: 0.1}`` is half the rate in the first epoch and a tenth from the fortieth on. With
    it stands what steps of equal length do not give, such as the schedules of code that moves on before
    an epoch instead of after it.

    Args:
        factors: epoch (counted from 0) -> factor, at least 0.
        warmup: epochs over which the factor climbs linearly from 0.
    """

    def __init__(self, factors: Mapping[int, float], warmup: float = 0.0):
        super().__init__(warmup)
        self.factors = {
            whole("factors", epoch, low=0): float(number("factors", factor, low=0))
            for epoch, factor in sorted(factors.items())
        }
        if not self.factors:
            raise ValueError("factors must name an epoch at least, for example {40: 0.1}; got none.")

    def shape(self, epoch: float, epochs: int) -> float:
        return next((factor for start, factor in reversed(self.factors.items()) if start <= epoch), 1.0)


class Cosine(Schedule):
    """Half a cosine from 1 to ``floor`` over the run (or over each phase with a fresh optimizer).

    Args:
        floor: last factor, in [0, 1].
        warmup: epochs over which the factor climbs linearly from 0.
    """

    def __init__(self, floor: float = 0.0, warmup: float = 0.0):
        super().__init__(warmup)
        self.floor = number("floor", floor, low=0, high=1)

    def shape(self, epoch: float, epochs: int) -> float:
        return self.floor + (1 - self.floor) * (1 + math.cos(math.pi * min(1.0, epoch / epochs))) / 2


class Plateau(Schedule):
    """Multiply by ``gamma`` when the validation score has not improved for ``patience`` epochs.

    Args:
        patience: epochs without improvement that are tolerated, >= 0.
        gamma: factor of a drop, in (0, 1].
        warmup: epochs over which the factor climbs linearly from 0.
    """

    def __init__(self, patience: int = 5, gamma: float = 0.1, warmup: float = 0.0):
        super().__init__(warmup)
        self.patience = whole("patience", patience, low=0)
        self.gamma = number("gamma", gamma, above=0, high=1)
        self.reset()

    def reset(self) -> None:
        self._scale, self._best, self._bad = 1.0, -math.inf, 0

    def shape(self, epoch: float, epochs: int) -> float:
        return self._scale

    def observe(self, score: float) -> None:
        if score > self._best:
            self._best, self._bad = score, 0
            return
        self._bad += 1
        if self._bad > self.patience:
            self._scale, self._bad = self._scale * self.gamma, 0

    def state_dict(self) -> dict[str, float]:
        return {"_scale": self._scale, "_best": self._best, "_bad": self._bad}
