"""SMV: what each modality contributed to each sample, and which samples are therefore shown again.

Shapes: ``samples`` samples, ``modalities`` modalities, in model order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from counterpoise.functional.shapley import Orders, shapley
from counterpoise.types import Present, who_has

# Contributions are multiples of 1/(M lcm(C(M-1, k))), so rounding must not move one across a threshold.
_TOLERANCE = 1e-6
_THRESHOLDS = (1.0, 0.4, -0.1)


def smv_values(
    right: Mapping[frozenset[str], Tensor],
    modalities: Sequence[str],
    present: Present = None,
    orders: Orders | None = None,
) -> Tensor:
    r"""The Shapley value of each modality in the correctness game, per sample.

    .. math:: v(S) = |S| \cdot [\text{right with } S \text{ only}], \qquad v(\emptyset) = 0

    A modality that a sample lacks counts for nothing in \|S\|, so its value is 0 and the others share
    the game without it.

    Args:
        right: every set of ``coalitions(modalities, orders)`` -> (samples,) bool: is the prediction from these
            alone right?
        modalities: names, in order.
        present: modality -> (samples,) bool, False where a sample lacks it; None when none does.
        orders: sampled orders of joining, for many modalities; None for the exact value.

    Returns:
        (samples, modalities) float64. Rows sum to the number of modalities there where the
        prediction from all of them is right, else to 0.
    """
    values = {}
    for subset, correct in right.items():
        size = torch.stack([who_has(m, present, len(correct), correct.device) for m in subset]).sum(0)
        values[subset] = size * correct.double()
    phi = shapley(values, modalities, orders)
    return torch.stack([phi[m] for m in modalities], dim=1)


def smv_copies(values: Tensor) -> Tensor:
    """How many times more to show a sample with only this modality visible.

    None when the modality contributed its share (1 or more), 1 in [0.4, 1), 2 in [-0.1, 0.4), 3 below.

    Args:
        values: (samples, modalities) contributions.

    Returns:
        (samples, modalities) int64 in {0, 1, 2, 3}.
    """
    return torch.stack([values < threshold - _TOLERANCE for threshold in _THRESHOLDS]).sum(0)


def smv_gaps(values: Tensor, modalities: Sequence[str], present: Present = None) -> Tensor:
    """What each modality lacks to its share on average: 1 - mean contribution.

    Args:
        values: (samples, modalities) contributions.
        modalities: names, in order.
        present: modality -> (samples,) bool; a mean is over the samples that have the modality.

    Returns:
        (modalities,) float64. A modality that no sample has gets the mean gap of the others, which
        draws nothing; zeros when no sample has any.
    """
    there = torch.stack([who_has(m, present, len(values), values.device).double() for m in modalities], dim=1)
    seen = there.sum(0)
    gaps = 1 - (values * there).sum(0) / seen.clamp(min=1)
    mean = gaps[seen > 0].mean() if bool((seen > 0).any()) else gaps.new_zeros(())
    return torch.where(seen > 0, gaps, mean)


def smv_draws(gaps: Tensor, samples: int, alpha: float = 1.0) -> Tensor:
    r"""How many samples to show again with only this modality visible.

    .. math:: \Bigl\lfloor \tfrac43 \alpha N \max(0, \mathrm{gap}_m - \overline{\mathrm{gap}}) \Bigr\rfloor

    For two modalities this is the published int(2/3 alpha \|gap_a - gap_b\| N) for the one with the larger
    gap, and none for the other.

    Args:
        gaps: (modalities,) as ``smv_gaps`` gives.
        samples: N, the number of training samples.
        alpha: strength, at least 0.

    Returns:
        (modalities,) int64.
    """
    excess = (gaps - gaps.mean()).clamp(min=0)
    return (4 / 3 * alpha * samples * excess + _TOLERANCE).floor().long()


def training_list(
    copies: Tensor, modalities: Sequence[str], present: Present = None
) -> tuple[Tensor, dict[str, Tensor]]:
    """The original samples followed by the copies, each of which shows one modality.

    Args:
        copies: (samples, modalities) int64, how many of each.
        modalities: names, in order.
        present: modality -> (samples,) bool, False where a sample lacks it.

    Returns:
        (entries,) positions of samples, and modality -> (entries,) bool: is it visible there?
    """
    samples, width = copies.shape
    original, cell = torch.arange(samples), torch.arange(samples * width).repeat_interleave(copies.flatten().cpu())
    shown = cell % width
    visible = {m: torch.cat([who_has(m, present, samples), shown == i]) for i, m in enumerate(modalities)}
    return torch.cat([original, cell // width]), visible
