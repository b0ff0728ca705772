"""Early stopping for several learners at once, as a function of what came before."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from counterpoise._checks import number


class Patience(NamedTuple):
    """What is known after an epoch, one entry per learner.

    Attributes:
        smoothed: (learners,) moving average of the validation loss.
        best: (learners,) its least value so far.
        best_epoch: (learners,) int64, when that was; -1 before the first.
    """

    smoothed: Tensor
    best: Tensor
    best_epoch: Tensor

    @classmethod
    def start(cls, learners: int) -> Patience:
        """Nothing seen yet."""
        nothing = torch.zeros(learners, dtype=torch.float64)
        return cls(nothing, nothing.clone(), torch.full((learners,), -1, dtype=torch.int64))


def observe(state: Patience, values: Tensor, epoch: int, beta: float = 0.6) -> Patience:
    r"""The state after one more epoch.

    .. math:: S(e) = \beta S(e-1) + (1-\beta) V(e), \quad S(0) = V(0), \qquad e^* = \arg\min_e S(e)

    Args:
        state: the state before.
        values: (learners,) validation losses :math:`V(e)`. A value that is not a number is no improvement
            and leaves the average as it was.
        epoch: which epoch this is, counted from 0.
        beta: memory of the average, in [0, 1); 0 compares the losses themselves.
    """
    number("beta", beta, low=0, below=1)
    values = values.to(state.smoothed)
    first, usable = state.best_epoch < 0, values.isfinite()
    smoothed = torch.where(first, values, beta * state.smoothed + (1 - beta) * values)
    smoothed = torch.where(usable, smoothed, state.smoothed)
    better = usable & (first | (smoothed < state.best))
    return Patience(
        smoothed,
        torch.where(better, smoothed, state.best),
        torch.where(better, torch.full_like(state.best_epoch, epoch), state.best_epoch),
    )


def expired(state: Patience, epoch: int, patience: int) -> Tensor:
    r"""(learners,) bool: :math:`e - e^* > P`."""
    return epoch - state.best_epoch > patience
