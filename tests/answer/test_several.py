"""Several runs of ``auto`` as one model."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import counterpoise as cp
from counterpoise.answer.auto import auto
from counterpoise.answer.several import _one_model
from counterpoise.cli import main
from counterpoise.engine import SGD
from counterpoise.engine.record import RunDirectoryError
from counterpoise.fusions.committee import Committee
from counterpoise.task import MultiLabel, Regression, SingleLabel

FEW: dict[str, Any] = {"epochs": 1, "batch_size": 16, "optimizer": SGD(lr=0.05)}


@pytest.fixture(autouse=True)
def no_refits(monkeypatch):
    monkeypatch.setattr("counterpoise.answer.evidence._spread", lambda pool, val: {})
    monkeypatch.setattr("counterpoise.answer.page._pictures", lambda evidence: [])


def data(n=90):
    rng, y = np.random.default_rng(0), np.arange(n) // 6 % 3
    split = np.array((["train"] * 3 + ["val"] + ["test"] * 2) * (n // 6))[:n]
    named = np.array(["x", "y", "z"])[y]
    return cp.from_arrays({m: np.eye(3)[y] + 0.5 * rng.normal(size=(n, 3)) for m in "ab"}, named, split=split)


def models(count=3, task=None, frozen=False):
    torch.manual_seed(0)
    same = nn.Linear(3, 5)
    return [
        cp.build_model(
            {"a": cp.encoders.Frozen(same) if frozen else nn.Linear(3, 5), "b": cp.encoders.MLP(2, (4,), 4)},
            "WideDeep",
            task=task or SingleLabel(3),
            heads=True,
            example=cp.from_arrays({"a": torch.randn(9, 3), "b": torch.randn(9, 2)}, torch.arange(9) % 3).train,
        )
        for _ in range(count)
    ]


@pytest.mark.parametrize("task", [SingleLabel(3), MultiLabel(["x", "y"]), Regression(["x"])])
def test_experts_are_averaged_kind_by_kind(task):
    members = models(task=task)
    one = _one_model(members, ("a", "b"))
    x = {"a": torch.randn(6, 3), "b": torch.randn(6, 2)}
    present = {"a": torch.tensor([True] * 4 + [False] * 2)}
    for only in (("a", "b"), ("a",), ("b",)):
        outputs = [member(x, only, present) for member in members]
        said = one(x, only, present)
        for got, each in [
            (said.logits, [o.logits for o in outputs]),
            *((said.unimodal[m], [o.unimodal[m] for o in outputs]) for m in only),
        ]:
            values = np.stack([u.detach().double().numpy() for u in each])
            if isinstance(task, SingleLabel):
                values = values - np.log(np.exp(values).sum(-1, keepdims=True))
            np.testing.assert_allclose(got.detach().numpy(), values.mean(0), rtol=0, atol=1e-5)


def test_a_member_that_is_not_finite_is_left_out():
    members = models(2)
    x = {"a": torch.randn(4, 3), "b": torch.randn(4, 2)}
    alone = members[0].eval()(x).logits.log_softmax(1)
    with torch.no_grad():
        members[1].get_parameter("fusion.bias").fill_(float("nan"))
    one = _one_model(members, ("a", "b"))
    torch.testing.assert_close(one(x).logits, alone)
    with torch.no_grad():
        members[0].get_parameter("fusion.bias").fill_(float("inf"))
    assert one(x).logits.isnan().all()


def test_an_encoder_that_all_have_runs_once():
    members = models(frozen=True)
    one = _one_model(members, ("a", "b"))
    assert isinstance(one.fusion, Committee)
    assert one.fusion.dims == {"a": 5, "b": 12}
    assert [start["b"] for start in one.fusion.starts] == [0, 4, 8]
    x = {"a": torch.randn(4, 3), "b": torch.randn(4, 2)}
    expected = torch.stack([member(x).logits.log_softmax(1) for member in members]).mean(0)
    torch.testing.assert_close(one(x).logits, expected)


def test_one_model_of_two_runs_is_loaded_and_resumed(tmp_path, monkeypatch):
    where, done = tmp_path / "out", []
    run = cp.Trainer.run

    def dies(self, *args, **kwargs):
        if done:
            raise RuntimeError("killed")
        done.append(1)
        return run(self, *args, **kwargs)

    monkeypatch.setattr(cp.Trainer, "run", dies)
    with pytest.raises(RuntimeError, match="killed"):
        auto(data(), runs=2, run_dir=where, **FEW)
    monkeypatch.setattr(cp.Trainer, "run", run)
    answer = auto(data(), runs=2, run_dir=where, resume=True, **FEW)
    whole = auto(data(), runs=2, run_dir=tmp_path / "whole", **FEW)
    test = data().test
    assert test is not None
    assert torch.equal(answer.trainer.predict(test).fused, whole.trainer.predict(test).fused)
    assert isinstance(answer.model.fusion, Committee)
    assert len(answer.model.fusion.starts) == 2
    assert answer.evidence.against is not None
    assert answer.evidence.against[0] == "one run of 2"
    assert "Over one run of 2, on the same samples:" in str(answer)
    assert (answer.result["runs"], answer.result["epochs"]) == (2, 2)
    each = [json.loads((where / "runs" / n / "result.json").read_text())["test"]["fused/accuracy"] for n in "01"]
    assert [one["test"] for one in answer.result["each"]] == each
    loaded = cp.load(where)
    rows = {"a": torch.randn(5, 3), "b": torch.randn(5, 3)}
    expected = answer.trainer.predict(rows).fused.softmax(1)
    np.testing.assert_allclose(loaded.predict_proba(rows), expected.numpy(), atol=1e-6)
    again = cp.load(loaded.save_pretrained(tmp_path / "copy"))
    np.testing.assert_allclose(again.predict_proba(rows), expected.numpy(), atol=1e-6)
    single = cp.load(where / "runs" / "0").trainer.model
    parameters = sum(p.numel() for p in single.parameters())
    assert answer.evidence.cost["parameters"] == pytest.approx(2 * parameters, rel=0.01)


def test_a_finished_run_of_its_own_is_refused_whatever_its_folder_is_called(tmp_path):
    where = tmp_path / "runs" / "first"
    auto(data(), run_dir=where, **FEW)
    with pytest.raises(RunDirectoryError, match="holds a finished run"):
        auto(data(), run_dir=where, resume=True, **FEW)


def test_a_run_that_fails_is_left_out(monkeypatch):
    run = cp.Trainer.run

    def diverges(self, *args, **kwargs):
        if self.current.seed == 1000:
            raise FloatingPointError("diverged")
        return run(self, *args, **kwargs)

    monkeypatch.setattr(cp.Trainer, "run", diverges)
    with pytest.warns(UserWarning, match="Run 1 failed, and the answer goes without it: diverged"):
        answer = auto(data(), runs=3, **FEW)
    assert isinstance(answer.model.fusion, Committee)
    assert len(answer.model.fusion.starts) == 2


def test_numbers_of_runs(capsys):
    with pytest.raises(ValueError, match="runs must be"):
        auto(data(), runs=0, **FEW)
    with pytest.raises(SystemExit) as ended:
        main(["auto", "--data=digits", "--runs=0"])
    assert ended.value.code == 2
    assert "--runs must be at least 1; got 0" in capsys.readouterr().err


@pytest.mark.slow
def test_it_is_exported(tmp_path):
    pytest.importorskip("onnxruntime")
    answer = auto(data(), runs=2, run_dir=tmp_path / "out", **FEW)
    rows = {m: torch.randn(4, 3) for m in "ab"}
    opened = cp.Exported(cp.load(tmp_path / "out").export(tmp_path / "model.onnx"))
    probabilities = opened({m: x.numpy() for m, x in rows.items()})["fused.probabilities"]
    expected = answer.trainer.predict(rows).fused.softmax(1)
    np.testing.assert_allclose(probabilities, expected.numpy(), atol=1e-5)


@pytest.mark.slow
def test_the_command_plans_runs_and_resumes(tmp_path, capsys):
    asked = [
        "auto",
        "--data=digits",
        "--data.size=150",
        "--epochs=1",
        "--batch_size=16",
        "--progress=false",
        "--runs=3",
    ]
    asked += ["--optimizer.lr=0.02", "--jobs=2", f"--run_dir={tmp_path / 'out'}", "--budget=1h"]
    for more in ([], ["--resume"]):
        with pytest.raises(SystemExit) as ended:
            main([*asked, *more])
        assert ended.value.code == 0
        said = capsys.readouterr().out
        assert ("2 already done" if more else "2 finished") in said
        assert "Over one run of 3" in said
    kept = json.loads((tmp_path / "out" / "config.json").read_text())
    assert kept["result"]["runs"] == 3
    assert len(list((tmp_path / "out" / "runs").glob("MSES*"))) == 2
    assert Path(tmp_path / "out" / "answer.html").is_file()
