"""Encoders that compute activations again in the backward pass instead of keeping them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.utils.checkpoint import checkpoint

from counterpoise.encoders.lora import LoRA
from counterpoise.encoders.projected import Projected
from counterpoise.encoders.tuning import FineTuned, Frozen, blocks_of, net_of
from counterpoise.functional.statistics import lone_sample


class Checkpointed(nn.Module):
    """An encoder that needs less memory in training: what is inside its blocks is computed twice and not kept.

    Of each block (stage of a ResNet, layer of a transformer, Inception module) only what enters it stays until the
    backward pass, which computes the rest again; of an encoder without apparent blocks, only its input. Gradients,
    dropout and running statistics are those of the encoder, bit for bit. A forward pass more is the price. Evaluation
    is as ever. It goes around ``FineTuned``, ``LoRA`` and ``Projected``, not inside.

    Args:
        encoder: maps (batch, ...) to (batch, dim).

    Raises:
        ValueError: for a frozen encoder, of which nothing is kept anyway.

    Source: Chen et al., Training Deep Nets with Sublinear Memory Cost, 2016, https://arxiv.org/abs/1604.06174
    """

    def __init__(self, encoder: nn.Module):
        super().__init__()
        if isinstance(encoder, Frozen):
            raise ValueError(
                "A frozen encoder keeps no activations, so there is nothing to save: leave Checkpointed out."
            )
        self.encoder = encoder
        if isinstance(dim := getattr(encoder, "dim", None), int):
            self.dim = dim
        try:
            self._blocks = blocks_of(_innermost(encoder))
        except ValueError:
            self._blocks = ()  # all of it is one block

    def forward(self, x: Tensor) -> Tensor:
        if not (self.training and torch.is_grad_enabled()):
            return self.encoder(x)
        net = net_of(_innermost(self.encoder))
        with ExitStack() as stack:
            for block in [net.get_submodule(name) for name in self._blocks] or [self.encoder]:
                stack.enter_context(_checkpointed(block, alone=len(x) == 1))
            return self.encoder(x)


def _innermost(encoder: nn.Module) -> nn.Module:
    while isinstance(encoder, FineTuned | Frozen | LoRA | Projected):
        encoder = encoder.encoder
    return encoder


@contextmanager
def _checkpointed(block: nn.Module, *, alone: bool) -> Iterator[None]:
    """Calls of the block inside go through a checkpoint; its forward pass is replaced, so that all names stay."""
    forward, own = block.forward, block.__dict__.get("forward")

    def recorded(*args: Any, **kwargs: Any) -> Any:
        again = _Again(block, alone)
        return checkpoint(forward, *args, use_reentrant=False, context_fn=lambda: (nullcontext(), again), **kwargs)

    block.forward = recorded
    try:
        yield
    finally:
        del block.forward
        if own is not None:
            block.forward = own


class _Again:
    """Second passes of a block: buffers have moved already and stay, all else is as in the first pass.

    Args:
        block: as it is in the first pass.
        alone: whether its batch is one sample.
    """

    def __init__(self, block: nn.Module, alone: bool):
        self._block, self._alone = block, alone
        # A layer saves its statistics for the backward pass or not, and both passes must save the same.
        self._tracking = [(m, m.track_running_stats) for m in block.modules() if isinstance(m, _NormBase)]

    def __enter__(self) -> None:
        self._stack = ExitStack()
        for m, tracking in self._tracking:
            self._stack.callback(setattr, m, "track_running_stats", m.track_running_stats)
            m.track_running_stats = tracking
        for m in self._block.modules():
            kept = dict(m._buffers)
            self._stack.callback(m._buffers.update, kept)
            m._buffers.update({name: None if b is None else b.clone() for name, b in kept.items()})
        if self._alone:
            self._stack.enter_context(lone_sample(self._block))

    def __exit__(self, *error: object) -> None:
        self._stack.close()
