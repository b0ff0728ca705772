from __future__ import annotations

import math
from functools import partial

import pytest
import torch
from one_step import first_step, fit_to_the_last, gradients

from counterpoise.engine import SGD, AdamW, Observer
from counterpoise.fusions import Gated
from counterpoise.methods.data_remixing import DataRemixing
from counterpoise.testing import NAMES, check_method, resumes_exactly, same_on_replicas, task, trainer_for

TWO, THREE = NAMES[:2], NAMES[:3]


class Watched(DataRemixing):
    """Keeps the weights before each epoch, and what its batches show."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.models, self.batches = [], []

    def on_epoch_start(self, run):
        self.models.append({k: v.detach().clone() for k, v in run.model.state_dict().items()})
        self.batches.append([])
        super().on_epoch_start(run)

    def step(self, step):
        masks = {m: step.present(m) for m in step.model.modalities}
        everyone = torch.ones(len(step.batch.index), dtype=torch.bool)
        self.batches[-1].append((step.batch.index, {m: everyone if p is None else p for m, p in masks.items()}))
        return super().step(step)


def least(model, split):
    """Sample by sample in float64: the modality with the fewest bits."""
    names = model.modalities
    with torch.no_grad():
        output = model({m: split.batch(list(range(len(split))), m, None) for m in names}, present=split.present)
    shown = []
    for i in range(len(split)):
        bits = {}
        for m in names:
            if split.present is None or split.present[m][i]:
                p = output.unimodal[m][i].double().softmax(0).tolist()
                bits[m] = sum(q * math.log2(len(p) * q) for q in p)
        shown.append(min(bits, key=bits.__getitem__))
    return shown


@pytest.mark.parametrize("absent", [0.0, 0.3])
@pytest.mark.parametrize("names", [TWO, THREE])
def test_batches_show_the_modality_that_separates_least(names, absent):
    method = Watched(warmup=2)
    trainer, _ = trainer_for(lambda: method, names, epochs=5, batch_size=6)
    train = task(names, absent=absent).train
    fit_to_the_last(trainer, task(names, absent=absent))
    model, _ = trainer_for(DataRemixing, names)
    for epoch, batches in enumerate(method.batches):
        rows = torch.cat([index for index, _ in batches]).tolist()
        assert len(set(rows)) == len(rows)
        if epoch < 2:
            everyone = torch.ones(len(train), dtype=torch.bool)
            has = {m: everyone if train.present is None else train.present[m] for m in names}
            assert all(torch.equal(masks[m], has[m][index]) for index, masks in batches for m in names)
            continue
        model.model.load_state_dict(method.models[epoch])
        shown = least(model.model.eval(), train)
        counts = {m: shown.count(m) for m in names}
        seen = dict.fromkeys(names, 0)
        for index, masks in batches:
            there = [[m for m in names if masks[m][row]] for row in range(len(index))]
            assert there == [[shown[i]] for i in index.tolist()]
            for m in names:
                seen[m] += int(masks[m].sum())
        pure = [batch for batch in batches if len({shown[i] for i in batch[0].tolist()}) == 1]
        assert len(pure) >= sum(n // 6 for n in counts.values()) - 1
        assert all(seen[m] > 0 for m in names if counts[m])


@pytest.mark.parametrize("absent", [0.0, 0.4])
@pytest.mark.parametrize(("unimodal", "gamma"), [(0.5, 1.0), (0.2, 0.7), (0.0, 0.0)])
def test_losses_against_the_reference(unimodal, gamma, absent):
    nll = torch.nn.functional.cross_entropy
    trainer, step = first_step(partial(DataRemixing, unimodal, gamma, warmup=1), THREE, absent=absent, epochs=3)
    output, loss, _ = gradients(trainer, step)
    y = step.batch.target
    expected = nll(output.logits.double(), y)
    for m in THREE:
        rows = slice(None) if step.present(m) is None else step.present(m)
        expected = expected + unimodal * nll(output.unimodal[m].double()[rows], y[rows])
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    trainer, step = first_step(partial(DataRemixing, unimodal, gamma, warmup=1), THREE, epoch=1, epochs=3)
    shown = torch.arange(18) % 3  # a mixed batch
    step.batch = step.batch._replace(present={m: shown == i for i, m in enumerate(THREE)})
    output, loss, _ = gradients(trainer, step)
    own = torch.stack([nll(output.unimodal[THREE[m]][i : i + 1].double(), y[i : i + 1]) for i, m in enumerate(shown)])
    assert loss.item() == pytest.approx((nll(output.logits.double(), y) + gamma * own.mean()).item(), rel=1e-5)


class Resting(Observer):
    """All of what a batch hides stays as it is, bit for bit, the optimizer's state included."""

    def __init__(self, warmup):
        self.warmup, self.pure = warmup, 0

    def snapshot(self, run, m):
        tensors = [t for part in run.model.modules_of(m) for t in [*part.parameters(), *part.buffers()]]
        state = [v for p in run.model.parameters_of(m) for v in run.optimizer.state.get(p, {}).values()]
        return [t.detach().clone() for t in [*tensors, *(v for v in state if isinstance(v, torch.Tensor))]]

    def on_batch_start(self, run, batch):
        hidden = [] if batch.present is None else [m for m, mask in batch.present.items() if not mask.any()]
        self.before = {m: self.snapshot(run, m) for m in hidden}
        self.others = {m: self.snapshot(run, m) for m in run.model.modalities if m not in hidden}

    def on_batch_end(self, run):
        if run.epoch < self.warmup:
            return
        self.pure += len(self.others) == 1
        for m, tensors in self.before.items():
            assert all(torch.equal(a, b) for a, b in zip(tensors, self.snapshot(run, m), strict=True))
        for m, tensors in self.others.items():
            assert not any(torch.equal(a, b) for a, b in zip(tensors[:1], self.snapshot(run, m)[:1], strict=True))


