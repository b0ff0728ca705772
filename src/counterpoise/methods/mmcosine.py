"""MMCosine: classify by directions, so that no modality wins by longer features or weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from counterpoise._checks import number
from counterpoise.functional.cosines import cosine_logits
from counterpoise.method import Info, Method
from counterpoise.task import SingleLabel
from counterpoise.types import Output

if TYPE_CHECKING:
    from counterpoise.engine import Run, Step
    from counterpoise.model import MultimodalModel


class MMCosine(Method):
    r"""Multi-modal cosine loss: the cosine of each modality's feature with its block of the classifier.

    .. math:: f = s \sum_m \frac{z_m}{\lVert z_m \rVert} \cdot \frac{W_m^\top}{\lVert W_m \rVert_{row}}, \qquad
              L = CE(f, y)

    without bias, in training and in prediction alike. An absent modality adds nothing.

    Args:
        scale: s, above 0. The paper's 10.

    Source: Xu et al., MMCosine: Multi-Modal Cosine Loss Towards Balanced Audio-Visual Fine-Grained Learning,
    ICASSP 2023, https://arxiv.org/abs/2303.05338
    """

    info = Info(
        family="objective",
        summary="Replaces the fused logits by the scaled sum of the modalities' cosine logits.",
        paper="Xu et al., MMCosine: Multi-Modal Cosine Loss Towards Balanced Audio-Visual Fine-Grained Learning, "
        "ICASSP 2023",
        url="https://arxiv.org/abs/2303.05338",
        fusions="Concat, Sum, Shared(rule='sum')",
    )
    whole_batch = None
    tasks = (SingleLabel,)

    def __init__(self, scale: float = 10.0):
        super().__init__()
        self.scale = number("scale", scale, above=0)

    def setup(self, run: Run) -> None:
        fusion = run.model.fusion
        if not fusion.additive or not all(isinstance(fusion.head_of(m), nn.Linear) for m in fusion.dims):
            raise ValueError(
                "MMCosine replaces one linear layer on the features of each modality; fusion "
                f"{type(fusion).__name__} of this model is not a sum of such layers. Use fusion Concat (without heads) "
                "or Sum."
            )

    def _logits(self, features: Mapping[str, Tensor], model: MultimodalModel) -> dict[str, Tensor]:
        weights = {m: model.head_of(m).get_parameter("weight") for m in features}
        return {m: self.scale * cosine_logits(z, weights[m]) for m, z in features.items()}

    def forward(self, step: Step) -> Output:
        output = step.forward()
        unimodal = self._logits(output.features, step.model)
        return output._replace(logits=torch.stack(list(unimodal.values())).sum(0), unimodal=unimodal)

    def unimodal_by(self, model: MultimodalModel) -> str:
        return f"cosines with the weights of {super().unimodal_by(model)}"

    def predict(self, output: Output, model: MultimodalModel) -> Tensor:
        return torch.stack(list(self._logits(output.features, model).values())).sum(0)
