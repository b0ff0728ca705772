"""How much of a score is left while the inputs get worse: MultiBench's two numbers of a curve."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise


def relative_robustness(scores: Sequence[float], places: Sequence[float] | None = None) -> float:
    r"""The area under a curve of scores over how bad the input is, by trapezoids, over its width: its mean height.

    .. math:: \frac{1}{\sigma_k - \sigma_0} \sum_{i=0}^{k-1} (\sigma_{i+1} - \sigma_i) \frac{f(\sigma_i) +
              f(\sigma_{i+1})}{2}

    Args:
        scores: (k + 1,) f, from the clean input on.
        places: (k + 1,) :math:`\sigma`, increasing; evenly spaced when None.

    Returns:
        The mean, in the unit of the scores. MultiBench's levels are 0, 0.1 to 1, of which area and mean are the same;
        it then scales the areas of all methods to [0, 1], which is left out, as it makes the number depend on which
        methods are compared.

    Raises:
        ValueError: fewer than two scores, other places than scores, or places that do not increase.

    Source: Liang et al., MultiBench: Multiscale Benchmarks for Multimodal Representation Learning, NeurIPS 2021
    (Datasets and Benchmarks), https://arxiv.org/abs/2107.07502, and its ``eval_scripts/robustness.py``
    """
    places = list(range(len(scores))) if places is None else list(places)
    if len(scores) < 2 or len(places) != len(scores):
        raise ValueError(
            f"A curve needs two levels and a score of each; got {len(scores)} scores, {len(places)} levels."
        )
    steps = [b - a for a, b in pairwise(places)]
    if min(steps) <= 0:
        raise ValueError(f"places must increase; got {places}.")
    area = sum(step * (a + b) / 2 for step, (a, b) in zip(steps, pairwise(scores), strict=True))
    return area / (places[-1] - places[0])


def effective_robustness(scores: Sequence[float], reference: Sequence[float]) -> float:
    r"""How much higher a curve is than a reference that is moved to begin at the same clean score.

    .. math:: \frac{1}{k} \sum_{i=1}^{k} \bigl(f(\sigma_i) - \beta(\sigma_i)\bigr), \quad
              \beta(\sigma) = g(\sigma) + f(\sigma_0) - g(\sigma_0)

    Args:
        scores: (k + 1,) f, from the clean input on.
        reference: (k + 1,) g, of the same levels. MultiBench takes late fusion, and the sum instead of the mean.

    Returns:
        The mean over the levels behind the clean one, in the unit of the scores; 0 for the reference itself.

    Raises:
        ValueError: fewer than two scores, or another number of them than in the reference.

    Source: as of ``relative_robustness``
    """
    if len(scores) < 2 or len(scores) != len(reference):
        raise ValueError(f"Two curves need two levels and the same; got {len(scores)} and {len(reference)} scores.")
    lead = scores[0] - reference[0]
    return sum(f - g - lead for f, g in zip(scores[1:], reference[1:], strict=True)) / (len(scores) - 1)
