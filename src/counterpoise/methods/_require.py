"""What several methods ask of a model, checked in ``setup``."""

from __future__ import annotations

from counterpoise.model import MultimodalModel


def additive(method: object, model: MultimodalModel) -> None:
    """ValueError unless the fused logits are the sum of the unimodal ones."""
    if not model.fusion.additive:
        name, fusion = type(method).__name__, type(model.fusion).__name__
        raise ValueError(
            f"{name} needs fused logits that are the sum of the unimodal ones; this model's fusion {fusion} gives "
            "others. Use fusion Sum, Late(rule='sum'), or Concat without heads."
        )
