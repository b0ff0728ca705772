import copy
import random

import numpy as np
import pytest
import torch

from counterpoise.engine import SGD, Cosine
from counterpoise.functional.blending import blend_weights
from counterpoise.method import Method
from counterpoise.methods.gblending import GBlending
from counterpoise.testing import CHECKS, NAMES, assert_same, check_method, everything, task, tiny_model, trainer_for

TWO = NAMES[:2]


class Plain(Method):
    """Joint training of a model that has own heads."""

    info = GBlending.info
    own_heads = True


COST = ("seconds", "cpu_seconds", "forward", "backward", "peak_memory", "rise")


class Watching(GBlending):
    """Looks at the run before and after every estimate."""

    def _estimate(self, trainer, epochs, parts):
        before = fingerprint(trainer)
        weights = super()._estimate(trainer, epochs, parts)
        after = fingerprint(trainer)
        assert before.keys() == after.keys()
        assert all(same(before[k], after[k]) for k in before), [k for k in before if not same(before[k], after[k])]
        self.estimates = [*getattr(self, "estimates", []), (epochs, weights.clone(), trainer.rows.indices)]
        return weights


def fingerprint(trainer):
    return {
        "weights": copy.deepcopy(trainer.model.state_dict()),
        "optimizer": copy.deepcopy(trainer.optimizer.state_dict()["state"]),
        "schedule": trainer.schedule.state_dict(),
        "state": {k: v for k, v in trainer.state.state_dict().items() if k not in COST},  # which trial runs add to
        "generator": trainer.generator.get_state(),
        "torch": torch.get_rng_state(),
        "numpy": str(np.random.get_state()),
        "python": random.getstate(),
        "train": [p.requires_grad for p in trainer.model.parameters()],
        "mode": [m.training for m in trainer.model.modules()],
        "rows": trainer.rows.indices,
    }


def same(a, b):
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    return a == b


def test_three_modalities_offline():
    check_method(lambda: GBlending("offline"), modalities=3, checks=CHECKS[:1])


@pytest.mark.parametrize("schedule", ["online", "offline"])
def test_the_main_run_is_not_touched_by_an_estimate(schedule):
    trainer, data = trainer_for(lambda: Watching(schedule, super_epoch=2), TWO)
    trainer.fit(data.train, data.val)
    method = trainer.method
    assert [e[0] for e in method.estimates] == ([2, 2] if schedule == "online" else [4])
    for _, weights, _ in method.estimates:
        assert float(weights.sum()) == pytest.approx(1.0)
        assert (weights >= 0).all()
        assert len(weights) == 3


def test_held_out_samples_stay_unseen_until_the_last_estimate():
    seen = {}

    class Listing(GBlending):
        def step(self, step):
            seen.setdefault(step.epoch, set()).update(step.batch.index.tolist())
            return super().step(step)

    trainer, data = trainer_for(lambda: Listing(super_epoch=2, holdout=0.25), TWO, batch_size=9)
    trainer.fit(data.train, data.val)
    parts = trainer.method._parts(trainer.current)
    held = set(range(len(data.train))) - set(parts.kept.tolist())
    assert len(held) == len(parts.unseen) == round(0.25 * len(data.train))
    assert parts.unseen.target.bincount().min() > 0  # stratified
    assert set(parts.seen.indices.tolist()) <= set(parts.kept.tolist())
    assert not held & (seen[0] | seen[1])
    assert held & (seen[2] | seen[3])


