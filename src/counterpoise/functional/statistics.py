"""Extra forward passes that leave the running statistics of normalisation layers alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

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
