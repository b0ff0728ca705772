"""What evaluation may remember, and what it leaves alone."""

import gc
import weakref

import pytest
import torch
from torch import nn

from counterpoise import build_model
from counterpoise.data import from_arrays
from counterpoise.data.arrays import ArraySplit
from counterpoise.encoders import TextGRU
from counterpoise.engine import Observer, Optimizer, Trainer
from counterpoise.methods import IGM, MLA, Joint, Unimodal
from counterpoise.testing import DIM, assert_same, everything, task, trainer_for

TWO = ("first", "second")


class CountRuns(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.layer, self.runs = nn.Linear(DIM, dim), 0

    def forward(self, x):
        self.runs += not self.training
        return self.layer(x)


class Fused(Optimizer):
    def __init__(self, kind=torch.optim.SGD, **options):
        self.kind, self.options, self.lr = kind, options, 0.1

    def build(self, groups):
        return self.kind(list(groups), lr=self.lr, **self.options)


class WritesData(Fused):
    """Steps behind autograd's back."""

    def build(self, groups):
        optimizer = super().build(groups)

        def step(closure=None):
            for group in optimizer.param_groups:
                for p in group["params"]:
                    if p.grad is not None:
                        p.data.add_(p.grad, alpha=-group["lr"])

        optimizer.step = step
        return optimizer


def counting_trainer(method, **options):
    data = task(TWO)
    encoders = {m: CountRuns(5) for m in TWO}
    model = build_model(encoders, method.default_fusion, num_classes=3, heads=method.own_heads, example=data.train)
    trainer = Trainer(model, method, accelerator="cpu", batch_size=18, progress=False, **options)
    for e in encoders.values():
        e.runs = 0
    return trainer, data, encoders


def test_an_encoder_that_did_not_change_is_not_run_again():
    runs = []

    class Watch(Observer):
        def on_epoch_end(self, trainer, record):
            runs.append([e.runs for e in trainer.model.encoders.values()])

    trainer, data, _ = counting_trainer(IGM(stages=[2, 2], gm=False), epochs=4, observers=[Watch()])
    assert len(data.val) <= 18  # one batch per evaluation
    trainer.fit(data.train, data.val)
    assert runs == [[1, 1], [2, 1], [2, 2], [2, 3]]


@pytest.mark.parametrize(
    "settings",
    [
        Fused(foreach=True, momentum=0.9),
        Fused(foreach=False),
        Fused(fused=True, momentum=0.9),
        Fused(torch.optim.AdamW, fused=True),
        Fused(torch.optim.Adam, foreach=True),
        WritesData(),
    ],
    ids=["foreach", "loop", "fused", "fused AdamW", "foreach Adam", "data"],
)
def test_an_encoder_that_changed_is_run_again(settings):
    scores = []

    class Watch(Observer):
        def on_epoch_end(self, trainer, record):
            trainer.evaluator.forget()
            scores.append((record["val/fused/loss"], trainer.scores("val")["fused/loss"]))

    trainer, data, _ = counting_trainer(Joint(), epochs=3, optimizer=settings, observers=[Watch()])
    trainer.fit(data.train, data.val)
    assert all(remembered == computed for remembered, computed in scores)
    assert len({loss for loss, _ in scores}) == 3


def test_features_do_not_depend_on_what_trains():
    """Else those remembered from a phase before differ from those that a resumed run computes."""
    generator = torch.Generator().manual_seed(0)
    words = {m: torch.randint(1, 40, (60, 6), generator=generator) for m in TWO}
    data = from_arrays(words, torch.arange(60) % 3)
    torch.manual_seed(0)
    model = build_model({m: TextGRU(40) for m in TWO}, "Concat", num_classes=3, example=data.train)
    trainer = Trainer(model, Joint(), batch_size=8, accelerator="cpu", progress=False)
    pair = data.val.subset(torch.arange(2))  # as the last batch of an epoch may be
    trained = trainer.predict(pair).fused
    assert all(p.requires_grad for p in model.parameters())
    model.encoders.requires_grad_(False)
    assert torch.equal(trainer.predict(pair).fused, trained)
    assert not any(p.requires_grad for p in model.encoders.parameters())


def test_features_of_a_split_that_is_gone_are_not_those_of_the_next():
    trainer, data, _ = counting_trainer(Joint())
    split = data.train.subset(torch.arange(10))
    trainer.current.predict(split, keep=True)
    alive = weakref.ref(split)
    del split
    gc.collect()
    assert alive() is not None  # held as long as its features are: its id cannot be another split's
    trainer.current.evaluator.forget()
    gc.collect()
    assert alive() is None


def test_evaluation_leaves_modes_and_weights():
    trainer, data = trainer_for(Joint)
    trainer.model.encoders["first"].eval()
    modes, before = [m.training for m in trainer.model.modules()], everything(trainer)
    trainer.evaluate(data.test)
    for _ in trainer.current.outputs(data.test):
        assert [m.training for m in trainer.model.modules()] == modes
    assert [m.training for m in trainer.model.modules()] == modes
    assert_same(before, everything(trainer))


@pytest.mark.parametrize("method", [Joint, lambda: Unimodal("second"), MLA, IGM])
def test_every_subset_is_scored_on_the_samples_that_have_some_of_it(method):
    trainer, _ = trainer_for(method, TWO, epochs=4)
    split = task(TWO, absent=0.4).test
    scores = trainer.evaluate_subsets(split)
    reads = trainer.method.reads(TWO)
    assert list(scores) == (["first", "second", "first+second"] if len(reads) == 2 else ["second"])
    for m in reads:
        rows = split.present[m]
        alone = trainer.predict(split, (m,)).fused[rows]
        assert scores[m]["accuracy"] == pytest.approx(float((alone.argmax(1) == split.target[rows]).float().mean()))
    assert not trainer.current.evaluator._features


def test_a_modality_nobody_has_gets_no_score():
    trainer, data = trainer_for(Joint)
    rows = range(len(data.test))
    inputs = {m: data.test.batch(rows, m, None) for m in TWO}
    nobody = {"second": torch.zeros(len(rows), dtype=torch.bool)}
    split = ArraySplit(inputs, data.test.target, data.test.classes, present=nobody)
    scores = trainer.evaluate_subsets(split)
    assert scores["second"] == {}
    assert scores["first"] == scores["first+second"]
    assert "second/accuracy" not in trainer.evaluate(split)
    assert "fused/accuracy" in trainer.evaluate(split)


def test_the_last_incomplete_batch_is_scored():
    trainer, data = trainer_for(Joint, batch_size=16)
    split = data.train.subset(torch.arange(33))
    found = trainer.predict(split)
    assert len(found.fused) == len(found.unimodal["first"]) == 33
    torch.testing.assert_close(found.fused[32:], trainer.predict(split.subset([32])).fused)
