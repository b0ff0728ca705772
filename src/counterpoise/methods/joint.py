"""Joint training: the usual way, and what every method is compared with."""

from __future__ import annotations

from typing import TYPE_CHECKING

from counterpoise.method import Info, Method
from counterpoise.types import Output

if TYPE_CHECKING:
    from counterpoise.engine import Step


class Joint(Method):
    r"""Minimise the cross-entropy of the fused logits over all parameters at once.

    .. math:: \min_\theta \tfrac1B \sum_i \mathrm{CE}\bigl(f(z_{i1}, \dots, z_{iM}), y_i\bigr)
    """

    info = Info(
        family="baseline",
        summary="Trains everything together on the loss of the fused prediction.",
        paper="None: the usual way",
        url="",
        modalities="M ≥ 1",
    )
    whole_batch = None
    min_modalities = 1

    def forward(self, step: Step) -> Output:
        return step.forward(unimodal=False)
