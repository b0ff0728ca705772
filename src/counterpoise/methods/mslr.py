"""MSLR: a learning rate for each modality."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from counterpoise._checks import choice, number, per_modality, whole
from counterpoise.functional.precision import widest
from counterpoise.functional.rates import accuracy_ratio, smoothed_rates
from counterpoise.method import Info, Method
from counterpoise.methods import _require
from counterpoise.types import Output

if TYPE_CHECKING:
    from counterpoise.engine import Run, Step

STRATEGIES = ("keep", "smooth", "dynamic")


class MSLR(Method):
    r"""Modality-specific learning rates for additive late fusion.

    Each modality's encoder and head train at :math:`\eta_m`, given as a factor of the run's rate:

    .. math:: \text{keep: } \eta_m; \qquad
              \text{smooth: } \exp\big((1-s) \log\eta_m + s\,\mathrm{mean}_j \log\eta_j\big); \qquad
              \text{dynamic: } \eta_m \frac{A_m(e)}{\mathrm{mean}(A_m(e-1), \dots, A_m(e-n))}

    with :math:`A_m` the validation accuracy of modality :math:`m` alone. These are learning rates and
    not factors of the gradient, so they act the same under SGD with weight decay and under Adam.
    What no modality owns trains at the run's rate.

    Args:
        strategy: "keep", "smooth" or "dynamic".
        rates: modality -> factor of the base learning rate, >= 0; 1 for those not named.
        smoothing: ``s`` of "smooth", in [0, 1]; 0 is "keep", 1 the geometric mean for all.
        window: ``n`` of "dynamic", epochs that are averaged, at least 1; the first ``n`` epochs have
            factor :math:`\eta_m`.

    Source: Yao and Mihalcea, Modality-specific learning rates for effective multimodal additive
    late-fusion, Findings of ACL 2022, https://aclanthology.org/2022.findings-acl.143
    """

    info = Info(
        family="learning-rate",
        summary="Gives each modality a learning rate of its own: fixed, smoothed, or following its accuracy.",
        paper="Yao and Mihalcea, Modality-specific Learning Rates for Effective Multimodal Additive Late-fusion, "
        "Findings of ACL 2022",
        url="https://aclanthology.org/2022.findings-acl.143",
        fusions="Sum, Late(rule='sum'), Concat",
        state="the last n accuracies",
    )
    whole_batch = None
    default_fusion = "Sum"
    history: Tensor
    seen: Tensor

    def __init__(
        self,
        strategy: str = "dynamic",
        rates: Mapping[str, float] | None = None,
        smoothing: float = 0.5,
        window: int = 5,
    ):
        super().__init__()
        self.strategy = choice("strategy", strategy, STRATEGIES)
        self.rates = rates
        self.smoothing = number("smoothing", smoothing, low=0, high=1)
        self.window = whole("window", window, low=1)

    def setup(self, run: Run) -> None:
        _require.additive(self, run.model)
        self._start_rates(run.model.modalities)  # raises for rates that make no sense
        size = (self.window, len(run.model.modalities))
        self.register_buffer("history", torch.zeros(size, dtype=widest(run.device)))
        self.register_buffer("seen", torch.tensor(0))

    def forward(self, step: Step) -> Output:
        return step.forward(unimodal=False)

    def on_start(self, run: Run) -> None:
        for m, rate in self._start_rates(run.model.modalities).items():
            run.rescale(m, rate)

    def on_epoch_end(self, run: Run, scores: Mapping[str, float]) -> None:
        if self.strategy != "dynamic":
            return
        rates = self._start_rates(run.model.modalities)
        accuracy = torch.tensor([scores.get(f"{m}/{run.task.yardstick}", 0.0) for m in rates]).to(self.history)
        if self.seen >= self.window:
            for m, ratio in zip(rates, accuracy_ratio(self.history, accuracy).tolist(), strict=True):
                run.rescale(m, rates[m] * ratio)
        self.history.copy_(torch.cat([self.history[1:], accuracy.unsqueeze(0)]))
        self.seen += 1

    def _start_rates(self, modalities: tuple[str, ...]) -> dict[str, float]:
        given = self.rates or {}
        per_modality("rates", given, modalities)
        rates = {m: number(f"rates[{m!r}]", given.get(m, 1.0), low=0) for m in modalities}
        return smoothed_rates(rates, self.smoothing) if self.strategy == "smooth" else rates
