"""Relative and effective robustness against the equations, and MultiBench's own grid of levels."""

from __future__ import annotations

import numpy as np
import pytest

from counterpoise.metrics import effective_robustness, relative_robustness


def test_relative_is_the_mean_height_and_multibenchs_area_on_its_levels():
    f = np.random.default_rng(0).random(11)
    area = sum((f[i] + f[i + 1]) * 0.1 / 2 for i in range(10))  # the released rule: eleven levels, 0.1 apart
    assert relative_robustness(list(f)) == pytest.approx(area, abs=1e-14)
    places = [0.0, 0.1, 0.5, 2.0]
    expected = np.trapezoid(f[:4], places) / 2.0
    assert relative_robustness(list(f[:4]), places) == pytest.approx(expected, abs=1e-14)
    assert relative_robustness([0.7, 0.7, 0.7], [0, 1, 5]) == pytest.approx(0.7)


def test_effective_is_what_is_left_of_the_lead_after_the_clean_scores_agree():
    f, g = np.random.default_rng(1).random((2, 5))
    beta = g + (f[0] - g[0])
    assert effective_robustness(list(f), list(g)) == pytest.approx((f - beta).sum() / 4, abs=1e-14)
    assert effective_robustness(list(g), list(g)) == 0
    assert effective_robustness(list(g + 0.2), list(g)) == pytest.approx(0, abs=1e-14)  # better, and no more robust


@pytest.mark.parametrize(("scores", "places"), [([0.5], None), ([0.5, 0.4], [0.0]), ([0.5, 0.4], [1.0, 1.0])])
def test_what_is_no_curve_is_refused(scores: list[float], places: list[float] | None):
    with pytest.raises(ValueError, match=r"two levels|increase"):
        relative_robustness(scores, places)
    with pytest.raises(ValueError, match="two levels"):
        effective_robustness([0.5, 0.4], [0.5])
