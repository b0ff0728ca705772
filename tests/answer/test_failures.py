"""Experts that fail: ``auto`` goes on without them, and says so."""

import json
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import counterpoise as cp
from counterpoise.answer.auto import auto
from counterpoise.answer.failures import sound
from counterpoise.cli import main
from counterpoise.engine import SGD, Predictions
from counterpoise.fusions import Concat, Late
from counterpoise.fusions.pool import ExpertPool
from counterpoise.methods import MSES
from counterpoise.task import MultiLabel, Regression, SingleLabel

FEW: dict[str, Any] = {"epochs": 2, "batch_size": 16, "optimizer": SGD(lr=0.05)}


@pytest.fixture(autouse=True)
def no_refits(monkeypatch):
    monkeypatch.setattr("counterpoise.answer.evidence._spread", lambda pool, val: {})


class Broken(nn.Module):
    """Adds a number to its features: always, or in evaluation only."""

    def __init__(self, value: float = float("nan"), evaluation: bool = False, columns: int = 3):
        super().__init__()
        self.value, self.evaluation, self.columns, self.dim = value, evaluation, columns, 4
        self.linear = nn.Linear(columns, 4)

    def forward(self, x):
        z = self.linear(x.flatten(1)[:, : self.columns])
        return z if self.evaluation and self.training else z + self.value


class BrokenFusion(Concat):
    """The fused prediction is not finite: always, or in evaluation only."""

    in_training = True

    def fuse(self, features, present):
        logits = super().fuse(features, present)
        return logits if self.training and not self.in_training else logits * float("inf") * 0


class BrokenEvaluation(BrokenFusion):
    in_training = False


