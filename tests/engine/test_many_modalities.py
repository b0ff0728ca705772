"""Beyond six modalities the work after training, and in AGM and SMV, grows with M and not with 2^M."""

from __future__ import annotations

from functools import partial
from itertools import pairwise

import pytest
import torch

from counterpoise import build_model
from counterpoise.analysis import contributions, subset_hits
from counterpoise.data import from_arrays
from counterpoise.engine import Trainer
from counterpoise.methods import AGM, SMV, Joint
from counterpoise.metrics import subset_name, subsets


def trainer_of(count, make=Joint, *, absent=0.0, fusion="Concat"):
    names = [f"m{i}" for i in range(count)]
    generator = torch.Generator().manual_seed(count)
    y = torch.arange(96) % 4
    signal = torch.nn.functional.one_hot(y, 4).float()
    inputs = {m: signal + 2.0 * torch.randn(96, 4, generator=generator) for m in names}
    present = {m: torch.rand(96, generator=generator) >= absent for m in names} if absent else None
    data = from_arrays(inputs, y, val=0.2, test=0.2, present=present, seed=0)
    torch.manual_seed(0)
    model = build_model({m: torch.nn.Linear(4, 3) for m in names}, fusion, num_classes=4, example=data.train)
    return Trainer(model, make(), epochs=2, batch_size=16, accelerator="cpu", progress=False), data


@pytest.mark.parametrize("count", [1, 3, 6])
def test_up_to_six_have_every_subset(count):
    trainer, data = trainer_of(count)
    result = trainer.run(data)
    assert len(result["subsets"]) == 2**count - 1
    assert result["contributions"] == {}


@pytest.mark.parametrize(("count", "absent"), [(7, 0.0), (9, 0.3), (24, 0.0)])
def test_more_have_each_alone_all_but_one_and_all(count, absent):
    trainer, data = trainer_of(count, absent=absent)
    result = trainer.run(data)
    names = trainer.model.modalities
    expected = {*names, *("+".join(n for n in names if n != m) for m in names), "+".join(names)}
    assert result["subsets"].keys() == expected
    shares = result["contributions"]
    assert shares.keys() == set(names)
    nothing = float(data.test.target.bincount().max()) / len(data.test)
    found = trainer.predict(data.test)
    right = ((found.fused.argmax(1) == found.target) & found.anything()).double().mean().item()
    assert sum(s["share"] for s in shares.values()) == pytest.approx(right - nothing, abs=1e-6)
    assert all(s["error"] >= 0 for s in shares.values())
    assert sum(s["error"] > 0 for s in shares.values()) > count / 2
    assert trainer.contributions(data.test) == shares  # the same orders


@pytest.mark.parametrize("kind", ["multi-label", "regression"])
def test_shares_of_other_targets_are_of_their_yardstick(kind):
    y = torch.arange(96) % 4
    labels = torch.stack([y == 0, y > 1, y == 3], 1).float()
    target = labels if kind == "multi-label" else y[:, None] * 2.5
    signal = torch.nn.functional.one_hot(y, 4).float()
    noise = torch.randn(8, 96, 4, generator=torch.Generator().manual_seed(0))
    inputs = {f"m{i}": signal + noise[i] for i in range(8)}
    there = {"m0": torch.arange(96) % 5 > 0}
    data = from_arrays(inputs, target, val=0.2, test=0.2, task=kind, present=there)
    torch.manual_seed(0)
    model = build_model({m: torch.nn.Linear(4, 3) for m in inputs}, task=data.task, example=data.train)
    trainer = Trainer(model, Joint(), epochs=3, batch_size=16, accelerator="cpu", progress=False)
    shares = trainer.run(data)["contributions"]
    y, found = data.test.target, trainer.predict(data.test).fused.double()
    if kind == "multi-label":
        hits = ((found > 0) == (y > 0.5)).double().mean()
        nothing = torch.maximum(y.double().mean(0), 1 - y.double().mean(0)).mean()
    else:
        (scale,), (mean,) = data.task.scale, data.task.center
        hits = (-((found - (y - mean) / scale) ** 2) / 2).exp().mean()
        nothing = (-(((y - mean) / scale) ** 2) / 2).exp().mean()
    assert sum(s["share"] for s in shares.values()) == pytest.approx(float(hits - nothing), abs=1e-6)


def test_named_subsets():
    trainer, data = trainer_of(8)
    trainer.fit(data.train, data.val)
    found = trainer.evaluate_subsets(data.test, [("m5", "m1"), ("m7",)])
    assert found.keys() == {"m1+m5", "m7"}  # in the order of the model
    assert found["m7"]["accuracy"] == pytest.approx(trainer.evaluate(data.test)["m7/accuracy"])
    with pytest.raises(ValueError, match="Unknown modality 'm9'"):
        trainer.evaluate_subsets(data.test, [("m9",)])


@pytest.mark.parametrize("count", [7, 8])
def test_contributions_of_the_analysis_are_those_of_the_engine(count):
    trainer, data = trainer_of(count)
    trainer.fit(data.train, data.val)
    scores = subset_hits(trainer.model, data.val)
    assert {subset_name(s) for s in subsets(trainer.model.modalities)} <= scores.keys()
    assert len(scores) <= 18 * count
    shares = contributions(scores, trainer.model.modalities, data.task.chance(data.val.target))
    engine = trainer.contributions(data.val)
    assert shares == pytest.approx({m: s["share"] for m, s in engine.items()}, abs=1e-6)


@pytest.mark.parametrize(("count", "fusions"), [(2, 3), (6, 63), (7, 13), (12, 23)])
def test_agm_fuses_few_subsets_and_its_responses_add_up(monkeypatch, count, fusions):
    trainer, data = trainer_of(count, AGM)
    calls, seen = [], []
    fuse, forward = trainer.model.fuse, trainer.method.forward

    def counted(features, present=None, **how):
        calls.append(len(features))
        return fuse(features, present, **how)

    def watched(step):
        calls.clear()
        output = forward(step)
        seen.append(len(calls))
        torch.testing.assert_close(torch.stack([*output.unimodal.values()]).sum(0), output.logits)
        return output

    monkeypatch.setattr(trainer.model, "fuse", counted)
    monkeypatch.setattr(trainer.method, "forward", watched)
    trainer.fit(data.train, data.val)
    assert set(seen) == {fusions}


@pytest.mark.parametrize("make", [AGM, partial(SMV, warmup=1)])
@pytest.mark.parametrize("absent", [pytest.param(0.0, marks=pytest.mark.slow), 0.3])
def test_methods_that_value_subsets_train_twelve_modalities(make, absent):
    trainer, data = trainer_of(12, make, absent=absent)
    first = trainer.run(data)
    trainer, data = trainer_of(12, make, absent=absent)
    assert trainer.run(data)["test"] == first["test"]  # orders are of the run's own generator


@pytest.mark.parametrize("count", [2, 6, 7, 8, 12])
def test_subsets_are_small_ones_first_and_unique(count):
    found = subsets([str(i) for i in range(count)])
    assert len(set(found)) == len(found) == (2**count - 1 if count < 7 else 2 * count + 1)
    assert all(len(a) <= len(b) for a, b in pairwise(found))
