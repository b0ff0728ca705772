from __future__ import annotations

import math

import pytest
import torch

from counterpoise.functional.modulation import (
    agm_coefficients,
    agm_ratios,
    floored,
    ge_noise,
    ogm_coefficients,
    ogm_ratios,
    opm_rates,
    opm_ratios,
    true_probability,
)
from counterpoise.task import SingleLabel


def t(*values):
    return torch.tensor(values, dtype=torch.float64)


# -- OGM ---------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("ratio", "alpha", "k"),
    [(2, 0.1, 0.802625), (2, 0.8, 0.0783314), (1, 0.8, 1.0), (1.0001, 0.8, 0.335919), (5, 0.1, 0.537883)],
)
def test_ogm_coefficient_values(ratio, alpha, k):
    assert ogm_coefficients(t(ratio), alpha).item() == pytest.approx(k, abs=1e-6)


def test_ogm_scores_ratios_and_coefficients_of_a_written_out_batch():
    target = torch.tensor([0, 1])
    audio, image = t(2, 0, 0, 1).view(2, 2), t(0, 0, 1, 0).view(2, 2)
    scores = torch.stack([true_probability(u, target).sum() for u in (audio, image)])
    torch.testing.assert_close(scores, t(1.6119, 0.7689), atol=1e-4, rtol=0)
    ratios = ogm_ratios(scores)
    assert ratios[0].item() == pytest.approx(2.0962, abs=1e-4)
    assert ratios.prod().item() == pytest.approx(1)
    assert ogm_coefficients(ratios, 0.8)[0].item() == pytest.approx(0.0675, abs=1e-4)
    assert ogm_coefficients(ratios, 0.8)[1].item() == 1


@pytest.mark.parametrize("rule", ["mean", "weakest"])
def test_both_ratio_rules_give_the_papers_coefficients_for_two(rule):
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        scores = torch.rand(2, generator=generator, dtype=torch.float64) + 0.01
        k = ogm_coefficients(ogm_ratios(scores, rule), 0.8)
        for own, other, mine in zip(scores, scores.flip(0), k, strict=True):
            expected = 1 - math.tanh(0.8 * own / other) if own > other else 1.0
            assert mine.item() == pytest.approx(expected)
        assert (k < 1).sum() <= 1


def test_ratios_of_three():
    torch.testing.assert_close(ogm_ratios(t(3, 2, 1)), t(2.25, 4 / 3, 1.25 / 3), atol=1e-12, rtol=0)
    torch.testing.assert_close(ogm_ratios(t(3, 2, 1), "weakest"), t(3, 2, 1))
    with pytest.raises(ValueError, match="'mean' or 'weakest'"):
        ogm_ratios(t(1, 2), "sum")


@pytest.mark.parametrize("scores", [(0, 0), (0, 1), (1, 0, 0), (1,)])
@pytest.mark.parametrize("rule", ["mean", "weakest"])
def test_degenerate_scores_stay_finite(scores, rule):
    scores = torch.tensor(scores, dtype=torch.float32)
    k = ogm_coefficients(ogm_ratios(scores, rule), 0.8)
    assert ((k >= 0) & (k <= 1)).all()
    assert (ogm_coefficients(ogm_ratios(scores, rule), 0.0) == 1).all()
    q = opm_rates(opm_ratios(scores), 0.5, 0.5)
    assert ((q >= 0) & (q <= 1)).all()
    if scores.sum() == 0:
        assert (k == 1).all()
        assert (q == 0).all()


def test_ge_noise_has_the_spread_of_the_unscaled_gradient():
    generator = torch.Generator().manual_seed(0)
    gradient = 0.3 * torch.randn(200_000, generator=generator) + 0.1
    noise = ge_noise(gradient, torch.Generator().manual_seed(1))
    assert noise.mean().abs() < 0.003
    assert noise.std().item() == pytest.approx(gradient.std().item(), rel=0.01)
    assert ((0.5 * gradient + noise).var() / gradient.var()).item() == pytest.approx(1.25, rel=0.02)
    torch.testing.assert_close(noise, ge_noise(gradient, torch.Generator().manual_seed(1)), atol=0, rtol=0)


