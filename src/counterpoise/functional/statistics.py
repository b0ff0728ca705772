"""What normalisation layers do in extra forward passes, and with a single sample."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.instancenorm import _InstanceNorm


@contextmanager
def frozen_statistics(module: nn.Module) -> Iterator[None]:
    """Forward passes inside compute exactly what they would, but move no running statistics.

    Layers in training mode still normalise by the batch; their running mean, variance and
    ``num_batches_tracked`` stay. Setting ``momentum=0`` would not do: the counter still advances.
    Layers in evaluation mode are left as they are. Nests, and restores after an exception.
    """
    norms = [m for m in module.modules() if isinstance(m, _NormBase) and m.training and m.track_running_stats]
    # Instance normalisation updates its buffers whatever ``track_running_stats`` says, once they exist.
    instance = [m for m in norms if isinstance(m, _InstanceNorm)]
    kept = [[buffer.clone() for buffer in m.buffers(recurse=False)] for m in instance]
    batch = [m for m in norms if not isinstance(m, _InstanceNorm)]
    for m in batch:
        m.track_running_stats = False
    try:
        yield
    finally:
        for m in batch:
            m.track_running_stats = True
        for m, buffers in zip(instance, kept, strict=True):
            for buffer, value in zip(m.buffers(recurse=False), buffers, strict=True):
                buffer.copy_(value)


@contextmanager
def lone_sample(module: nn.Module) -> Iterator[None]:
    """One forward pass in training mode of a sample that is alone, as when all others of a batch lack the modality.

    Batch normalisation has no variance to divide by where a channel has one value, and PyTorch raises an error.
    Inside, such layers use their running statistics and leave them; layers that see several values are as ever.
    """
    layers = [m for m in module.modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d)]
    layers = [m for m in layers if m.training and m.running_mean is not None]

    def see(norm: nn.Module, args: tuple[Any, ...]) -> None:
        norm.training = args[0].numel() > args[0].shape[1]

    with ExitStack() as stack:
        for m in layers:
            stack.callback(m.register_forward_pre_hook(see).remove)
            stack.callback(m.train)
        if layers and "torch._dynamo" in sys.modules:  # what was compiled before does not see hooks
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        yield
