"""Which samples lose which modality: random numbers that belong to samples, and masks."""

from __future__ import annotations

import torch
from torch import Tensor

# The finaliser of SplitMix64 (Steele, Lea, Flood 2014); its constants, as signed 64-bit integers.
_STEP = 0x9E3779B97F4A7C15 - (1 << 64)
_MIX = ((30, 0xBF58476D1CE4E5B9 - (1 << 64)), (27, 0x94D049BB133111EB - (1 << 64)))
_BITS = 24


def _shift(x: Tensor, bits: int) -> Tensor:
    """Logical shift to the right; the one of int64 tensors copies the sign."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def sample_uniform(index: Tensor, columns: int, generator: torch.Generator) -> Tensor:
    """Uniform numbers in [0, 1) that depend on the sample and not on its place in the batch.

    Replicas that hold different samples of one batch, and draw the same key, agree with a single process that
    holds them all. Two numbers of the generator are used whatever the batch size.

    Args:
        index: (batch,) sample numbers, int64.
        columns: how many numbers each sample gets.
        generator: on the CPU, equal on all replicas.

    Returns:
        (batch, columns) float32 on the device of ``index``.
    """
    key = torch.randint(-(1 << 62), 1 << 62, (2,), generator=generator)
    counter = index.unsqueeze(1) * columns + torch.arange(columns, device=index.device)
    first, second = key.to(index.device, non_blocking=True)
    x = (counter ^ first) * _STEP + second
    for bits, factor in _MIX:
        x = (x ^ _shift(x, bits)) * factor
    return _shift(x ^ _shift(x, 31), 64 - _BITS).to(torch.float32) / (1 << _BITS)


def keep_mask(uniform: Tensor, rates: Tensor, has: Tensor | None = None) -> Tensor:
    """(batch, M) bool: False where a sample loses a modality; nobody loses everything they have.

    Args:
        uniform: (batch, M) in [0, 1).
        rates: (M,) probability of losing each modality; 0 never, 1 always.
        has: (batch, M) bool, which modalities a sample has; None for all.

    Returns:
        True where ``uniform >= rates``, and everywhere for samples that would be left with nothing.
    """
    keep = uniform >= rates
    left = keep if has is None else keep & has
    return keep | ~left.any(1, keepdim=True)
