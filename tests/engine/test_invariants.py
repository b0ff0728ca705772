"""The five promises of the engine; each check is run on the engine, and on one that is broken on purpose."""

import pytest
import torch
from torch import nn

from counterpoise.engine import SGD, Run, averaging, make_fabric, step
from counterpoise.methods import OGMGE, Joint
from counterpoise.testing import assert_same, everything, resumes_exactly, same_on_replicas, trainer_for

TWO = ("first", "second")


def breaks(check, *args):
    with pytest.raises(AssertionError):
        check(*args)


# 1 ---- after backward, and in what grad returns, the gradient is that of the global batch ---------------
class ByGrad(Joint):
    """Joint training that asks for its gradient instead of calling ``backward``."""

    def step(self, step):
        loss = self.objective(step)
        params = step.trainable()
        for p, g in zip(params, step.grad(loss, params), strict=True):
            p.grad = g
        step.update()
        return loss.detach()


class TwoBackwards(Joint):
    """Joint training in two passes over one graph, which accumulate."""

    def step(self, step):
        loss = self.objective(step)
        step.backward(0.25 * loss, retain=True)
        step.backward(0.75 * loss)
        step.update()
        return loss.detach()


def unaveraged(tensors, fabric):
    list(tensors)


@pytest.mark.parametrize("make", [ByGrad, TwoBackwards])
def test_gradients_are_global(make):
    same_on_replicas(make, TWO, None)


def test_gradients_are_global_mutation_grad(monkeypatch):
    monkeypatch.setattr(step, "average_", unaveraged)
    breaks(same_on_replicas, ByGrad, TWO, None)


def test_gradients_are_global_mutation_backward(monkeypatch):
    def local(self, loss, retain=False):
        loss.backward(retain_graph=retain)

    monkeypatch.setattr(step.Step, "backward", local)
    breaks(same_on_replicas, Joint, TWO, None)


def test_gradients_are_global_mutation_averaged_twice(monkeypatch):
    def all_of_grad(self, loss, retain=False):
        loss.backward(retain_graph=retain)
        averaging.average_([p.grad for p in self.trainable()], self._fabric)  # what was there already is averaged again

    monkeypatch.setattr(step.Step, "backward", all_of_grad)
    same_on_replicas(TwoBackwards, TWO, None)  # equal parts on all replicas survive that; parts that differ do not

    class LocalFirst(Joint):
        def step(self, step):
            loss = self.objective(step)
            for p in step.trainable():
                p.grad = torch.full_like(p, float(step._fabric.global_rank))
            step.backward(loss)
            for p in step.trainable():
                p.grad -= step._fabric.global_rank
            step.update()
            return loss.detach()

    breaks(same_on_replicas, LocalFirst, TWO, None)


# 2 ---- Output is float32 whatever the precision -----------------------------------------------------------
def outputs_are_float32():
    seen = []

    class Looks(Joint):
        def loss(self, output, step):
            seen.extend([output.logits, *output.unimodal.values(), *output.features.values()])
            torch.cdist(output.features["first"], output.features["first"].detach().float())  # has no bfloat16 kernel
            return super().loss(output, step)

        def predict(self, output, model):
            seen.extend([output.logits, *output.unimodal.values(), *output.features.values()])
            return output.logits

    trainer, data = trainer_for(Looks, fusion="Late", precision="bf16-mixed", epochs=1)
    trainer.fit(data.train, data.val)
    for _, output in trainer.current.outputs(data.val):
        seen.extend([output.logits, *output.unimodal.values(), *output.features.values()])
    assert all(t.dtype == torch.float32 for t in seen)
    assert all(t.dtype == torch.float32 for t in trainer.predict(data.test).named().values())


def test_outputs_are_float32():
    outputs_are_float32()


@pytest.mark.parametrize("verb", ["encode", "fuse"])
def test_outputs_are_float32_mutation(monkeypatch, verb):
    def encode(self, only=None, inputs=None):
        with self._fabric.autocast():
            return self.model.encode(inputs or self.batch.inputs, only, self.batch.present)

    def fuse(self, features, present=None, *, unimodal=True):
        with self._fabric.autocast():
            return self.model.fuse(features, present, unimodal=unimodal)

    monkeypatch.setattr(step.Step, verb, {"encode": encode, "fuse": fuse}[verb])
    with pytest.raises((AssertionError, RuntimeError)):
        outputs_are_float32()


