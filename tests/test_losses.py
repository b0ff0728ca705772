"""Losses against PyTorch's own, and what they are worth: a weighted mean over the whole batch, whoever lacks what."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import counterpoise as cp
from counterpoise.losses import LOSSES, AbsoluteError, BinaryCrossEntropy, CrossEntropy, Focal, Huber, SquaredError
from counterpoise.task import MultiLabel, Regression, SingleLabel
from counterpoise.testing import trainer_for

torch.set_num_threads(1)


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


U, Y = draw(30, 4), torch.arange(30) % 4
W = [1.0, 0.0, 2.5, 0.5]
LABELS = (draw(30, 4, seed=1) > 0.5).float()
NUMBERS = Regression(("a", "b"), mean=(3.0, -1.0), scale=(2.0, 5.0))
T = draw(30, 2, seed=2).double() * torch.tensor([2.0, 5.0]) + torch.tensor([3.0, -1.0])
Z = ((T - torch.tensor([3.0, -1.0])) / torch.tensor([2.0, 5.0])).float()


def prepared(loss, task, target):
    loss.prepare(task)
    loss.fit(target)
    return loss


@pytest.mark.parametrize("weight", [None, W])
def test_cross_entropy_is_pytorchs_weighted_mean(weight):
    loss = prepared(CrossEntropy(weight), SingleLabel(4), Y)
    expected = F.cross_entropy(U, Y, weight=None if weight is None else torch.tensor(weight))
    assert loss.mean(U, Y) == pytest.approx(float(expected), rel=1e-6)
    smooth = prepared(CrossEntropy(label_smoothing=0.2), SingleLabel(4), Y)
    assert smooth.mean(U, Y) == pytest.approx(float(F.cross_entropy(U, Y, label_smoothing=0.2)), rel=1e-6)


def test_balanced_classes_count_alike():
    y = torch.tensor([0] * 20 + [1] * 8 + [2] * 2)
    loss = prepared(CrossEntropy("balanced"), SingleLabel(4), y)
    assert loss.weight.tolist() == pytest.approx([30 / 80, 30 / 32, 30 / 8, 30 / 4])  # nobody has the fourth
    weights = loss.weights(y)
    assert weights is not None
    assert [float(weights[y == c].sum()) for c in range(3)] == pytest.approx([7.5] * 3)


def test_focal_by_hand():
    p = U.softmax(1)[range(30), Y]
    expected = -((1 - p) ** 2) * p.log()
    torch.testing.assert_close(prepared(Focal(), SingleLabel(4), Y)(U, Y), expected)
    torch.testing.assert_close(prepared(Focal(0.0), SingleLabel(4), Y)(U, Y), -p.log())


def test_labels_and_numbers_are_pytorchs():
    positive = torch.tensor([3.0, 1.0, 0.0, 2.0])
    loss = prepared(BinaryCrossEntropy(positive.tolist()), MultiLabel(4), LABELS)
    assert loss.mean(U, LABELS) == pytest.approx(
        float(F.binary_cross_entropy_with_logits(U, LABELS, pos_weight=positive))
    )
    balanced = prepared(BinaryCrossEntropy("balanced"), MultiLabel(4), LABELS)
    torch.testing.assert_close(balanced.weight, (30 - LABELS.sum(0)) / LABELS.sum(0))
    f = draw(30, 2, seed=3)
    for loss, expected in (
        (SquaredError(), F.mse_loss(f, Z) / 2),
        (AbsoluteError(), F.l1_loss(f, Z)),
        (Huber(0.7), F.huber_loss(f, Z, delta=0.7)),
    ):
        assert prepared(loss, NUMBERS, T).mean(f, T) == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize(
    ("loss", "kind", "message"),
    [
        (BinaryCrossEntropy(), "single-label", "BinaryCrossEntropy is for multi-label targets; these are single-label"),
        (CrossEntropy(), "regression", "is for single-label targets"),
        (Huber(), "multi-label", "is for regression targets"),
        (CrossEntropy([1.0, 2.0]), "single-label", "class_weight must have 3 numbers"),
        (nn.CrossEntropyLoss(), "single-label", r"loss must be of the class Loss, such as .*CrossEntropy"),
        (lambda u, y: u.sum(), "single-label", "loss must be of the class Loss"),
    ],
)
def test_losses_that_do_not_fit_are_refused(loss, kind, message):
    with pytest.raises(ValueError, match=message):
        trainer_for(cp.methods.Joint, kind=kind, loss=loss)


@pytest.mark.parametrize(
    "make",
    [
        lambda: CrossEntropy("heavy"),
        lambda: CrossEntropy([1.0, -1.0]),
        lambda: CrossEntropy(label_smoothing=1.0),
        lambda: Focal(-1),
        lambda: Huber(0),
    ],
)
def test_settings_out_of_range(make):
    with pytest.raises(ValueError, match="must be"):
        make()


def test_the_weighted_mean_counts_only_who_is_there():
    trainer, data = trainer_for(cp.methods.Joint, absent=0.4, loss=CrossEntropy([1.0, 4.0, 0.5]))
    trainer.fit(data.train, data.val)
    seen = []
    for batch, output in trainer.current.outputs("train"):
        from counterpoise.engine import Step

        step = Step(trainer.current, batch, 0, 1)
        rows = batch.present["second"]
        u, y = output.unimodal["second"][rows], batch.target[rows]
        expected = F.cross_entropy(u, y, weight=torch.tensor([1.0, 4.0, 0.5]))
        seen.append(torch.allclose(step.unimodal_loss(output, "second"), expected, atol=1e-6))
    assert len(seen) > 2
    assert all(seen)


@pytest.mark.parametrize("method", [cp.methods.Joint, cp.methods.IGM, cp.methods.MMPareto])
def test_the_metric_called_loss_is_that_loss(method, tmp_path):
    options = {"loss": CrossEntropy("balanced", label_smoothing=0.1), "run_dir": tmp_path / "run", "monitor": "loss"}
    trainer, data = trainer_for(method, **options)
    scores = trainer.run(data)["val"]
    found = trainer.predict(data.val)
    weight = trainer.loss.weight
    smooth = F.cross_entropy(found.fused, found.target, reduction="none", label_smoothing=0.1)
    expected = (smooth * weight[found.target]).sum() / weight[found.target].sum()
    assert scores["fused/loss"] == pytest.approx(float(expected), rel=1e-5)
    other, _ = trainer_for(method, loss=CrossEntropy("balanced", label_smoothing=0.1))
    other.restore(tmp_path / "run" / "best.ckpt", data.test)
    assert torch.equal(other.loss.weight, weight)
    plain, _ = trainer_for(method, run_dir=tmp_path / "run")
    with pytest.raises(RuntimeError, match="finished run"):
        plain.fit(data.train, data.val, resume=True)


def test_a_run_is_not_resumed_with_another_loss(tmp_path):
    first, data = trainer_for(cp.methods.Joint, run_dir=tmp_path / "run", loss=CrossEntropy(label_smoothing=0.1))
    first.fit(data.train, data.val)
    again, _ = trainer_for(cp.methods.Joint, run_dir=tmp_path / "run", loss=CrossEntropy(label_smoothing=0.2))
    with pytest.raises(RuntimeError, match=r"loss\.label_smoothing: 0\.1 in the checkpoint, 0\.2 here"):
        again.fit(data.train, data.val, resume=True)


def test_every_loss_has_a_name():
    assert set(LOSSES) == {"CrossEntropy", "Focal", "BinaryCrossEntropy", "SquaredError", "AbsoluteError", "Huber"}
