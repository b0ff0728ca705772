"""A pool is fitted when training is over, is stored with the selected weights, and is undone before a new training."""

from functools import partial

import pytest
import torch

from counterpoise import MultimodalModel
from counterpoise.engine import CheckpointError, Trainer
from counterpoise.engine.checkpoint import load
from counterpoise.functional import fit_pool, pooled
from counterpoise.fusions import Concat, Late
from counterpoise.methods import DOMFN, IGM, MSES, Joint
from counterpoise.testing import assert_same, everything, task, tiny_model, trainer_for

TWO = ("first", "second")


def build(kind, tmp_path=None, *, absent=0.0, **options):
    """A trainer whose model has a pool, and its data: of ``Late``'s votes or of the fused and unimodal predictions."""
    if kind == "late":
        return trainer_for(Joint, fusion=partial(Late, rule="pool"), run_dir=tmp_path, absent=absent, **options)
    method = MSES()
    plain = tiny_model(method, TWO, Concat)
    model = MultimodalModel(plain.encoders, plain.fusion, pool=True)
    options = {"epochs": 4, "batch_size": 18, "progress": False, "accelerator": "cpu", "run_dir": tmp_path, **options}
    return Trainer(model, method, **options), task(TWO, absent=absent)


KINDS = pytest.mark.parametrize("kind", ["late", "model"])


@KINDS
def test_a_fitted_pool_is_in_best_and_resuming_a_run_that_is_done_changes_nothing(kind, tmp_path):
    done, data = build(kind, tmp_path)
    done.fit(data.train, data.val)
    pool = done.model.fusion.pool if kind == "late" else done.model.pool
    assert (pool.values.temperature != 1).all()
    saved = load(tmp_path / "best.ckpt")["model"]
    name = "fusion.pool" if kind == "late" else "pool"
    for part, value in pool.values._asdict().items():
        assert torch.equal(saved[f"{name}.{part}"], value)
    assert load(tmp_path / "last.ckpt")["model"][f"{name}.floor"] == 0  # what training goes on from has none
    for _ in range(2):
        again, _ = build(kind, tmp_path)
        again.fit(data.train, data.val, resume=True)
        assert_same(everything(done), everything(again))


@KINDS
def test_a_restored_run_predicts_by_the_pool(kind, tmp_path):
    done, data = build(kind, tmp_path, absent=0.2)
    done.fit(data.train, data.val)
    other, _ = build(kind)
    other.restore(tmp_path / "best.ckpt", data.val)
    assert torch.equal(other.predict(data.test).fused, done.predict(data.test).fused)
    assert other.evaluate(data.test) == done.evaluate(data.test)
    assert other.evaluate_subsets(data.test) == done.evaluate_subsets(data.test)
    streamed = torch.cat([part.fused for part in done.stream(data.test)])
    torch.testing.assert_close(streamed, done.predict(data.test).fused)


def test_without_a_pool_the_checkpoint_of_one_is_refused(tmp_path):
    done, data = build("model", tmp_path)
    done.fit(data.train, data.val)
    other, _ = trainer_for(MSES)
    with pytest.raises(CheckpointError, match="pool"):
        other.restore(tmp_path / "best.ckpt", data.val)


@KINDS
def test_training_never_sees_the_pool(kind):
    """A second fit from the same weights gives the same run, whatever pool the first has left."""
    trainer, data = build(kind)
    start = {name: value.clone() for name, value in trainer.model.state_dict().items() if "pool" not in name}
    trainer.fit(data.train, data.val)
    once, history = everything(trainer), trainer.history
    trainer.model.load_state_dict(start, strict=False)
    trainer.fit(data.train, data.val)
    assert_same(once, everything(trainer))
    for first, second in zip(history, trainer.history, strict=True):
        assert {k: v for k, v in first.items() if k != "seconds"} == {k: v for k, v in second.items() if k != "seconds"}


def test_until_the_fit_a_model_is_scored_by_its_fused_prediction():
    trainer, data = build("model")
    plain = Trainer(tiny_model(MSES(), TWO, Concat), MSES(), epochs=4, batch_size=18, progress=False, accelerator="cpu")
    trainer.fit(data.train, data.val)
    plain.fit(data.train, data.val)
    for pooled_run, plain_run in zip(trainer.history, plain.history, strict=True):
        for name in ("val/fused/accuracy", "val/fused/loss", "train/loss"):
            assert pooled_run[name] == pytest.approx(plain_run[name], abs=1e-6)


def test_the_fused_expert_is_what_the_method_predicts():
    method = DOMFN(gamma=0.01)  # its gate is closed for most samples, which the surest modality then predicts
    plain = tiny_model(method, TWO, Concat)
    model = MultimodalModel(plain.encoders, plain.fusion, pool=True)
    trainer, data = Trainer(model, method, epochs=2, batch_size=18, progress=False, accelerator="cpu"), task(TWO)
    trainer.fit(data.train, data.val)
    by_pool = trainer.predict(data.val).fused
    model.pool = None
    gated, (_, raw) = trainer.predict(data.val), next(trainer.current.outputs(data.val))
    assert not torch.equal(gated.fused, raw.logits)
    experts = torch.stack([gated.fused, *gated.unimodal.values()])
    torch.testing.assert_close(by_pool, pooled(fit_pool(experts, data.val.target), experts).float())


def test_igm_trains_the_same_under_the_pool_as_under_the_mean():
    runs = {}
    for rule in ("mean", "pool"):
        trainer, data = trainer_for(IGM, fusion=partial(Late, rule=rule, hidden=()))
        trainer.fit(data.train, data.val)
        runs[rule] = trainer.history
    for mean, pool in zip(runs["mean"], runs["pool"], strict=True):
        assert mean["train/loss"] == pool["train/loss"]
        assert mean["val/first/loss"] == pool["val/first/loss"]
