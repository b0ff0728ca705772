"""Sum of linear heads."""

from __future__ import annotations

from collections.abc import Mapping

from counterpoise.fusions.late import Late


class Sum(Late):
    r"""A linear head per modality, the logits added: :math:`u = \sum_m W_m z_m + b_m`.

    Args:
        dims: modality -> width of its feature.
        num_classes: number of classes.
        heads: without effect; accepted so that all fusions are built alike.
    """

    def __init__(self, dims: Mapping[str, int], num_classes: int, *, heads: bool = False):
        super().__init__(dims, num_classes, rule="sum", hidden=(), heads=heads)