def test_ge_noise_of_one_entry_and_of_zeros_is_tiny_and_finite():
    for gradient in (torch.tensor([3.0]), torch.zeros(50)):
        noise = ge_noise(gradient, torch.Generator().manual_seed(0))
        assert noise.abs().max() < 1e-6
        assert noise.abs().max() > 0


# -- OPM ---------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("scores", "q_base", "rates"),
    [
        ((20, 10), 0.5, (0.690399, 0)),
        ((20, 10), 0.4, (0.552319, 0)),
        ((12, 10), 0.5, (0.549344, 0)),
        ((7, 7), 0.5, (0, 0)),
    ],
)
def test_opm_rates(scores, q_base, rates):
    torch.testing.assert_close(opm_rates(opm_ratios(t(*scores)), q_base, 0.5), t(*rates), atol=1e-6, rtol=0)


def test_opm_ratio_of_three_uses_the_mean_of_the_others():
    assert torch.tanh(opm_ratios(t(20, 10, 9))[0] - 1).item() == pytest.approx(0.8024, abs=1e-4)


def test_opm_never_drops_the_weakest_and_clips():
    generator = torch.Generator().manual_seed(3)
    for count in (2, 3, 4):
        scores = torch.rand(count, generator=generator, dtype=torch.float64)
        rates = opm_rates(opm_ratios(scores), 1.0, 5.0)
        assert rates[scores.argmin()] == 0
        assert rates.max() == 1


# -- AGM ---------------------------------------------------------------------------------------------
def test_agm_ratios_two_forms():
    torch.testing.assert_close(agm_ratios(t(0.4, 1.4)), t(math.e, 1 / math.e))
    s = t(0.4, 1.4, 0.9)
    torch.testing.assert_close(agm_ratios(s), t(2.1170, 0.47237, 1.0), atol=1e-4, rtol=0)
    by_pairs = torch.stack([torch.exp(sum(s[j] - s[m] for j in range(3) if j != m) / 2) for m in range(3)])
    torch.testing.assert_close(agm_ratios(s), by_pairs)


@pytest.mark.parametrize("count", [2, 3, 4])
def test_agm_ratios_multiply_to_one(count):
    assert agm_ratios(torch.rand(count, dtype=torch.float64)).prod().item() == pytest.approx(1)


def test_agm_coefficients_slow_the_leader():
    kappa = agm_coefficients(t(0.4, 1.4), t(0, 0), 1.5, cap=10)
    torch.testing.assert_close(kappa, t(0.0759695, 2.58101), atol=1e-5, rtol=0)
    kappa = agm_coefficients(t(0.4, 1.4), t(1, 1), 1.0, cap=10)  # not (1.882, 0.179): that amplifies the leader
    torch.testing.assert_close(kappa, t(0.179, 1.882), atol=1e-3, rtol=0)


def test_agm_coefficients_are_one_when_nothing_changes_or_without_strength():
    torch.testing.assert_close(agm_coefficients(t(0.4, 1.4, 0.2), t(0.4, 1.4, 0.2), 2.0), t(1, 1, 1))
    assert (agm_coefficients(t(0.4, 1.4), t(3, 1), 0.0) == 1).all()


def test_agm_coefficient_is_below_one_exactly_when_further_ahead_than_usual():
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        s, mean = (torch.rand(3, generator=generator, dtype=torch.float64) for _ in range(2))
        assert ((agm_ratios(s) > agm_ratios(mean)) == (agm_coefficients(s, mean, 1.5) < 1)).all()


def test_agm_cap_and_finiteness():
    late, early = t(18.4, 0.001), t(0.001, 18.4)
    assert agm_coefficients(late, early, 1.5, cap=2).max().item() == pytest.approx(math.exp(3))
    assert agm_coefficients(late.float(), early.float(), 4.0, cap=None).isfinite().all()


def test_the_likelihood_is_floored():
    logits = torch.tensor([[0.0, 200.0], [3.0, 1.0]], requires_grad=True)
    values = floored(SingleLabel(2).losses(logits, torch.tensor([0, 0])))
    assert values[0].item() == pytest.approx(-math.log(1e-8), rel=1e-6)
    assert values[1].item() == pytest.approx(math.log(1 + math.exp(-2)), rel=1e-6)
