from itertools import pairwise

import pytest
import torch

from counterpoise.engine import SGD, AdamW, Observer, saving
from counterpoise.method import Method
from counterpoise.methods.mses import MSES
from counterpoise.testing import CHECKS, NAMES, assert_same, check_method, everything, trainer_for

TWO = NAMES[:2]
OPTIMIZERS = [SGD(lr=0.05, momentum=0.9, weight_decay=1e-2), AdamW(lr=0.01, weight_decay=0.1)]


class MultiTask(Method):
    info = MSES.info
    own_heads = True

    def loss(self, output, step):
        loss = step.criterion(output.logits, step.batch.target)
        for m in step.model.modalities:
            loss = loss + step.unimodal_loss(output, m)
        return loss


class Scripted(MSES):
    """Is told the validation losses instead of measuring them, and keeps the model after each epoch."""

    def __init__(self, losses, patience=2, beta=0.0, joint=False):
        super().__init__(patience, beta, joint=joint)
        self.losses = losses
        self.after = []

    def on_epoch_end(self, trainer, scores):
        before = tensors(trainer)
        super().on_epoch_end(trainer, {f"{m}/loss": v[trainer.epoch] for m, v in self.losses.items()})
        self.after.append((before, tensors(trainer), trainer.state.frozen.copy()))


def tensors(trainer):
    return {
        m: [t.detach().clone() for part in trainer.model.branch_of(m) for t in part.state_dict().values()]
        for m in trainer.model.modalities
    }


def equal(a, b):
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def test_three_modalities_late_fusion():
    check_method(lambda: MSES(patience=1), modalities=3, fusion="Late", checks=CHECKS[:2])


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=["SGD", "AdamW"])
def test_stops_returns_and_stays(optimizer, monkeypatch):
    losses = {"first": [1, 0.5, 0.6, 0.7, 0.8, 0.1, 0.1, 0.1], "second": [1 / (e + 1) for e in range(8)]}
    trainer, data = trainer_for(lambda: Scripted(losses), TWO, epochs=8, optimizer=optimizer)
    last = []
    end = saving.Checkpoints.end_epoch
    watched = lambda *a, **k: last.append(tensors(trainer)) or end(*a, **k)  # noqa: E731
    monkeypatch.setattr(saving.Checkpoints, "end_epoch", watched)
    trainer.fit(data.train, data.val)
    after = trainer.method.after
    assert [frozen for _, _, frozen in after] == [[]] * 4 + [["first"]] * 4
    # back to what it was after epoch 1, and the other modality is left alone
    assert equal(after[4][1]["first"], after[1][0]["first"])
    assert not equal(after[4][0]["first"], after[4][1]["first"])
    assert equal(after[4][0]["second"], after[4][1]["second"])
    # frozen means frozen: weights, statistics and counters of batch normalisation
    for later in after[5:]:
        assert equal(later[0]["first"], after[4][1]["first"])
    assert not equal(after[7][0]["second"], after[4][1]["second"])
    names = {id(p) for part in trainer.model.branch_of("first") for p in part.parameters()}
    assert not [p for p in trainer.current.optimizer.state if id(p) in names]
    assert [p for p in trainer.current.optimizer.state if id(p) not in names]
    assert len(last) == 8


def test_training_ends_when_all_have_stopped():
    losses = {"first": [1.0, 2.0, 2.0, 2.0, 2.0], "second": [1.0, 0.9, 2.0, 2.0, 2.0]}
    trainer, data = trainer_for(lambda: Scripted(losses, patience=0), TWO, epochs=5)
    trainer.fit(data.train, data.val)
    assert [frozen for _, _, frozen in trainer.method.after] == [[], ["first"], ["first", "second"]]
    assert trainer.current.epoch == 3


def test_with_joint_nothing_is_stopped_while_the_fused_prediction_improves():
    own = [1.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0]
    losses = {"first": own, "second": [1.0, 0.9, 2.0, 2.0, 2.0, 2.0, 2.0], "fused": [5.0, 4.0, 3.0, 2.0, 2.5, 2.5, 2.5]}
    trainer, data = trainer_for(lambda: Scripted(losses, patience=1, joint=True), TWO, epochs=7)
    trainer.fit(data.train, data.val)
    after = trainer.method.after
    assert [frozen for _, _, frozen in after] == [[]] * 5 + [["first", "second"]]
    assert trainer.current.epoch == 6
    assert equal(after[5][1]["first"], after[0][0]["first"])
    assert equal(after[5][1]["second"], after[1][0]["second"])


def test_patience_beyond_the_run_is_multi_task_training():
    results = []
    for make in (lambda: MSES(patience=4), MultiTask):
        trainer, data = trainer_for(make, TWO)
        trainer.fit(data.train, data.val)
        results.append({k: v for k, v in everything(trainer).items() if k.startswith("model.")})
    assert_same(*results)


def test_snapshots_are_no_parameters_that_train():
    trainer, data = trainer_for(MSES, TWO, epochs=1)
    trainer.fit(data.train, data.val)
    copies = list(trainer.method.parameters())
    assert copies
    assert not any(p.requires_grad for p in copies)
    grouped = {id(p) for group in trainer.current.optimizer.param_groups for p in group["params"]}
    assert not grouped & {id(p) for p in copies}


def test_a_modality_that_validation_lacks_stops_after_its_patience():
    losses = {"first": [float("nan")] * 4, "second": [0.4, 0.3, 0.2, 0.1]}
    trainer, data = trainer_for(lambda: Scripted(losses, patience=1), TWO)
    trainer.fit(data.train, data.val)
    assert trainer.current.state.frozen == ["first"]
    assert all(v.isfinite().all() for v in everything(trainer).values())


@pytest.mark.parametrize("arguments", [{"patience": -1}, {"beta": 1.0}, {"weight": -0.5}])
def test_settings_out_of_range(arguments):
    with pytest.raises(ValueError, match=next(iter(arguments))):
        MSES(**arguments)


@pytest.mark.parametrize("fusion", ["Concat", "Gated"])
def test_what_fuses_keeps_training_on_a_modality_that_stopped(fusion):
    """The parts of the fused prediction belong to no modality's head: neither taken back nor frozen."""
    losses = {"first": [0.1, 1.0, 1.0, 1.0], "second": [1.0, 0.9, 0.8, 0.7]}
    trainer, data = trainer_for(lambda: Scripted(losses, patience=0), TWO, fusion)
    fused = []

    class Watching(Observer):
        def on_epoch_end(self, trainer, record):
            parts = [p for p in trainer.model.fusion.modules_of("first") if p not in trainer.model.branch_of("first")]
            assert parts
            fused.append([p.detach().clone() for part in parts for p in part.parameters()])

    trainer.current.observers.append(Watching())
    trainer.fit(data.train, data.val)
    assert trainer.current.state.frozen == ["first"]
    for before, after in pairwise(fused):
        assert all(not torch.equal(a, b) for a, b in zip(before, after, strict=True))
