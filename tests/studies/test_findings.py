"""A study's section begins with a sentence made from its numbers."""

from __future__ import annotations

import pytest

from counterpoise.benchmark.cells import Difference
from counterpoise.studies import (
    ablation,
    comparison,
    gradient_change,
    imbalance,
    interaction,
    landscape,
    pretrained,
    scope,
    sensitivity,
    singular_values,
    training_time,
)
from counterpoise.studies.base import strokes, told

SCORES = {"split": "test", "metric": "accuracy"}


def cells(**fused: list[float]) -> dict:
    return {row: {"fused": {str(seed): v for seed, v in enumerate(values)}} for row, values in fused.items()}


def test_what_an_interval_shows_comes_before_what_it_does_not():
    shown, unsure = Difference(0.023, 0.002, 0.043, 5), Difference(0.009, -0.012, 0.031, 5)
    text = told({"GM": unsure, "taking turns": shown, "nothing": None}, "accuracy")
    assert text == "taking turns +2.3 [+0.2, +4.3]. Not shown: GM +0.9 [−1.2, +3.1]."
    assert told({"GM": Difference(0.1, None, None, 1)}, "accuracy").startswith("GM +10.0: of one seed")
    assert told({"GM": unsure}, "accuracy") == "not shown: GM +0.9 [−1.2, +3.1]."
    assert told({"GM": None}, "accuracy") == "No two rows have a seed in common."
    assert (strokes([1, 1]), strokes([])) == (".", ".")
    assert "± sd" in strokes([1, 3])


def test_ablation_scope_pretrained_and_interaction_tell_their_differences():
    rows = cells(joint=[0.5, 0.52], turns=[0.7, 0.724])
    assert "accuracy: turns +20.2 [+17.7, +22.7]" in ablation.finding({**SCORES, "rows": rows})
    rows = cells(off=[0.5, 0.5], head=[0.6, 0.4])
    assert "beside no matrices: not shown: head +0.0 [" in scope.finding({**SCORES, "rows": rows})
    rows = cells(plain=[0.5], IGM=[0.6])
    assert "plain 50.0; beside it IGM +10.0: of one seed" in pretrained.finding({**SCORES, "rows": rows})
    stages = {row: {"0": {"fused": [0.1, v]}} for row, v in ((interaction.ALL, 0.5), (interaction.NONE, 0.4))}
    assert "no direction −10.0" in interaction.finding({"metric": "accuracy", "rows": stages})


def test_imbalance_and_sensitivity_tell_the_ends():
    rows = {"audio alone": {"audio": {"0": 0.8}}, "Joint": {"audio": {"0": 0.3}, "fused": {"0": 0.7}}}
    data = {
        "method": "Joint",
        "modalities": ["audio", "image"],
        "metric": "accuracy",
        "scores": {**SCORES, "rows": rows},
    }
    assert imbalance.finding(data) == "Test accuracy (%): audio scores 30.0 inside Joint and 80.0 alone."
    swept = {"accuracy": {"0.4": {"0": 0.5, "1": 0.6}, "20": {"0": 0.9, "1": 0.9}}}
    text = sensitivity.finding({"method": "IGM", "panels": {"method.tau": swept}})
    assert "over tau the fused accuracy (%) is 55.0 (at 0.4) to 90.0 (at 20), standard deviations" in text
    assert "One seed" in sensitivity.finding(
        {"method": "IGM", "panels": {"method.tau": {"accuracy": {"1": {"0": 0.5}}}}}
    )


def test_costs_curvature_angles_and_spectra_are_told():
    rows = {"Joint": {"0": {"seconds": 1.0, "score": 0.5}}, "IGM": {"0": {"seconds": 9.0, "score": 0.7}}}
    text = training_time.finding({**SCORES, "rows": rows})
    assert "cheapest is Joint (1.0 s, 50.0); best on average IGM (9.0 s, 70.0)" in text
    surfaces = {"IGM, fused": {"method": "IGM", "prediction": "fused", "eigenvalue": 14.1, "sharpness": 0.00684}}
    assert "seed 2 alone: IGM 14.1 (SAM rise 0.0068)" in landscape.finding({"seed": 2, "surfaces": surfaces})
    changes = [{"row": "MLA", "n": 9, "mean": 0.128, "below": 0.37}, {"row": "IGM", "n": 0}]
    assert "MLA 0.128 (37.0 % below 0.08)." in gradient_change.finding({"threshold": 0.08, "changes": changes})
    spectra = [
        {"row": row, "seed": 0, "modality": "audio", "layer": "64x10", "mean": mean}
        for row, mean in (("IGM", 1.0), ("IGM without SAM", 2.0))
    ]
    assert "audio 64x10 0.50." in singular_values.finding({"spectra": spectra})


@pytest.mark.parametrize("seeds", [1, 3])
def test_comparison_tells_the_best_and_who_is_beside_joint_training(seeds: int):
    records = [
        {
            "method": method,
            "seed": seed,
            "data": "toy",
            "modalities": ["a", "b"],
            "seconds": 1.0,
            "monitor": "accuracy",
            "test": {"fused/accuracy": score + 0.01 * seed},
        }
        for method, score in (("Joint", 0.5), ("IGM", 0.6), ("PMR", 0.4))
        for seed in range(seeds)
    ]
    text = comparison.finding({"split": "test", "records": records})
    assert "Best on average: IGM" in text
    if seeds == 3:
        assert "above it IGM +10.0 [+10.0, +10.0]; below it PMR −10.0" in text
    else:
        assert text.endswith("Beside Joint there are no intervals: one seed says nothing of the spread.")