def data(n=90, classes=3, extra=(), wild=None):
    rng, y = np.random.default_rng(0), np.arange(n) // 6 % classes
    split = np.array((["train"] * 3 + ["val"] + ["test"] * 2) * (n // 6))[:n]
    inputs = {m: np.eye(3)[y] + 0.5 * rng.normal(size=(n, 3)) for m in ("a", "b", *extra)}
    if wild is not None:
        inputs["a"][np.flatnonzero(split == wild)[:2]] = 3e38
    return cp.from_arrays(inputs, y, split=split)


def test_a_modality_that_fails_in_training_is_left_out(tmp_path):
    with pytest.warns(UserWarning, match="'a' failed in training, which goes on without it"):
        answer = auto(data(), {"a": lambda: Broken()}, run_dir=tmp_path / "run", **FEW)
    assert answer.trainer.method.reads(("a", "b")) == ("b",)
    assert answer.evidence.without == ("a",)
    assert list(answer.evidence.experts) == ["fused", "b"]
    assert sum(expert.weight for expert in answer.evidence.experts.values()) == pytest.approx(1)
    assert answer.evidence.score.value > 0.5
    assert "The modality a failed in training (NaN or infinite numbers)" in str(answer)
    assert "The modality a failed" in (tmp_path / "run" / "answer.html").read_text()
    assert json.loads((tmp_path / "run" / "without.json").read_text()) == ["a"]
    loaded = cp.load(tmp_path / "run", trust=True)
    rows = {"a": torch.zeros(3, 3), "b": torch.eye(3)}
    assert loaded.predict(rows).shape == (3,)


@pytest.mark.slow
def test_all_rates_fail_because_of_one_modality_of_three_and_it_resumes(tmp_path, monkeypatch):
    options = {"epochs": 2, "batch_size": 16, "run_dir": tmp_path / "run"}
    monkeypatch.setattr("counterpoise.answer.page.write", lambda evidence, folder: folder)
    fit = cp.Trainer.run

    def dies(self, *args, **kwargs):
        raise RuntimeError("killed")

    monkeypatch.setattr(cp.Trainer, "run", dies)
    with pytest.warns(UserWarning, match="'a' failed"), pytest.raises(RuntimeError, match="killed"):
        auto(data(extra=("c",)), {"a": partial(Broken, float("inf"))}, **options)
    monkeypatch.setattr(cp.Trainer, "run", fit)
    monkeypatch.setattr("counterpoise.answer.auto.try_rates", None)  # not called again
    answer = auto(data(extra=("c",)), {"a": partial(Broken, float("inf"))}, resume=True, **options)
    assert isinstance(answer.trainer.method, MSES)
    assert answer.trainer.method.only == ["b", "c"]
    assert answer.evidence.without == ("a",)


@pytest.mark.parametrize("value", [float("nan"), -float("inf")])
def test_a_modality_that_fails_in_evaluation_drops_out_of_the_pool(value):
    with pytest.warns(UserWarning, match="'a' has logits that are not finite in 15 samples and drops out there"):
        answer = auto(data(), {"a": partial(Broken, value, True)}, **FEW)
    assert answer.evidence.broken == {"fused": {"val": 15, "test": 30}, "a": {"val": 15, "test": 30}}
    assert answer.evidence.experts["a"].weight == 0
    assert answer.evidence.shares["a"] == pytest.approx(0, abs=1e-6)
    assert answer.evidence.score.value > 0.5
    assert answer.result["test"]["fused/accuracy"] == pytest.approx(answer.evidence.score.value)
    said = "The head of a gives no finite numbers for 15 of 15 validation samples and 30 of 30 test samples"
    assert said in str(answer)


def test_a_few_inputs_out_of_range_cost_nothing_else():
    encoder = lambda: nn.Sequential(nn.Linear(3, 8), nn.Linear(8, 4))  # noqa: E731
    with pytest.warns(UserWarning, match="'a' has logits that are not finite in 2 samples"):
        answer = auto(data(wild="val"), {"a": encoder}, **FEW)
    assert answer.evidence.broken["a"] == {"val": 2}
    assert answer.evidence.experts["a"].weight > 0.1
    answer = auto(data(wild="test"), {"a": encoder}, **FEW)
    assert answer.evidence.broken["a"] == {"test": 2}
    assert answer.trainer.predict(data(wild="test").test or {}).fused.isfinite().all()


def test_a_fused_prediction_that_fails_in_training_leaves_the_votes():
    with pytest.warns(UserWarning, match="The fused prediction failed in training"):
        answer = auto(data(), fusion=BrokenFusion, **FEW)
    assert isinstance(answer.model.fusion, Late)
    assert answer.evidence.without == ("fused",)
    assert "The fused prediction failed in training" in str(answer)
    assert answer.evidence.score.value > 0.5


def test_a_fused_prediction_that_fails_in_evaluation_drops_out_of_the_pool():
    with pytest.warns(UserWarning, match="'fused' has logits that are not finite in 15 samples"):
        answer = auto(data(), fusion=BrokenEvaluation, **FEW)
    assert answer.evidence.experts["fused"].weight == 0
    assert answer.evidence.experts["fused"].score is None
    assert answer.evidence.score.value > 0.5


@pytest.mark.parametrize("evaluation", [False, True])
def test_every_expert_fails(evaluation):
    broken = partial(Broken, evaluation=evaluation)
    with pytest.raises(FloatingPointError, match=r"Every expert failed: a, b, fused\. Look for values"):
        auto(data(), {"a": broken, "b": broken}, **FEW)


def test_time_that_failures_took_counts():
    asked = []

    def attempt(failed, seconds, resume) -> Any:
        asked.append((failed, seconds))
        if not failed:
            raise FloatingPointError("diverged")
        return "made"

    def alone(modality, failed, seconds):
        assert seconds == 100 / 4 / 2
        return cp.Trainer(
            cp.build_model({"a": Broken(), "b": Broken(0.0)}, num_classes=3),
            cp.methods.Unimodal(modality),
            epochs=1,
            batch_size=16,
            progress=False,
        )

    with pytest.warns(UserWarning, match="'a' failed"):
        assert sound(attempt, alone, data(), 100, None, resume=False) == ("made", ("a",))
    assert [failed for failed, _ in asked] == [(), ("a",)]
    assert 0 < asked[1][1] < 100


def test_the_command_goes_on_without_a_modality(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("counterpoise.answer.page._pictures", lambda evidence: [])
    common = ["--data=digits", "--data.size=150", "--epochs=1", "--batch_size=16", "--progress=false"]
    common += ["--encoders.audio=test_failures.Broken", "--encoders.audio.columns=64", "--optimizer.lr=0.02"]
    with pytest.raises(SystemExit) as ended, pytest.warns(UserWarning, match="'audio' failed"):
        main(["auto", *common, f"--run_dir={tmp_path / 'run'}"])
    assert ended.value.code == 0
    assert "The modality audio failed in training" in capsys.readouterr().out
    assert json.loads((tmp_path / "run" / "answer.json").read_text())["without"] == ["audio"]


# -- the parts -----------------------------------------------------------------------------------------
@pytest.mark.parametrize("task", [SingleLabel(3), MultiLabel(["x", "y"]), Regression(["x"])])
@pytest.mark.parametrize("fitted", [False, True])
def test_a_pool_with_a_first_expert_is_nan_where_none_is_left(task, fitted):
    pool, generator = ExpertPool(("fused", "a"), task, first="fused"), torch.Generator().manual_seed(0)
    logits = {name: torch.randn(40, task.width, generator=generator) for name in pool.experts}
    target = torch.arange(40) % 3
    target = target if isinstance(task, SingleLabel) else torch.randn(40, task.width).sign().clamp(min=0)
    if fitted:
        pool.fit(logits, target)
    whole = pool(logits)
    logits["fused"][:2], logits["a"][1:3] = float("nan"), float("inf")
    some = pool(logits)
    assert some.isfinite().all(1).tolist() == [True, False, *[True] * 38]
    torch.testing.assert_close(some[3:], whole[3:])
    alone = pool({"a": logits["a"][:1]})
    torch.testing.assert_close(some[:1], alone)


def test_who_fails_counts_as_absent():
    wrong = torch.tensor([[0.0], [float("nan")], [float("inf")]])
    found = Predictions(torch.zeros(3, 1), {"a": wrong, "b": torch.zeros(3, 1)}, torch.zeros(3, 1), None)
    there = found.sound().present
    assert there is not None
    assert list(there) == ["a"]
    assert there["a"].tolist() == [True, False, False]
    assert found.sound().anything().all()


def test_mses_of_some_modalities_is_mses_of_those_alone():
    both = data(extra=("c",))
    scores = []
    for names, only in ((("a", "b"), None), (("a", "b", "c"), ["b", "a"])):
        torch.manual_seed(0)
        encoders = {m: nn.Linear(3, 4) for m in names}
        model = cp.build_model(encoders, num_classes=3, heads=True, example=both.train)
        with torch.no_grad():
            for p in model.parameters():
                p.copy_(torch.linspace(-0.5, 0.5, p.numel()).reshape(p.shape))
        before = {name: value.clone() for name, value in model.state_dict().items()}
        trainer = cp.Trainer(model, MSES(only=only), epochs=3, batch_size=9, progress=False, accelerator="cpu")
        trainer.fit(both.train, both.val)
        scores.append([{k: v for k, v in line.items() if "/" in k} for line in trainer.history])
        if only:
            moved = [name for name, value in model.state_dict().items() if not torch.equal(value, before[name])]
            assert not any(".c." in name for name in moved)
    assert scores[0] == scores[1]


@pytest.mark.parametrize("only", [[], "a"])
def test_only_names_modalities(only):
    with pytest.raises(ValueError, match="only must be a list of modalities"):
        MSES(only=only)
    with pytest.raises(ValueError, match="d"):
        MSES(only=["d"]).reads(("a", "b"))
