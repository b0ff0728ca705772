"""Whether two methods differ: intervals of paired differences, and what many comparisons at once ask for."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Interval:
    """A mean of paired differences, its t interval and the p value of no difference.

    Attributes:
        mean: of the differences.
        low: lower end; None for one difference.
        high: upper end; None for one difference.
        p: two-sided; None for one difference, and 1 where all are the same: no spread can be read off them.
    """

    mean: float
    low: float | None
    high: float | None
    p: float | None


def t_interval(differences: Sequence[float], *, ratio: float = 0.0, confidence: float = 0.95) -> Interval:
    r"""The t interval of a mean of paired differences, corrected where they share training samples.

    .. math:: \bar d \pm t_{k-1} \sqrt{\left(\frac{1}{k} + \rho\right) s^2}

    with :math:`\rho = n_\text{test} / n_\text{train}` for folds of one data set (Nadeau and Bengio, 2003), which
    overlap in what they train on, so that their differences vary together; and 0 for independent ones.

    Args:
        differences: (k,), at least one.
        ratio: :math:`\rho`, at least 0.
        confidence: of the interval, in (0, 1).
    """
    count, mean = len(differences), statistics.fmean(differences)
    if count < 2:
        return Interval(mean, None, None, None)
    from scipy.stats import t

    error = math.sqrt((1 / count + ratio) * statistics.variance(differences))
    half = float(t.ppf((1 + confidence) / 2, count - 1)) * error
    p = 2 * float(t.sf(abs(mean) / error, count - 1)) if error else 1.0
    return Interval(mean, mean - half, mean + half, p)


def holm(p: Mapping[str, float]) -> dict[str, float]:
    r"""Holm's correction (1979) of the p values of several comparisons.

    The chance of claiming one difference or more where there is none stays below the level for all of them together,
    however they depend on each other.

    Args:
        p: name of a comparison -> its p value.

    Returns:
        The same names, with :math:`\max_{j \le i} \min(1, (m - j + 1) p_{(j)})` for the i-th smallest of m.
    """
    adjusted, largest = {}, 0.0
    for place, name in enumerate(sorted(p, key=lambda name: p[name])):
        largest = max(largest, min(1.0, (len(p) - place) * p[name]))
        adjusted[name] = largest
    return {name: adjusted[name] for name in p}
