"""Small trained runs to load again."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from counterpoise.data.split import Splits
from counterpoise.engine import Trainer
from counterpoise.method import Method
from counterpoise.methods import Joint
from counterpoise.testing import trainer_for


def trained(
    path: Path, make: Callable[[], Method] = Joint, fusion: Any = None, **options: Any
) -> tuple[Trainer, Splits]:
    """A run of one or two epochs on made-up vectors, in a directory."""
    options = {"epochs": 1, "absent": 0.2, **options}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer, data = trainer_for(make, fusion=fusion, run_dir=path, **options)
        trainer.run(data)
    return trainer, data


def columns(split: Any) -> dict[str, list[Tensor | None]]:
    """The samples of a split as a dict of columns, None where a modality is absent."""
    found = {}
    for m in split.modalities:
        present = (split.present or {}).get(m, torch.ones(len(split), dtype=torch.bool))
        values = split.batch(range(len(split)), m, None)
        found[m] = [x if there else None for x, there in zip(values, present.tolist(), strict=True)]
    return found
