"""The loop: what it trains, what it keeps, what a trial leaves alone."""

import copy
import random

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from counterpoise import build_model
from counterpoise.data.arrays import ArraySplit
from counterpoise.engine import SGD, Cosine, Observer, Trainer
from counterpoise.engine.state import mix
from counterpoise.methods import Joint, Unimodal
from counterpoise.testing import DIM, assert_same, everything, task, trainer_for
from counterpoise.types import Phase

TWO = ("first", "second")


# -- the loop does what a loop by hand does ------------------------------------------------------------
def test_parity_with_a_loop_by_hand():
    trainer, data = trainer_for(Joint, optimizer=SGD(lr=0.05), schedule=Cosine(), epochs=3, clip_norm=1.0)
    model = copy.deepcopy(trainer.model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-4, fused=True)
    best, kept = -1.0, {}
    val = {m: data.val.batch(range(len(data.val)), m, None) for m in TWO}
    for epoch in range(3):
        model.train()
        order = torch.randperm(len(data.train), generator=torch.Generator().manual_seed(mix(0, epoch, "order")))
        batches = order[: len(order) // 18 * 18].split(18)
        for index, rows in enumerate(batches):
            for group in optimizer.param_groups:
                group["lr"] = 0.05 * Cosine().factor(epoch + index / len(batches), 3)
            features = {m: model.encoders[m](data.train.batch(rows.tolist(), m, None)) for m in TWO}
            logits, _ = model.fusion(features)
            loss = F.cross_entropy(logits, data.train.target[rows])
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
        model.eval()
        with torch.no_grad():
            logits, _ = model.fusion({m: model.encoders[m](val[m]) for m in TWO})
        accuracy = float((logits.argmax(1) == data.val.target).float().mean())
        if accuracy > best:
            best, kept = accuracy, copy.deepcopy(model.state_dict())
    trainer.fit(data.train, data.val)
    assert_same({f"model.{k}": v for k, v in kept.items()}, everything(trainer))


@pytest.mark.parametrize("monitor", ["accuracy", "loss"])
def test_the_best_epoch_on_validation_is_kept(monitor):
    weights = []

    class Watch(Observer):
        def on_epoch_end(self, trainer, record):
            weights.append(everything(trainer))

    trainer, data = trainer_for(Joint, epochs=6, monitor=monitor, optimizer=SGD(lr=0.5), observers=[Watch()])
    trainer.fit(data.train, data.val)
    values = [r[f"val/fused/{monitor}"] for r in trainer.history]
    place = values.index(min(values) if monitor == "loss" else max(values))
    assert place != 5  # else the last weights would pass as the best
    assert trainer.current.state.best_epoch == place + 1
    assert_same(everything(trainer), weights[place])


class Untouchable(ArraySplit):
    def batch(self, indices, modality, seed):
        raise AssertionError("read while training")


def test_fit_reads_no_test_sample():
    trainer, data = trainer_for(Joint, epochs=1)
    rows = range(len(data.test))
    test = Untouchable({m: data.test.batch(rows, m, None) for m in TWO}, data.test.target, data.test.classes)
    trainer.fit(data.train, data.val)
    with pytest.raises(AssertionError, match="read while training"):
        trainer.evaluate(test)


def test_every_fit_starts_afresh():
    once, data = trainer_for(Joint)
    start = copy.deepcopy(once.model.state_dict())
    once.fit(data.train, data.val)
    expected, history = everything(once), [{**r, "seconds": 0} for r in once.history]
    once.model.load_state_dict(start)
    for p in once.model.parameters():
        p.grad = torch.ones_like(p)  # left over from something else
    once.fit(data.train, data.val)
    assert_same(expected, everything(once))
    assert history == [{**r, "seconds": 0} for r in once.history]


def test_training_takes_nothing_from_the_model_but_its_weights():
    trainer, data = trainer_for(lambda: Unimodal("first"), epochs=1)
    frozen = trainer.model.encoders["first"][0].bias.requires_grad_(False)
    trainer = Trainer(trainer.model, Unimodal("first"), epochs=1, batch_size=18, accelerator="cpu", progress=False)
    before = frozen.clone()
    trainer.fit(data.train, data.val)
    assert [p for p in trainer.model.parameters() if not p.requires_grad] == [frozen]
    assert torch.equal(frozen, before)
    assert not trainer.model.training
    weight = trainer.model.encoders["second"][0].weight
    start = weight.detach().clone()
    Trainer(trainer.model, Joint(), epochs=1, batch_size=18, accelerator="cpu", progress=False).fit(
        data.train, data.val
    )
    assert not torch.equal(weight, start)  # a second trainer trains everything


# -- trials --------------------------------------------------------------------------------------------
class Tries(Joint):
    """Runs a trial in the middle of training."""

    def __init__(self, trials=True):
        super().__init__()
        self.trials = trials

    def on_epoch_end(self, trainer, scores):
        if self.trials:
            state = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
            before, count = everything(trainer), trainer.history.copy()
            trial = trainer.fork(Unimodal("first"), 2).fit()
            assert_same({k: v for k, v in before.items() if "method" not in k}, everything(trainer))
            assert trial.scores("val")["first/accuracy"] > 0
            assert any(not torch.equal(a, b) for a, b in zip(before.values(), everything(trial).values(), strict=False))
            assert trainer.history == count
            assert state[0] == random.getstate()
            assert state[1] == np.random.get_state()[1].tolist()
            assert torch.equal(state[2], torch.get_rng_state())


def noisy(trials, **options):
    """A trainer whose encoders drop out, so that random numbers matter."""
    torch.manual_seed(0)
    encoders = {m: nn.Sequential(nn.Linear(DIM, 8), nn.BatchNorm1d(8), nn.Dropout(0.3), nn.Linear(8, 4)) for m in TWO}
    model = build_model(encoders, "Concat", num_classes=3, example=task(TWO).train)
    options = {"epochs": 3, "batch_size": 18, "accelerator": "cpu", "progress": False, **options}
    return Trainer(model, Tries(trials), **options)


def test_a_trial_leaves_the_run_alone():
    data = task(TWO)
    with_trials, without = (noisy(trials).fit(data.train, data.val) for trials in (True, False))
    assert_same(everything(with_trials), everything(without))
    assert [{**r, "seconds": 0} for r in with_trials.history] == [{**r, "seconds": 0} for r in without.history]


@pytest.mark.filterwarnings("ignore:Turns had no epoch that may be selected")
def test_a_trial_trains_what_the_phase_does_not():
    class Turns(Joint):
        def phase(self, index, trainer):
            return Phase(1, train=("first",)) if index == 0 else None

        def on_epoch_end(self, trainer, scores):
            trial = trainer.fork(Joint(), 1)
            self.trained = all(p.requires_grad for p in trial.model.parameters())
            self.rests = not any(p.requires_grad for p in trainer.model.parameters_of("second"))

    trainer, data = trainer_for(Turns, sam=0.05)
    trainer.fit(data.train, data.val)
    assert trainer.method.trained
    assert trainer.method.rests
    trial = trainer.current.fork(Joint(), 2, lr=0.3)
    assert (trial.sam, trial.optimizer_settings.lr, trainer.current.optimizer_settings.lr) == (0.05, 0.3, 0.05)


def test_fitting_leaves_the_global_random_numbers_as_they_were():
    trainer, data = trainer_for(Joint)
    random.seed(3)
    np.random.seed(3)
    torch.manual_seed(3)
    expected = random.random(), np.random.random(), torch.rand(1).item()
    random.seed(3)
    np.random.seed(3)
    torch.manual_seed(3)
    trainer.fit(data.train, data.val)
    assert (random.random(), np.random.random(), torch.rand(1).item()) == expected
