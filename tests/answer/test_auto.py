"""``cp.auto`` and ``counterpoise auto``: one model, its learning rate, its budget, and what it says of bad input."""

import json
import warnings
from typing import Any

import numpy as np
import pytest
import torch

import counterpoise as cp
from counterpoise.answer.auto import auto
from counterpoise.answer.evidence import measure
from counterpoise.answer.preset import DEFAULT
from counterpoise.answer.rates import Trial, best_rate, left, rates_of
from counterpoise.cli import main
from counterpoise.data import write_digits
from counterpoise.engine import SGD, RunDirectoryError, Trainer, evaluation
from counterpoise.fusions import Gated, WideDeep
from counterpoise.methods import MSES

FEW: dict[str, Any] = {"epochs": 2, "batch_size": 16}


@pytest.fixture(autouse=True)
def few_refits(monkeypatch):
    monkeypatch.setattr("counterpoise.answer.evidence.REFITS", 2)


def arrays(n=160, seed=0, kind="single-label", **more):
    rng = np.random.default_rng(seed)
    y = np.arange(n) % 3
    values = {"single-label": y, "multi-label": np.eye(4, dtype=int)[y], "regression": y * 10.0}[kind]
    a, b = (np.eye(3)[y].repeat(2, axis=1) + noise * rng.normal(size=(n, 6)) for noise in (0.7, 1.4))
    return cp.from_arrays({"a": a, "b": b}, values, seed=seed, task=kind, **more)


def run(arguments):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    return ended.value.code


@pytest.mark.parametrize("kind", ["single-label", pytest.param("multi-label", marks=pytest.mark.slow), "regression"])
def test_every_task_gets_a_model_with_a_pool_of_three_experts(kind, tmp_path):
    found = auto(arrays(kind=kind), run_dir=tmp_path / "run", **FEW)
    assert isinstance(found.trainer.method, MSES)
    assert (found.trainer.method.patience, found.trainer.current.sam) == (5, 0.05)
    assert found.model.pool is not None
    assert found.model.pool.experts == ("fused", "a", "b")
    assert found.page is not None
    assert found.page.is_file()
    kept = json.loads((tmp_path / "run" / "answer.json").read_text())
    assert set(kept["experts"]) == {"fused", "a", "b"}
    assert kept["said"][0] in str(found)
    assert len(json.loads((tmp_path / "run" / "rates.json").read_text())) == 3


@pytest.mark.slow
def test_the_rate_of_the_least_validation_loss_trains_the_model():
    found = auto(arrays(), **FEW)
    losses = {trial.rate: trial.loss or 0.0 for trial in found.trials}
    assert list(losses) == pytest.approx([0.003, 0.01, 0.03])
    assert found.trainer.current.optimizer_settings.lr == min(losses, key=lambda rate: losses[rate])


@pytest.mark.slow
def test_a_trial_is_a_short_run_of_the_same_model_from_the_same_weights():
    found = auto(arrays(), epochs=20, batch_size=16)
    by_hand = auto(arrays(), epochs=2, batch_size=16, optimizer=SGD(lr=0.03))
    assert min(r["val/fused/loss"] for r in by_hand.trainer.history) == found.trials[2].loss


def test_a_given_rate_is_not_tried(tmp_path):
    found = auto(arrays(), optimizer=SGD(lr=0.02), run_dir=tmp_path / "run", **FEW)
    assert found.trials == []
    assert str(found).endswith("s of training.")
    assert found.trainer.current.optimizer_settings.lr == 0.02
    assert not (tmp_path / "run" / "rates.json").exists()


