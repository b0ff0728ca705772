"""A linear and a hidden layer on the concatenated features, side by side."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from counterpoise._checks import whole
from counterpoise.fusions.base import Features, Fusion
from counterpoise.fusions.concat import applied, blocks
from counterpoise.types import Present


class WideDeep(Fusion):
    r"""Wide and deep (Cheng et al., DLRS 2016) over the features of any number of modalities.

    .. math:: u = \sum_m W_m z_m + b + V \max\Bigl(0, \sum_m A_m z_m + a\Bigr)

    The linear part alone is ``Concat``, whose logits are a sum over the modalities: nothing that two of them tell only
    together, such as an exclusive-or, is in it. The hidden layer has that. An absent modality contributes nothing.

    Args:
        dims: modality -> width of its feature.
        num_classes: number of classes.
        dim: width of the hidden layer.
        heads: give each modality a linear head of its own (see ``Fusion``).

    Attributes:
        wide: modality -> linear layer without bias, :math:`W_m`; with ``bias`` (classes,), :math:`b`.
        deep: modality -> linear layer without bias, :math:`A_m`; with ``shift`` (dim,), :math:`a`.
        classify: :math:`V`.
    """

    def __init__(self, dims: Mapping[str, int], num_classes: int, *, dim: int = 64, heads: bool = False):
        super().__init__(dims, num_classes, heads=heads)
        self.dim = whole("dim", dim, low=1)
        self.wide, self.bias = blocks(dims, num_classes)
        self.deep, self.shift = blocks(dims, self.dim)
        self.classify = nn.Linear(self.dim, num_classes, bias=False)

    def fuse(self, features: Features, present: Present) -> Tensor:
        return applied(self.wide, self.bias, features) + self.classify(self._hidden(features))

    def embed(self, features: Features, present: Present) -> Tensor:
        return torch.cat([*features.values(), self._hidden(features)], dim=1)

    def _hidden(self, features: Features) -> Tensor:
        return applied(self.deep, self.shift, features).relu()
