"""InfoReg: hold back the encoder that is ahead while it still learns fast."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from counterpoise._checks import choice, number
from counterpoise.functional.precision import widest
from counterpoise.functional.regulation import growth, lead, regulation, released_regulation
from counterpoise.method import Info, Method
from counterpoise.methods._scores import has, mean_scores, probe_loss, require_unimodal_logits
from counterpoise.types import Output

if TYPE_CHECKING:
    from counterpoise.engine import Run, Step

FORMS = ("paper", "released")
SPAN = 10  # epochs of the released form's means


class InfoReg(Method):
    r"""Information acquisition regulation: pull the leading encoder back to where it was when the epoch began.

    With :math:`s_m` the mean log-likelihood of modality m in the batch and :math:`\Delta_m` the mean of
    :math:`s_m - s_j` over the modalities j that score less,

    .. math:: g_m \leftarrow g_m + \alpha_m (\theta_m - \theta_m^{start}), \qquad
              \alpha_m = \exp(\beta \tanh \Delta_m)

    for the encoders of modalities with :math:`\Delta_m > 0`, from epoch 2 on while they are in their prime learning
    window, :math:`(T_{t-1} - T_{t-2}) / T_{t-1} > K`. :math:`T_t` is the mean of :math:`\lVert g_m \rVert^2` over the
    batches of epoch t, before the term is added. With ``window=1`` and ``unimodal=0`` this is joint training, bit for
    bit; with ``unimodal=1`` multi-task training.

    The form "released" is the authors' code: :math:`\alpha_m = c_m \exp(\tanh(S_m - \bar S_{-m}))` with S the *sum*
    over the batch of the true class's probability, c 0.95 for the first modality and 0.1 for the others; one window for
    all, open while the mean trace of the first modality over 10 epochs, the first of them after 10 zeros, grows by
    more than 0.05; T the sum of the weights' mean squared gradients with the term added. ``beta`` and ``window``
    do not count there.

    Args:
        beta: :math:`\beta`, at least 0.
        window: K, at least 0.
        unimodal: weight of the sum of the unimodal losses, at least 0; the paper's starred results and the released
            code have 1.
        form: "paper" or "released".

    Source: Huang et al., Adaptive Unimodal Regulation for Balanced Multimodal Information Acquisition, CVPR 2025,
    https://arxiv.org/abs/2503.18595
    """

    info = Info(
        family="gradient",
        summary="Pulls the encoder that is ahead back to where the epoch began, while it still learns fast.",
        paper="Huang et al., Adaptive Unimodal Regulation for Balanced Multimodal Information Acquisition, CVPR 2025",
        url="https://arxiv.org/abs/2503.18595",
        fusions="Concat, Sum, Late; any other with heads=True",
        state="a copy of each encoder, and traces of its gradients",
    )
    whole_batch = None
    beginning: nn.ModuleDict
    history: Tensor
    trace: Tensor

    def __init__(self, beta: float = 0.9, window: float = 0.04, unimodal: float = 0.0, form: str = "paper"):
        super().__init__()
        self.beta = number("beta", beta, low=0)
        self.window = number("window", window, low=0)
        self.unimodal = number("unimodal", unimodal, low=0)
        self.form = choice("form", form, FORMS)

    def setup(self, run: Run) -> None:
        require_unimodal_logits(self, run)
        encoders = {m: copy.deepcopy(e).requires_grad_(False) for m, e in run.model.encoders.items()}
        self.beginning = nn.ModuleDict(encoders)
        zeros = torch.zeros(len(encoders), SPAN + 1, dtype=widest(run.device))
        self.register_buffer("history", zeros)
        self.register_buffer("trace", zeros[:, 0].clone())

    def on_epoch_start(self, run: Run) -> None:
        for m, encoder in run.model.encoders.items():
            self.beginning[m].load_state_dict(encoder.state_dict())
        if run.epoch > 0:
            self.history.copy_(torch.cat([self.history[:, 1:], self.trace.unsqueeze(1)], dim=1))
        self.trace.zero_()

    def loss(self, output: Output, step: Step) -> Tensor:
        fused = super().loss(output, step)
        if self.unimodal == 0:
            return fused + probe_loss(output, step)
        return fused + self.unimodal * sum(step.unimodal_loss(output, m) for m in output.unimodal)

    @torch.no_grad()
    def modulate(self, output: Output, step: Step) -> None:
        alpha = self._strength(output, step)
        for i, m in enumerate(output.unimodal):
            step.log(**{f"{m}/regulation": alpha[i]})
            for p, start in zip(step.model.encoders[m].parameters(), self.beginning[m].parameters(), strict=True):
                if p.grad is None:
                    continue
                if self.form == "paper":
                    self.trace[i] += p.grad.square().sum() / step.num_batches
                p.grad.add_(alpha[i] * (p - start))
                if self.form == "released" and p.ndim >= 2:
                    self.trace[i] += p.grad.square().mean()

    def _strength(self, output: Output, step: Step) -> Tensor:
        """(modalities,) alpha, 0 outside of the window."""
        logits, target, complete = list(output.unimodal.values()), step.batch.target, has(step).all(1)
        if self.form == "released":
            means, count = mean_scores(step, (step.task.score(u, target) for u in logits), complete)
            is_open = (
                growth(self.history[0], SPAN) > 0.05 if step.epoch > 0 else torch.ones_like(count, dtype=torch.bool)
            )
            return torch.where(is_open, released_regulation(means * count), 0.0)
        losses, _ = mean_scores(step, (step.losses(u) for u in logits), complete)
        alpha = regulation(lead(-losses), self.beta)
        return torch.where(growth(self.history, 1) > self.window, alpha, 0.0) if step.epoch > 1 else 0 * alpha
