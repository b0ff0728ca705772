"""The contract of a fusion."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from counterpoise._checks import Spelled, did_you_mean, misnamed, whole
from counterpoise.task import Regression, SingleLabel, Task
from counterpoise.types import Present, who_has

Features = Mapping[str, Tensor]


class Fusion(Spelled, nn.Module):
    """Turns the features of any non-empty subset of the modalities into outputs: logits, or numbers.

    Subclasses implement ``fuse`` (the fused logits) and, where the structure gives them exactly,
    ``split`` (the unimodal logits); otherwise a modality's logits are those of the fusion with
    only that modality there. Both are given features whose rows are zero for absent samples.

    Args:
        dims: modality -> width of its feature.
        num_classes: number of classes, or what else the task has: labels, numbers.
        heads: give each modality a linear head of its own beside the fused one, for methods that
            train both; its logits are then the unimodal ones. Late fusions have their own anyway.

    Attributes:
        additive: with every modality there, the fused logits are the sum of the unimodal ones.
        own_heads: modality -> head of its own; empty where there is none.
        task: what is predicted; one of ``num_classes`` classes (of 1: one number) until ``predict`` says otherwise.
    """

    additive: bool = False

    def __init__(self, dims: Mapping[str, int], num_classes: int, *, heads: bool = False):
        super().__init__()
        if not dims:
            raise ValueError("dims: a fusion needs at least one modality; got none.")
        for m in dims:
            if rule := misnamed(m):
                raise ValueError(rule)
        whole("num_classes", num_classes, low=1)
        self.dims, self.num_classes, self.heads = dict(dims), num_classes, heads
        self.own_heads = nn.ModuleDict({m: nn.Linear(d, num_classes) for m, d in dims.items()} if heads else {})

        self.task: Task = SingleLabel(num_classes) if num_classes > 1 else Regression(("0",))

    def predict(self, task: Task) -> None:
        """Predict this, before anything is trained; ValueError when the task has another width."""
        if task.width != self.num_classes:
            raise ValueError(f"The fusion gives {self.num_classes} numbers for a sample, the task {task!r} another.")
        self.task = task

    @property
    def has_own_heads(self) -> bool:
        """Whether every modality has a head of its own that reads only its feature."""
        return len(self.own_heads) > 0

    @property
    def unimodal_by(self) -> str:
        """What gives a modality's logits, in the words of tables."""
        return "its own head" if self.has_own_heads else "the fusion of it alone"

    def fuse(self, features: Features, present: Present) -> Tensor:
        """Fused logits (batch, classes)."""
        raise NotImplementedError(f"{type(self).__name__} must define fuse().")

    def embed(self, features: Features, present: Present) -> Tensor:
        """What represents a sample as a whole: what the fused logits are linear in, else the features side by side."""
        return torch.cat(list(features.values()), dim=1)

    def split(self, features: Features, present: Present) -> dict[str, Tensor]:
        """Unimodal logits: by default the fused ones with every other modality left out."""
        return {m: self.fuse({m: z}, present) for m, z in features.items()}

    def both(self, features: Features, present: Present) -> tuple[Tensor, dict[str, Tensor]]:
        """``fuse`` and the unimodal logits; overridden where one gives the other for nothing."""
        logits = self.fuse(features, present)
        if self.has_own_heads:
            return logits, {m: self.own_heads[m](z) for m, z in features.items()}
        return logits, self.split(features, present)

    def forward(
        self, features: Features, present: Present = None, unimodal: bool = True
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Fused logits (batch, classes) and modality -> unimodal logits (batch, classes).

        Args:
            features: modality -> (batch, dim), any non-empty subset of the modalities.
            present: modality -> (batch,) bool; what the rows of absent samples hold is ignored.
            unimodal: whether the unimodal logits are asked for; without, there are none.
        """
        if not features:
            raise ValueError("features: a fusion needs at least one modality; got none.")
        for m in features:
            if m not in self.dims:
                raise ValueError(did_you_mean("modality", m, self.dims))
        if present is not None:
            # Blanked, not multiplied: a NaN in an absent row must reach neither logits nor gradients.
            features = {
                m: z.masked_fill(~present[m].unsqueeze(1), 0) if m in present else z for m, z in features.items()
            }
        return self.both(features, present) if unimodal else (self.fuse(features, present), {})

    def head_of(self, modality: str) -> nn.Module:
        """The module from this modality's feature to its logits."""
        if modality in self.own_heads:
            return self.own_heads[modality]
        if modality not in self.dims:
            raise ValueError(did_you_mean("modality", modality, self.dims))
        raise ValueError(
            f"{type(self).__name__} has no head per modality. Use fusion Late or Concat, or pass heads=True."
        )

    def modules_of(self, modality: str) -> list[nn.Module]:
        """The parts of the fusion that only this modality uses."""
        return [part[modality] for part in self.children() if isinstance(part, nn.ModuleDict) and modality in part]

    def calibrate(self, unimodal: Mapping[str, Tensor], target: Tensor, present: Present = None) -> bool:
        """Fit what the fusion fits on validation, and say whether there was anything.

        The engine calls it once, when training is over, with outputs of the selected weights.

        Args:
            unimodal: modality -> logits (samples, classes), of the modalities that the method reads.
            target: of the samples, as the task has it.
            present: modality -> (samples,) bool.
        """
        return False


def mask_of(modality: str, features: Features, present: Present) -> Tensor:
    """(batch, 1) of ones and zeros: which samples have this modality."""
    z = features[modality]
    return who_has(modality, present, z.shape[0], z.device).to(z.dtype).unsqueeze(1)


def one_width(fusion: str, dims: Mapping[str, int]) -> int:
    """The width that all features have; ValueError when they differ or there are none."""
    if len(set(dims.values())) > 1:
        widths = ", ".join(f"{m}: {d}" for m, d in dims.items())
        raise ValueError(
            f"{fusion} needs features of one width; got {widths}. Put a linear layer behind those that differ, "
            f"for example encoders.Projected(encoder, dim={min(dims.values())})."
        )
    return next(iter(dims.values()), 0)
