"""The factor on the loss of a run in float16, whose small gradients would vanish without it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from counterpoise.engine.replicas import Fabric, precision_of

START = 2.0**16
PATIENCE = 2000
"""Updates without an overflow after which the factor doubles."""


class LossScale:
    """Doubles while gradients stay finite, halves when one overflows; nothing of it waits for the device.

    Only powers of two, so that scaling and unscaling round nothing.

    Args:
        device: where the gradients are.

    Attributes:
        factor: what losses are multiplied by.
        steady: updates since it changed last.
        overflow: whether a gradient since the last update was not finite.
    """

    def __init__(self, device: torch.device):
        self.factor = torch.tensor(START, device=device)
        self.steady = torch.zeros((), dtype=torch.int64, device=device)
        self.overflow = torch.zeros((), dtype=torch.bool, device=device)

    @torch.no_grad()
    def unscaled(self, grads: Sequence[Tensor]) -> list[Tensor]:
        """The gradients without the factor; where any of them overflowed all are zero, and the next update is none.

        Zeros and not infinities, so that a method's running means survive.
        """
        if not grads:
            return []
        broken = ~torch.stack([g.isfinite().all() for g in grads]).all()
        self.overflow = self.overflow | broken
        return [torch.where(broken, 0.0, g / self.factor) for g in grads]

    def advance(self) -> None:
        """After an update, made or skipped."""
        steady = torch.where(self.overflow, 0, self.steady + 1)
        grown = torch.where(steady == PATIENCE, 2 * self.factor, self.factor)
        self.factor = torch.where(self.overflow, self.factor / 2, grown)
        self.steady = steady % PATIENCE
        self.overflow = torch.zeros_like(self.overflow)

    def state_dict(self) -> dict[str, Any]:
        """Where it stands between two updates."""
        return {"factor": self.factor, "steady": self.steady}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Counterpart of ``state_dict``."""
        self.factor, self.steady = (state[name].to(self.factor.device) for name in ("factor", "steady"))


def loss_scale(fabric: Fabric) -> LossScale | None:
    """One for a run in "16-mixed", None for others."""
    return LossScale(fabric.device) if precision_of(fabric) == "16-mixed" else None
