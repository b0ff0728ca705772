from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from counterpoise.analysis import SplitLoss, gradient, sample, value
from counterpoise.analysis.objective import summands, weights_kept
from counterpoise.methods import MLA, Joint
from counterpoise.testing import everything, task, tiny_model, trainer_for

NAMES = ("first", "second", "third")


@pytest.fixture
def model():
    model = tiny_model(Joint(), NAMES, "Late")
    model.train()
    model(dict.fromkeys(NAMES, torch.randn(40, 6)))  # running statistics of some data
    return model


def test_mean_over_the_split_whatever_the_batches(model):
    split = task(NAMES).train
    inputs = {m: split.batch(range(len(split)), m, None) for m in NAMES}
    model.eval()
    with torch.no_grad():
        output = model(inputs)
    for prediction, logits in {"fused": output.logits, **output.unimodal}.items():
        expected = float(F.cross_entropy(logits.double(), split.target))
        for size in (7, 256):
            assert value(SplitLoss(model, split, prediction, batch_size=size)) == pytest.approx(expected, rel=1e-6)


def test_a_modality_counts_the_samples_that_have_it(model):
    split = task(NAMES, absent=0.4).train
    there = split.present["second"]
    assert 0 < int(there.sum()) < len(there)
    x = split.batch(there.nonzero().flatten().tolist(), "second", None)
    model.eval()
    with torch.no_grad():
        logits = model({"second": x}, ("second",)).unimodal["second"]
    loss = SplitLoss(model, split, "second", batch_size=9)
    assert loss.samples == int(there.sum())
    assert value(loss) == pytest.approx(float(F.cross_entropy(logits, split.target[there])), rel=1e-5)
    assert value(SplitLoss(model, split)) > 0  # fused: every sample, absent modalities left out


def test_parameters_are_those_the_prediction_depends_on(model):
    split = task(NAMES).train
    assert set(SplitLoss(model, split).parameters()) == {n for n, _ in model.named_parameters()}
    own = {id(p) for p in model.parameters_of("second")}
    assert {id(p) for p in SplitLoss(model, split, "second").parameters().values()} == own
    model.encoders["second"].requires_grad_(False)
    head = {n for n, p in model.named_parameters() if id(p) in own and p.requires_grad}
    assert set(SplitLoss(model, split, "second").parameters()) == head
    assert head


def test_the_shared_head_belongs_to_every_prediction():
    model = tiny_model(MLA(), NAMES)
    found = SplitLoss(model, task(NAMES).train, "third").parameters()
    assert {id(p) for p in model.shared_parameters()} <= {id(p) for p in found.values()}


def test_a_method_may_have_its_own_rule(model):
    split = task(NAMES).train
    loss = SplitLoss(model, split, predict=lambda output, _: output.unimodal["third"])
    assert value(loss) == pytest.approx(value(SplitLoss(model, split, "third")), rel=1e-6)


def test_gradient_is_that_of_the_mean_loss_and_leaves_grad_alone(model):
    split = task(NAMES).train
    loss = SplitLoss(model, split, batch_size=7)
    params = list(loss.parameters().values())
    params[0].grad = torch.full_like(params[0], 3.0)
    found = gradient(loss, params)
    (whole,) = SplitLoss(model, split, batch_size=1000)()
    for a, b in zip(found, torch.autograd.grad(whole, params), strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-4)
    assert (params[0].grad == 3).all()


def test_double_works_on_a_copy(model):
    split = task(NAMES).train
    loss = SplitLoss(model, split, double=True)
    assert all(p.dtype == torch.float64 for p in loss.parameters().values())
    assert next(model.parameters()).dtype == torch.float32
    assert value(loss) == pytest.approx(value(SplitLoss(model, split)), rel=1e-5)


def batch_norms(model):
    return [m for m in model.modules() if isinstance(m, nn.BatchNorm1d)]


def test_recomputed_statistics_are_the_mean_over_the_batches(model):
    split = task(NAMES).train
    loss = SplitLoss(model, split, "first", statistics="recomputed", batch_size=18)
    by_hand = copy.deepcopy(model).eval()
    linear, norm = by_hand.encoders["first"][0], by_hand.encoders["first"][1]
    with torch.no_grad():
        parts = [linear(split.batch(rows.tolist(), "first", None)) for rows in torch.arange(len(split)).split(18)]
    assert len(parts) == 3
    norm.running_mean.copy_(torch.stack([p.mean(0) for p in parts]).mean(0))
    norm.running_var.copy_(torch.stack([p.var(0) for p in parts]).mean(0))
    assert value(loss) == pytest.approx(value(SplitLoss(by_hand, split, "first")), rel=1e-5)
    assert value(loss) != pytest.approx(value(SplitLoss(model, split, "first")), rel=1e-3)


def end_early(loss):
    with summands(loss) as parts:
        next(parts)
        raise RuntimeError("ended early")


@pytest.mark.parametrize("statistics", ["kept", "recomputed"])
def test_modes_and_statistics_come_back(model, statistics):
    model.encoders["second"].eval()
    before, modes = {k: v.clone() for k, v in model.state_dict().items()}, [m.training for m in model.modules()]

    def bad(logits, target):
        raise RuntimeError("no")

    split = task(NAMES).train
    value(SplitLoss(model, split, statistics=statistics))
    with pytest.raises(RuntimeError, match="no"):
        value(SplitLoss(model, split, statistics=statistics, criterion=bad))
    loss = SplitLoss(model, split, statistics=statistics, batch_size=9)
    with pytest.raises(RuntimeError, match="ended early"):
        end_early(loss)
    assert [m.training for m in model.modules()] == modes
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert {m.momentum for m in batch_norms(model)} == {0.1}


def test_errors_name_the_argument(model):
    split = task(NAMES, absent=0.4).train
    with pytest.raises(ValueError, match="Did you mean 'first'"):
        SplitLoss(model, split, "frist")
    with pytest.raises(ValueError, match="statistics"):
        SplitLoss(model, split, statistics="keep")
    nobody = split.subset((~split.present["first"]).nonzero().flatten())
    with pytest.raises(ValueError, match="no sample to evaluate 'first'"):
        SplitLoss(model, nobody, "first")


def test_sample_draws_without_repetition():
    split = task(NAMES).train
    assert sample(split, len(split)) is split
    ids = [list(sample(split, 10, seed).ids) for seed in (0, 0, 1)]
    assert len(set(ids[0])) == 10
    assert ids[0] == ids[1] != ids[2]


def test_weights_come_back_bit_for_bit_after_an_error():
    w = torch.randn(5, requires_grad=True)
    before = w.detach().clone()

    def move():
        with weights_kept([w]) as start, torch.no_grad():
            assert torch.equal(start[0], before)
            w.add_(1e-3)
            assert not torch.equal(w, before)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        move()
    assert torch.equal(w, before)


def test_the_loss_of_a_trained_model_is_that_of_evaluate():
    trainer, data = trainer_for(MLA, NAMES)
    trainer.fit(data.train, data.val)
    before = everything(trainer)
    loss = SplitLoss(trainer.model, data.val, predict=trainer.method.predict)
    assert value(loss) == pytest.approx(trainer.evaluate(data.val)["fused/loss"], rel=1e-5)
    assert all(torch.equal(v, before[k]) for k, v in everything(trainer).items())
