"""Which runs a comparison consists of, and which of them are done. Nothing here starts anything."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from counterpoise.metrics.result import read_result


@dataclass(frozen=True)
class RunConfig:
    """One run of a comparison.

    Attributes:
        method: its name.
        seed: of everything that is random in the run.
        settings: the rest of the configuration, plain values, possibly nested.
    """

    method: str
    seed: int
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def id(self) -> str:
        """Name of the run's directory: method, seed and a hash of the whole content.

        Stable over processes, machines and the order of the settings; another value of any setting
        gives another id, so a changed benchmark never mixes with the runs of the old one.
        """
        content = {"method": self.method, "seed": self.seed, "settings": self.settings}
        try:
            text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"The settings of a run must be plain values (numbers, texts, lists, dicts), so that its id can be "
                f"computed; {self.method} has {dict(self.settings)!r}: {error}."
            ) from error
        slug = re.sub(r"[^A-Za-z0-9]+", "-", self.method).strip("-") or "run"
        return f"{slug}-s{self.seed}-{hashlib.sha256(text.encode()).hexdigest()[:10]}"


def grid(
    methods: Sequence[str] | Mapping[str, Sequence[Mapping[str, Any]]],
    seeds: Iterable[int],
    settings: Sequence[Mapping[str, Any]] = ({},),
) -> list[RunConfig]:
    """Every method with every seed under every setting.

    Seeds vary slowest: when a comparison is interrupted, the seeds that are done are done for all methods.

    Args:
        methods: names, or name -> variants of that method (``{"OGM": [{"alpha": 0.1}, {"alpha": 0.5}]}``);
            the settings of a variant win over the common ones.
        seeds: of the runs.
        settings: common to all methods, one run each.

    Raises:
        ValueError: when there are no methods, seeds or settings, or when two runs are the same.
    """
    variants = methods if isinstance(methods, Mapping) else {name: ({},) for name in methods}
    configs = [
        RunConfig(name, seed, {**common, **variant})
        for seed in seeds
        for name, own in variants.items()
        for common in settings
        for variant in own
    ]
    if not configs:
        raise ValueError("A benchmark needs at least one method, one seed and one setting.")
    ids = [config.id for config in configs]
    for config in configs:
        if ids.count(config.id) > 1:
            raise ValueError(
                f"A benchmark runs each configuration once; {config.method} with seed {config.seed} and "
                f"{dict(config.settings)!r} occurs {ids.count(config.id)} times."
            )
    return configs


def result_of(directory: Path) -> dict[str, Any] | None:
    """The result of the run in this directory; None when it has not ended, or ``result.json`` cannot be read."""
    try:
        return read_result(directory)
    except (OSError, ValueError):
        return None


def finished(directory: Path) -> bool:
    """Whether the run in this directory has ended: it has a readable ``result.json``."""
    return result_of(directory) is not None


def missing(configs: Iterable[RunConfig], runs: Path) -> list[RunConfig]:
    """The configurations without a finished run in ``runs/<id>``."""
    return [config for config in configs if not finished(runs / config.id)]
