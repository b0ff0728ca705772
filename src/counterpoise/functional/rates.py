"""Learning rates of the modalities relative to each other (MSLR)."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from counterpoise._checks import number


def smoothed_rates(rates: Mapping[str, float], smoothing: float) -> dict[str, float]:
    r"""Each rate pulled towards the geometric mean of all.

    .. math:: \log \eta_m \leftarrow (1 - s) \log \eta_m + s \cdot \mathrm{mean}_j \log \eta_j

    Args:
        rates: modality -> rate, > 0 (>= 0 when ``smoothing`` is 0).
        smoothing: ``s`` in [0, 1]; 0 keeps the rates, 1 makes them all the geometric mean.

    Raises:
        ValueError: for a rate of 0 with ``smoothing`` above 0: its logarithm does not exist.
    """
    number("smoothing", smoothing, low=0, high=1)
    if smoothing == 0:
        return dict(rates)
    for m, rate in rates.items():
        number(f"rates[{m!r}] with strategy 'smooth'", rate, above=0)
    mean = sum(math.log(r) for r in rates.values()) / len(rates)
    return {m: math.exp((1 - smoothing) * math.log(r) + smoothing * mean) for m, r in rates.items()}


def accuracy_ratio(history: Tensor, current: Tensor) -> Tensor:
    r"""Accuracy now over its mean in the epochs before: :math:`\rho_m = A_m(e) / \mathrm{mean}(A_m(e-1..e-n))`.

    Args:
        history: (epochs, modalities), without the current epoch.
        current: (modalities,).

    Returns:
        (modalities,); 1 where the mean is 0.

    Source: Yao and Mihalcea, Modality-specific learning rates, Findings of ACL 2022,
    https://aclanthology.org/2022.findings-acl.143
    """
    mean = history.mean(0)
    return torch.where(mean > 0, current / torch.where(mean > 0, mean, 1.0), 1.0)
