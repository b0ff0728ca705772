"""What the methods share that combine, per encoder, the gradients of the fused and of its own loss."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from counterpoise.method import Method
from counterpoise.types import Output

if TYPE_CHECKING:
    from counterpoise.engine import Run, Step


class TwoLosses(Method):
    """Multi-task training, with the two gradients on each encoder combined by ``combine``."""

    own_heads = True
    whole_batch = "it takes several gradients of a batch"

    def setup(self, run: Run) -> None:
        owner: dict[int, str] = {}
        for m, encoder in run.model.encoders.items():
            for p in encoder.parameters():
                if owner.setdefault(id(p), m) != m:
                    raise ValueError(
                        f"{type(self).__name__} needs encoders that share no parameter; {owner[id(p)]!r} and {m!r} "
                        "share one. Use PMR or GBlending for tied encoders."
                    )

    def combine(self, params: list[nn.Parameter], g: list[Tensor], u: list[Tensor], step: Step) -> None:
        """Replace the sum of two gradients in ``.grad`` of an encoder's parameters.

        Args:
            params: those that have a gradient.
            g: of the fused loss, one tensor per parameter.
            u: of the modality's own loss.
            step: the step.
        """
        raise NotImplementedError(f"{type(self).__name__} must define combine().")

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
            params = [p for p in encoder.parameters() if id(p) in g and p.grad is not None]
            if params:
                first, second = ([_or_zero(part[id(p)], p) for p in params] for part in (g, u))
                self.combine(params, first, second, step)
        step.update()
        return (fused + unimodal).detach()

    def _losses(self, output: Output, step: Step) -> tuple[Tensor, dict[str, Tensor]]:
        own = {m: step.unimodal_loss(output, m) for m in output.unimodal}
        return step.criterion(output.logits, step.batch.target), own


def _or_zero(grad: Tensor | None, p: Tensor) -> Tensor:
    return torch.zeros_like(p) if grad is None else grad
