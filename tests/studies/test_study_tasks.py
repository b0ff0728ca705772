"""Studies, a diagnosis and a comparison of label sets and of numbers."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch

import counterpoise as cp
from counterpoise.analysis import SplitLoss, gradient_balance, linear_probe, value
from counterpoise.benchmark.cells import named
from counterpoise.cli import main
from counterpoise.losses import CrossEntropy
from counterpoise.recipe.recipe import Recipe
from counterpoise.studies.base import cell
from counterpoise.studies.diagnosis.diagnosis import Diagnosis
from counterpoise.studies.diagnosis.evidence import ModalityEvidence, SeedEvidence
from counterpoise.studies.diagnosis.verdict import judge
from counterpoise.studies.diagnosis.words import sentences
from counterpoise.task import MultiLabel, Regression

N = 60
TASKS = ("multi-label", "regression")
STUDIES = {
    "imbalance": [],
    "ablation": [],
    "sensitivity": ["--values", "0.1,1"],
    "comparison": ["--probes"],
    "scope": ["--shares", "1.0"],
    "gradient-change": [],
    "interaction": [],
    "pretrained": ["--pretraining", "alone"],
    "training-time": ["--methods", "Joint,OGM"],
    "landscape": ["--samples", "20", "--points", "3", "--probes", "2", "--fusion", "Late"],
    "singular-values": [],
}


def files(folder: Path) -> dict[str, list[str]]:
    """Task -> the options of its data: 60 samples of two vectors, made of two hidden numbers, as the targets are."""
    rng = np.random.default_rng(0)
    hidden = rng.normal(size=(N, 2))
    inputs = {m: (hidden @ rng.normal(size=(2, 5)) + rng.normal(size=(N, 5))).astype("f4") for m in ("first", "second")}
    targets = {"multi-label": (np.c_[hidden, -hidden] > 0.2).astype(int), "regression": 50 + 20 * hidden[:, 0]}
    for task, y in targets.items():
        np.savez(folder / f"{task}.npz", y=y, **inputs)
    common = ["--epochs", "1", "--batch_size", "16", "--progress", "false"]
    return {task: ["--data", str(folder / f"{task}.npz"), "--data.task", task, *common] for task in targets}


def start(*arguments: str) -> int:
    with pytest.raises(SystemExit) as left:
        main(list(arguments))
    return int(str(left.value.code or 0))


# -- everything ----------------------------------------------------------------------------------------
@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
def test_every_study_takes_sets_and_numbers(task: str, started: list[Recipe], tmp_path: Path) -> None:
    data = files(tmp_path)[task]
    for name, own in STUDIES.items():
        assert start("study", name, *data, *own, "--seeds", "0", "--out", "out") == 0, name
        text = (Path("out") / name / "section.html").read_text()
        assert not re.search(r"\bnan\b", text), name
        if task == "regression":
            assert "accuracy" not in re.sub(r"<details>.*?</details>", "", text, flags=re.DOTALL), name
            assert not re.search(r"(rmse|mae|r2)[^<]{0,20}\(%\)", text), name
    assert start("diagnose", *data, "--out", "diagnosis") == 0
    assert start("benchmark", *data, "--methods", "all", "--seeds", "0", "--out", "bench") == 0
    search = ["--method", "OGM", "--param", "optimizer.lr=float:0.01:0.1", "--trials", "2"]
    assert start("tune", *data, *search, "--out", "t") == 0
    found = json.loads(Path("t/trials.json").read_text())
    assert found["monitor"] == {"multi-label": "map", "regression": "rmse"}[task]


# -- one test per mechanism ----------------------------------------------------------------------------
@pytest.mark.slow
def test_a_comparison_leaves_out_what_is_about_classes(
    started: list[Recipe], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = files(tmp_path)["regression"]
    assert start("study", "training-time", *data, "--methods", "all", "--metric", "map", "--out", "o") == 2
    assert "Unknown metric 'map'" in capsys.readouterr().err
    assert start("study", "training-time", *data, "--methods", "PMR", "--out", "o") == 2
    assert "PMR is defined for single-label targets; these are regression" in capsys.readouterr().err
    assert not started
    own = ["--comparison.methods", "Joint", "--comparison.probes"]
    assert start("study", "imbalance,comparison", *data, *own, "--seeds", "0", "--out", "o") == 0
    assert len(started) == 3
    text = Path("o/imbalance/section.html").read_text()
    assert "alone, test rmse (less is better)" in text
    assert "1 numbers" in text
    assert "test likelihood (%) of a ridge regression" in Path("o/comparison/section.html").read_text()


def test_units_and_direction() -> None:
    assert (named("rmse"), named("r2"), named("loss")) == ("rmse (less is better)", "r2", "loss")
    assert (cell([0.5], "map"), cell([2.0, 4.0], "rmse")) == ("50.0", "3 ± 1.4")


@pytest.mark.parametrize("task", TASKS)
def test_linear_predictions_are_least_squares(task: str) -> None:
    generator = torch.Generator().manual_seed(0)
    x, other = (torch.randn(n, 3, generator=generator) for n in (80, 40))
    weight = torch.randn(3, 2, generator=generator)
    kind = MultiLabel(2) if task == "multi-label" else Regression(["a", "b"], [1.0, 2.0], [3.0, 4.0])
    y, y_other = (
        (part @ weight > 0).float() if task == "multi-label" else kind.shown((part @ weight).double())
        for part in (x, other)
    )
    found = linear_probe((x, y), (other, y_other), 2.0, task=kind)
    wanted = 2 * y - 1 if task == "multi-label" else (y - torch.tensor([1.0, 2.0])) / torch.tensor([3.0, 4.0])
    mean, scale = x.double().mean(0), x.double().std(0, correction=0)
    rows, centre = (x.double() - mean) / scale, wanted.double().mean(0)
    solved = torch.linalg.solve(rows.T @ rows + 2 * torch.eye(3).double(), rows.T @ (wanted.double() - centre))
    outputs = (other.double() - mean) / scale @ solved + centre
    np.testing.assert_allclose(found.hits, kind.hits(outputs, y_other).numpy(), atol=1e-9)
    assert found.score > kind.chance(y_other)


def test_what_is_said_without_looking() -> None:
    sets = torch.tensor([[1.0, 0, 1], [1, 0, 0], [0, 0, 1], [1, 0, 1]])
    assert MultiLabel(3).hits(MultiLabel(3).constant(sets), sets).tolist() == pytest.approx([1, 2 / 3, 2 / 3, 1])
    numbers = Regression(["a"], [5.0], [2.0])
    target = torch.tensor([[5.0], [7.0]]).double()
    assert numbers.hits(numbers.constant(target), target).tolist() == pytest.approx([1, np.exp(-0.5)])
    assert numbers.chance(target) == pytest.approx((1 + np.exp(-0.5)) / 2)


def test_the_loss_around_the_weights_is_that_of_training() -> None:
    weight = torch.rand(N, generator=torch.Generator().manual_seed(0)) + 0.1
    x = torch.randn(N, 4, generator=torch.Generator().manual_seed(1))
    data = cp.from_arrays({"a": x, "b": x + 1}, torch.arange(N) % 3, sample_weight=weight)
    model = cp.build_model({m: torch.nn.Linear(4, 4) for m in "ab"}, "Late", num_classes=3, example=data.train)
    loss = CrossEntropy(class_weight=[1.0, 2.0, 5.0], label_smoothing=0.1)
    loss.prepare(model.task)
    split = data.train
    with torch.no_grad():
        logits = model({m: split.batch(range(len(split)), m, None) for m in "ab"}).logits
        counts = torch.tensor([1.0, 2.0, 5.0])[split.target] * split.weight
        expected = (loss(logits, split.target) * counts).sum() / counts.sum()
    around = SplitLoss(model, split, criterion=loss, counts=loss.counted, batch_size=7)
    assert value(around) == pytest.approx(float(expected), rel=1e-5)
    found = gradient_balance(model, split, batch_size=len(split), criterion=loss, counts=loss.counted)
    own = model.parameters_of("a")
    fused = model({m: split.batch(range(len(split)), m, None) for m in "ab"}).logits
    grads = torch.autograd.grad((loss(fused, split.target) * counts).sum() / counts.sum(), own)
    assert found.magnitude[0, 0] == pytest.approx(float(torch.cat([g.flatten() for g in grads]).norm()), rel=1e-4)
    with pytest.raises(ValueError, match="weight 0"):
        SplitLoss(model, split, counts=lambda target, _: torch.zeros(len(target)))


# -- diagnosis -----------------------------------------------------------------------------------------
def numbers_of(alone: float, differ: float | None) -> Diagnosis:
    """Likelihoods of 100 samples, chance 0.70."""
    one = ModalityEvidence(100, 0.70, alone, alone, alone, alone, 0.85, 0.01, 0.01, 0.01, 0.1, 0.1, 0.5, differ, differ)
    epochs = {"Joint": 2, "a": 2, "b": 2}
    measured = SeedEvidence(
        0, 100, 0.7, 0.85, 0.85, 0.01, {}, {"a": one, "b": one}, {}, None, {"a": None, "b": None}, epochs
    )
    return Diagnosis("Joint", "rmse", [measured], "regression")


def test_numbers_are_compared_with_the_mean_sample_by_sample() -> None:
    # a gain of 0.05: twice sqrt((2 / 102 - 0.0025) / 100) = 0.026; independent, twice sqrt((0.21 + 0.19) / 100) = 0.126
    assert judge(numbers_of(0.75, 0.01)).weak == ()
    assert judge(numbers_of(0.75, None)).weak == ("a", "b")
    assert judge(numbers_of(0.72, 0.02)).weak == ("a", "b")


def test_a_diagnosis_of_numbers_says_what_it_measured() -> None:
    said = " ".join(sentences(numbers_of(0.75, 0.01)))
    assert "accuracy" not in said
    assert "likelihood above chance" in said
    assert "linear regression" in said
    assert "not measured for such targets" in said
    assert "units" not in said


@pytest.mark.parametrize("task", TASKS)
def test_a_diagnosis_finds_the_modality_that_knows_nothing(
    task: str, started: list[Recipe], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from counterpoise.studies.diagnosis import page as diagnosis_page

    monkeypatch.setattr(diagnosis_page, "_pictures", lambda found: [])
    rng = np.random.default_rng(0)
    hidden = rng.normal(size=(400, 2))
    known, noise = (np.c_[hidden, hidden] + 0.1 * rng.normal(size=(400, 4))), rng.normal(size=(400, 4))
    y = (np.c_[hidden, -hidden] > 0).astype(int) if task == "multi-label" else 50 + 20 * hidden[:, 0]
    np.savez(tmp_path / "x.npz", y=y, known=known.astype("f4"), noise=noise.astype("f4"))
    data = ["--data", "x.npz", "--data.task", task, "--data.val", "0.4", "--epochs", "12", "--batch_size", "32"]
    assert start("diagnose", *data, "--optimizer.lr", "0.1", "--progress", "false", "--out", "d") == 0
    kept = json.loads(Path("d/diagnosis.json").read_text())
    assert "little to learn from noise" in kept["headline"]
    (one,) = kept["measured"]
    assert one["modalities"]["known"]["alone"] > one["chance"] + 0.1
    total = sum(e["contribution"] for e in one["modalities"].values())
    assert total == pytest.approx(one["fused"] - one["chance"], abs=1e-6)
