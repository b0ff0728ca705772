"""DGL: encoders learn from what they say alone, and what fuses them from all of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from counterpoise._checks import number
from counterpoise.functional.gradients import held
from counterpoise.functional.statistics import frozen_statistics
from counterpoise.method import Info, Method
from counterpoise.types import Output

if TYPE_CHECKING:
    from counterpoise.engine import Step


class DGL(Method):
    r"""Disentangled gradient learning: the fused loss reaches no encoder, and unimodal losses no fusion.

    .. math::
        \text{encoder } m: \; \alpha \, \frac{\partial}{\partial \theta_m} \mathrm{CE}(F(z_m), y), \qquad
        \text{fusion: } \frac{\partial}{\partial \phi} \mathrm{CE}(F(\mathrm{sg}\, z_1, \dots, \mathrm{sg}\, z_M), y)

    with :math:`F(z_m)` the fused logits when every other modality is left out, by the same weights
    :math:`\phi`, which are constants of that loss. No head beside the fusion is needed. Samples that lack m do not
    count in its loss.

    Args:
        alpha: factor of the encoders' gradient, at least 0; 0 trains the fusion alone. The released CREMA-D runs have
            4 and 5, those on Kinetics-Sounds 2 and 3.

    Source: Wei et al., Boosting Multimodal Learning via Disentangled Gradient Learning, ICCV 2025,
    https://arxiv.org/abs/2507.10213
    """

    info = Info(
        family="gradient",
        summary="Trains each encoder on what the fusion says of it alone, and the fusion on features held constant.",
        paper="Wei et al., Boosting Multimodal Learning via Disentangled Gradient Learning, ICCV 2025",
        url="https://arxiv.org/abs/2507.10213",
        forward="1 (and the fusion M + 1 times)",
        backward="1 (and the fusion M + 1 times)",
    )
    whole_batch = None

    def __init__(self, alpha: float = 4.0):
        super().__init__()
        self.alpha = number("alpha", alpha, low=0)

    def forward(self, step: Step) -> Output:
        z = step.encode()
        return step.fuse({m: f.detach() for m, f in z.items()})._replace(features=z)

    def loss(self, output: Output, step: Step) -> Tensor:
        fused = super().loss(output, step)
        if self.alpha == 0:
            return fused
        fusion = step.model.fusion
        with held(fusion), frozen_statistics(fusion):
            alone = {m: step.fuse({m: z}, unimodal=False).logits for m, z in output.features.items()}
        own = torch.stack([step.criterion(u, present=step.present(m)) for m, u in alone.items()])
        return self.alpha * own.sum() + fused
