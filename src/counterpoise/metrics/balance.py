"""How far apart the modalities are, and which of them to leave out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations

from counterpoise.functional.shapley import LATTICE


def gap(scores: Mapping[str, float], modalities: Sequence[str], metric: str = "accuracy") -> float | None:
    """Distance between the best and the worst modality alone; 0 when they are equally good.

    Args:
        scores: ``"audio/accuracy"``, ... as ``score`` gives them.
        modalities: which modalities to compare.
        metric: in which metric.

    Returns:
        The distance (>= 0), or None when fewer than two of the modalities have that score.
    """
    values = [scores[f"{m}/{metric}"] for m in modalities if f"{m}/{metric}" in scores]
    return max(values) - min(values) if len(values) > 1 else None


def subsets(modalities: Sequence[str]) -> list[tuple[str, ...]]:
    """What can be there at test time, small subsets first, in the given order.

    All 2^M - 1 of up to ``LATTICE`` modalities; of more, each alone, all but one, and all.
    """
    count = len(modalities)
    sizes = range(1, count + 1) if count <= LATTICE else (1, count - 1, count)
    return [subset for size in sizes for subset in combinations(modalities, size)]


def subset_name(subset: Sequence[str]) -> str:
    """The key of a subset in ``result.json``: ``"audio+image"``."""
    return "+".join(subset)
