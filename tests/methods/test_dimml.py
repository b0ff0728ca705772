from __future__ import annotations

from functools import partial
from itertools import permutations

import pytest
import torch
from one_step import first_step, gradients

from counterpoise.engine import SGD, AdamW, Observer
from counterpoise.fusions import Gated, Late
from counterpoise.methods.dimml import DIMML
from counterpoise.testing import NAMES, task, trainer_for

TWO, THREE = NAMES[:2], NAMES[:3]


class Watch(Observer):
    """What of the model moves in which epoch, and what separates the classes then."""

    def __init__(self):
        self.moved, self.effective = {}, {}

    def state(self, run):
        tensors = {**run.model.state_dict(), **{f"shared.{k}": v for k, v in run.method.shared.state_dict().items()}}
        return {k: v.detach().clone() for k, v in tensors.items()}

    def on_batch_start(self, run, batch):
        self.before = self.state(run)

    def on_batch_end(self, run):
        after = self.state(run)
        moved = {k for k in after if not torch.equal(after[k], self.before[k])}
        self.moved[run.epoch] = self.moved.get(run.epoch, set()) | moved
        self.effective[run.epoch] = run.method.effective.clone()


@pytest.mark.parametrize(
    "optimizer", [SGD(lr=0.05, momentum=0.9, weight_decay=0.1), AdamW(lr=0.01, weight_decay=0.1)], ids=["SGD", "AdamW"]
)
@pytest.mark.parametrize("fusion", ["Concat", partial(Gated, heads=True)])
def test_encoders_train_apart_and_then_rest(fusion, optimizer):
    watch, epochs = Watch(), 5
    make = partial(DIMML, teach_from=2, fused_epochs=2)
    trainer, data = trainer_for(make, THREE, fusion, epochs=epochs, optimizer=optimizer, observers=[watch])
    trainer.fit(data.train, data.val)
    heads = {id(p) for head in trainer.model.fusion.own_heads.values() for p in head.parameters()}
    fusing = {n for n, p in trainer.model.named_parameters() if n.startswith("fusion") and id(p) not in heads}
    for epoch in range(epochs):
        moved = watch.moved[epoch]
        if epoch < 3:
            assert not moved & fusing
            assert {"shared.weight"} | {f"encoders.{m}.0.weight" for m in THREE} <= moved
        else:
            assert moved == fusing
    assert [bool(watch.effective[e].any()) for e in range(epochs)] == [False, False, True, True, True]
    assert trainer.current.state.best_epoch > 3
    assert [record["phase"] for record in trainer.history] == ["apart"] * 3 + ["fused"] * 2


@pytest.mark.parametrize("absent", [0.0, 0.3])
@pytest.mark.parametrize(("names", "epoch"), [(TWO, 0), (TWO, 3), (THREE, 3)])
def test_loss_against_the_reference(names, epoch, absent):
    trainer, step = first_step(
        partial(DIMML, 0.4, 2.0, teach_from=3, fused_epochs=2), names, epoch=epoch, absent=absent, epochs=9
    )
    trainer.current.state.phase = trainer.method.phase(0, trainer.current)
    step.phase = trainer.current.phase
    trainer.method.effective.copy_(torch.rand(len(names), 5, generator=torch.Generator().manual_seed(3)) < 0.5)
    output, loss, found = gradients(trainer, step)
    nll, y = torch.nn.functional.cross_entropy, step.batch.target
    everyone = torch.ones(len(y), dtype=torch.bool)
    has = {m: everyone if step.present(m) is None else step.present(m) for m in names}
    shared, expected = trainer.method.shared.double(), 0.0
    for m in names:
        rows = has[m]
        expected += float(nll(output.unimodal[m].detach().double()[rows], y[rows]))
        expected += 0.4 * float(nll(shared(output.features[m].detach().double()[rows]), y[rows]).detach())
    for (a, teacher), (b, learner) in permutations(enumerate(names), 2):
        dims = trainer.method.effective[a] & ~trainer.method.effective[b]
        rows = has[teacher] & has[learner]
        t, z = (output.features[m].detach().double()[rows][:, dims] for m in (teacher, learner))
        if epoch >= 3:
            expected += float(nll(z @ t.T / 2, torch.arange(len(z)))) / (len(names) - 1)
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    for m in names:
        assert found[f"encoders.{m}.0.weight"].abs().sum() > 0


def test_what_is_predicted():
    data = task(THREE, absent=0.4)
    trainer, _ = trainer_for(partial(DIMML, vote_temperature=0.5), THREE, epochs=3)
    trainer.fit(data.train, data.val)
    split = data.val
    inputs = {m: split.batch(list(range(len(split))), m, None) for m in THREE}
    output, found = trainer.model.eval()(inputs, present=split.present), trainer.predict(split)
    for i in range(len(split)):
        voters = [output.unimodal[m][i].double() for m in THREE if split.present[m][i]] + [output.logits[i].double()]
        weights = torch.stack([v.softmax(0).max() / 0.5 for v in voters]).softmax(0)
        expected = sum(w * v for w, v in zip(weights, voters, strict=True))
        torch.testing.assert_close(found.fused[i].double(), expected.detach(), rtol=1e-4, atol=1e-5)
    alone = trainer.predict(split, [TWO[0]]).unimodal[TWO[0]]
    rows = split.present[TWO[0]]
    torch.testing.assert_close(alone[rows], output.unimodal[TWO[0]].detach()[rows])


def test_lengths_of_the_phases():
    for epochs, apart, teaches in ((16, 14, 2), (170, 149, 21), (4, 3, 1)):
        assert DIMML()._apart(epochs) == apart
        assert DIMML()._teaches_from(apart) == teaches
    assert DIMML(teach_from=0)._teaches_from(9) == 0


def test_models_that_do_not_fit():
    trainer, data = trainer_for(DIMML, TWO, partial(Late, rule="mean"))
    with pytest.raises(ValueError, match="fusion Late has nothing but the heads"):
        trainer.fit(data.train, data.val)
    trainer, data = trainer_for(partial(DIMML, fused_epochs=4), TWO)
    with pytest.raises(ValueError, match=r"for 4 of the epochs; 4 leave none for the encoders\. Raise epochs or lower"):
        trainer.fit(data.train, data.val)


@pytest.mark.parametrize(
    "arguments", [{"weight": -1}, {"temperature": 0}, {"teach_from": -1}, {"fused_epochs": 0}, {"vote_temperature": 0}]
)
def test_settings_out_of_range(arguments):
    with pytest.raises(ValueError, match=next(iter(arguments))):
        DIMML(**arguments)
