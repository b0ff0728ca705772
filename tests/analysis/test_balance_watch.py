from __future__ import annotations

import numpy as np
import pytest

from counterpoise.analysis import BalanceCurves, BalanceWatch, SplitLoss, gradient_balance, load, value
from counterpoise.engine import CheckpointError
from counterpoise.methods import IGM, MLA, Joint, Unimodal
from counterpoise.testing import assert_same, everything, trainer_for
from power_cut import PowerCut

NAMES = ("first", "second", "third")


def fit(make, watch, **options):
    trainer, data = trainer_for(make, options.pop("names", NAMES), observers=[watch], **options)
    trainer.fit(data.train, data.val)
    return watch.curves(), trainer, data


def test_rows_are_those_of_the_weights_at_that_moment():
    found, _, data = fit(Joint, BalanceWatch(), epochs=2)
    assert found.epoch.tolist() == [0, 1, 2]
    assert found.magnitude.shape == found.train_loss.shape == (3, 3)
    trainer, _ = trainer_for(Joint, NAMES)  # the weights before training
    own = [value(SplitLoss(trainer.model, data.val, m)) for m in NAMES]
    np.testing.assert_allclose(found.val_loss[0], own, rtol=1e-5)
    fused = value(SplitLoss(trainer.model, data.val)), value(SplitLoss(trainer.model, data.train))
    assert (found.fused_val_loss[0], found.fused_train_loss[0]) == pytest.approx(fused, rel=1e-5)
    start = gradient_balance(trainer.model, data.train)
    np.testing.assert_allclose(found.magnitude[0], start.magnitude.mean(0), rtol=1e-5)
    np.testing.assert_allclose(found.alignment[0], start.alignment.mean(0), atol=1e-5)
    assert (found.train_loss[-1] < found.train_loss[0]).all()


def test_modalities_that_stand_still_are_measured_too():
    found, trainer, _ = fit(lambda: IGM(stages=[1, 1, 1]), BalanceWatch(), lr=0.01)
    assert (found.magnitude > 0).all()
    flags = [p.requires_grad for p in trainer.model.parameters()]
    assert all(flags)
    # while the first trains, the second's own loss stays where it was
    assert found.train_loss[1, 1] == pytest.approx(found.train_loss[0, 1], abs=1e-6)
    assert found.train_loss[1, 0] < found.train_loss[0, 0]


def test_a_run_on_one_modality_reads_no_other():
    found, trainer, data = fit(lambda: Unimodal("second"), BalanceWatch(), epochs=2)
    for name in ("magnitude", "relative", "alignment", "train_loss", "val_loss"):
        assert np.isfinite(getattr(found, name)).tolist() == [[False, True, False]] * 3, name
    np.testing.assert_array_equal(found.fused_val_loss, found.val_loss[:, 1])
    np.testing.assert_array_equal(found.fused_train_loss, found.train_loss[:, 1])
    only = gradient_balance(trainer.model, data.train, only=["second"], predict=trainer.method.predict)
    assert only.modalities == ("second",)
    np.testing.assert_allclose(only.alignment, 1, atol=1e-5)  # the fused prediction is its own


@pytest.mark.parametrize("make", [MLA, Joint, lambda: IGM(stages=[2, 2])])
def test_it_only_looks(make):
    plain, data = trainer_for(make, epochs=2, absent=0.2)
    plain.fit(data.train, data.val)
    _, watched, _ = fit(make, BalanceWatch(30, batch_size=10), epochs=2, absent=0.2, names=NAMES[:2])
    assert_same(everything(plain), everything(watched))


def test_a_resumed_run_has_the_rows_of_an_uninterrupted_one(tmp_path):
    whole = fit(MLA, BalanceWatch(), epochs=3)[0]
    path, options = tmp_path / "balance.npz", {"epochs": 3, "run_dir": tmp_path / "run"}
    cut, data = trainer_for(MLA, NAMES, observers=[BalanceWatch(path=path), PowerCut(5)], **options)
    with pytest.raises(RuntimeError, match="power cut"):
        cut.fit(data.train, data.val)
    watch = BalanceWatch(path=path)
    again, data = trainer_for(MLA, NAMES, observers=[watch], **options)
    again.fit(data.train, data.val, resume=True)
    for name, expected in vars(whole).items():
        np.testing.assert_array_equal(vars(watch.curves())[name], expected)
        np.testing.assert_array_equal(vars(load(path, BalanceCurves))[name], expected)


class Forgets(BalanceWatch):
    """As an observer that keeps nothing in the checkpoint."""

    def state_dict(self):
        return {}


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ([BalanceWatch], [], "observers: BalanceWatch in the checkpoint, nothing here"),
        ([], [BalanceWatch], "observers: nothing in the checkpoint, BalanceWatch here"),
        (
            [BalanceWatch, BalanceWatch],
            [BalanceWatch],
            "BalanceWatch, BalanceWatch 2 in the checkpoint, BalanceWatch here",
        ),
        ([Forgets], [], None),
    ],
)
def test_a_record_has_no_gaps_by_resuming_without_its_observer(tmp_path, before, after, message):
    cut, data = trainer_for(MLA, run_dir=tmp_path / "run", observers=[*(make() for make in before), PowerCut(5)])
    with pytest.raises(RuntimeError, match="power cut"):
        cut.fit(data.train, data.val)
    again, _ = trainer_for(MLA, run_dir=tmp_path / "run", observers=[make() for make in after])
    if message is None:
        again.fit(data.train, data.val, resume=True)
        return
    with pytest.raises(CheckpointError, match=message):
        again.fit(data.train, data.val, resume=True)


def test_samples_is_checked():
    with pytest.raises(ValueError, match="samples"):
        BalanceWatch(0)
