import math

import pytest
import torch
from torch.nn import functional as F

from counterpoise.fusions import rules

torch.set_num_threads(1)


def draw(modalities=3, batch=5, classes=4, seed=0):
    g = torch.Generator().manual_seed(seed)
    return 2 * torch.randn(modalities, batch, classes, generator=g, dtype=torch.float64)


RULES = {
    "mean": rules.mean,
    "entropy": rules.entropy,
    "sum": rules.total,
    "calibrated": lambda u, p=None: rules.calibrated(
        u, p, torch.linspace(0.5, 2, len(u)).double(), torch.arange(1, len(u) + 1).double()
    ),
}


def test_every_rule_has_a_function_here():
    assert set(RULES) == set(rules.RULES)


def test_entropy_weights_by_hand():
    u = torch.tensor([[[2.0, 0.0, 0.0]], [[0.0, 0.0, 0.0]]], dtype=torch.float64)
    assert rules.entropies(u).flatten().tolist() == pytest.approx([0.6656, math.log(3)], abs=5e-5)
    assert rules.entropy_weights(u).flatten().tolist() == pytest.approx([0.6066, 0.3934], abs=5e-5)
    assert rules.entropy(u).flatten().tolist() == pytest.approx([1.2132, 0.0, 0.0], abs=5e-5)


def test_entropy_weighs_each_sample_by_its_own_classes():
    u = draw()
    one_by_one = torch.cat([rules.entropy(u[:, i : i + 1]) for i in range(u.shape[1])])
    torch.testing.assert_close(rules.entropy(u), one_by_one)


def test_mean_is_the_log_of_the_mean_probability():
    u = draw()
    torch.testing.assert_close(rules.mean(u).exp(), u.softmax(-1).mean(0))


def test_mean_of_confident_contradictions_is_finite_with_gradient():
    u = torch.tensor([[[2000.0, 0.0]], [[0.0, 2000.0]]], requires_grad=True)
    out = rules.mean(u)
    torch.testing.assert_close(out.exp(), torch.full((1, 2), 0.5))
    F.cross_entropy(out, torch.tensor([0])).backward()
    assert u.grad is not None
    assert u.grad.isfinite().all()


def test_sum():
    u = draw()
    torch.testing.assert_close(rules.total(u), u[0] + u[1] + u[2])


def test_calibrated_by_the_formula():
    u = draw(2)
    t, w = torch.tensor([0.5, 2.0]).double(), torch.tensor([0.3, 0.7]).double()
    expected = 0.3 * (u[0] / 0.5).softmax(-1) + 0.7 * (u[1] / 2).softmax(-1)
    torch.testing.assert_close(rules.calibrated(u, None, t, w).exp(), expected)


@pytest.mark.parametrize("rule", RULES)
def test_only_the_modalities_there_count(rule):
    u = draw()
    present = torch.tensor([[1, 1, 1, 0, 1], [1, 0, 1, 1, 0], [1, 0, 0, 1, 1]]).bool()
    out = RULES[rule](u, present)
    for i in range(u.shape[1]):
        rows = present[:, i]
        if rule == "calibrated":
            t, w = torch.linspace(0.5, 2, 3).double()[rows], torch.tensor([1.0, 2, 3]).double()[rows]
            alone = rules.calibrated(u[rows, i : i + 1], None, t, w / w.sum())
        else:
            alone = RULES[rule](u[rows, i : i + 1])
        torch.testing.assert_close(out[i : i + 1], alone)


@pytest.mark.parametrize("rule", RULES)
def test_masks_of_ones_change_nothing_and_order_does_not_matter(rule):
    u = draw()
    everyone = torch.ones(3, 5, dtype=torch.bool)
    torch.testing.assert_close(RULES[rule](u, everyone), RULES[rule](u))
    if rule != "calibrated":
        torch.testing.assert_close(RULES[rule](u.flip(0)), RULES[rule](u))


@pytest.mark.parametrize("rule", RULES)
def test_a_sample_with_nothing_there_is_finite_with_gradient(rule):
    u = draw().requires_grad_()
    present = torch.ones(3, 5, dtype=torch.bool)
    present[:, 2] = False
    out = RULES[rule](u, present)
    out.logsumexp(-1).sum().backward()
    assert out.isfinite().all()
    assert u.grad is not None
    assert u.grad.isfinite().all()


@pytest.mark.parametrize("rule", RULES)
def test_gradients_and_second_derivatives_are_right(rule):
    u = draw(2, 3, 3).requires_grad_()
    present = torch.tensor([[1, 0, 1], [1, 1, 0]]).bool()
    assert torch.autograd.gradcheck(lambda v: RULES[rule](v, present), (u,))
    assert torch.autograd.gradgradcheck(lambda v: RULES[rule](v, present), (u,))


def test_the_fit_recovers_temperatures_and_lowers_the_loss():
    g = torch.Generator().manual_seed(3)
    true = 2 * torch.randn(4000, 3, generator=g, dtype=torch.float64)
    y = torch.multinomial(true.softmax(-1), 1, generator=g).flatten()
    # The first is right but three times too sure of itself, the second knows nothing.
    u = torch.stack([3 * true, torch.randn(4000, 3, generator=g, dtype=torch.float64)])
    t, w = rules.fit_calibration(u, y)
    assert t[0] == pytest.approx(3, rel=0.1)
    assert w[0] > 0.95
    assert w.sum() == pytest.approx(1)
    plain = F.nll_loss(rules.calibrated(u, None, torch.ones(2).double(), torch.full((2,), 0.5).double()), y)
    assert F.nll_loss(rules.calibrated(u, None, t, w), y) < plain


def test_the_fit_is_at_a_minimum():
    u = draw(3, 200, 4, seed=1)
    y = torch.randint(0, 4, (200,), generator=torch.Generator().manual_seed(2))
    t, w = rules.fit_calibration(u, y)
    best = F.nll_loss(rules.calibrated(u, None, t, w), y)
    for i in range(3):
        for factor in (0.9, 1.1):
            other = t.clone()
            other[i] *= factor
            assert F.nll_loss(rules.calibrated(u, None, other, w), y) >= best - 1e-6


def test_the_fit_ignores_what_absent_samples_hold():
    u, y = draw(2, 60), torch.arange(60) % 4
    present = torch.ones(2, 60, dtype=torch.bool)
    present[0, ::3] = False
    present[:, 5] = False
    t, w = rules.fit_calibration(u, y, present)
    u2 = u.clone()
    u2[~present] = 1e3
    t2, w2 = rules.fit_calibration(u2, y, present)
    assert torch.equal(t, t2)
    assert torch.equal(w, w2)


@pytest.mark.parametrize("inference", [False, True])
def test_the_fit_works_without_a_gradient_around_and_on_separable_data(inference):
    y = torch.arange(40) % 4
    with torch.inference_mode(inference), torch.no_grad():
        u = torch.stack([5 * F.one_hot(y, 4).float(), torch.zeros(40, 4)])
        t, w = rules.fit_calibration(u, y)
    assert t.isfinite().all()
    assert t.min() > 0.04
    assert t.max() < 21
    assert (w > 0).all()


def test_the_fit_on_nothing_or_nan_changes_nothing():
    for u, y in (
        (torch.zeros(2, 0, 3), torch.zeros(0).long()),
        (torch.full((2, 4, 3), torch.nan), torch.arange(4) % 3),
    ):
        t, w = rules.fit_calibration(u, y)
        assert t.tolist() == [1, 1]
        assert w.tolist() == [0.5, 0.5]
