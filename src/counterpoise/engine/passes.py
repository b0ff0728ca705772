"""Forward passes in the precision of the run; what comes out is float32 in every precision."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from torch import Tensor

from counterpoise.engine.replicas import Fabric
from counterpoise.model import MultimodalModel
from counterpoise.types import Output, Present


def encode(
    model: MultimodalModel, fabric: Fabric, inputs: Mapping[str, Tensor], only: Collection[str], present: Present
) -> dict[str, Tensor]:
    """Features (batch, dim) of these modalities."""
    with fabric.autocast():
        features = model.encode(inputs, only, present)
    return {m: z.float() for m, z in features.items()}


def fuse(
    model: MultimodalModel,
    fabric: Fabric,
    features: Mapping[str, Tensor],
    present: Present,
    *,
    unimodal: bool = True,
) -> Output:
    """Fused and unimodal logits of these features, or the fused ones alone."""
    with fabric.autocast():
        output = model.fuse(features, present, unimodal=unimodal)
    each = {m: u.float() for m, u in output.unimodal.items()}
    return output._replace(logits=output.logits.float(), unimodal=each)
