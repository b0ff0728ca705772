"""Numbers that users pass in."""

import numpy as np
import pytest

import counterpoise as cp
from counterpoise._checks import number, settings, whole

WRONG = [True, float("nan"), float("inf"), "3", None, -1, np.float32("nan"), np.bool_(True)]


@pytest.mark.parametrize("wrong", WRONG)
def test_what_is_no_number_in_the_range_is_refused(wrong):
    with pytest.raises(ValueError, match=r"n must be a finite number >= 0; got"):
        number("n", wrong, low=0)


@pytest.mark.parametrize("wrong", [*WRONG, 0.5, 3.0, np.float32(3)])
def test_a_count_is_not_rounded(wrong):
    with pytest.raises(ValueError, match=r"n must be a whole number >= 0; got"):
        whole("n", wrong, low=0)
    with pytest.raises(ValueError, match=r"warmup must be a whole number >= 0; got"):
        cp.methods.OPM(warmup=wrong)


def test_numbers_of_a_numpy_grid_are_numbers():
    method = cp.methods.IGM(tau=np.float32(0.5))
    assert settings(method)["tau"] == 0.5
    assert type(settings(method)["tau"]) is float
    assert settings(cp.methods.OPM(warmup=np.int64(3)))["warmup"] == 3
