"""`study robustness`: its curves end where they must, are paired, and say what they found."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

import counterpoise as cp
from counterpoise.cli import main
from counterpoise.recipe.messages import UsageError
from counterpoise.recipe.recipe import Recipe
from counterpoise.studies import robustness as study
from counterpoise.task import MultiLabel, Regression

DATA = ["--data", "digits", "--data.size", "100", "--data.absent", "0.1", "--epochs", "1", "--batch_size", "16"]


def command(*arguments: str) -> int:
    with pytest.raises(SystemExit) as left:
        main(["study", "robustness", *DATA, "--progress", "false", "--out", "out", *arguments])
    return int(str(left.value.code or 0))


@pytest.mark.slow  # trains a study
def test_curves_begin_at_the_plain_score_and_end_at_the_subset(started: list[Recipe]) -> None:
    asked = ["--methods", "Joint,ModalityDropout", "--absent", "0,1", "--noise", "audio.snr=0"]
    assert command(*asked, "--seeds", "0") == 0
    assert len(started) == 2
    found = json.loads(Path("out/robustness/data.json").read_text())
    curves = found["result"]["curves"]
    assert {title: curve["levels"] for title, curve in curves.items()} == {
        "audio: share absent": ["0", "1"],
        "image: share absent": ["0", "1"],
        "audio: SNR (dB)": ["clean", "0"],
    }
    for row, ids in found["runs"].items():
        record = json.loads(Path("out/runs", ids[0], "result.json").read_text())
        assert {c["rows"][row]["0"][0] for c in curves.values()} == {record["test"]["fused/accuracy"]}
        for gone, left in (("audio", "image"), ("image", "audio")):
            scores = curves[f"{gone}: share absent"]["rows"][row]["0"]
            assert scores[-1] == record["subsets"][left]["accuracy"]
    page = Path("out/studies.html").read_text()
    assert "Mean height of all 3 curves beside Joint" in page


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (["--noise", "audio.snrr"], "Unknown corruption 'snrr'. Did you mean 'snr'?"),
        (["--absent", "half"], "--absent must be numbers"),
    ],
)
def test_options_are_refused_before_training(
    asked: list[str], message: str, started: list[Recipe], capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(*asked) == 2
    assert message in capsys.readouterr().err
    assert not started


@pytest.mark.parametrize(
    ("absent", "noise", "message"),
    [
        ([0, 1.5], {}, "absent must be a finite number"),
        ([1], {"a": {"blur": [2]}}, "blur acts on pixels"),
        ([1], {"a": {"noise": [-1]}}, "levels of a.noise"),
        ([1], {"sound": {"noise": None}}, "modality 'sound'"),
        ([], {}, "nothing to measure"),
    ],
)
def test_curves_that_cannot_be_are_refused(absent: list[float], noise: study.NOISE, message: str) -> None:
    data = cp.from_arrays({"a": torch.randn(40, 3), "b": torch.randn(40, 4)}, torch.arange(40) % 2)
    with pytest.raises(ValueError, match=message):
        study.curves_of(data.val, absent, noise)
    with pytest.raises(UsageError, match="--noise must be"):
        study._noise(["snr"])


def trainer_of(data: cp.Splits, widths: dict[str, int], **options: object) -> cp.Trainer:
    torch.manual_seed(0)
    encoders = {m: cp.encoders.MLP(width, dim=8) for m, width in widths.items()}
    model = cp.build_model(encoders, "Concat", task=data.task)
    return cp.Trainer(model, "Joint", epochs=1, batch_size=16, progress=False, **options)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("kind", ["single-label", "multi-label", "regression"])
def test_every_task_any_number_of_modalities_and_gaps_in_the_data(kind: str) -> None:
    torch.manual_seed(1)
    x = {m: torch.randn(120, width) for m, width in (("a", 3), ("b", 4), ("c", 5))}
    score = x["a"][:, 0] + x["b"][:, 0]
    y = {"single-label": (score > 0).long(), "multi-label": torch.stack([score > 0, x["c"][:, 0] > 0], 1).long()}
    task = {"multi-label": MultiLabel(["p", "q"]), "regression": "regression"}.get(kind)
    present = {"a": torch.arange(120) % 5 != 0, "c": torch.arange(120) % 7 != 0}
    target = y.get(kind, score[:, None]).numpy()
    data = cp.from_arrays(x, target, present=present, task=task)
    assert data.test is not None
    assert isinstance(data.task, Regression) == (kind == "regression")
    trainer = trainer_of(data, {"a": 3, "b": 4, "c": 5}).fit(data.train, data.val)
    found = cp.robustness(trainer, data, absent=[0.5, 1])
    assert list(found) == [*(f"{m} absent" for m in "abc"), *(f"{m} noise" for m in "abc")]
    plain, metric = trainer.evaluate(data.test), trainer.monitor
    for curve in found.values():
        assert next(iter(curve.values())) == plain[f"fused/{metric}"]
        assert all(math.isfinite(value) for value in curve.values())
    subsets = trainer.evaluate_subsets(data.test, [["b", "c"], ["a", "c"], ["a", "b"]])
    for gone, left in zip("abc", subsets.values(), strict=True):
        assert found[f"{gone} absent"][1.0] == pytest.approx(left[metric], abs=1e-6)
    assert found == cp.robustness(trainer, data, absent=[0.5, 1])
    assert found != cp.robustness(trainer, data, absent=[0.5, 1], seed=1)


def test_methods_see_the_same_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    data = cp.from_arrays({"a": torch.randn(120, 3), "b": torch.randn(120, 4)}, torch.arange(120) % 2)
    seen: list[list[torch.Tensor]] = []
    plain = study.Corrupted.batch

    def spied(self: study.Corrupted, indices: list[int], modality: str, seed: int | None) -> torch.Tensor:
        x = plain(self, indices, modality, seed)
        seen[-1].append(x)
        return x

    monkeypatch.setattr(study.Corrupted, "batch", spied)
    for seed in (0, 1):  # of the weights, as two methods have
        trainer = trainer_of(data, {"a": 3, "b": 4}, seed=seed).fit(data.train, data.val)
        seen.append([])
        cp.robustness(trainer, data, noise={"a": {"noise": [1, 3]}}, seed=7)
    assert len(seen[0]) == len(seen[1]) > 1
    assert all(torch.equal(a, b) for a, b in zip(*seen, strict=True))


def test_the_finding_and_effective_robustness_are_made_from_the_numbers() -> None:
    rows = {"Joint": {"0": [0.9, 0.5], "1": [0.8, 0.4]}, "IGM": {"0": [0.9, 0.8], "1": [0.8, 0.7]}}
    mild = {row: {seed: [s[0], s[0]] for seed, s in by.items()} for row, by in rows.items()}
    curve = {"levels": ["0", "1"], "places": [0.0, 1.0]}
    data = {
        "split": "test",
        "metric": "accuracy",
        "baseline": "Joint",
        "curves": {"a: share absent": {**curve, "rows": rows}, "b: share absent": {**curve, "rows": mild}},
    }
    text = study.finding(data)
    assert text.startswith("Fused test accuracy (%): Joint loses most with a: share absent at 1, from 85.0 to 45.0.")
    assert "Mean height of all 2 curves beside Joint: IGM +7.5 [+7.5, +7.5]." in text
    table = str(study.draw(data, Path())[2])
    assert "+30.0 [+30.0, +30.0]" in table
    assert "65.0 ± 7.1" in table
