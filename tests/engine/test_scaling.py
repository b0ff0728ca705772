"""Losses are scaled in float16 on GPUs; here the scale stands beside full precision, where it must change nothing."""

import math

import pytest
import torch

from counterpoise.engine import Observer, scaling
from counterpoise.engine import run as run_module
from counterpoise.engine.scaling import LossScale
from counterpoise.engine.torch_optim import TorchOptim
from counterpoise.methods import AGM, IGM, MLA, OGM, Joint, MMPareto
from counterpoise.testing import assert_same, everything, trainer_for

METHODS = [Joint, OGM, AGM, MMPareto, IGM, MLA]


@pytest.fixture
def scaled(monkeypatch):
    monkeypatch.setattr(run_module, "loss_scale", lambda fabric: LossScale(fabric.device))


def trained(make, **options):
    trainer, data = trainer_for(make, epochs=2, **options)
    before = everything(trainer)
    trainer.fit(data.train, data.val)
    return trainer, before


@pytest.mark.parametrize("options", [{}, {"sam": 0.05, "clip_norm": 0.1}])
@pytest.mark.parametrize("make", METHODS)
def test_a_scale_that_never_overflows_changes_no_bit(monkeypatch, request, make, options):
    options = {} if make is IGM else options  # it has a radius of its own
    plain, _ = trained(make, **options)
    request.getfixturevalue("scaled")
    monkeypatch.setattr(scaling, "PATIENCE", 2)
    scaled, before = trained(make, **options)
    assert_same(everything(scaled), everything(plain))
    assert any(not torch.equal(before[name], value) for name, value in everything(scaled).items())
    assert scaled.current.loss_scale is not None
    assert float(scaled.current.loss_scale.factor) > scaling.START  # so there were several of them


@pytest.mark.usefixtures("scaled")
@pytest.mark.parametrize("optimizer", [None, TorchOptim("SGD", lr=0.01, options={"momentum": 0.9})])
@pytest.mark.parametrize("make", METHODS)
def test_an_overflow_skips_the_update_whatever_the_method(monkeypatch, make, optimizer):
    monkeypatch.setattr(scaling, "START", math.inf)
    trainer, before = trained(make, optimizer=optimizer)
    weights = [name for name, _ in trainer.model.named_parameters()]
    after = everything(trainer)
    assert all(torch.equal(after[f"model.{name}"], before[f"model.{name}"]) for name in weights)
    assert all(value.isfinite().all() for value in after.values() if value.is_floating_point())


class Moved(Observer):
    """Whether each batch moved a weight."""

    def on_fit_start(self, run):
        self.moved, self._before = [], [p.detach().clone() for p in run.model.parameters()]

    def on_batch_end(self, run):
        now = [p.detach().clone() for p in run.model.parameters()]
        self.moved.append(not all(torch.equal(a, b) for a, b in zip(self._before, now, strict=True)))
        self._before = now


@pytest.mark.parametrize("make", [make for make in METHODS if make is not MLA])  # which updates more than once a batch
def test_training_goes_on_after_an_overflow_with_half_the_scale(monkeypatch, make):
    def first_overflows(fabric):
        scale, calls = LossScale(fabric.device), []
        inner = scale.unscaled

        def unscaled(grads):
            calls.append(len(grads))
            return inner([torch.full_like(g, math.inf) for g in grads] if len(calls) == 1 else grads)

        scale.unscaled = unscaled
        return scale

    monkeypatch.setattr(run_module, "loss_scale", first_overflows)
    watch = Moved()
    trainer, _ = trained(make, observers=[watch])
    assert watch.moved == [False] + [True] * (len(watch.moved) - 1)
    assert trainer.current.loss_scale is not None
    assert float(trainer.current.loss_scale.factor) == scaling.START / 2
    assert all(value.isfinite().all() for value in everything(trainer).values() if value.is_floating_point())


@pytest.mark.usefixtures("scaled")
def test_a_resumed_run_goes_on_with_its_scale():
    trainer, _ = trained(Joint)
    assert trainer.current.loss_scale is not None
    trainer.current.loss_scale.factor /= 8
    saved = trainer.current.state_dict()
    other, _ = trained(Joint)
    other.current.load_state_dict(saved)
    assert_same(other.current.state_dict()["loss_scale"], saved["loss_scale"])
