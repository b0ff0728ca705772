"""The widest floating-point numbers that a device has."""

from __future__ import annotations

import torch

WITHOUT_FLOAT64 = frozenset({"mps"})
"""Types of devices that have no float64 and raise a TypeError when asked for it: Apple's GPUs."""


def widest(device: torch.device) -> torch.dtype:
    """float64, or float32 where there is none."""
    return torch.float32 if device.type in WITHOUT_FLOAT64 else torch.float64
