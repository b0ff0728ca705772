"""One modality on its own: how good it gets when nothing competes with it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from counterpoise._checks import did_you_mean
from counterpoise.method import Info, Method
from counterpoise.types import Output, Phase

if TYPE_CHECKING:
    from counterpoise.engine import Run, Step
    from counterpoise.model import MultimodalModel


class Unimodal(Method):
    r"""Train, and predict from, one modality m; no other is read.

    .. math:: \min_{\theta_m} \tfrac1B \sum_i \mathrm{CE}(u_{im}, y_i)

    with :math:`u_m` the logits the fusion reads off modality m alone. Samples without it are left out.

    Args:
        modality: name of the modality.
    """

    info = Info(
        family="baseline",
        summary="Trains one modality alone; the others are neither read nor changed.",
        paper="None: the usual way",
        url="",
        forward="1/M",
        backward="1/M",
        modalities="M ≥ 1",
    )
    whole_batch = None
    min_modalities = 1

    def __init__(self, modality: str):
        super().__init__()
        self.modality = modality

    @property
    def label(self) -> str:
        return f"Unimodal({self.modality})"

    def must_finish(self) -> str | None:
        return None

    def must_own_loop(self) -> str | None:
        return None  # its only phase is all of the run

    def phase(self, index: int, run: Run) -> Phase | None:
        return Phase(run.epochs, train=(self.modality,), name=self.modality) if index == 0 else None

    def reads(self, modalities: tuple[str, ...]) -> tuple[str, ...]:
        if self.modality not in modalities:
            raise ValueError(did_you_mean("modality", self.modality, modalities))
        return (self.modality,)

    def forward(self, step: Step) -> Output:
        return step.forward(only=(self.modality,))

    def loss(self, output: Output, step: Step) -> Tensor:
        return step.unimodal_loss(output, self.modality)

    def predict(self, output: Output, model: MultimodalModel) -> Tensor:
        return output.unimodal[self.modality]
