import math

import pytest
import torch

from counterpoise.functional.rates import accuracy_ratio, smoothed_rates


def test_ratio_oracle():
    history = torch.tensor([[0.30], [0.34], [0.38], [0.40], [0.42]], dtype=torch.float64)
    assert float(accuracy_ratio(history, torch.tensor([0.45], dtype=torch.float64))) == pytest.approx(
        1.222826, abs=1e-6
    )


def test_constant_accuracy_keeps_the_rate():
    assert accuracy_ratio(torch.full((5, 3), 0.25), torch.full((3,), 0.25)).tolist() == [1.0, 1.0, 1.0]


def test_no_accuracy_at_all_keeps_the_rate():
    ratio = accuracy_ratio(torch.tensor([[0.0, 0.5], [0.0, 0.25]]), torch.tensor([0.3, 0.0]))
    assert ratio.tolist() == [1.0, 0.0]


def test_smoothing_pulls_to_the_geometric_mean():
    rates = {"a": 0.1, "b": 1.0, "c": 4.0}
    assert smoothed_rates(rates, 0.0) == rates
    mean = math.prod(rates.values()) ** (1 / 3)
    assert list(smoothed_rates(rates, 1.0).values()) == pytest.approx([mean] * 3)
    half = smoothed_rates(rates, 0.5)
    assert half == pytest.approx({m: math.sqrt(r * mean) for m, r in rates.items()})
    assert math.prod(half.values()) == pytest.approx(math.prod(rates.values()))


def test_zero_has_no_logarithm():
    assert smoothed_rates({"a": 0.0, "b": 1.0}, 0.0) == {"a": 0.0, "b": 1.0}
    with pytest.raises(ValueError, match="rates\\['a'\\]"):
        smoothed_rates({"a": 0.0, "b": 1.0}, 0.5)
