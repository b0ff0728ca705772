from __future__ import annotations

from itertools import count
from types import SimpleNamespace

import pytest

from counterpoise.data import progress


@pytest.mark.parametrize(("seconds", "terminal", "shown"), [(3, True, True), (0.01, True, False), (3, False, False)])
def test_a_bar_comes_after_two_seconds_on_a_terminal(seconds, terminal, shown, monkeypatch, capsys):
    ticks = count(0, seconds)
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: next(ticks)))
    if terminal:
        monkeypatch.setenv("FORCE_COLOR", "1")
    else:
        monkeypatch.delenv("FORCE_COLOR", raising=False)
    assert list(progress.after_two_seconds("abc", 3, "reading")) == ["a", "b", "c"]
    told = capsys.readouterr()
    assert ("reading" in told.err) == shown
    assert told.out == ""