def test_it_resumes_without_trying_again_and_ends_the_same(tmp_path, monkeypatch):
    whole = auto(arrays(), epochs=3, batch_size=16, run_dir=tmp_path / "whole")
    fit, data = Trainer.run, arrays()

    def dies(self, *args, **kwargs):
        raise RuntimeError("killed")

    monkeypatch.setattr(Trainer, "run", dies)
    with pytest.raises(RuntimeError, match="killed"):
        auto(data, epochs=3, batch_size=16, run_dir=tmp_path / "cut")
    monkeypatch.setattr(Trainer, "run", fit)
    monkeypatch.setattr("counterpoise.answer.auto.try_rates", None)  # not called again
    again = auto(data, epochs=3, batch_size=16, run_dir=tmp_path / "cut", resume=True)
    assert [t.loss for t in again.trials] == [t.loss for t in whole.trials]
    for a, b in zip(whole.model.state_dict().values(), again.model.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_a_finished_run_is_refused_before_anything_is_tried(tmp_path, monkeypatch):
    auto(arrays(), optimizer=SGD(lr=0.02), run_dir=tmp_path / "run", **FEW)
    monkeypatch.setattr("counterpoise.answer.auto.try_rates", None)
    with pytest.raises(RunDirectoryError, match="holds a finished run"):
        auto(arrays(), run_dir=tmp_path / "run", **FEW)


# -- rates and budgets ---------------------------------------------------------------------------------
def test_rates():
    assert rates_of(0.001) == [0.0003, 0.001, 0.003]
    assert best_rate([Trial(0.1, 2.0, 1, 1), Trial(0.2, 0.0, 1, 1), Trial(0.3, None, 1, 1)]) == 0.2


def test_a_rate_at_which_training_diverges_is_said_and_left(monkeypatch):
    monkeypatch.setattr("counterpoise.answer.rates.FACTORS", (1.0, 1e12))
    found = auto(arrays(), **FEW)
    assert [trial.loss is None for trial in found.trials] == [False, True]
    assert found.trainer.current.optimizer_settings.lr == 0.01
    assert "Training diverged at the learning rate 1e+10." in str(found)


def test_all_rates_diverge(monkeypatch):
    monkeypatch.setattr("counterpoise.answer.rates.FACTORS", (1e12, 1e13))
    with pytest.raises(FloatingPointError, match=r"diverged at every learning rate that was tried \(1e\+10, 1e\+11\)"):
        auto(arrays(), **FEW)


def test_what_is_left_of_a_budget():
    trials = [Trial(0.1, 1.0, 3.0, 1.0), Trial(0.2, 1.0, 2.0, 2.0)]
    assert left(None, trials) is None
    assert left(20.0, trials) == 15.0
    assert left(20.0, []) == 20.0
    expected = r"budget=6 seconds is too little for one run: .* 5\.0 s and an epoch takes 2\.0 s"
    with pytest.raises(ValueError, match=expected):
        left(6.0, trials)


def test_a_budget_ends_the_run_and_the_page_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr("counterpoise.answer.auto.left", lambda budget, trials: 1e-6)
    found = auto(arrays(), epochs=4, batch_size=16, run_dir=tmp_path / "run", budget="1h")
    assert found.result["epochs"] == 1
    assert found.evidence.out_of_time
    assert "The budget ended the run" in str(found)


@pytest.mark.slow
def test_a_budget_at_a_given_rate(capsys):
    found = auto(arrays(), optimizer=SGD(lr=0.02), budget="1h", **FEW)
    assert found.trainer.current.budget == 3600
    assert not found.evidence.out_of_time
    common = ["--data=digits", "--data.size=150", "--epochs=1", "--batch_size=16", "--progress=false"]
    assert run(["auto", *common, "--optimizer.lr=0.02", "--budget=1h", "--run_dir=null"]) == 0
    assert "The model reaches" in capsys.readouterr().out


@pytest.mark.slow
def test_the_evidence_encodes_the_test_split_once(monkeypatch):
    data, encoded = arrays(), []
    found = auto(data, optimizer=SGD(lr=0.02), **FEW)
    batches = -(-len(data.test) // FEW["batch_size"]) - (-len(data.val) // FEW["batch_size"])
    encode = evaluation.encode
    monkeypatch.setattr(evaluation, "encode", lambda *args: encoded.append(1) or encode(*args))
    again = measure(found.trainer, data, found.result, [])
    assert len(encoded) <= batches
    assert (again.score, again.metrics) == (found.evidence.score, found.evidence.metrics)


# -- bad input -----------------------------------------------------------------------------------------
def test_few_validation_samples_mean_equal_weights_and_are_said():
    y = np.arange(60) % 3
    split = np.array(["train"] * 45 + ["val"] * 6 + ["test"] * 9)
    rng = np.random.default_rng(0)
    data = cp.from_arrays({m: np.eye(3)[y] + rng.normal(size=(60, 3)) for m in "ab"}, y, split=split)
    with pytest.warns(UserWarning, match="6 validation samples to be fitted on: 10 are needed"):
        found = auto(data, optimizer=SGD(lr=0.02), **FEW)
    assert found.model.pool is not None
    assert found.model.pool.get_buffer("weight").tolist() == pytest.approx([1 / 3] * 3)
    assert "With 6 validation samples no weights were fitted (10 are needed)" in str(found)
    assert found.evidence.uncertain


def test_a_class_without_validation_samples_is_said():
    y = np.arange(120) % 3
    split = np.array(["train"] * 60 + ["val"] * 30 + ["test"] * 30)
    split[(split == "val") & (y == 2)] = "train"
    rng = np.random.default_rng(0)
    data = cp.from_arrays({m: np.eye(3)[y] + rng.normal(size=(120, 3)) for m in "ab"}, y, split=split)
    with pytest.warns(UserWarning, match="none has class number 2, whose bias stays 0"):
        auto(data, optimizer=SGD(lr=0.02), **FEW)


@pytest.mark.slow
def test_without_a_test_split_the_scores_flatter(tmp_path):
    found = auto(arrays(test=0), optimizer=SGD(lr=0.02), **FEW)
    assert found.evidence.part == "val"
    assert "There is no test split" in str(found)


@pytest.mark.parametrize("name", ["method", "sam", "pool", "heads", "label"])
def test_what_auto_sets_itself(name):
    with pytest.raises(ValueError, match=f"{name} is set by auto itself"):
        auto(arrays(), **dict[str, Any]({name: None}))


@pytest.mark.slow
def test_encoders_are_given_by_what_makes_them():
    with pytest.raises(ValueError, match="comes too late for 'a', which is made already"):
        auto(arrays(), {"a": cp.encoders.MLP(6)}, **FEW)
    with pytest.raises(ValueError, match="c"):
        auto(arrays(), {"c": lambda: cp.encoders.MLP(6)}, optimizer=SGD(), **FEW)
    found = auto(arrays(), {"a": lambda: cp.encoders.MLP(6, (5,), 7)}, optimizer=SGD(), **FEW)
    assert found.model.fusion.dims == {"a": 7, "b": 128}


def test_one_modality_has_nothing_to_pool():
    y = np.arange(60) % 3
    with pytest.raises(ValueError, match="MSES needs at least 2 modalities"):
        auto(cp.from_arrays({"a": np.eye(3)[y]}, y), **FEW)


@pytest.mark.slow
def test_absent_samples_and_the_preset_as_options():
    rng, y = np.random.default_rng(1), np.arange(200) % 3
    present = {"b": rng.random(200) < 0.6}
    a, b = (np.eye(3)[y] + rng.normal(size=(200, 3)) for _ in "ab")
    data = cp.from_arrays({"a": a, "b": b}, y, present=present)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = auto(data, optimizer=SGD(lr=0.05), **FEW)
    assert found.trainer.predict(data.val).fused.isfinite().all()
    path = "counterpoise.methods.mses.MSES"
    assert DEFAULT.options() == {
        "method": path, "method.patience": 5, "method.joint": True, "sam": 0.05, "pool": True
    }  # fmt: skip


def test_the_fusion_has_a_hidden_layer_unless_another_is_asked_for():
    assert isinstance(auto(arrays(), optimizer=SGD(lr=0.02), **FEW).model.fusion, WideDeep)
    assert isinstance(auto(arrays(), optimizer=SGD(lr=0.02), fusion="Gated", **FEW).model.fusion, Gated)


@pytest.mark.slow
def test_what_two_modalities_tell_only_together_is_learned():
    rng = np.random.default_rng(0)
    a, y = rng.integers(0, 2, 700), np.arange(700) % 2
    data = cp.from_arrays({m: bit[:, None] + 0.1 * rng.normal(size=(700, 3)) for m, bit in (("a", a), ("b", a ^ y))}, y)
    found = auto(data, optimizer=cp.Adam(lr=0.01), epochs=15, batch_size=32)
    assert found.result["test"]["fused/accuracy"] > 0.95


# -- the command ---------------------------------------------------------------------------------------
def test_the_command_makes_a_run_like_any_other_of_a_table(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_digits("clips", size=120)
    asked = ["--data=clips/digits.csv", "--data.modalities.audio=audio", "--data.modalities.audio.sample_rate=8000"]
    asked += ["--data.modalities.audio.seconds=0.5", "--data.modalities.image=image", "--data.modalities.image.size=8"]
    asked += ["--data.modalities.image.channels=1", "--epochs=1", "--batch_size=16", "--progress=false"]
    assert run(["auto", *asked]) == 0
    said = capsys.readouterr().out
    directory = "runs/digits-auto-s0"
    assert f"Everything is in {directory}; open {directory}/answer.html" in said
    assert "is best on validation." in said
    assert run(["evaluate", directory]) == 0
    assert run(["predict", directory, "clips/digits.csv", "--out", "predictions.csv"]) == 0
    assert json.loads((tmp_path / directory / "result.json").read_text())["label"] == "auto"
    assert run(["auto", *asked]) == 1
    assert "holds a finished run" in capsys.readouterr().err


@pytest.mark.slow
def test_the_command_compares_with_another_run(tmp_path, capsys):
    common = ["--data=digits", "--data.size=150", "--epochs=1", "--batch_size=16", "--progress=false"]
    joint, own = tmp_path / "joint", tmp_path / "own"
    assert run(["fit", *common, "--method=Joint", f"--run_dir={joint}"]) == 0
    assert run(["auto", *common, "--optimizer.lr=0.02", f"--run_dir={own}", f"--against={joint}"]) == 0
    said = capsys.readouterr().out
    assert "Over Joint, on the same samples:" in said
    assert "Trying" not in said
    assert json.loads((own / "answer.json").read_text())["against"][0] == "Joint"


def test_the_command_refuses_what_it_decides(capsys):
    assert run(["auto", "--data=digits", "--method=IGM"]) == 2
    assert "--method is an option of `fit`; here `auto` decides it" in capsys.readouterr().err
    assert run(["auto", "--data=digits", "--budget=soon"]) == 2
    assert "budget must be a time above 0" in capsys.readouterr().err
