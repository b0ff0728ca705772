"""Which training samples an epoch sees, where it is not each of them once."""

from __future__ import annotations

import torch
from torch import Tensor

SAMPLERS = ("balanced",)


def balanced(target: Tensor, seed: int) -> Tensor:
    """Positions of as many samples as there are, every class equally often.

    Classes that occur get equally many places; where these do not divide, some drawn by the seed get one more. A class
    fills its places with all of its samples as often as they fit, and the rest with some of them drawn by the seed.

    Args:
        target: (n,) class numbers.
        seed: which draw; the same on every machine.

    Returns:
        (n,) int64, class after class.
    """
    generator = torch.Generator().manual_seed(seed)
    counts = torch.bincount(target)
    classes = [rows for rows in target.argsort(stable=True).split(counts.tolist()) if len(rows)]
    places = torch.full((len(classes),), len(target) // len(classes))
    places[torch.randperm(len(classes), generator=generator)[: len(target) % len(classes)]] += 1
    chosen = []
    for rows, count in zip(classes, places.tolist(), strict=True):
        whole, rest = divmod(count, len(rows))
        drawn = torch.randperm(len(rows), generator=generator)[:rest]
        chosen.append(torch.cat([rows.repeat(whole), rows[drawn]]))
    return torch.cat(chosen)
