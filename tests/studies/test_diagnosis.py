from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from counterpoise.analysis import BalanceCurves
from counterpoise.cli import main
from counterpoise.recipe.recipe import Recipe
from counterpoise.studies.diagnosis.diagnosis import Diagnosis
from counterpoise.studies.diagnosis.evidence import ModalityEvidence, SeedEvidence
from counterpoise.studies.diagnosis.verdict import TRACK_RECORDS, clearly_better, judge
from counterpoise.studies.diagnosis.words import headline, sentences

DATA = ["--data", "digits", "--data.size", "150", "--epochs", "1", "--batch_size", "16", "--progress", "false"]
WELL = ModalityEvidence(400, 0.1, 0.7, 0.7, 0.7, 0.7, 0.8, 0.5, 0.4, 0.3, 0.3, 0.1, 0.5)
NOTHING = replace(WELL, alone=0.11, inside=0.1, probe_alone=0.12, probe_inside=0.1)
STARVED = replace(WELL, inside=0.3, probe_inside=0.4)
HIDDEN = replace(WELL, inside=0.3)
UNUSED = replace(WELL, inside=0.3, contribution=0.05)


def balance(alignment: float = 0.5, conflict: float = np.nan, fused: Sequence[float] = (2, 1.5, 0.5)) -> BalanceCurves:
    """Three rows of two modalities; losses fall by one nat, and the gap grows by half a nat."""
    ones, zero = np.ones((3, 2)), np.zeros((3, 2))
    train = np.array([[2.0, 2], [1.0, 1], [0.5, 0.5]])
    pairs = np.full((3, 2, 2), conflict)
    val, fused_val = np.array([[2.0, 2], [1.5, 1.5], [1.0, 1.0]]), np.array(fused, dtype=float)
    return BalanceCurves(
        np.arange(3), ones, ones / 10, zero + alignment, pairs, train, val, np.array([2.0, 1, 0.1]), fused_val
    )


def one(
    audio: ModalityEvidence = WELL,
    image: ModalityEvidence = WELL,
    fused: float = 0.8,
    seed: int = 0,
    apart: float | None = None,
) -> SeedEvidence:
    """``apart``: what the models of one modality each reach together; as much as the joint model unless given."""
    epochs = {"Joint": 2, "audio": 2, "image": 2}
    found = {m: replace(e, fused=fused) for m, e in (("audio", audio), ("image", image))}
    together = fused if apart is None else apart
    return SeedEvidence(
        seed, 400, 0.1, fused, together, 0.2, {}, found, {}, None, {"audio": None, "image": None}, epochs
    )


def found(
    audio: ModalityEvidence = WELL, image: ModalityEvidence = WELL, fused: float = 0.8, apart: float | None = None
) -> Diagnosis:
    return Diagnosis("Joint", "accuracy", [one(audio, image, fused, apart=apart)])


# -- verdict -------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("diagnosis", "answer", "about_audio", "advice"),
    [
        (found(), "Balanced", "not starved", "stay with joint"),
        (found(STARVED), "starves audio", "starved. ", "MMPareto,MSES"),
        (found(STARVED, apart=0.9), "starves audio", "starved. ", "Joint,MLA,IGM"),
        (found(STARVED, apart=0.6), "starves audio", "starved. ", "give up what the joint model learns"),
        (found(apart=0.9), "trained apart they predict better", "not starved", "Joint,MLA,IGM"),
        (found(apart=0.7), "Balanced", "not starved", "stay with joint"),
        (found(UNUSED), "hardly uses", "hardly used", "--fusion Late"),
        (found(UNUSED, apart=0.9), "hardly uses", "hardly used", "keep audio from being held back"),
        (found(replace(WELL, inside=0.45)), "Balanced", "not starved", "stay with joint"),  # it contributes its share
        (found(HIDDEN), "Not settled", "hidden. ", "compare with training in turns"),
        (found(HIDDEN, apart=0.7), "Balanced", "hidden. ", "stay with joint"),
        (found(HIDDEN, apart=0.9), "trained apart they predict better", "hidden. ", "Joint,MLA,IGM"),
        (found(HIDDEN, fused=0.5, apart=0.5), "fusing costs", "hidden. ", "Joint,MLA,IGM,MSES"),
        (found(HIDDEN, STARVED), "starves image", "hidden. ", "MMPareto"),
        (found(NOTHING), "Not imbalanced", "chance", "encoder of audio"),
        (found(fused=0.5, apart=0.5), "fusing costs", "not starved", "Joint,MLA,IGM,MSES"),
        (found(STARVED, fused=0.5, apart=0.5), "starves audio", "starved. ", "audio held back, and fusing hurts"),
        (found(NOTHING, NOTHING, 0.1), "No answer yet", "chance", "Train longer"),
    ],
)
def test_the_verdict_follows_the_evidence(diagnosis: Diagnosis, answer: str, about_audio: str, advice: str) -> None:
    said = sentences(diagnosis)
    assert answer in headline(diagnosis)
    assert said[0].startswith("audio: ")
    assert about_audio in said[0]
    assert advice in said[-1]
    assert sum("Recommendation" in line for line in said) == 1
    assert str(diagnosis).splitlines() == [headline(diagnosis), *said]


