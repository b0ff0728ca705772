import math

import pytest
import torch
from torch import nn

from counterpoise.functional import conditional_speed, leaning_most


def parameter(weight, grad):
    p = nn.Parameter(torch.tensor(weight))
    p.grad = None if grad is None else torch.tensor(grad)
    return p


def test_speed_is_over_the_whole_set():
    params = [parameter([1.0, 2.0], [0.5, 0.0]), parameter([[3.0]], [[2.0]]), parameter([1.0], None)]
    assert conditional_speed(params).item() == pytest.approx(4.25 / 15)
    assert conditional_speed([parameter([0.0], [1.0])]) == 0
    assert conditional_speed([parameter([1.0], None)]) == 0


def test_the_worked_example():
    main, bypass = [0.0, 0.0], [0.0, 0.0]
    for own, by in (((0.04, 0.02), (0.01, 0.03)), ((0.02, 0.02), (0.02, 0.02))):
        for m in (0, 1):
            main[m] += own[m] / 4
            bypass[m] += by[m] / 2
    ratios = [math.log10(b / a) for a, b in zip(main, bypass, strict=True)]
    assert ratios == pytest.approx([0, 0.3979400087], abs=1e-9)
    assert leaning_most(main, bypass, 0.39) == 1
    assert leaning_most(main, bypass, 0.4) is None


def test_the_range_over_three_modalities_and_sums_of_nothing():
    assert leaning_most([1, 1, 1], [1, 10, 5], 0.9) == 1
    assert leaning_most([1, 1, 1], [1, 10, 5], 1.1) is None
    assert leaning_most([1, 0], [1, 1], 0) is None
    assert leaning_most([1, 1], [1, 0], 0) is None
    assert leaning_most([1, 1], [1, 1], 0) is None