def test_estimate_against_the_reference():
    """One estimate rebuilt with a hand-written loop: one source alone, last weights, losses in evaluation mode."""
    names, epochs = TWO, 2
    trainer, data = trainer_for(lambda: Watching("offline"), names, epochs=epochs, norm=False)
    trainer.fit(data.train, data.val)
    (_, estimated, _), parts = trainer.method.estimates[0], trainer.method._parts(trainer.current)

    orders = {}

    class Orders(Plain):
        def step(self, step):
            orders.setdefault(step.epoch, []).append(step.batch.index.clone())
            return super().step(step)

    probe, _ = trainer_for(Orders, names, epochs=epochs, norm=False)
    probe.fit(parts.train, parts.unseen)

    def loss(model, split, k):
        with torch.no_grad():
            output = model({m: split.batch(range(len(split)), m, None) for m in names})
        logits = output.logits if k == "fused" else output.unimodal[k]
        return torch.nn.functional.cross_entropy(logits.double(), split.target)

    rows = []
    for k in (*names, "fused"):
        model = tiny_model(Plain(), names, norm=False)
        before = loss(model, parts.seen, k), loss(model, parts.unseen, k)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-4)
        for epoch in range(epochs):
            for index in orders[epoch]:
                output = model({m: parts.train.batch(index.tolist(), m, None) for m in names})
                logits = output.logits if k == "fused" else output.unimodal[k]
                optimizer.zero_grad()
                torch.nn.functional.cross_entropy(logits, parts.train.target[index]).backward()
                optimizer.step()
        rows.append([*before, loss(model, parts.seen, k), loss(model, parts.unseen, k)])
    expected = blend_weights(*torch.tensor(rows, dtype=torch.float64).unbind(1))
    torch.testing.assert_close(estimated.double(), expected, rtol=1e-3, atol=1e-4)


def test_one_super_epoch_of_the_whole_run_is_offline():
    results = []
    for make in (lambda: GBlending("online", super_epoch=4), lambda: GBlending("offline")):
        trainer, data = trainer_for(make, TWO, schedule=Cosine(warmup=1))
        trainer.fit(data.train, data.val)
        results.append(everything(trainer))
    assert_same(*results)


def test_fixed_weights_are_the_loss():
    given = {"first": 0.36, "second": 0.27, "fused": 0.37}

    class Checked(GBlending):
        def loss(self, output, step):
            total = super().loss(output, step)
            parts = {m: step.unimodal_loss(output, m) for m in TWO} | {"fused": step.criterion(output.logits)}
            torch.testing.assert_close(total, sum(given[k] * parts[k] for k in parts))
            return total

    trainer, data = trainer_for(lambda: Checked(weights=given), TWO, epochs=1)
    trainer.fit(data.train, data.val)
    assert trainer.method.blend.tolist() == pytest.approx([0.36, 0.27, 0.37])
    doubled, _ = trainer_for(lambda: GBlending(weights={k: 2 * w for k, w in given.items()}), TWO, epochs=1)
    doubled.fit(data.train, data.val)
    torch.testing.assert_close(doubled.method.blend, trainer.method.blend)


def test_trial_runs_use_the_rate_that_is_reached():
    rates = []

    class Spying(GBlending):
        def _estimate(self, trainer, epochs, parts):
            fork = trainer.fork
            trainer.fork = lambda *a, **k: rates.append(k["lr"]) or fork(*a, **k)
            try:
                return super()._estimate(trainer, epochs, parts)
            finally:
                del trainer.fork

    trainer, data = trainer_for(lambda: Spying(super_epoch=2), TWO, schedule=Cosine(), optimizer=SGD(lr=0.1))
    trainer.fit(data.train, data.val)
    assert rates == pytest.approx([0.1] * 3 + [0.05] * 3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"schedule": "sometimes"}, "schedule"),
        ({"super_epoch": 0}, "super_epoch"),
        ({"holdout": 0.0}, "holdout"),
        ({"holdout": 1.0}, "holdout"),
    ],
)
def test_settings_out_of_range(arguments, message):
    with pytest.raises(ValueError, match=message):
        GBlending(**arguments)


@pytest.mark.parametrize(("weights", "message"), [({"frst": 1.0}, "first"), ({"fused": 0.0}, "all be 0")])
def test_weights_that_make_no_sense(weights, message):
    trainer, _ = trainer_for(lambda: GBlending(weights=weights), TWO)
    data = task(TWO)
    with pytest.raises(ValueError, match=message):
        trainer.fit(data.train, data.val)
