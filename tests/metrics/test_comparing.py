"""Intervals of paired differences and Holm's correction, against references that are computed otherwise."""

from __future__ import annotations

import math

import pytest
from scipy import stats

from counterpoise.metrics.comparing import holm, t_interval

DIFFERENCES = [0.031, -0.012, 0.044, 0.027, 0.009, 0.038]


def test_without_a_ratio_it_is_the_t_test_of_one_sample() -> None:
    found = t_interval(DIFFERENCES, confidence=0.9)
    reference = stats.ttest_1samp(DIFFERENCES, 0.0)
    low, high = reference.confidence_interval(0.9)
    assert (found.low, found.high, found.p) == pytest.approx((low, high, reference.pvalue), rel=1e-12)


@pytest.mark.parametrize("ratio", [0.2, 1 / 23])
def test_the_correction_of_nadeau_and_bengio_in_float64(ratio) -> None:
    found = t_interval(DIFFERENCES, ratio=ratio)
    k = len(DIFFERENCES)
    mean = math.fsum(DIFFERENCES) / k
    variance = math.fsum((d - mean) ** 2 for d in DIFFERENCES) / (k - 1)
    error = math.sqrt((1 / k + ratio) * variance)
    quantile = 2.5705818366147395  # of t with 5 degrees of freedom at 0.975, from tables
    assert found.mean == pytest.approx(mean, rel=1e-14)
    assert (found.low, found.high) == pytest.approx((mean - quantile * error, mean + quantile * error), rel=1e-7)
    x = 5 / (5 + (mean / error) ** 2)  # the t distribution as an incomplete beta function
    from scipy.special import betainc

    assert found.p == pytest.approx(float(betainc(2.5, 0.5, x)), rel=1e-10)


def test_it_is_wider_than_the_uncorrected_one_by_the_factor_of_the_paper() -> None:
    plain, wide = t_interval(DIFFERENCES), t_interval(DIFFERENCES, ratio=0.2)
    assert plain.high is not None
    assert wide.high is not None
    assert (wide.high - wide.mean) / (plain.high - plain.mean) == pytest.approx(math.sqrt(1 + 6 * 0.2))


def test_what_has_no_spread_claims_nothing() -> None:
    assert t_interval([0.5]).p is None
    assert t_interval([0.5]).low is None
    assert t_interval([0.1, 0.1, 0.1]).p == 1


@pytest.mark.parametrize(
    ("p", "expected"),
    [
        # statsmodels' documentation of multipletests(method="holm") and R's p.adjust give these
        ([0.01, 0.02, 0.03, 0.04, 0.05], [0.05, 0.08, 0.09, 0.09, 0.09]),
        ([0.04, 0.001, 0.6], [0.08, 0.003, 0.6]),
        ([0.5, 0.9], [1.0, 1.0]),
        ([0.02], [0.02]),
    ],
)
def test_holm(p, expected) -> None:
    names = [*"abcde"][: len(p)]
    found = holm(dict(zip(names, p, strict=True)))
    assert list(found) == names
    assert list(found.values()) == pytest.approx(expected)


def test_holm_of_nothing_is_nothing() -> None:
    assert holm({}) == {}