# 3 ---- randomness that edits weights or gradients is equal on all replicas, and checkpointed -----------------
class Noise(Joint):
    """Adds noise to the gradient."""

    local = False

    def modulate(self, output, step):
        generator = None if self.local else step.generator
        for p in step.trainable():
            p.grad += 0.1 * torch.randn(p.shape, generator=generator)


class LocalNoise(Noise):
    local = True


def test_noise_is_the_same_everywhere():
    same_on_replicas(Noise, TWO, None)
    same_on_replicas(lambda: OGMGE(start=0), TWO, None)


def test_noise_is_the_same_everywhere_mutation():
    breaks(same_on_replicas, LocalNoise, TWO, None)


def test_noise_survives_a_restart():
    resumes_exactly(Noise, TWO, None)


def test_noise_survives_a_restart_mutation(monkeypatch):
    load = Run.load_state_dict

    def forgets(self, saved):
        state = self.generator.get_state()
        load(self, saved)
        self.generator.set_state(state)

    monkeypatch.setattr(Run, "load_state_dict", forgets)
    breaks(resumes_exactly, Noise, TWO, None)


# 4 ---- extra forward passes leave running statistics alone ---------------------------------------------------
def statistics_move_once():
    plain, data = trainer_for(Joint, epochs=1, optimizer=SGD(lr=0.0))
    sam, _ = trainer_for(Joint, epochs=1, optimizer=SGD(lr=0.0), sam=0.5)
    assert_same(*(everything(t.fit(data.train, data.val)) for t in (plain, sam)))


def evaluation_leaves_statistics():
    trainer, data = trainer_for(Joint)
    trainer.model.train()
    before = everything(trainer)
    trainer.predict(data.val)
    list(trainer.current.outputs(data.val))
    assert_same(before, everything(trainer))


def test_statistics_move_once():
    statistics_move_once()
    evaluation_leaves_statistics()


class Nothing:
    def __init__(self, *_):
        pass

    def __enter__(self):
        pass

    def __exit__(self, *_):
        pass


class ZeroMomentum(Nothing):
    """What other libraries do: the counter of batches advances all the same."""

    def __init__(self, module):
        self.norms = [m for m in module.modules() if isinstance(m, nn.BatchNorm1d)]

    def __enter__(self):
        for m in self.norms:
            m.momentum = 0.0

    def __exit__(self, *_):
        for m in self.norms:
            m.momentum = 0.1


@pytest.mark.parametrize("broken", [Nothing, ZeroMomentum])
def test_statistics_move_once_mutation_sam(monkeypatch, broken):
    monkeypatch.setattr(step, "frozen_statistics", broken)
    breaks(statistics_move_once)


def test_statistics_move_once_mutation_evaluation(monkeypatch):
    from counterpoise.engine import evaluation

    monkeypatch.setattr(evaluation, "evaluating", Nothing)
    breaks(evaluation_leaves_statistics)


# 5 ---- all state is in buffers: stopping anywhere and resuming is exact ---------------------------------------
class InBuffer(Joint):
    """Scales the loss by what it has seen so far."""

    def setup(self, trainer):
        self.register_buffer("seen", torch.ones(()))

    def loss(self, output, step):
        loss = super().loss(output, step)
        self.seen += loss.detach()
        return loss * (1 + 1 / self.seen)


class InAttribute(InBuffer):
    def setup(self, trainer):
        self.seen = torch.ones(())


class TrainsInSetup(Joint):
    """Draws its state where every start does, with the numbers of that start."""

    starts = 0

    def setup(self, trainer):
        type(self).starts += 1
        self.factor = 1 + 0.1 * self.starts

    def loss(self, output, step):
        return super().loss(output, step) * self.factor


def test_resuming_is_exact():
    resumes_exactly(InBuffer, TWO, None)


@pytest.mark.parametrize("make", [InAttribute, TrainsInSetup])
def test_resuming_is_exact_mutation_state_elsewhere(make):
    breaks(resumes_exactly, make, TWO, None)


def test_unknown_precision_is_refused():
    with pytest.raises(ValueError, match="Unknown precision"):
        make_fabric(precision="bf16-mixd")
