"""Processes that average their gradients when told to, not inside ``backward``.

The DDP wrapper averages gradients while ``backward`` accumulates them. It never sees
``torch.autograd.grad``, a second ``backward`` over one forward pass, or a call of an inner module, all
of which training methods here do: replicas would then drift apart without a word.
"""

from __future__ import annotations

import atexit

import torch
from lightning_fabric.strategies.ddp import DDPStrategy
from torch import nn


class ReplicaStrategy(DDPStrategy):
    """DDP's processes and collectives without DDP's wrapper."""

    def setup_environment(self) -> None:
        super().setup_environment()
        atexit.register(_leave)

    def setup_module(self, module: nn.Module) -> nn.Module:  # pyright: ignore[reportIncompatibleMethodOverride]
        for tensor in [*module.parameters(), *module.buffers()]:
            torch.distributed.broadcast(tensor.data, src=0)
        return module


def _leave() -> None:
    """End the process group: its threads can abort an interpreter that shuts down under them."""
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
