"""Splitting off a held-out share: by class, by seed, and never through a group."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from counterpoise._checks import number


def holdout(
    target: Sequence[int] | np.ndarray, share: float, seed: int, group: Sequence[Any] | np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Split samples in two, each class in the same proportions on both sides.

    The answer depends on the arguments alone: the same on every machine and library version.
    A class with at least two samples (two groups, when ``group`` is given) is on both sides. A class
    with only one stays in the first part, and a warning says so. Groups are kept whole, so the held
    share is only approximate with few or uneven groups.

    Args:
        target: (n,) class numbers.
        share: how much of the samples to hold out, strictly between 0 and 1.
        seed: which of the many such splits.
        group: (n,) names; samples of one group (a speaker, a patient) stay on one side.

    Returns:
        Positions of the kept and of the held samples, both ascending.

    Raises:
        ValueError: share out of range, or nothing can be held out: one sample, one group, or no
            class (group) that can be spared.
    """
    number("share", share, above=0, below=1)
    labels = _numbered(np.asarray(target))
    if group is None:
        held = _held_samples(labels, share, seed)
    else:
        names = np.asarray(group)
        if len(names) != len(labels):
            raise ValueError(f"group must have one entry per sample: {len(labels)} samples, {len(names)} groups.")
        held = _held_groups(labels, _numbered(names), share, seed)
    if not held.any():
        unit = "sample" if group is None else "group"
        raise ValueError(
            f"Cannot split off {share:.0%} of {len(labels)} samples: every class has only one {unit}. "
            "Give the split yourself (a split column or array), or add data."
        )
    alone = np.flatnonzero(np.bincount(labels[held], minlength=labels.max() + 1) == 0)
    if len(alone):
        values = np.unique(np.asarray(target))[alone]
        warnings.warn(
            f"{len(alone)} of {labels.max() + 1} classes cannot be divided and stay whole in the larger part "
            f"(class numbers {', '.join(map(str, values[:5].tolist()))}{', ...' if len(alone) > 5 else ''}).",
            stacklevel=2,
        )
    return np.flatnonzero(~held), np.flatnonzero(held)


def _numbered(values: np.ndarray) -> np.ndarray:
    """(n,) the place of each value among the distinct ones in order."""
    low, high = (int(values.min()), int(values.max())) if values.dtype.kind == "i" and len(values) else (0, 0)
    if not 0 < high - low < len(values):
        return np.unique(values, return_inverse=True)[1].reshape(-1)
    above = np.subtract(values, low, dtype=np.int64)  # numbers close together need no sorting
    there = np.zeros(high - low + 1, bool)
    there[above] = True
    return (np.cumsum(there, dtype=np.int32) - 1)[above]


def _held_samples(labels: np.ndarray, share: float, seed: int) -> np.ndarray:
    if len(labels) < 2:
        raise ValueError(f"Splitting needs at least 2 samples; got {len(labels)}.")
    counts = np.bincount(labels)
    quota = _quotas(counts, share)
    order = np.lexsort((_shuffle_keys(len(labels), seed), labels))  # by class, shuffled inside
    held = np.zeros(len(labels), bool)
    for start, count in zip(np.cumsum(counts) - counts, quota, strict=True):
        held[order[start : start + count]] = True
    return held


def _quotas(counts: np.ndarray, share: float) -> np.ndarray:
    """How many of each class to hold: the total is right to one, each class keeps at least one on both sides."""
    exact = counts * share
    quota = np.floor(exact).astype(np.int64)
    missing = round(exact.sum()) - quota.sum()
    quota[np.argsort(quota - exact, kind="stable")[:missing]] += 1
    return np.clip(quota, np.minimum(1, counts - 1), counts - 1)


def _held_groups(labels: np.ndarray, groups: np.ndarray, share: float, seed: int) -> np.ndarray:
    """Greedy: the largest groups first, each to the side where the class counts come closer to the wish."""
    size = int(groups.max()) + 1 if len(groups) else 0
    if size < 2:
        raise ValueError(
            f"group has {size} distinct value(s), so no split keeps groups whole. "
            "Leave group out, or give the split yourself."
        )
    counts = np.zeros((size, int(labels.max()) + 1), np.int64)
    np.add.at(counts, (groups, labels), 1)
    total = counts.sum(0)
    wish = total * share
    held = np.zeros(size, bool)
    sums = np.zeros_like(total)
    for g in np.lexsort((_shuffle_keys(size, seed), -counts.sum(1))):
        with_g = sums + counts[g]
        if np.all(with_g < total, where=counts[g] > 0) and _cost(with_g, wish, total) < _cost(sums, wish, total):
            held[g], sums = True, with_g
    # A class in two groups or more belongs on both sides: hold the group that costs least.
    for c in np.flatnonzero((sums == 0) & ((counts > 0).sum(0) > 1)):
        if sums[c] > 0:  # an earlier repair brought it
            continue
        spare = [
            g
            for g in np.flatnonzero((counts[:, c] > 0) & ~held)
            if np.all(sums + counts[g] < total, where=counts[g] > 0)
        ]
        if spare:
            best = min(spare, key=lambda g: _cost(sums + counts[g], wish, total))
            held[best], sums = True, sums + counts[best]
    return held[groups]


def _cost(sums: np.ndarray, wish: np.ndarray, total: np.ndarray) -> float:
    return float((((sums - wish) / total) ** 2).sum() + ((sums.sum() - wish.sum()) / total.sum()) ** 2)


def _shuffle_keys(size: int, seed: int) -> np.ndarray:
    """A pseudo-random number per position: splitmix64, so that no library version changes a split."""
    with np.errstate(over="ignore"):
        z = np.arange(1, size + 1, dtype=np.uint64) + np.uint64((seed * 0xD1342543DE82EF95) % 2**64)
        z *= np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
