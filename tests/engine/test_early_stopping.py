"""Training that ends when validation has stopped getting better: where it may, exactly, and said in the result."""

from __future__ import annotations

import json

import pytest
import torch
from test_replicas import on_two

from counterpoise import methods
from counterpoise.engine import SGD, CheckpointError, make_fabric
from counterpoise.testing import _StopAfter, assert_same, everything, trainer_for

torch.set_num_threads(1)
OPTIONS = {"epochs": 30, "early_stopping": 3, "monitor": "loss", "optimizer": SGD(lr=0.6)}
REFUSED = {
    "IGM": "one modality after another",
    "ReconBoost": "in turns",
    "DOMFN": "before what fuses them",
    "GBlending": "weights of its own",
    "MSES": "a rule of its own",
    "G2D": "one after another",
    "ReLearning": "towards their start",
    "BSS": "by and by",
    "DIMML": "among phases",
    "MIDAS": "after a warm-up",
    "DataRemixing": "after its warm-up",
}
FUSIONS = {"MLA": "Shared", "ReconBoost": "Sum", "DOMFN": "Late", "MMCosine": "Concat"}


def made(name):
    return methods.Unimodal("first") if name == "Unimodal" else getattr(methods, name)()


def timeless(history):
    return [{name: value for name, value in record.items() if name != "seconds"} for record in history]


@pytest.mark.parametrize(("patience", "epochs"), [(1, 2), (4, 5), (9, 10), (10, 10)])
def test_it_ends_when_nothing_is_better_for_so_many_epochs(patience, epochs, tmp_path):
    trainer, data = trainer_for(methods.Joint, epochs=10, optimizer=SGD(lr=0.0), early_stopping=patience, norm=False,
                                run_dir=tmp_path / "run")  # fmt: skip
    result = trainer.run(data)
    assert (result["epochs"], result["best_epoch"]) == (epochs, 1)
    written = json.loads((tmp_path / "run" / "result.json").read_text())
    assert written["stopped_early"] == (epochs < 10)


def test_without_it_a_result_says_nothing_of_it():
    trainer, data = trainer_for(methods.Joint, epochs=2)
    assert "stopped_early" not in trainer.run(data)


@pytest.mark.parametrize("batches", [1, 7, 11])
def test_a_run_that_is_cut_and_resumed_stops_where_it_would_have(batches, tmp_path):
    whole, data = trainer_for(methods.OGM, **OPTIONS)
    whole.fit(data.train, data.val)
    assert 4 < len(whole.history) < 30
    best = min(range(len(whole.history)), key=lambda i: whole.history[i]["val/fused/loss"])
    assert len(whole.history) == best + 1 + 3
    cut, _ = trainer_for(methods.OGM, **OPTIONS, run_dir=tmp_path / "run", observers=[_StopAfter(batches)])
    with pytest.raises(RuntimeError, match="stopped by the test"):
        cut.fit(data.train, data.val)
    again, _ = trainer_for(methods.OGM, **OPTIONS, run_dir=tmp_path / "run")
    again.fit(data.train, data.val, resume=True)
    assert_same(everything(whole), everything(again))
    assert timeless(whole.history) == timeless(again.history)
    other, _ = trainer_for(methods.OGM, **{**OPTIONS, "early_stopping": 4}, run_dir=tmp_path / "run")
    with pytest.raises((RuntimeError, CheckpointError), match="early_stopping"):
        other.fit(data.train, data.val, resume=True)


def stopped(fabric):
    trainer, data = trainer_for(methods.Joint, **OPTIONS, norm=False, fabric=fabric)
    trainer.fit(data.train, data.val)
    return torch.tensor(len(trainer.history))


def test_all_processes_stop_together():
    alone = stopped(make_fabric(accelerator="cpu"))
    assert alone < 30
    assert on_two(stopped) == [alone, alone]


@pytest.mark.parametrize("name", methods.__all__)
def test_methods_that_must_finish_refuse_with_their_reason(name):
    def build():
        return trainer_for(lambda: made(name), fusion=FUSIONS.get(name), early_stopping=2)

    if name not in REFUSED:
        build()
        return
    with pytest.raises(ValueError, match=rf"early_stopping: {name} must train for all its epochs: .*{REFUSED[name]}"):
        build()


def test_what_a_method_says_depends_on_its_settings():
    for allowed in (methods.GBlending("offline"), methods.DOMFN(pretrain=0)):
        assert allowed.must_finish() is None

    class Phased(methods.Joint):
        def phase(self, index, trainer):
            return super().phase(index, trainer)

    assert "phases" in str(Phased().must_finish())


@pytest.mark.parametrize("patience", [0, -1, 1.5, True])
def test_patience_is_a_whole_number(patience):
    with pytest.raises(ValueError, match="early_stopping must be a whole number >= 1"):
        trainer_for(methods.Joint, early_stopping=patience)
