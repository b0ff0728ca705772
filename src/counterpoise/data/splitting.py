"""Splitting off a held-out share: by class, by seed, and never through a group."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from counterpoise._checks import number


def holdout(
    strata: Sequence[int] | np.ndarray, share: float, seed: int, group: Sequence[Any] | np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Split samples in two, each class in the same proportions on both sides.

    The answer depends on the arguments alone: the same on every machine and library version.
    A class with at least two samples (two groups, when ``group`` is given) is on both sides. A class
    with only one stays in the first part, and a warning says so. Groups are kept whole, so the held
    share is only approximate with few or uneven groups.

    Args:
        strata: (n,) class numbers; or (n, labels) of zeros and ones, which are divided by iterative
            stratification (Sechidis et al., 2011), samples with no label as if that were one.
        share: how much of the samples to hold out, strictly between 0 and 1.
        seed: which of the many such splits.
        group: (n,) names; samples of one group (a speaker, a patient) stay on one side.

    Returns:
        Positions of the kept and of the held samples, both ascending.

    Raises:
        ValueError: share out of range, or nothing can be held out: one sample, one group, or no
            class (group) that can be spared.
    """
    kept, held = held_out(strata, share, seed, group)
    strata = np.asarray(strata)
    if strata.ndim == 1:
        labels = _numbered(strata)
        alone = np.flatnonzero(np.bincount(labels[held], minlength=labels.max() + 1) == 0)
        if len(alone):
            values = np.unique(strata)[alone]
            warnings.warn(
                f"{len(alone)} of {labels.max() + 1} classes cannot be divided and stay whole in the larger part "
                f"(class numbers {', '.join(map(str, values[:5].tolist()))}{', ...' if len(alone) > 5 else ''}).",
                stacklevel=2,
            )
    return kept, held


def held_out(
    strata: Sequence[int] | np.ndarray, share: float, seed: int, group: Sequence[Any] | np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """As `holdout`, without a warning: for samples that training divides again, or that nobody sees."""
    number("share", share, above=0, below=1)
    strata = np.asarray(strata)
    if strata.ndim == 2:
        return _of_labels(strata > 0, share, seed, group)
    labels = _numbered(strata)
    if group is None:
        held = _held_samples(labels, share, seed)
    else:
        groups = _groups(group, labels)
        counts = np.zeros((groups.max(initial=-1) + 1, labels.max(initial=-1) + 1), np.int64)
        np.add.at(counts, (groups, labels), 1)
        held = _held_groups(counts, share, seed)[groups]
    if not held.any():
        unit = "sample" if group is None else "group"
        raise ValueError(
            f"Cannot split off {share:.0%} of {len(labels)} samples: every class has only one {unit}. "
            "Give the split yourself (a split column or array), or add data."
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


def _groups(group: Sequence[Any] | np.ndarray, samples: np.ndarray) -> np.ndarray:
    names = np.asarray(group)
    if len(names) != len(samples):
        raise ValueError(f"group must have one entry per sample: {len(samples)} samples, {len(names)} groups.")
    return _numbered(names)


def _of_labels(
    labels: np.ndarray, share: float, seed: int, group: Sequence[Any] | np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    if len(labels) < 2:
        raise ValueError(f"Splitting needs at least 2 samples; got {len(labels)}.")
    member = np.hstack([labels, ~labels.any(1, keepdims=True)])
    member = member[:, member.any(0)].astype(np.int64)
    if group is None:
        held = _held_by_label(member.astype(bool), share, seed)
    else:
        groups = _groups(group, labels)
        counts = np.zeros((groups.max() + 1, member.shape[1]), np.int64)
        np.add.at(counts, groups, member)
        held = _held_groups(counts, share, seed)[groups]
    if not held.any() or held.all():
        raise ValueError(
            f"Cannot split off {share:.0%} of {len(labels)} samples: one side would be empty. Give the split yourself "
            "(a split column or array), or add data."
        )
    return np.flatnonzero(~held), np.flatnonzero(held)


def _held_by_label(member: np.ndarray, share: float, seed: int) -> np.ndarray:
    """Iterative stratification: the rarest label first, each of its samples to the side that lacks it most."""
    order = np.argsort(_shuffle_keys(len(member), seed), kind="stable")
    wish = np.stack([member.sum(0) * (1 - share), member.sum(0) * share])
    size = np.array([len(member) * (1 - share), len(member) * share])
    held, left = np.zeros(len(member), bool), np.ones(len(member), bool)
    while left.any():
        remaining = member[left].sum(0)
        label = int(np.where(remaining > 0, remaining, len(member) + 1).argmin())
        for sample in order[(member[order, label]) & left[order]]:
            side = int(np.lexsort((size, wish[:, label]))[-1])
            held[sample], left[sample] = side == 1, False
            wish[side, member[sample]] -= 1
            size[side] -= 1
    return held


def _held_groups(counts: np.ndarray, share: float, seed: int) -> np.ndarray:
    """Greedy: the largest of (groups, classes) first, each to the side where the counts come closer to the wish."""
    size = len(counts)
    if size < 2:
        raise ValueError(
            f"group has {size} distinct value(s), so no split keeps groups whole. "
            "Leave group out, or give the split yourself."
        )
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
    return held


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
