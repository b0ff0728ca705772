"""MMPareto: on each encoder, a direction that serves the fused and the unimodal loss alike."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from counterpoise._checks import choice, number
from counterpoise.functional.gradients import assign
from counterpoise.functional.min_norm import RESCALES, pareto_gradient
from counterpoise.method import Info, Method
from counterpoise.types import Output

if TYPE_CHECKING:
    from counterpoise.engine import Run, Step


Grads = dict[int, Tensor | None]


class MMPareto(Method):
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
    own_heads = True

    def __init__(self, gamma: float = 1.5, rescale: str = "encoder"):
        super().__init__()
        self.gamma = number("gamma", gamma, above=0)
        self.rescale = choice("rescale", rescale, RESCALES)

    def setup(self, run: Run) -> None:
        owner: dict[int, str] = {}
        for m, encoder in run.model.encoders.items():
            for p in encoder.parameters():
                if owner.setdefault(id(p), m) != m:
                    raise ValueError(
                        f"MMPareto needs encoders that share no parameter; {owner[id(p)]!r} and {m!r} share one. "
                        "Use PMR or GBlending for tied encoders."
                    )

    def loss(self, output: Output, step: Step) -> Tensor:
        fused, own = self._losses(output, step)
        return fused + sum(own.values())

    def step(self, step: Step) -> Tensor:
        train = step.trainable()
        with step.ascent(self.objective):
            output = self(step)
            fused, own = self._losses(output, step)
            unimodal = torch.stack(list(own.values())).sum()
            step.backward(fused, retain=True)
            g = {id(p): p.grad for p in train}
            for p in train:
                p.grad = None
            step.backward(unimodal)
        u = {id(p): p.grad for p in train}
        for p in train:
            parts = [part for part in (g[id(p)], u[id(p)]) if part is not None]
            p.grad = sum(parts[1:], start=parts[0]) if parts else None
        for encoder in step.model.encoders.values():
            self._combine([p for p in encoder.parameters() if id(p) in g and p.grad is not None], g, u)
        step.update()
        return (fused + unimodal).detach()

    def _losses(self, output: Output, step: Step) -> tuple[Tensor, dict[str, Tensor]]:
        own = {m: step.unimodal_loss(output, m) for m in output.unimodal}
        return step.criterion(output.logits, step.batch.target), own

    def _combine(self, params: list[nn.Parameter], g: Grads, u: Grads) -> None:
        """Replace the sum in ``.grad`` of one encoder."""
        if params:
            total = [p.grad for p in params if p.grad is not None]
            first, second = ([_or_zero(part[id(p)], p) for p in params] for part in (g, u))
            assign(params, pareto_gradient(first, second, self.gamma, self.rescale, total))


def _or_zero(grad: Tensor | None, p: Tensor) -> Tensor:
    return torch.zeros_like(p) if grad is None else grad
