from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from counterpoise.analysis import contributions, gradient_balance, overfitting_ratio, subset_hits
from counterpoise.build import build_model
from counterpoise.data import from_arrays
from counterpoise.functional import cosine
from counterpoise.methods import MLA, Joint
from counterpoise.metrics import subset_name, subsets
from counterpoise.testing import task, tiny_model, trainer_for

NAMES = ("first", "second", "third")


# -- contributions -------------------------------------------------------------------------------------
def random_scores(names, seed=0):
    rng = np.random.default_rng(seed)
    return {subset_name(s): float(rng.random()) for s in subsets(names)}


@pytest.mark.parametrize("count", [1, 2, 3])
def test_efficiency(count):
    names = NAMES[:count]
    scores = random_scores(names)
    found = contributions(scores, names, nothing=0.1)
    assert sum(found.values()) == pytest.approx(scores["+".join(names)] - 0.1)


def test_symmetry_dummy_and_additivity():
    scores = {"first": 0.5, "second": 0.5, "third": 0.2, "first+second": 0.9, "first+third": 0.6, "second+third": 0.6}
    scores["first+second+third"] = 0.95
    found = contributions(scores, NAMES, nothing=0.2)
    assert found["first"] == pytest.approx(found["second"])  # interchangeable
    dummy = {subset_name(s): 0.2 + 0.5 * ("first" in s) for s in subsets(NAMES)}
    assert contributions(dummy, NAMES, nothing=0.2) == pytest.approx({"first": 0.5, "second": 0, "third": 0})
    a, b = random_scores(NAMES, 1), random_scores(NAMES, 2)
    both = contributions({s: a[s] + b[s] for s in a}, NAMES)
    assert both == pytest.approx({m: contributions(a, NAMES)[m] + contributions(b, NAMES)[m] for m in NAMES})


def test_two_modalities_by_hand():
    found = contributions({"b": 0.4, "a": 0.7, "b+a": 0.8}, ["a", "b"], nothing=0.1)
    assert found == pytest.approx({"a": (0.6 + 0.4) / 2, "b": (0.3 + 0.1) / 2})


def test_a_missing_subset_is_an_error():
    with pytest.raises(ValueError, match="missing"):
        contributions({"a": 0.5, "a+b": 0.7}, ["a", "b"])


def test_subset_hits_are_those_of_the_engine():
    trainer, data = trainer_for(MLA, NAMES)
    trainer.fit(data.train, data.val)
    ours = subset_hits(trainer.model, data.train, predict=trainer.method.predict, batch_size=11)
    theirs = {s: scores["accuracy"] for s, scores in trainer.evaluate_subsets(data.train).items()}
    assert ours == pytest.approx(theirs)


def test_a_sample_with_none_of_a_subset_counts_as_wrong():
    x = torch.eye(2)[torch.tensor([0, 1, 0, 1])] * 5
    present = {"a": torch.tensor([True, True, False, False]), "b": torch.tensor([True, True, True, True])}
    data = from_arrays(
        {"a": x, "b": torch.zeros(4, 2)},
        torch.tensor([0, 1, 0, 1]),
        split=["train", "train", "train", "val"],
        present=present,
    )
    model = build_model({m: nn.Identity() for m in "ab"}, "Sum", num_classes=2, example=data.train)
    with torch.no_grad():
        for m in "ab":
            model.head_of(m).weight.copy_(torch.eye(2))
            model.head_of(m).bias.zero_()
    found = subset_hits(model, data.train)
    # a is right where it is there (2 of 3), b always says class 0 (2 of 3), together right everywhere
    assert found == pytest.approx({"a": 2 / 3, "b": 2 / 3, "a+b": 1.0})


# -- gradients -----------------------------------------------------------------------------------------
def test_gradients_by_hand():
    model, split = tiny_model(MLA(), NAMES[:2]), task(NAMES[:2]).train
    model.train()
    found = gradient_balance(model, split, batch_size=len(split))
    assert model.training
    assert all(p.grad is None for p in model.parameters())
    model.eval()
    output = model({m: split.batch(range(len(split)), m, None) for m in NAMES[:2]})
    fused = F.cross_entropy(output.logits, split.target)
    head = list(model.shared_parameters())
    by_head = []
    for i, m in enumerate(NAMES[:2]):
        own = model.parameters_of(m)
        a = torch.autograd.grad(fused, own, retain_graph=True)
        unimodal = F.cross_entropy(output.unimodal[m], split.target)
        b = torch.autograd.grad(unimodal, own, retain_graph=True)
        by_head.append(torch.autograd.grad(unimodal, head, retain_graph=True))
        length = float(torch.cat([g.flatten() for g in a]).norm())
        assert found.magnitude[0, i] == pytest.approx(length, rel=1e-4)
        weights = float(torch.cat([p.detach().flatten() for p in own]).norm())
        assert found.relative[0, i] == pytest.approx(length / weights, rel=1e-4)
        assert found.alignment[0, i] == pytest.approx(float(cosine(a, b)), abs=1e-4)
    assert found.conflict[0, 0, 1] == found.conflict[0, 1, 0] == pytest.approx(float(cosine(*by_head)), abs=1e-4)
    np.testing.assert_allclose(found.conflict[0].diagonal(), 1, atol=1e-5)


def test_opposed_modalities_conflict():
    x = torch.tensor([[1.0, 0.0]] * 20)
    data = from_arrays({"a": x, "b": -x}, torch.arange(20) % 2, split=["train"] * 16 + ["val"] * 4)
    model = build_model({m: nn.Linear(2, 2, bias=False) for m in "ab"}, "Shared", num_classes=2, example=data.train)
    with torch.no_grad():
        for m in "ab":
            model.encoders[m].weight.copy_(torch.eye(2))
        model.fusion.head.weight.zero_()
        model.fusion.head.bias.zero_()
    model.fusion.head.bias.requires_grad_(False)
    only = data.train.subset([i for i in range(16) if data.train.target[i] == 0])
    found = gradient_balance(model, only, batch_size=4)
    np.testing.assert_allclose(found.conflict[:, 0, 1], -1, atol=1e-6)
    assert found.conflict.shape == (2, 2, 2)
    assert np.isnan(found.alignment).all()  # a zero head sends the encoders no gradient
    assert (found.magnitude == 0).all()


def test_nothing_shared_absent_modalities_and_a_limit():
    model, split = tiny_model(Joint(), NAMES, "Late"), task(NAMES, absent=0.3).train
    found = gradient_balance(model, split, batch_size=9, most=3, seed=1)
    assert found.magnitude.shape == (3, 3)
    assert (found.magnitude > 0).all()
    assert np.isnan(found.conflict).all()
    bias = tiny_model(Joint(), NAMES, "Concat")  # all that its blocks share
    assert [p.ndim for p in bias.shared_parameters()] == [1]
    assert np.isnan(gradient_balance(bias, split, most=1).conflict).all()
    again = gradient_balance(model, split, batch_size=9, seed=1)
    np.testing.assert_array_equal(again.magnitude[:3], found.magnitude)
    assert len(again.magnitude) == -(-len(split) // 9)


# -- curves --------------------------------------------------------------------------------------------
def test_overfitting_ratio():
    found = overfitting_ratio([2.0, 1.0, 0.2], [2.0, 1.5, 1.8])
    np.testing.assert_allclose(found.overfitting, [0.5, 1.6])
    np.testing.assert_allclose(found.gain, [0.5, 0.2])
    np.testing.assert_allclose(found.ratio, [1, 8])
    with pytest.raises(ValueError, match="one length"):
        overfitting_ratio([1.0], [1.0])
