"""What the methods that compare modalities share: who is compared, on which samples, by which logits."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from counterpoise.fusions import Late
from counterpoise.types import who_has

if TYPE_CHECKING:
    from counterpoise.engine import Run, Step
    from counterpoise.engine.run import Part
    from counterpoise.fusions import Fusion
    from counterpoise.method import Method
    from counterpoise.types import Output


def has(step: Step) -> Tensor:
    """(batch, M) bool: which samples have which modality, in model order."""
    batch = step.batch
    masks = [who_has(m, batch.present, len(batch.index), batch.index.device) for m in step.model.modalities]
    return torch.stack(masks, dim=1)


def mean_scores(step: Step, scores: Iterable[Tensor], rows: Tensor) -> tuple[Tensor, Tensor]:
    """Mean of each (batch,) score over these rows of the global batch: (M,), zeros when there are none.

    Modalities are compared on the same samples, so ``rows`` are those that have every modality.

    Args:
        step: the step.
        scores: one (batch,) tensor per modality.
        rows: (batch,) bool.

    Returns:
        The (M,) means, detached, and the number of rows.
    """
    weight = rows.float()
    # Always the same collective: a replica may hold complete samples only while another does not.
    totals = step.sum(torch.stack([*((s * weight).sum() for s in scores), weight.sum()]))
    return totals[:-1] / totals[-1].clamp(min=1), totals[-1]


def labelled_features(run: Run, split: Part) -> dict[str, tuple[Tensor, Tensor]]:
    """Modality -> features (samples, dim) and targets of the samples of a split that have it, on the CPU.

    In evaluation mode, without gradient or augmentation, as ``run.outputs``.
    """
    parts: dict[str, list[tuple[Tensor, Tensor]]] = {m: [] for m in run.model.modalities}
    for batch, output in run.outputs(split):
        for m, z in output.features.items():
            rows = (batch.present or {}).get(m, slice(None))
            parts[m].append((z[rows].cpu(), batch.target[rows].cpu()))
    return {m: (torch.cat([z for z, _ in part]), torch.cat([y for _, y in part])) for m, part in parts.items()}


def probed(fusion: Fusion) -> bool:
    """Whether the unimodal logits come from heads that the fused prediction does not use."""
    return fusion.has_own_heads and not isinstance(fusion, Late)


def probe_loss(output: Output, step: Step) -> Tensor | float:
    """Loss of the heads beside the fusion on detached features, so that encoders never see it; 0 without such heads."""
    fusion = step.model.fusion
    if not probed(fusion):
        return 0.0
    logits = {m: fusion.head_of(m)(z.detach()) for m, z in output.features.items()}
    return sum((step.criterion(u, present=step.present(m)) for m, u in logits.items()), start=0.0)


def require_unimodal_logits(method: Method, run: Run) -> None:
    """ValueError when the model's unimodal logits are neither parts of the fused ones nor those of own heads."""
    fusion = run.model.fusion
    if fusion.additive or fusion.has_own_heads:
        return
    raise ValueError(
        f"{type(method).__name__} compares what the modalities say alone, and fusion {type(fusion).__name__} "
        "has no logits of single modalities. Use fusion Concat, Sum or Late, or give every modality a head to be "
        f"read by: build_model(encoders, {type(fusion).__name__!r}, heads=True, ...)."
    )
