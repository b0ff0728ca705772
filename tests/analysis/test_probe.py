from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from counterpoise.analysis import features, linear_probe
from counterpoise.build import build_model
from counterpoise.data import from_arrays
from counterpoise.methods import Joint
from counterpoise.testing import task, tiny_model


def blobs(n=90, d=4, spread=1.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(n) % 3
    return torch.eye(d)[y] * 2 + spread * torch.randn(n, d, generator=generator), y


@pytest.mark.parametrize(("n", "dim", "classes", "penalty"), [(90, 4, 3, 3.0), (9, 12, 3, 3.0), (90, 5, 2, 0.1)])
def test_it_is_least_squares_on_the_classes(n, dim, classes, penalty):
    (x, y), (other, target) = blobs(n, dim), blobs(60, dim, seed=1)
    y, target = y % classes, target % classes
    found = linear_probe((x, y), (other, target), penalty)
    centre, spread = x.double().numpy().mean(0), x.double().numpy().std(0)
    rows, rows_test = ((part.double().numpy() - centre) / spread for part in (x, other))
    wanted = np.eye(classes)[y.numpy()]
    weight = np.linalg.solve(rows.T @ rows + penalty * np.eye(dim), rows.T @ (wanted - wanted.mean(0)))
    for part, truth, right in ((rows_test, target, found.score), (rows, y, found.train_score)):
        assert right == np.mean((part @ weight + wanted.mean(0)).argmax(1) == truth.numpy())
    assert found.hits.mean() == found.score


def test_accuracies_and_units():
    train, test = blobs(spread=0.2), blobs(spread=0.2, seed=1)
    found = linear_probe(train, test)
    assert found == linear_probe(train, test)
    assert (found.score, found.train_score, found.samples) == (1, 1, 90)
    # units and features that never change make no difference
    scale = torch.tensor([1e-3, 1.0, 1e3, 1.0])
    rescaled = [(torch.cat([x * scale + 5, torch.full((90, 1), 7.0)], 1), y) for x, y in (train, test)]
    assert linear_probe(*rescaled).score == 1
    noise = torch.randn(90, 4, generator=torch.Generator().manual_seed(2))
    assert linear_probe((noise, train[1]), (noise.flip(0), test[1])).score < 0.6


@pytest.mark.parametrize("known", [0, 2])
def test_one_class_to_learn_from_is_what_it_says(known):
    x, y = blobs(30)
    assert linear_probe((x, torch.full_like(y, known)), (x, y)).score == pytest.approx(1 / 3)


def test_known_share_of_right_answers():
    x = torch.tensor([[-1.0], [-1.0], [1.0], [1.0]])
    y = torch.tensor([0, 0, 1, 1])
    found = linear_probe((x, y), (x, torch.tensor([0, 1, 1, 1])))
    assert (found.score, found.train_score, found.samples) == (0.75, 1.0, 4)


def test_features_are_those_of_the_encoder_in_evaluation_mode():
    names = ("first", "second")
    model, split = tiny_model(Joint(), names), task(names, absent=0.3).train
    model.train()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    there = split.present["second"].nonzero().flatten()
    x, y = features(model, split, "second", batch_size=7)
    assert model.training
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    model.eval()
    with torch.no_grad():
        expected = model.encoders["second"](split.batch(there.tolist(), "second", None))
    torch.testing.assert_close(x, expected)
    assert torch.equal(y, split.target[there])


def test_probes_find_what_an_encoder_throws_away():
    x, y = blobs(200, spread=0.3)
    data = from_arrays({"kept": x, "lost": x.clone()}, y, seed=0)
    lost = nn.Linear(4, 4)
    nn.init.zeros_(lost.weight)
    model = build_model({"kept": nn.Identity(), "lost": lost}, num_classes=3, example=data.train)
    kept, lost = (linear_probe(features(model, data.train, m), features(model, data.val, m)) for m in data.modalities)
    assert kept.score > 0.95
    assert lost.score < 0.5


def test_errors():
    x, y = blobs()
    with pytest.raises(ValueError, match="needs samples"):
        linear_probe((x[:0], y[:0]), (x, y))
    with pytest.raises(ValueError, match="penalty"):
        linear_probe((x, y), (x, y), penalty=-1)
