from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from counterpoise.analysis import BalanceCurves
from counterpoise.benchmark.grid import RunConfig
from counterpoise.cli import main
from counterpoise.studies.diagnosis import Diagnosis, Evidence, Measured, clear, headline, judge, recommend

DATA = ["--data", "digits", "--data.size", "150", "--epochs", "1", "--batch_size", "16", "--progress", "false"]
WELL = Evidence(400, 0.1, 0.7, 0.7, 0.7, 0.7, 0.3, 0.1, 0.5)
NOTHING = replace(WELL, alone=0.11, inside=0.1, probe_alone=0.12, probe_inside=0.1)
STARVED = replace(WELL, inside=0.3, probe_inside=0.4)


def balance(alignment: float = 0.5, conflict: float = np.nan, fused: Sequence[float] = (2, 1.5, 0.5)) -> BalanceCurves:
    """Three rows of two modalities; losses fall by one nat, and the gap grows by half a nat."""
    ones, zero = np.ones((3, 2)), np.zeros((3, 2))
    train = np.array([[2.0, 2], [1.0, 1], [0.5, 0.5]])
    pairs = np.full((3, 2, 2), conflict)
    val, fused_val = np.array([[2.0, 2], [1.5, 1.5], [1.0, 1.0]]), np.array(fused, dtype=float)
    return BalanceCurves(
        np.arange(3), ones, ones / 10, zero + alignment, pairs, train, val, np.array([2.0, 1, 0.1]), fused_val
    )


def one(audio: Evidence = WELL, image: Evidence = WELL, fused: float = 0.8, seed: int = 0) -> Measured:
    epochs = {"Joint": 2, "audio": 2, "image": 2}
    return Measured(
        seed, 400, 0.1, fused, {}, {"audio": audio, "image": image}, {}, None, {"audio": None, "image": None}, epochs
    )


def found(audio: Evidence = WELL, image: Evidence = WELL, fused: float = 0.8) -> Diagnosis:
    return Diagnosis("Joint", "accuracy", [one(audio, image, fused)])


# -- verdict -------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("diagnosis", "answer", "about_audio", "advice"),
    [
        (found(), "Balanced", "not starved", "stay with joint"),
        (found(STARVED), "starves audio", "starved. ", "keep audio from being held back"),
        (found(replace(WELL, inside=0.3, contribution=0.05)), "hardly uses", "hardly used", "--fusion Late"),
        (found(replace(WELL, inside=0.3)), "Balanced", "not starved", "stay with joint"),  # it contributes its share
        (found(NOTHING), "Not imbalanced", "chance", "encoder of audio"),
        (found(fused=0.5), "fusing costs", "not starved", "fusing hurts"),
        (found(NOTHING, NOTHING, 0.1), "No answer yet", "chance", "Train longer"),
    ],
)
def test_the_verdict_follows_the_evidence(diagnosis: Diagnosis, answer: str, about_audio: str, advice: str) -> None:
    said = recommend(diagnosis)
    assert answer in headline(diagnosis)
    assert said[0].startswith("audio: ")
    assert about_audio in said[0]
    assert advice in said[-1]
    assert sum("Recommendation" in line for line in said) == 1
    assert str(diagnosis).splitlines() == [headline(diagnosis), *said]


def test_few_samples_give_no_verdict() -> None:
    starved = replace(WELL, inside=0.4, probe_inside=0.55)
    assert "starved. " in recommend(found(starved))[0]
    assert "not starved as far as 20 samples tell" in recommend(found(replace(starved, samples=20)))[0]


def test_a_prediction_that_flatters_is_not_enough() -> None:
    # the best of many epochs on noise is above chance, a linear classifier on its encoder is not
    flattered = found(replace(NOTHING, alone=0.2))
    assert judge(flattered).weak == ("audio",)
    # but it is no sign either that there is nothing to learn
    assert headline(flattered).startswith("No imbalance shown: audio could not be judged")
    assert "judge audio on more samples" in recommend(flattered)[-1]
    assert "little to learn from audio" in headline(found(NOTHING))


def test_a_difference_that_samples_show_can_be_too_small_to_matter() -> None:
    many = replace(WELL, samples=10**6, probe_inside=0.69)
    assert judge(found(many)).starved == ()
    assert judge(found(replace(many, probe_inside=0.67))).starved == ("audio",)


def test_clear_is_about_sampling() -> None:
    assert clear(0.7, 0.6, 1000)
    assert not clear(0.7, 0.6, 50)
    assert not clear(0.6, 0.7, 1000)
    assert not clear(1.0, 1.0, 5)
    assert not clear(1.0, 0.8, 5)


