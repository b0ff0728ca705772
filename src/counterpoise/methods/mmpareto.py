"""MMPareto: on each encoder, a direction that serves the fused and the unimodal loss alike."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn

from counterpoise._checks import choice, number
from counterpoise.functional.gradients import assign
from counterpoise.functional.min_norm import RESCALES, pareto_gradient
from counterpoise.method import Info
from counterpoise.methods._two_losses import TwoLosses

if TYPE_CHECKING:
    from counterpoise.engine import Step


class MMPareto(TwoLosses):
    r"""Multi-task training without conflict between the fused loss and the unimodal ones.

    With :math:`g` and :math:`u` the gradients of the fused and of the modality's own loss on all weights
    of its encoder:

    .. math:: \text{encoder gradient} = \begin{cases}
              \gamma (g + u) & \cos(g, u) > 0 \\
              \gamma \max\big(1, \tfrac{\lVert g + u \rVert}{\lVert n \rVert}\big)\, n, \quad
              n = 2 \arg\min_{v \in \mathrm{conv}(g, u)} \lVert v \rVert & \text{otherwise}\end{cases}

    Everything else takes the plain gradient of :math:`L + \sum_m L_m`. With ``gamma=1`` and without
    conflict this is multi-task training. Each encoder solves its own problem of two
    vectors, so any number of modalities works.

    Args:
        gamma: factor of the encoders' gradient, > 0; 1.5 in the released code.
        rescale: "encoder" compares norms over the whole encoder, "tensor" over each parameter
            tensor (released code; changes the direction).

    Source: Wei and Hu, MMPareto, ICML 2024, https://arxiv.org/abs/2405.17730
    """

    info = Info(
        family="gradient",
        summary="Combines, per encoder, the gradients of the fused and the unimodal loss so that both fall.",
        paper="Wei and Hu, MMPareto: Boosting Multimodal Learning with Innocent Unimodal Assistance, ICML 2024",
        url="https://arxiv.org/abs/2405.17730",
        backward="2",
        fusions="any with heads=True",
    )

    def __init__(self, gamma: float = 1.5, rescale: str = "encoder"):
        super().__init__()
        self.gamma = number("gamma", gamma, above=0)
        self.rescale = choice("rescale", rescale, RESCALES)

    def combine(self, params: list[nn.Parameter], g: list[Tensor], u: list[Tensor], step: Step) -> None:
        total = [p.grad for p in params if p.grad is not None]
        assign(params, pareto_gradient(g, u, self.gamma, self.rescale, total))