@pytest.mark.parametrize(
    ("diagnosis", "given"),
    [
        (found(), ()),
        (found(STARVED), ("starved",)),
        (found(HIDDEN), ("hidden",)),
        (found(apart=0.9), ("apart",)),
        (found(STARVED, fused=0.5, apart=0.6), ("apart", "hurts", "starved")),
    ],
)
def test_a_verdict_says_how_often_it_was_right(diagnosis: Diagnosis, given: tuple[str, ...]) -> None:
    said = sentences(diagnosis)[-2]
    names = {part: part for part in TRACK_RECORDS} | {"apart": "better apart", "hurts": "fusing costs accuracy"}
    for part, (where, elsewhere) in TRACK_RECORDS.items():
        same = where if part in given else elsewhere
        which = "with" if part in given else "without"
        assert f'{same.units} units {which} "{names[part]}" {same.gained} gained and {same.lost} lost' in said


def test_the_counts_are_those_of_the_page() -> None:
    page = (Path(__file__).parents[2] / "docs" / "studies.md").read_text(encoding="utf-8")
    for part, records in TRACK_RECORDS.items():
        for name, record in zip((part, f"not {part}"), records, strict=True):
            (row,) = [line for line in page.splitlines() if line.startswith(f"| {name} | ") and " lose |" in line]
            units, alternation = row.split(" | ")[1:3]
            assert int(units) == record.units
            assert alternation.endswith(f"; {record.gained} gain, {record.lost} lose")
    assert len({sum(record.units for record in records) for records in TRACK_RECORDS.values()}) == 1


@pytest.mark.parametrize(
    ("fused", "apart", "differ", "samples", "answer"),
    [
        (0.50, 0.56, 0.10, 400, (True, False)),  # 0.06 against twice sqrt((0.102 - 0.0036) / 400) = 0.031
        (0.50, 0.56, 0.10, 80, (False, False)),  # 0.070 on 80 samples
        (0.50, 0.56, 0.50, 400, (False, False)),  # they disagree on half of the samples: 0.070
        (0.50, 0.515, 0.02, 4000, (False, False)),  # sure, and less than two points
        (0.56, 0.50, 0.10, 400, (False, True)),
        (0.90, 0.97, 0.08, 200, (True, False)),
        (0.97, 0.90, 0.08, 200, (False, True)),
        (0.70, 0.70, 0.30, 400, (False, False)),
    ],
)
def test_training_apart_is_compared_sample_by_sample(
    fused: float, apart: float, differ: float, samples: int, answer: tuple[bool, bool]
) -> None:
    measured = replace(one(fused=fused), apart=apart, apart_differ=differ, samples=samples)
    verdict = judge(Diagnosis("Joint", "accuracy", [measured]))
    assert (verdict.apart, verdict.together) == answer