def test_clear_over_seeds() -> None:
    assert clear(np.array([0.70, 0.71, 0.69]), np.array([0.60, 0.61, 0.60]), 1000)
    assert not clear(np.array([0.90, 0.70, 0.61]), np.array([0.60, 0.61, 0.60]), 1000)  # seeds differ too much
    assert not clear(np.array([0.75, 0.75, 0.60]), np.array([0.60, 0.60, 0.61]), 100000)  # and not all agree
    # by hand: a gap of 0.06 and 0.10 about 0.65 on n samples; 4 (2 x 0.65 x 0.35 / n + 0.0008 / 2) = 0.08^2 at n = 379
    gap = np.array([0.68, 0.70]), np.array([0.62, 0.60])
    assert clear(*gap, 400)
    assert not clear(*gap, 360)


def test_seeds_are_taken_together() -> None:
    seeds = [one(STARVED), one(replace(STARVED, probe_inside=0.45), seed=1)]
    diagnosis = Diagnosis("Joint", "accuracy", seeds)
    assert judge(diagnosis).starved == ("audio",)
    assert "42.5 ± 3.5 %" in recommend(diagnosis)[0]
    seeds[1] = one(replace(STARVED, probe_inside=0.71), seed=1)
    assert judge(diagnosis).starved == ()


# -- what is shown beside it ---------------------------------------------------------------------------
def watched_run(audio: Evidence, **options: float) -> Diagnosis:
    run = balance(**options)
    return Diagnosis("Joint", "accuracy", [replace(one(audio), balance=run, alone={"audio": run, "image": run})])


def test_overfitting_ratio_is_that_of_the_selected_epoch() -> None:
    diagnosis = watched_run(WELL)
    # audio: 2 -> 0.5 in training and 2 -> 1 on validation; fused: 2 -> 0.1 and 2 -> 0.5
    np.testing.assert_allclose(diagnosis.overfitting("audio"), [[0.5, 1.0, 0.5]])
    np.testing.assert_allclose(diagnosis.overfitting(), [[0.4, 1.5, 0.4 / 1.5]])
    text = next(line for line in recommend(diagnosis) if "Overfitting" in line)
    assert "fused 0.27; alone, audio 0.50, image 0.50" in text
    early = Diagnosis("Joint", "accuracy", [replace(diagnosis.measured[0], epochs={"Joint": 1, "audio": 1})])
    np.testing.assert_allclose(early.overfitting(), [[0.5, 0.5, 1.0]])
    worse = replace(diagnosis.measured[0], balance=balance(fused=(2, 3, 4)))
    assert np.isinf(Diagnosis("Joint", "accuracy", [worse]).overfitting()[0, 2])
    assert np.isnan(found().overfitting()).all()


@pytest.mark.parametrize(
    ("gradients", "first"), [({}, "MLA,IGM"), ({"alignment": -0.1}, "MMPareto"), ({"conflict": -0.2}, "oppose")]
)
def test_the_advice_looks_at_the_gradients(gradients: dict[str, float], first: str) -> None:
    said = recommend(watched_run(STARVED, **gradients))
    assert first in said[-1]
    assert ("MMPareto" in said[-1]) == ("alignment" in gradients)
    assert ("oppose" in said[-1]) == ("conflict" in gradients)
    assert judge(watched_run(STARVED, **gradients)) == judge(found(STARVED))


def test_overfitting_decides_what_to_try_when_fusing_hurts() -> None:
    hurt = watched_run(WELL).measured[0]
    for fused, blending in ((0.5, False), (1.9, True)):
        run = replace(hurt, fused=0.5, balance=balance(fused=(2, 1.95, fused)))
        assert ("GBlending" in recommend(Diagnosis("Joint", "accuracy", [run]))[-1]) == blending


# -- the command ---------------------------------------------------------------------------------------
def test_the_command_writes_page_and_evidence(started: list[RunConfig], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["diagnose", *DATA, "--out", "d", "--seeds", "0,1"])
    assert not left.value.code
    assert len(started) == 6
    said = capsys.readouterr().out
    evidence = json.loads(Path("d/diagnosis.json").read_text())
    assert all(line in said for line in [evidence["headline"], *evidence["said"]])
    assert [run["seed"] for run in evidence["measured"]] == [0, 1]
    for run in evidence["measured"]:
        # Shapley shares add up to what the fused prediction gains on chance
        total = sum(e["contribution"] for e in run["modalities"].values())
        assert total == pytest.approx(run["fused"] - run["chance"], abs=1e-6)
        assert run["balance"]["epoch"] == [0, 1]
        assert run["alone"]["audio"]["val_loss"][0][1] is None  # a run on one modality reads no other
    page = Path("d/diagnosis.html").read_text()
    assert "Recommendation" in page
    assert page.count("<svg") == 5
    for name in ("scores", "contributions", "curves", "gradients", "overfitting"):
        assert Path(f"d/diagnosis-{name}.png").stat().st_size > 5000
