"""Greedy: the modality that leans on the others learns from itself alone for a few batches."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from counterpoise._checks import number, whole
from counterpoise.functional.speeds import conditional_speed, leaning_most
from counterpoise.fusions import MMTM
from counterpoise.method import Info, Method
from counterpoise.methods._scores import has

if TYPE_CHECKING:
    from counterpoise.engine import Run, Step
    from counterpoise.model import MultimodalModel


class Greedy(Method):
    r"""Balanced multimodal learning by conditional learning speeds, on fusion ``MMTM``.

    .. math:: L = \sum_m \mathrm{CE}(u_m), \qquad \mu(\theta) = \lVert\nabla_\theta L\rVert^2 / \lVert\theta\rVert^2,
              \qquad d_m = \log_{10} \frac{\sum_t \mu(\text{gate of } m)}{\sum_t \mu(\text{encoder and head of } m)}

    Where :math:`\max_m d_m - \min_m d_m > \epsilon`, a window opens: for so many batches the modality with the largest
    :math:`d_m` is gated by the mean of its gates in all batches so far, a constant, so that the others do not reach it
    and it learns from itself. No sums are taken in a window. Then it is tested again. The prediction is the mean of
    the :math:`u_m`, with the gates as they are.

    Args:
        eps: :math:`\epsilon`, at least 0.
        window: batches in a window, at least 1.
        start: epochs before a window may open, at least 0.

    Attributes:
        speeds: (2, modalities) sums of speeds, of own paths and of gates.
        gates: (sum of widths,) mean gates, one modality after the other.
        batches: how many those are of.
        open: batches left in the window; 0 when none is open.
        care: place of the modality that it is for.

    Source: Wu et al., Characterizing and Overcoming the Greedy Nature of Learning in Multi-modal Deep Neural
    Networks, ICML 2022, https://proceedings.mlr.press/v162/wu22d.html
    """

    info = Info(
        family="feed-forward",
        summary="Holds the gate of the modality that leans on the others, so that it learns from itself for a while.",
        paper="Wu et al., Characterizing and Overcoming the Greedy Nature of Learning in Multi-modal Deep Neural "
        "Networks, ICML 2022",
        url="https://proceedings.mlr.press/v162/wu22d.html",
        forward="1 (and the gates twice)",
        fusions="MMTM",
        state="sums of speeds, mean gates, the window",
    )
    whole_batch = "it compares gradients and gates of the batch before it updates"
    default_fusion = "MMTM"
    speeds: Tensor
    gates: Tensor
    batches: Tensor

    def __init__(self, eps: float = 0.01, window: int = 5, start: int = 1):
        super().__init__()
        self.eps = number("eps", eps, low=0)
        self.window = whole("window", window, low=1)
        self.start = whole("start", start, low=0)
        self.open, self.care = 0, 0

    def setup(self, run: Run) -> None:
        fusion = run.model.fusion
        if not isinstance(fusion, MMTM):
            raise ValueError(
                f"Greedy watches the gates of a multimodal transfer module; this model has fusion="
                f"{type(fusion).__name__}. Use fusion=MMTM."
            )
        self.register_buffer("speeds", torch.zeros(2, len(fusion.dims), device=run.device))
        self.register_buffer("gates", torch.zeros(sum(fusion.dims.values()), device=run.device))
        self.register_buffer("batches", torch.zeros((), device=run.device))
        self.open, self.care = 0, 0

    def objective(self, step: Step) -> Tensor:
        return self._learn(step)[0]

    def step(self, step: Step) -> Tensor:
        with step.ascent(self.objective):
            loss, z = self._learn(step)
            step.backward(loss)
        self._average_gates(z, step)
        if self.open:
            self.open -= 1
        else:
            self._compare(step)
        step.update()
        return loss.detach()

    def _learn(self, step: Step) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss, and the features it is of."""
        z = step.encode()
        with self._held(step.model):
            votes = _mmtm(step.model).votes(z)
        step.log(window=float(self.open > 0))
        return torch.stack([step.criterion(u, present=step.present(m)) for m, u in votes.items()]).sum(), z

    def _held(self, model: MultimodalModel) -> AbstractContextManager[None]:
        """The gate of the modality in care held at its mean, while a window is open."""
        if not self.open:
            return nullcontext()
        m = model.modalities[self.care]
        means = self.gates.split([model.fusion.dims[k] for k in model.modalities])
        return _mmtm(model).hold({m: means[self.care]})

    @torch.no_grad()
    def _average_gates(self, z: dict[str, Tensor], step: Step) -> None:
        """Have this batch's mean gates count, of the samples that have every modality."""
        whole = has(step).all(1).float()
        g = torch.cat(list(_mmtm(step.model).gates(z).values()), dim=1)
        total = step.sum(torch.cat([(whole.unsqueeze(1) * g).sum(0), whole.sum().unsqueeze(0)]))
        some = (total[-1] > 0).float()
        mean = total[:-1] / total[-1].clamp(min=1)
        self.batches += some
        self.gates += some * (mean - self.gates) / self.batches.clamp(min=1)

    def _compare(self, step: Step) -> None:
        """Add this batch's speeds, and open a window where a modality leans on the others."""
        for i, m in enumerate(step.model.modalities):
            head, gate = _mmtm(step.model).parts(m)
            self.speeds[0, i] += conditional_speed([*step.model.encoders[m].parameters(), *head])
            self.speeds[1, i] += conditional_speed(gate)
        if step.epoch < self.start:
            return
        *speeds, batches = torch.cat([self.speeds.flatten(), self.batches.unsqueeze(0)]).tolist()
        half = len(speeds) // 2
        leaning = leaning_most(speeds[:half], speeds[half:], self.eps)
        if leaning is not None and batches:
            self.open, self.care = self.window, leaning

    def get_extra_state(self) -> Tensor:
        """The window: what is left of it, and for whom."""
        return torch.tensor([self.open, self.care])

    def set_extra_state(self, state: Tensor) -> None:
        """Counterpart of ``get_extra_state``."""
        self.open, self.care = state.tolist()


def _mmtm(model: MultimodalModel) -> MMTM:
    """The fusion, which ``setup`` has checked."""
    assert isinstance(model.fusion, MMTM)
    return model.fusion
