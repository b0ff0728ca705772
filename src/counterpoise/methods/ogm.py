"""OGM and OGM-GE: slow the encoder of the modality that is ahead."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from counterpoise._checks import choice, number, whole
from counterpoise.functional.modulation import ge_noise, ogm_coefficients, ogm_ratios
from counterpoise.method import Info, Method
from counterpoise.methods._scores import has, mean_scores, probe_loss, require_unimodal_logits
from counterpoise.types import Output

if TYPE_CHECKING:
    from counterpoise.engine import Run, Step

SCOPES = ("weights", "conv", "all")


class OGM(Method):
    r"""On-the-fly gradient modulation: scale the gradient of each encoder by how far it leads.

    .. math::
        s_m = \sum_i \mathrm{softmax}(u_{m,i})_{y_i}, \quad
        \rho_m = \operatorname{mean}_{j \ne m} \frac{s_m}{s_j}, \quad
        k_m = \begin{cases} 1 - \tanh(\alpha \rho_m) & \rho_m > 1 \\ 1 & \text{else} \end{cases}, \quad
        g_m \leftarrow k_m g_m \; (+\, n_m)

    with :math:`n_m \sim \mathcal{N}(0, \sigma^2)` for generalisation enhancement (``ge``), :math:`\sigma` the
    standard deviation over the entries of each tensor's gradient before it is scaled. Heads and fusion keep
    their gradients. Fusions that do not add up have their unimodal logits read by heads of their own, which
    learn from detached features. Samples that lack a modality do not count in the scores.

    Args:
        alpha: strength, at least 0. The paper's 0.8 (CREMA-D), 0.1 (VGGSound).
        ge: add the noise, to every modality.
        start: first epoch, from 0, with modulation.
        end: last epoch with modulation.
        ratio: for M > 2, ``"mean"`` of the ratios to the others or ratio to the ``"weakest"``.
        scope: which encoder tensors: ``"weights"`` those of two or more dimensions, ``"conv"`` those of exactly
            four (the released code), ``"all"``.

    Source: Peng et al., Balanced Multimodal Learning via On-the-fly Gradient Modulation, CVPR 2022,
    https://arxiv.org/abs/2203.15332
    """

    info = Info(
        family="gradient",
        summary="Scales down the gradient of the encoder whose modality predicts the true class best.",
        paper="Peng et al., Balanced Multimodal Learning via On-the-fly Gradient Modulation, CVPR 2022",
        url="https://arxiv.org/abs/2203.15332",
        fusions="Concat, Sum, Late; any other with heads=True",
    )
    whole_batch = None
    edits_by_scale = True

    def __init__(
        self,
        alpha: float = 0.8,
        ge: bool = False,
        start: int = 0,
        end: int = 50,
        ratio: str = "mean",
        scope: str = "weights",
    ):
        super().__init__()
        self.alpha = number("alpha", alpha, low=0)
        self.ge = ge
        self.start = whole("start", start, low=0)
        self.end = whole("end", end, low=start)
        self.ratio = choice("ratio", ratio, ("mean", "weakest"))
        self.scope = choice("scope", scope, SCOPES)

    def setup(self, run: Run) -> None:
        require_unimodal_logits(self, run)

    def loss(self, output: Output, step: Step) -> Tensor:
        return super().loss(output, step) + probe_loss(output, step)

    @torch.no_grad()
    def modulate(self, output: Output, step: Step) -> None:
        if not self.start <= step.epoch <= self.end:
            return
        target = step.batch.target
        s, _ = mean_scores(step, (step.task.score(u, target) for u in output.unimodal.values()), has(step).all(1))
        rho = ogm_ratios(s, self.ratio)
        k = ogm_coefficients(rho, self.alpha)
        # One number of the stream that all replicas share seeds the noise, which is then drawn where it is used.
        seed = int(torch.randint(1 << 62, (), generator=step.generator)) if self.ge else 0
        generator = torch.Generator(target.device).manual_seed(seed)
        for m, k_m in zip(output.unimodal, k, strict=True):
            step.log(**{f"{m}/coefficient": k_m})
            for p in step.model.encoders[m].parameters():
                if p.grad is None or not self._covers(p):
                    continue
                noise = ge_noise(p.grad, generator) if self.ge else None
                p.grad.mul_(k_m)
                if noise is not None:
                    p.grad.add_(noise)

    def _covers(self, p: Tensor) -> bool:
        return {"weights": p.ndim >= 2, "conv": p.ndim == 4, "all": True}[self.scope]


class OGMGE(OGM):
    """OGM with generalisation enhancement: ``OGM(ge=True)`` under the name it is compared by.

    Args:
        alpha: as in ``OGM``.
        start: as in ``OGM``.
        end: as in ``OGM``.
        ratio: as in ``OGM``.
        scope: as in ``OGM``.

    Source: as for ``OGM``.
    """

    info = Info(
        family="gradient",
        summary="OGM, and noise as large as the gradient's own spread on every encoder.",
        paper=OGM.info.paper,
        url=OGM.info.url,
        fusions=OGM.info.fusions,
    )

    def __init__(self, alpha: float = 0.8, start: int = 0, end: int = 50, ratio: str = "mean", scope: str = "weights"):
        super().__init__(alpha, True, start, end, ratio, scope)
