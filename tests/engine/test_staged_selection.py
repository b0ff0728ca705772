"""Which epochs of methods that train in stages may be selected: none before every modality has had its stage."""

import pytest

from counterpoise.engine import Interrupted, Observer
from counterpoise.methods import DOMFN, IGM, MLA, MSES, GBlending, Joint, ReconBoost, Unimodal
from counterpoise.testing import NAMES, trainer_for
from counterpoise.types import Phase


def fake_scores(monkeypatch, run, values):
    """Validation scores of the epochs from the first; what is selected is then known."""
    monkeypatch.setattr(type(run), "scores", lambda self, *_: {"fused/accuracy": values[self.epoch], "fused/loss": 1.0})


def best_epoch(monkeypatch, method, values, *, modalities=2, epochs=4, **settings):
    trainer, data = trainer_for(lambda: method, NAMES[:modalities], epochs=epochs, **settings)
    fake_scores(monkeypatch, trainer.current, values)
    trainer.fit(data.train, data.val)
    assert len(trainer.history) == len(values)
    return trainer.current.state.best_epoch


def test_igm_waits_for_the_last_modality(monkeypatch):
    # the first stage has the best score, and so has the first epoch of the second, which is not over
    assert best_epoch(monkeypatch, IGM(stages=[2, 2, 2]), [0.9, 0.9, 0.9, 0.1, 0.3, 0.2]) == 5
    # over: the end of the second stage counts
    assert best_epoch(monkeypatch, IGM(stages=[2, 2, 2]), [0.9, 0.9, 0.9, 0.4, 0.3, 0.2]) == 4
    # one round leaves the last epoch alone
    assert best_epoch(monkeypatch, IGM(stages=[1, 2]), [0.9, 0.9, 0.1]) == 3


def test_plain_alternation_and_three_modalities(monkeypatch):
    method = IGM(stages=[1, 1, 1, 1], order=NAMES[2::-1], gm=False)
    assert best_epoch(monkeypatch, method, [0.9, 0.9, 0.1, 0.2], modalities=3) == 4


def test_reconboost_waits_for_everyones_turn(monkeypatch):
    method = ReconBoost(boost_epochs=1, rectify_epochs=1, stages=3)
    # turn, rectification, turn: the first rectification trains the second modality too, which has had no turn
    assert best_epoch(monkeypatch, method, [0.9, 0.9, 0.5, 0.4, 0.6, 0.1]) == 5
    method = ReconBoost(boost_epochs=1, rectify_epochs=1, stages=1)
    assert best_epoch(monkeypatch, method, [0.9, 0.5]) == 2  # no further turn is to come


def test_domfn_waits_for_the_fused_head(monkeypatch):
    assert best_epoch(monkeypatch, DOMFN(pretrain=0.5), [0.9, 0.8, 0.1, 0.2]) == 4


@pytest.mark.parametrize("method", [Joint(), MLA(), MSES(), Unimodal("second"), GBlending(weights={"fused": 1.0})])
def test_what_trains_everything_at_once_is_selected_from_the_first_epoch_on(monkeypatch, method):
    assert best_epoch(monkeypatch, method, [0.9, 0.8, 0.1, 0.2]) == 1


def test_until_then_stages_start_from_the_best_so_far(monkeypatch):
    loaded = []

    class Watched(IGM):
        def phase(self, index, run):
            found = super().phase(index, run)
            loaded.append(run.best.get("epoch"))
            return found

    method = Watched(stages=[2, 2, 2], reload_best=True)
    best_epoch(monkeypatch, method, [0.9, 0.8, 0.7, 0.1, 0.3, 0.2])
    assert loaded == [None, 1, 4, 5]


class Halves(Joint):
    """Trains the first of two modalities only."""

    def phase(self, index, run):
        return Phase(2, train=NAMES[:1]) if index == 0 else None

    def forward(self, step):
        return step.forward(step.phase.train)


def test_a_run_that_never_trains_a_modality_says_so(monkeypatch):
    with pytest.warns(UserWarning, match="Halves had no epoch that may be selected: the weights of epoch 2 are"):
        assert best_epoch(monkeypatch, Halves(), [0.4, 0.9]) == 2


def test_a_method_may_say_it_itself(monkeypatch):
    class Late(Joint):
        def selectable(self, run):
            return run.epoch in (1, 3)

    assert best_epoch(monkeypatch, Late(), [0.9, 0.4, 0.8, 0.5]) == 4


class StopsIn(Observer):
    """Asks for an end at the first batch of an epoch."""

    def __init__(self, epoch):
        self.epoch = epoch

    def on_batch_end(self, run):
        if run.epoch == self.epoch:
            raise Interrupted("here")


@pytest.mark.parametrize("stop", range(1, 6))
def test_resumed_anywhere_it_selects_the_same(monkeypatch, tmp_path, stop):
    values = [0.9, 0.8, 0.7, 0.4, 0.3, 0.5]

    def trained(observers, resume):
        trainer, data = trainer_for(
            lambda: IGM(stages=[2, 2, 2]), NAMES[:2], epochs=4, run_dir=tmp_path, observers=observers
        )
        fake_scores(monkeypatch, trainer.current, values)
        trainer.fit(data.train, data.val, resume=resume)
        return trainer.current

    with pytest.raises(Interrupted):
        trained([StopsIn(stop)], False)
    resumed = trained([], True)
    assert (resumed.state.best_epoch, resumed.best["epoch"], resumed.state.best_score) == (6, 6, 0.5)