@pytest.mark.parametrize("fusion", ["Concat", partial(Gated, heads=True)])
@pytest.mark.parametrize(
    "optimizer", [SGD(lr=0.05, momentum=0.9, weight_decay=0.1), AdamW(lr=0.01, weight_decay=0.1)], ids=["SGD", "AdamW"]
)
@pytest.mark.parametrize("names", [TWO, THREE])
def test_what_a_pure_batch_hides_rests(names, optimizer, fusion):
    watch = Resting(warmup=2)
    make = partial(DataRemixing, warmup=2)
    trainer, data = trainer_for(make, names, fusion, optimizer=optimizer, epochs=5, batch_size=6, observers=[watch])
    trainer.fit(data.train, data.val)
    assert watch.pure > 10


def test_the_warm_up_is_a_sixth_of_the_run_and_zero_is_none():
    for epochs, warmup, expected in ((12, None, 2), (3, None, 1), (3, 0, 0)):
        method = Watched(warmup=warmup)
        trainer, data = trainer_for(lambda m=method: m, TWO, epochs=epochs)
        trainer.fit(data.train, data.val)
        warm = [all(bool(mask.all()) for _, masks in batches for mask in masks.values()) for batches in method.batches]
        assert warm == [epoch < expected for epoch in range(epochs)]
        assert [f"train/{TWO[0]}/shown" in record for record in trainer.history] == [not w for w in warm]


@pytest.mark.parametrize("options", [{"order": "blocks"}, {"mixed": True, "warmup": 0}], ids=str)
@pytest.mark.parametrize("check", [resumes_exactly, same_on_replicas])
def test_contract_of_the_options(options, check):
    check_method(partial(DataRemixing, **options), modalities=3, checks=[check])


def test_a_sampler_is_refused_before_training():
    trainer, data = trainer_for(DataRemixing, sampler="balanced")
    with pytest.raises(ValueError, match=r"sampler='balanced' .*DataRemixing fills"):
        trainer.fit(data.train, data.val)


@pytest.mark.parametrize("arguments", [{"unimodal": -1}, {"gamma": -1}, {"warmup": -1}, {"order": "sorted"}])
def test_settings_out_of_range(arguments):
    with pytest.raises(ValueError, match=next(iter(arguments))):
        DataRemixing(**arguments)
