"""A budget of time: no epoch begins that would not end in it, and what it stopped goes on with more."""

import json
from collections.abc import Callable

import pytest

from counterpoise._checks import duration
from counterpoise.engine import RunDirectoryError
from counterpoise.engine.cost import Meter
from counterpoise.method import Method
from counterpoise.methods import IGM, Joint
from counterpoise.testing import NAMES, assert_same, everything, trainer_for


@pytest.fixture(autouse=True)
def epochs_take_ten_seconds(monkeypatch):
    def add(self):
        if self._state.epoch > getattr(self._state, "counted", 0):
            self._state.counted = self._state.epoch
            self._state.seconds += 10

    monkeypatch.setattr(Meter, "add", add)


def trainer(path=None, budget=None, method: Callable[[], Method] = Joint, **settings):
    return trainer_for(method, NAMES[:2], epochs=5, run_dir=path, budget=budget, **settings)


@pytest.mark.parametrize(("budget", "epochs"), [("35s", 3), (30, 3), (29.9, 2), ("1m", 5), (3, 1), (None, 5)])
def test_no_epoch_begins_that_would_not_end_in_it(budget, epochs, tmp_path):
    made, data = trainer(tmp_path / "run", budget)
    result = made.run(data)
    assert result["epochs"] == epochs
    written = json.loads((tmp_path / "run" / "result.json").read_text())
    assert written.get("out_of_time", False) == (epochs < 5)
    assert written["test"] is not None


def test_with_more_it_goes_on_and_ends_as_if_it_had_not_been_stopped(tmp_path):
    whole, data = trainer()
    whole.fit(data.train, data.val)
    trainer(tmp_path / "run", 20)[0].run(data)
    with pytest.raises(RunDirectoryError, match="finished run"):
        trainer(tmp_path / "run", 50)[0].run(data)
    again, _ = trainer(tmp_path / "run", 50)
    result = again.run(data, resume=True)
    assert (result["epochs"], result.get("out_of_time")) == (5, None)
    assert_same(everything(whole), everything(again))
    with pytest.raises(RunDirectoryError, match="finished run"):
        trainer(tmp_path / "run", 50)[0].run(data, resume=True)


def test_without_more_it_stays_as_it_is(tmp_path):
    cut, data = trainer(tmp_path / "run", 20)
    first = cut.run(data)
    again = trainer(tmp_path / "run", 20)[0].run(data, resume=True)
    assert (first["epochs"], again["epochs"], again["out_of_time"]) == (2, 2, True)
    assert again["test"] == first["test"]


def test_a_method_in_stages_that_it_cuts_short_says_that_modalities_are_untrained():
    made, data = trainer(None, 20, lambda: IGM(stages=[2, 2]))
    with pytest.warns(UserWarning, match="IGM had no epoch that may be selected"):
        made.fit(data.train, data.val)
    assert len(made.history) == 2


@pytest.mark.parametrize(("text", "seconds"), [("90", 90), ("90s", 90), ("30m", 1800), ("1.5h", 5400), (12, 12)])
def test_times(text, seconds):
    assert duration("budget", text) == seconds


@pytest.mark.parametrize("value", ["", "30 minutes", "m", "1.2.3s", "0m", 0, -1, float("nan"), True, None])
def test_what_is_no_time(value):
    with pytest.raises(ValueError, match="budget must be a time above 0 in seconds, or text such as '90s'"):
        duration("budget", value)
