"""Classifiers of a modality that are added up, and may become more."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from counterpoise._checks import did_you_mean, whole
from counterpoise.fusions.base import Features, Fusion, mask_of
from counterpoise.types import Present


class Boosted(Fusion):
    r"""Each modality has classifiers of one hidden layer that share the last one; all logits are added up.

    .. math:: f = \sum_m U_m, \qquad U_m = \sum_{j=1}^{n_m} u_{mj}, \qquad
              u_{mj} = W\, \mathrm{ReLU}(V_{mj} z_m + c_{mj}) + b

    Every modality starts with one classifier; ``grow`` adds one. The layers of all that there may be are made at the
    start, so that optimizers and checkpoints know them; those that do not take part get no gradient, and rest.

    Args:
        dims: modality -> width of its feature.
        num_classes: number of classes.
        width: of the hidden layers.
        most: classifiers that a modality can have, at least 1.
        heads: also give each modality a linear head of its own (see ``Fusion``). The unimodal
            logits are then those of the heads, and the fusion is not ``additive``.

    Attributes:
        active: modality -> number of classifiers that take part; part of the ``state_dict``.

    Source: Jiang et al., Rethinking Multimodal Learning from the Perspective of Mitigating Classification Ability
    Disproportion, NeurIPS 2025, https://arxiv.org/abs/2502.20120
    """

    def __init__(
        self, dims: Mapping[str, int], num_classes: int, *, width: int = 256, most: int = 12, heads: bool = False
    ):
        super().__init__(dims, num_classes, heads=heads)
        self.additive = not heads
        self.width, self.most = whole("width", width, low=1), whole("most", most, low=1)
        self.layers = nn.ModuleDict(
            {m: nn.ModuleList(nn.Linear(d, width) for _ in range(most)) for m, d in dims.items()}
        )
        self.last = nn.Linear(width, num_classes)
        self.active = dict.fromkeys(dims, 1)

    @property
    def unimodal_by(self) -> str:
        return super().unimodal_by if self.has_own_heads else "its classifiers"

    def stages(self, modality: str, z: Tensor) -> Tensor:
        """Logits of each classifier that takes part, (classifiers, batch, classes), from (batch, dim) features."""
        layers = list(self.layers[modality].children())[: self.active[modality]]
        return torch.stack([self.last(layer(z).relu()) for layer in layers])

    def grow(self, modality: str) -> bool:
        """Have one more classifier of this modality take part; False when there are no more."""
        if modality not in self.active:
            raise ValueError(did_you_mean("modality", modality, self.active))
        if self.active[modality] == self.most:
            return False
        self.active[modality] += 1
        return True

    def split(self, features: Features, present: Present) -> dict[str, Tensor]:
        return {m: self.stages(m, z).sum(0) for m, z in features.items()}

    def fuse(self, features: Features, present: Present) -> Tensor:
        said = self.split(features, present)
        return torch.stack([mask_of(m, features, present) * u for m, u in said.items()]).sum(0)

    def get_extra_state(self) -> Tensor:
        """Numbers of classifiers that take part, in the order of the names: known to Python, so no step waits."""
        return torch.tensor([self.active[m] for m in sorted(self.dims)])

    def set_extra_state(self, state: Tensor) -> None:
        """Counterpart of ``get_extra_state``."""
        self.active.update(zip(sorted(self.dims), state.tolist(), strict=True))