@pytest.mark.parametrize(
    ("inside", "differ", "samples", "starved"),
    [
        (0.567, 0.25, 215, True),  # 0.103 against twice sqrt(0.25 / 215) = 0.067; as independent: 0.095
        (0.60, 0.15, 215, True),
        (0.60, 0.60, 215, False),
        (0.60, 0.15, 60, False),
        (0.685, 0.03, 4000, False),  # less than two points
        (0.75, 0.15, 215, False),
    ],
)
def test_linear_classifiers_are_compared_sample_by_sample(
    inside: float, differ: float, samples: int, starved: bool
) -> None:
    audio = replace(WELL, probe_alone=0.67, probe_inside=inside, probes_differ=differ, samples=samples)
    assert judge(found(audio)).starved == (("audio",) if starved else ())


@pytest.mark.parametrize(
    ("inside", "alone", "samples", "hidden"),
    [
        (0.18, 0.70, 108, True),  # 0.08 of 0.60 above chance
        (0.39, 0.70, 400, True),  # 0.29 of 0.60
        (0.41, 0.70, 400, False),  # 0.31 of 0.60
        (0.12, 0.20, 40, False),  # too few to tell
        (0.70, 0.70, 400, False),
    ],
)
def test_a_prediction_that_keeps_less_than_half_is_hidden(
    inside: float, alone: float, samples: int, hidden: bool
) -> None:
    audio = replace(WELL, inside=inside, alone=alone, samples=samples)
    assert judge(found(audio)).hidden == (("audio",) if hidden else ())


def test_what_the_samples_cannot_show_is_a_number() -> None:
    # by hand: 2 sqrt(0.2 / 400) = 4.5 points
    assert "400 validation samples show no difference below 4.5 points" in sentences(found(HIDDEN))[-1]


@pytest.mark.parametrize(
    ("fused", "differ", "hurts"), [(0.60, 0.3, True), (0.65, 0.2, True), (0.65, 0.6, False), (0.75, 0.2, False)]
)
def test_the_best_modality_is_compared_sample_by_sample(fused: float, differ: float, hurts: bool) -> None:
    image = replace(WELL, fused_differ=differ, alone=0.71)
    assert judge(found(WELL, image, fused)).hurts == hurts


def test_seeds_that_disagree_say_nothing_of_training_apart() -> None:
    seeds = [one(apart=0.9), one(apart=0.88, seed=1), one(apart=0.79, seed=2)]
    assert not judge(Diagnosis("Joint", "accuracy", seeds)).apart
    seeds[2] = one(apart=0.87, seed=2)
    assert judge(Diagnosis("Joint", "accuracy", seeds)).apart


def test_few_samples_give_no_verdict() -> None:
    starved = replace(WELL, inside=0.4, probe_inside=0.55)
    assert "starved. " in sentences(found(starved))[0]
    assert "not starved as far as 20 samples tell" in sentences(found(replace(starved, samples=20)))[0]


def test_a_prediction_that_flatters_is_not_enough() -> None:
    # the best of many epochs on noise is above chance, a linear classifier on its encoder is not
    flattered = found(replace(NOTHING, alone=0.2))
    assert judge(flattered).weak == ("audio",)
    # but it is no sign either that there is nothing to learn
    assert headline(flattered).startswith("No imbalance shown: audio could not be judged")
    assert "judge audio on more samples" in sentences(flattered)[-1]
    assert "little to learn from audio" in headline(found(NOTHING))


def test_a_difference_that_samples_show_can_be_too_small_to_matter() -> None:
    many = replace(WELL, samples=10**6, probe_inside=0.69)
    assert judge(found(many)).starved == ()
    assert judge(found(replace(many, probe_inside=0.67))).starved == ("audio",)


def test_clear_is_about_sampling() -> None:
    assert clearly_better(0.7, 0.6, 1000)
    assert not clearly_better(0.7, 0.6, 50)
    assert not clearly_better(0.6, 0.7, 1000)
    assert not clearly_better(1.0, 1.0, 5)
    assert not clearly_better(1.0, 0.8, 5)
    # the same samples: only those that one of the two gets right count; twice sqrt((21 / 202 - 0.0025) / 200) = 0.045
    assert clearly_better(0.65, 0.60, 200, differ=0.1)
    assert not clearly_better(0.64, 0.60, 200, differ=0.1)
    assert not clearly_better(0.65, 0.60, 200)


