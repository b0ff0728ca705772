from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from counterpoise.analysis import head_layers, input_spectra
from counterpoise.build import build_model
from counterpoise.data import from_arrays
from counterpoise.methods import MLA, Joint
from counterpoise.testing import task, tiny_model


@pytest.fixture
def exact():
    """Identity encoders: what enters the first layer of a head is the data."""
    generator = torch.Generator().manual_seed(0)
    inputs = {"a": torch.randn(60, 3, generator=generator), "b": torch.randn(60, 5, generator=generator)}
    present = {"a": torch.arange(60) % 4 > 0}
    data = from_arrays(inputs, torch.arange(60) % 3, split=["train"] * 50 + ["val"] * 10, present=present).train
    encoders = {m: nn.Identity() for m in inputs}
    return build_model(encoders, "Late", num_classes=3, example=data), data


def test_against_the_data_themselves(exact):
    model, data = exact
    x = data.batch(range(len(data)), "b", None).double()
    batches = x[:48].split(8)
    Y = sum(torch.outer(b.mean(0), b.mean(0)) for b in batches)
    found = input_spectra(model, data, "b", batch_size=8, seed=None)
    assert list(found) == ["5x256", "256x64", "64x3"]
    first = found["5x256"]
    np.testing.assert_allclose(first.values, torch.linalg.svdvals(Y).numpy(), rtol=1e-10)
    assert first.mean == pytest.approx(float(Y.trace()) / 5)
    assert (first.samples, first.batches) == (48, 6)
    assert [len(s.values) for s in found.values()] == [5, 256, 64]
    every = input_spectra(model, data, "b", batch_size=1, seed=3, statistic="sample")["5x256"]
    np.testing.assert_allclose(every.values, torch.linalg.svdvals(x.T @ x).numpy(), rtol=1e-10)


def test_deeper_layers_and_samples_without_the_modality(exact):
    model, data = exact
    there = data.present["a"].nonzero().flatten()
    found = input_spectra(model, data, "a", batch_size=64, seed=None)
    head = model.head_of("a")
    with torch.no_grad():
        hidden = head[:2](data.batch(there.tolist(), "a", None)).double().mean(0)
    assert found["3x256"].samples == len(there) < len(data)
    assert found["256x64"].mean == pytest.approx(float(hidden @ hidden) / 256, rel=1e-6)


def test_the_order_is_drawn_from_the_seed(exact):
    model, data = exact
    means = [input_spectra(model, data, "b", batch_size=8, seed=s)["5x256"].mean for s in (0, 0, 1)]
    assert means[0] == means[1] != means[2]


def test_effective_rank(exact):
    model, data = exact
    spectra = input_spectra(model, data, "b", batch_size=len(data))
    assert spectra["5x256"].effective_rank == pytest.approx(1, abs=1e-4)  # one batch, one mean, one direction
    even = type(spectra["5x256"])(np.full(7, 2.0), 1, 1)
    assert even.effective_rank == pytest.approx(7)
    assert np.isnan(type(even)(np.zeros(3), 1, 1).effective_rank) or type(even)(np.zeros(3), 1, 1).mean == 0


def test_layers_of_a_shared_head_and_of_your_own():
    model = tiny_model(MLA(), ("first", "second"))
    assert list(head_layers(model, "first")) == ["5x3"]
    layer = {"in": model.encoders["first"][0]}
    model.train()
    found = input_spectra(model, task(("first", "second")).train, "first", layers=layer, batch_size=9)
    assert list(found) == ["in"]
    assert model.training


def test_equal_layers_get_numbers():
    model = tiny_model(Joint(), ("first", "second"), "Late")
    model.fusion.own_heads["first"] = nn.Sequential(nn.Linear(5, 5), nn.Linear(5, 5), nn.Linear(5, 3))
    assert list(head_layers(model, "first")) == ["5x5", "5x5 (2)", "5x3"]


def test_no_sample_has_it(exact):
    model, data = exact
    nobody = data.subset((~data.present["a"]).nonzero().flatten())
    with pytest.raises(ValueError, match="no sample has 'a'"):
        input_spectra(model, nobody, "a")
