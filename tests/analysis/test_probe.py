from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from counterpoise.analysis import features, linear_probe, logistic, modality_probes, ridge
from counterpoise.build import build_model
from counterpoise.data import from_arrays
from counterpoise.methods import Joint
from counterpoise.testing import task, tiny_model


def blobs(n=90, d=4, spread=1.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(n) % 3
    return torch.eye(d)[y] * 2 + spread * torch.randn(n, d, generator=generator), y


@pytest.mark.parametrize(("n", "penalty"), [(90, 0.0), (90, 3.0), (9, 3.0)])
def test_ridge_against_scikit_learn(n, penalty):
    from sklearn.linear_model import Ridge

    x, y = blobs(n, d=12)
    ours = ridge(x, y, 3, penalty)
    if penalty == 0:
        from sklearn.linear_model import LinearRegression as Model

        theirs = Model()
    else:
        theirs = Ridge(alpha=penalty)
    theirs.fit(x.double().numpy(), np.eye(3)[y.numpy()])
    np.testing.assert_allclose(ours[:-1].numpy(), theirs.coef_.T, atol=1e-8)
    np.testing.assert_allclose(ours[-1].numpy(), theirs.intercept_, atol=1e-8)


def test_logistic_against_scikit_learn():
    from sklearn.linear_model import LogisticRegression

    x, y = blobs()
    ours = logistic(x, y, 3, penalty=2.0)
    theirs = LogisticRegression(C=0.5, tol=1e-10, max_iter=2000).fit(x.double().numpy(), y.numpy())
    np.testing.assert_allclose(ours[:-1].numpy(), theirs.coef_.T, atol=1e-5)
    logits = (x.double() @ ours[:-1] + ours[-1]).softmax(1)
    np.testing.assert_allclose(logits.numpy(), theirs.predict_proba(x.double().numpy()), atol=1e-5)


@pytest.mark.parametrize("kind", ["ridge", "logistic"])
def test_accuracies_and_units(kind):
    train, test = blobs(spread=0.2), blobs(spread=0.2, seed=1)
    assert linear_probe(train, test, 3, kind) == linear_probe(train, test, 3, kind)
    found = linear_probe(train, test, 3, kind)
    assert (found.accuracy, found.train_accuracy, found.samples) == (1, 1, 90)
    # units and features that never change make no difference
    scale = torch.tensor([1e-3, 1.0, 1e3, 1.0])
    rescaled = [(torch.cat([x * scale + 5, torch.full((90, 1), 7.0)], 1), y) for x, y in (train, test)]
    again = linear_probe(*rescaled, 3, kind)
    assert again.accuracy == 1
    noise = torch.randn(90, 4, generator=torch.Generator().manual_seed(2))
    guess = linear_probe((noise, train[1]), (noise.flip(0), test[1]), 3, kind)
    assert guess.accuracy < 0.6


def test_known_share_of_right_answers():
    x = torch.tensor([[-1.0], [-1.0], [1.0], [1.0]])
    y = torch.tensor([0, 0, 1, 1])
    found = linear_probe((x, y), (x, torch.tensor([0, 1, 1, 1])), 2)
    assert (found.accuracy, found.train_accuracy, found.samples) == (0.75, 1.0, 4)


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
    found = modality_probes(model, data.train, data.val)
    assert list(found) == ["kept", "lost"]
    assert found["kept"].accuracy > 0.95
    assert found["lost"].accuracy < 0.5


def test_errors():
    x, y = blobs()
    with pytest.raises(ValueError, match="needs samples"):
        linear_probe((x[:0], y[:0]), (x, y), 3)
    with pytest.raises(ValueError, match="kind"):
        linear_probe((x, y), (x, y), 3, "svm")
    with pytest.raises(ValueError, match="penalty"):
        logistic(x, y, 3, penalty=0)