def test_clear_over_seeds() -> None:
    assert clearly_better(np.array([0.70, 0.71, 0.69]), np.array([0.60, 0.61, 0.60]), 1000)
    assert not clearly_better(np.array([0.90, 0.70, 0.61]), np.array([0.60, 0.61, 0.60]), 1000)  # seeds differ too much
    assert not clearly_better(np.array([0.75, 0.75, 0.60]), np.array([0.60, 0.60, 0.61]), 100000)  # and not all agree
    # by hand: a gap of 0.06 and 0.10 about 0.65 on n samples; 4 (2 x 0.65 x 0.35 / n + 0.0008 / 2) = 0.08^2 at n = 379
    gap = np.array([0.68, 0.70]), np.array([0.62, 0.60])
    assert clearly_better(*gap, 400)
    assert not clearly_better(*gap, 360)


def test_seeds_are_taken_together() -> None:
    seeds = [one(STARVED), one(replace(STARVED, probe_inside=0.45), seed=1)]
    diagnosis = Diagnosis("Joint", "accuracy", seeds)
    assert judge(diagnosis).starved == ("audio",)
    assert "42.5 ± 3.5 %" in sentences(diagnosis)[0]
    seeds[1] = one(replace(STARVED, probe_inside=0.71), seed=1)
    assert judge(diagnosis).starved == ()


# -- what is shown beside it ---------------------------------------------------------------------------
def watched_run(audio: ModalityEvidence, **options: float) -> Diagnosis:
    run = balance(**options)
    return Diagnosis("Joint", "accuracy", [replace(one(audio), balance=run, alone={"audio": run, "image": run})])


def test_overfitting_ratio_is_that_of_the_selected_epoch() -> None:
    diagnosis = watched_run(WELL)
    # audio: 2 -> 0.5 in training and 2 -> 1 on validation; fused: 2 -> 0.1 and 2 -> 0.5
    np.testing.assert_allclose(diagnosis.overfitting("audio"), [[0.5, 1.0, 0.5]])
    np.testing.assert_allclose(diagnosis.overfitting(), [[0.4, 1.5, 0.4 / 1.5]])
    text = next(line for line in sentences(diagnosis) if "Overfitting" in line)
    assert "fused 0.27; alone, audio 0.50, image 0.50" in text
    early = Diagnosis("Joint", "accuracy", [replace(diagnosis.measured[0], epochs={"Joint": 1, "audio": 1})])
    np.testing.assert_allclose(early.overfitting(), [[0.5, 0.5, 1.0]])
    worse = replace(diagnosis.measured[0], balance=balance(fused=(2, 3, 4)))
    assert np.isinf(Diagnosis("Joint", "accuracy", [worse]).overfitting()[0, 2])
    assert np.isnan(found().overfitting()).all()


def test_the_gradients_are_named_in_the_advice_and_decide_nothing() -> None:
    for gradients, said in (({}, ""), ({"alignment": -0.1}, "points away from what audio"), ({"conflict": -0.2}, "")):
        diagnosis = watched_run(STARVED, **gradients)
        assert said in sentences(diagnosis)[-1]
        assert ("points away" in sentences(diagnosis)[-1]) == ("alignment" in gradients)
        assert judge(diagnosis) == judge(found(STARVED))
    apart = replace(watched_run(STARVED, conflict=-0.2).measured[0], apart=0.9)
    assert "audio/image oppose each other" in sentences(Diagnosis("Joint", "accuracy", [apart]))[-1]


def test_overfitting_decides_what_to_try_when_fusing_hurts() -> None:
    hurt = replace(one(fused=0.5), alone=watched_run(WELL).measured[0].alone)
    for fused, blending in ((0.5, False), (1.9, True)):
        run = replace(hurt, balance=balance(fused=(2, 1.95, fused)))
        assert ("GBlending" in sentences(Diagnosis("Joint", "accuracy", [run]))[-1]) == blending


# -- the command ---------------------------------------------------------------------------------------
@pytest.mark.slow  # trains and draws
def test_the_command_writes_page_and_evidence(started: list[Recipe], capsys: pytest.CaptureFixture[str]) -> None:
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
