import math
from functools import partial

import pytest
import torch

from counterpoise.engine import SGD, AdamW, Observer, StepDecay
from counterpoise.fusions import Late
from counterpoise.methods.joint import Joint
from counterpoise.methods.mslr import MSLR
from counterpoise.testing import CHECKS, NAMES, check_method, trainer_for

TWO, THREE = NAMES[:2], NAMES[:3]


def fitted(make, names=TWO, **options):
    trainer, data = trainer_for(make, names, **{"fusion": "Sum", **options})
    trainer.fit(data.train, data.val)
    return trainer


@pytest.mark.parametrize("check", CHECKS)
def test_contract(check):
    check_method(lambda: MSLR(rates={"first": 0.7}, window=2), modalities=2, checks=[check])


@pytest.mark.parametrize("fusion", ["Concat", partial(Late, rule="sum")])
def test_other_fusions_and_three_modalities(fusion):
    check_method(lambda: MSLR("smooth", rates={"first": 0.7}), modalities=3, fusion=fusion, checks=CHECKS[:1])


@pytest.mark.parametrize(
    "optimizer", [SGD(lr=0.05, momentum=0.9, weight_decay=0.1), AdamW(lr=0.01, weight_decay=0.1)], ids=["SGD", "AdamW"]
)
def test_against_the_reference_loop(optimizer):
    """A hand-written loop with one optimizer per modality at its own learning rate: adaptive ones obey, too."""
    rates, orders = {"first": 0.5, "second": 3.0}, []

    class Ordered(MSLR):
        def step(self, step):
            orders.append(step.batch.index.clone())
            return super().step(step)

    trainer, data = trainer_for(lambda: Ordered("keep", rates), TWO, "Sum", epochs=2, optimizer=optimizer, norm=False)
    start, _ = trainer_for(Joint, TWO, "Sum", norm=False)
    stepped = []
    trainer.current.observers.append(_Last(stepped))
    trainer.fit(data.train, data.val)
    model = start.model
    optimizers = []
    for m in TWO:
        own = optimizer.build([{"params": model.parameters_of(m)}])
        for group in own.param_groups:
            group["lr"] = optimizer.lr * rates[m]
        optimizers.append(own)
    for index in orders:
        output = model({m: data.train.batch(index.tolist(), m, None) for m in TWO})
        loss = torch.nn.functional.cross_entropy(output.logits, data.train.target[index])
        model.zero_grad()
        loss.backward()
        for own in optimizers:
            own.step()
    for name, value in model.state_dict().items():
        torch.testing.assert_close(stepped[-1][name], value, rtol=1e-5, atol=1e-6)


class _Last(Observer):
    """Keeps the weights after every epoch (the trainer ends with the best ones)."""

    def __init__(self, kept):
        self.kept = kept

    def on_epoch_end(self, trainer, record):
        self.kept.append({k: v.clone() for k, v in trainer.model.state_dict().items()})


def test_rate_zero_moves_nothing():
    for optimizer in (SGD(lr=0.05, weight_decay=0.1), AdamW(lr=0.01, weight_decay=0.1)):
        start, _ = trainer_for(Joint, TWO, "Sum")
        trainer = fitted(lambda: MSLR("keep", {"second": 0.0}), optimizer=optimizer)
        for m, moves in (("first", True), ("second", False)):
            pairs = zip(start.model.parameters_of(m), trainer.model.parameters_of(m), strict=True)
            assert all(torch.equal(a, b) for a, b in pairs) is not moves


class Scripted(MSLR):
    """Is told the accuracies, and keeps the factors in force after each epoch."""

    def __init__(self, accuracies, **arguments):
        super().__init__(**arguments)
        self.accuracies, self.factors = accuracies, []

    def on_epoch_end(self, trainer, scores):
        super().on_epoch_end(trainer, {f"{m}/accuracy": a[trainer.epoch] for m, a in self.accuracies.items()})
        self.factors.append(dict(trainer.state.scales))


def test_dynamic_oracle():
    accuracies = {"first": [0.30, 0.34, 0.38, 0.40, 0.42, 0.45, 0.45], "second": [0.5] * 7}
    method = fitted(lambda: Scripted(accuracies, rates={"first": 0.9}), epochs=7).method
    assert method.factors[:5] == [{"first": 0.9, "second": 1.0}] * 5
    assert method.factors[5]["first"] == pytest.approx(0.9 * 1.222826, abs=1e-6)
    mean = sum((0.34, 0.38, 0.40, 0.42, 0.45)) / 5  # the window moves on, and the factor does not pile up
    assert method.factors[6]["first"] == pytest.approx(0.9 * 0.45 / mean)
    assert method.factors[6]["second"] == pytest.approx(1.0)


def test_accuracies_of_zero_keep_the_rate():
    method = fitted(lambda: Scripted({m: [0.0] * 4 for m in TWO}, window=1)).method
    assert method.factors == [{"first": 1.0, "second": 1.0}] * 4


def test_rates_multiply_the_schedule():
    rates = {}

    class Watching(MSLR):
        def step(self, step):
            groups = step._run.optimizer.param_groups
            rates.setdefault(step.epoch, {g["name"]: g["lr"] for g in groups})
            return super().step(step)

    fitted(lambda: Watching("keep", {"first": 0.5}), schedule=StepDecay(every=2, gamma=0.1), fusion="Concat")
    assert rates[0] == pytest.approx({"first": 0.025, "second": 0.05, "shared": 0.05})
    assert rates[2] == pytest.approx({"first": 0.0025, "second": 0.005, "shared": 0.005})


def test_smooth_between_keep_and_the_geometric_mean():
    given = {"first": 0.25, "second": 1.0, "third": 4.0}
    for s in (0.0, 0.5, 1.0):
        trainer = fitted(lambda s=s: MSLR("smooth", given, smoothing=s), THREE, epochs=1)
        expected = {m: math.exp((1 - s) * math.log(r)) for m, r in given.items()}  # their geometric mean is 1
        assert trainer.current.state.scales == pytest.approx(expected)


def test_conditions_are_checked():
    for fusion in ("Gated", "Late"):
        with pytest.raises(ValueError, match="Use fusion Sum"):
            fitted(MSLR, fusion=fusion)
    with pytest.raises(ValueError, match="first"):
        fitted(lambda: MSLR(rates={"frst": 1.0}))
    with pytest.raises(ValueError, match="second"):
        fitted(lambda: MSLR(rates={"second": -1.0}))


@pytest.mark.parametrize("arguments", [{"strategy": "keeps"}, {"smoothing": 1.5}, {"window": 0}])
def test_settings_out_of_range(arguments):
    with pytest.raises(ValueError, match=next(iter(arguments))):
        MSLR(**arguments)
