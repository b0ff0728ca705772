"""Epochs in which classes are equally frequent: exact, by the seed alone, after a stop and in two processes too."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from test_replicas import on_two
from torch import nn

from counterpoise import build_model, from_arrays, methods
from counterpoise.engine import CheckpointError, Trainer, make_fabric
from counterpoise.testing import _StopAfter, assert_same, everything, trainer_for

torch.set_num_threads(1)
RNG = np.random.default_rng(0)
Y = np.array([0] * 70 + [1] * 20 + [2] * 8)
X = {m: np.eye(3)[Y] + RNG.normal(size=(98, 3)) for m in ("first", "second")}
DATA = from_arrays(X, Y, val=0.2, test=0, present={"second": RNG.random(98) > 0.3})


class Seen(methods.Joint):
    """Remembers what it was given."""

    def step(self, step):
        vars(self).setdefault("batches", []).append((step.epoch, step.batch))
        return super().step(step)


def trained(method, resume=False, **options):
    torch.manual_seed(0)
    encoders = {m: nn.Sequential(nn.Linear(3, 4), nn.ReLU()) for m in X}
    model = build_model(encoders, task=DATA.task, example=DATA.train)
    options = {"epochs": 3, "batch_size": 13, "sampler": "balanced", "progress": False, **options}
    if "fabric" not in options:
        options["accelerator"] = "cpu"
    trainer = Trainer(model, method, **options)
    trainer.fit(DATA.train, DATA.val, resume=resume)
    return trainer


def test_classes_are_equally_frequent_in_every_epoch_and_samples_differ():
    assert len(DATA.train) == 78
    method = Seen()
    trained(method)
    epochs = [[b for epoch, b in method.batches if epoch == e] for e in range(3)]
    assert [len(batches) for batches in epochs] == [6] * 3
    rows = [torch.cat([b.index for b in batches]) for batches in epochs]
    for index, batches in zip(rows, epochs, strict=True):
        assert torch.bincount(DATA.train.target[index]).tolist() == [26, 26, 26]
        assert all(torch.equal(b.target, DATA.train.target[b.index]) for b in batches)
        there = [b.present["second"] if b.present else torch.ones(13, dtype=torch.bool) for b in batches]
        assert torch.equal(torch.cat(there), DATA.train.present["second"][index])
        assert len({tuple(b.target.sort().values.tolist()) for b in batches}) > 1  # mixed, and not class by class
    assert set(rows[0].tolist()) != set(rows[1].tolist())
    plain = Seen()
    trained(plain, sampler=None, epochs=1)
    assert torch.equal(torch.cat([b.index for _, b in plain.batches]).sort().values, torch.arange(78))


def test_what_a_method_resamples_is_balanced_in_turn():
    chosen, hidden = torch.arange(78).flip(0)[:65].repeat(2), torch.arange(130) % 2 == 0

    class Resamples(Seen):
        def on_epoch_start(self, trainer):
            trainer.resample(chosen, {"first": hidden})

    method = Resamples()
    trained(method, epochs=1)
    index = torch.cat([b.index for _, b in method.batches])
    counts = torch.bincount(DATA.train.target[index])
    assert len(index) == 130
    assert counts.max() - counts.min() <= 1
    assert set(index.tolist()) <= set(chosen.tolist())
    shown = torch.cat([b.present["first"] for _, b in method.batches])
    assert 0 < int(shown.sum()) < 130  # rows keep their masks: whether a copy shows it says which copy it is
    for row, there in zip(index.tolist(), shown.tolist(), strict=True):
        assert there in hidden[chosen == row].tolist()


@pytest.mark.parametrize("batches", [2, 6, 9])
def test_resumed_it_is_the_run_that_was_not_stopped(batches, tmp_path):
    with pytest.raises(RuntimeError, match="stopped by the test"):
        trained(methods.OGM(), run_dir=tmp_path / "run", observers=[_StopAfter(batches)])
    again = trained(methods.OGM(), run_dir=tmp_path / "run", resume=True)
    assert_same(everything(trained(methods.OGM())), everything(again))
    with pytest.raises((RuntimeError, CheckpointError), match="sampler"):
        trained(methods.OGM(), run_dir=tmp_path / "run", resume=True, sampler=None)


def ended(fabric):
    return everything(trained(methods.Joint(), batch_size=26, fabric=fabric))


def test_two_processes_end_as_one():
    expected = ended(make_fabric(accelerator="cpu"))
    for found in on_two(ended):
        for name, value in expected.items():
            torch.testing.assert_close(found[name], value, rtol=1e-5, atol=1e-6, msg=name)


def test_it_is_about_classes():
    for kind, cure in (("multi-label", "pos_weight"), ("regression", "sample_weight")):
        with pytest.raises(ValueError, match=rf"sampler='balanced' is about classes; these targets are {kind}.*{cure}"):
            trainer_for(methods.Joint, kind=kind, sampler="balanced")
    with pytest.raises(ValueError, match="Did you mean 'balanced'"):
        trainer_for(methods.Joint, sampler="balance")
