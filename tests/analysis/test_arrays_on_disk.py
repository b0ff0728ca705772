from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest

from counterpoise.analysis import (
    Eigenvalues,
    GradientBalance,
    GradientChanges,
    Histogram,
    LayerSpectrum,
    Path,
    Probe,
    Sharpness,
    Surface,
    Trace,
    histogram,
    load,
    save,
)

LINE = np.linspace(0, 1, 3)
NAMES = np.array(["a", "bc", "a"])
RESULTS = [
    Surface(LINE, LINE, np.outer(LINE, LINE), 0.25),
    Path(LINE, LINE),
    Eigenvalues(LINE, LINE, -1.5, 7),
    Trace(LINE, 12),
    Sharpness(0.05, 1.0, 1.5),
    LayerSpectrum(LINE, 40, 5),
    Probe(0.5, 0.75, 8, np.arange(8) < 4),
    GradientChanges(LINE, LINE, NAMES, NAMES[::-1], np.arange(3), np.arange(3)),
    GradientBalance(("a", "bc"), np.ones((1, 2)), np.ones((1, 2)), np.full((1, 2), np.nan), np.ones((1, 2, 2))),
    histogram(LINE),
]


@pytest.mark.parametrize("result", RESULTS, ids=lambda result: type(result).__name__)
def test_a_result_comes_back_as_it_was(tmp_path, result):
    path = save(tmp_path / "new" / "result.npz", result)
    found = load(path, type(result))
    for field in fields(result):
        before, after = getattr(result, field.name), getattr(found, field.name)
        assert type(after) is type(before)
        np.testing.assert_array_equal(after, before)
    assert [p.name for p in path.parent.iterdir()] == ["result.npz"]


def test_what_is_computed_from_it_is_the_same(tmp_path):
    surface = load(save(tmp_path / "s.npz", RESULTS[0]), Surface)
    assert surface.rise == RESULTS[0].rise
    assert load(save(tmp_path / "h.npz", RESULTS[-1]), Histogram).n == 3


def test_another_kind_is_an_error(tmp_path):
    path = save(tmp_path / "p.npz", Path(LINE, LINE))
    with pytest.raises(ValueError, match=r"p\.npz holds no Surface: it has no x, y, centre"):
        load(path, Surface)
