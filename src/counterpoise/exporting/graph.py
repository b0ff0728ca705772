"""A trained model and its method's rule as one function of tensors, for batches of any size."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from counterpoise.method import Method
from counterpoise.model import MultimodalModel
from counterpoise.task import Regression, Task
from counterpoise.types import FUSED

Named = Mapping[str, Tensor]


def kinds(task: Task) -> dict[str, Callable[[Tensor], Tensor]]:
    """What is given of the fused prediction and of each modality's, in the order of the outputs."""
    if isinstance(task, Regression):
        return {"numbers": task.predictions}
    return {"probabilities": task.predictions, "logits": lambda logits: logits}


def mask_name(modality: str) -> str:
    """The input that says which samples have a modality; no modality has a dot in its name."""
    return f"{modality}.present"


class Graph(nn.Module):
    """What ``Trainer.predict`` computes, on copies of model and method, on the CPU.

    Every row goes through every encoder, and the features of absent ones are blanked. ``MultimodalModel.encode``, whose
    numbers these are, picks the rows that are there: it looks at values, which cannot be recorded.

    Args:
        model: trained.
        method: whose ``predict`` is the rule.

    Attributes:
        reads: the modalities that the prediction needs; the others' encoders are left out.
    """

    def __init__(self, model: MultimodalModel, method: Method):
        super().__init__()
        self.reads = model.select(method.reads(model.modalities))
        self.model = copy.deepcopy(model).cpu().requires_grad_(False)
        for module in list(self.model.modules()):
            prepare: Any = getattr(module, "prepare_export", None)
            if prepare is not None:  # out of bfloat16, adapters into the weights
                prepare()
        for m in model.modalities:
            if m not in self.reads:
                self.model.encoders[m] = nn.Identity()
        # In a tuple, so that what a method keeps for training, such as teachers, does not go into the file.
        self._method = (copy.deepcopy(method).cpu().requires_grad_(False).eval(),)
        self.eval()

    @property
    def method(self) -> Method:
        """A copy of the method."""
        return self._method[0]

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of what comes out, in order."""
        return tuple(f"{part}.{kind}" for part in (FUSED, *self.reads) for kind in kinds(self.model.task))

    def feature(self, modality: str, x: Tensor, there: Tensor) -> Tensor:
        """(batch, dim), zero where the modality is absent, whatever such a row holds."""
        x = x.masked_fill(~there.reshape(-1, *[1] * (x.ndim - 1)), 0)
        return self.model.encoders[modality](x).masked_fill(~there.unsqueeze(1), 0)

    def encode(self, inputs: Named, present: Named) -> dict[str, Tensor]:
        """Features of each modality."""
        return {m: self.feature(m, inputs[m], present[m]) for m in self.reads}

    def conclude(self, features: Named, present: Named) -> dict[str, Tensor]:
        """The outputs by name."""
        output = self.method.decide(self.model.fuse(features, present), self.model)
        logits = {FUSED: self.model.read_out(output), **output.unimodal}
        return {f"{part}.{kind}": f(u) for part, u in logits.items() for kind, f in kinds(self.model.task).items()}

    def forward(self, inputs: Named, present: Named) -> dict[str, Tensor]:
        """Everything in ``outputs``, each (batch, classes).

        Args:
            inputs: modality -> (batch, ...).
            present: modality -> (batch,) bool.
        """
        return self.conclude(self.encode(inputs, present), present)
