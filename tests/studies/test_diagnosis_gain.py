"""What a diagnosis expects of ``auto``: a gain, none, or undecided, with the number of samples that would decide."""

import math
from dataclasses import replace

import numpy as np
import pytest
from test_diagnosis import WELL, found, one

from counterpoise.studies.diagnosis.diagnosis import Diagnosis
from counterpoise.studies.diagnosis.expected_gain import expected_gain
from counterpoise.studies.diagnosis.words import sentences


def test_a_clear_gain_of_the_averaged_models():
    expected = expected_gain(found(apart=0.9))  # 10 points on 400 samples, of which a fifth differ
    assert expected.value == pytest.approx(0.1)
    assert expected.error == pytest.approx(math.sqrt((0.2 - 0.01) / 400))
    assert (expected.verdict, expected.needed) == ("gain", None)
    assert "it may gain +10.0 points [+5.6, +14.4] over Joint: start there." in sentences(found(apart=0.9))[-1]


def test_none_where_training_together_is_better():
    diagnosis = found(apart=0.6)
    assert expected_gain(diagnosis).verdict == "none"
    assert sentences(diagnosis)[-1].endswith("not to be expected here.")


def test_undecided_says_how_many_samples_would_decide():
    expected = expected_gain(found(apart=0.83))  # 3 points: 2 standard errors of 2.2
    assert expected.verdict == "undecided"
    needed = math.ceil(4 * (0.2 - 0.03**2) / 0.03**2)
    assert expected.needed == needed == 885
    assert "undecided, which about 885 validation samples would decide." in sentences(found(apart=0.83))[-1]
    # on so many samples it would be clear
    assert 2 * math.sqrt((0.2 - 0.03**2) / needed) - 1e-6 < 0.03


def test_undecided_without_a_difference_needs_no_number():
    expected = expected_gain(found(apart=0.8))
    assert (expected.verdict, expected.needed) == ("undecided", None)
    assert sentences(found(apart=0.8))[-1].endswith("undecided.")


def test_the_best_modality_alone_counts_where_it_is_better_than_the_average():
    strong = replace(WELL, alone=0.95)
    expected = expected_gain(found(audio=strong, apart=0.7))
    assert expected.value == pytest.approx(0.15)


def test_seeds_count():
    seeds = [one(apart=value, seed=place) for place, value in enumerate((0.95, 0.75, 1.0))]
    expected = expected_gain(Diagnosis("Joint", "accuracy", seeds))
    spread = np.var([0.15, -0.05, 0.2], ddof=1) / 3
    assert expected.error == pytest.approx(math.sqrt((0.2 - 0.1**2) / 400 + spread))
    assert expected.verdict == "undecided"
