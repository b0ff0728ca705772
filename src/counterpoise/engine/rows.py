"""Which rows of the training split an epoch takes, and what these show."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from counterpoise.data.sampling import balanced
from counterpoise.data.split import positions
from counterpoise.types import Present


@dataclass(frozen=True, eq=False)
class Rows:
    """What ``Run.resample`` was given last.

    Attributes:
        indices: (n,) positions in the training split, repetitions allowed; None for all of it.
        present: modality -> (n,) bool; False hides that modality of the row. None hides nothing.
        ordered: epochs take the rows in this order and do not shuffle them.
    """

    indices: Tensor | None = None
    present: dict[str, Tensor] | None = None
    ordered: bool = False

    @classmethod
    def of(cls, size: int, indices: Tensor | None, present: Present, ordered: bool) -> Rows:
        """Checked for a split of ``size`` samples, on the CPU."""
        masks = None if present is None else {m: p.detach().cpu().bool() for m, p in present.items()}
        return cls(None if indices is None else positions(indices, size), masks, ordered)

    def balanced(self, target: Tensor, seed: int) -> Rows:
        """As many rows drawn from these by the seed, every class equally often.

        Args:
            target: (samples,) class numbers of the whole training split.
            seed: which draw.
        """
        rows = torch.arange(len(target)) if self.indices is None else self.indices
        drawn = balanced(target[rows], seed)
        masks = None if self.present is None else {m: shown[drawn] for m, shown in self.present.items()}
        return Rows(rows[drawn], masks)

    def state_dict(self) -> dict[str, Any]:
        """The arguments of ``Run.resample``, as a checkpoint stores them."""
        return dict(vars(self))
