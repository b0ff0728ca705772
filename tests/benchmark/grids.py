"""Runs that are only names, for what starts them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Named:
    """A run of a made-up method."""

    method: str
    seed: int = 0

    @property
    def id(self) -> str:
        return f"{self.method}-s{self.seed}"

    @property
    def title(self) -> str:
        return f"{self.method}, seed {self.seed}"


def grid(methods: Sequence[str], seeds: Iterable[int]) -> list[Named]:
    """Every method with every seed, which vary slowest."""
    return [Named(method, seed) for seed in seeds for method in methods]
