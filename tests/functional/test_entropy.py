from __future__ import annotations

import math

import torch

from counterpoise.functional import batch_entropy_weights, entropy_weights


def test_worked_example():
    logits = torch.tensor([[[2.0, 0.0, 0.0]], [[0.0, 0.0, 0.0]]], dtype=torch.float64)
    weights = entropy_weights(logits)
    torch.testing.assert_close(weights, torch.tensor([[0.6066], [0.3934]]).double(), rtol=0, atol=5e-5)
    fused = (weights.unsqueeze(-1) * logits).sum(0)
    torch.testing.assert_close(fused, torch.tensor([[1.2132, 0, 0]]).double(), rtol=0, atol=5e-5)


def test_sums_to_one_ignores_a_shift_and_the_other_samples():
    torch.manual_seed(0)
    logits = 3 * torch.randn(4, 6, 5)
    weights = entropy_weights(logits)
    torch.testing.assert_close(weights.sum(0), torch.ones(6))
    torch.testing.assert_close(entropy_weights(logits + 100), weights, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(entropy_weights(logits[:, 2:3]), weights[:, 2:3])
    assert torch.equal(entropy_weights(torch.zeros(4, 6, 5)), torch.full((4, 6), 0.25))


def test_is_softmax_of_the_negative_entropy():
    torch.manual_seed(1)
    logits = torch.randn(3, 4, 5, dtype=torch.float64)
    entropy = torch.distributions.Categorical(logits=logits).entropy()
    reference = (entropy.amax(0) - entropy).exp()
    torch.testing.assert_close(entropy_weights(logits), reference / reference.sum(0))


def test_absent_modalities_weigh_nothing_and_the_rest_share():
    torch.manual_seed(0)
    logits = torch.randn(3, 2, 4)
    present = torch.tensor([[True, False], [False, False], [True, False]])
    weights = entropy_weights(logits, present)
    assert weights[1, 0] == 0
    torch.testing.assert_close(weights[[0, 2], 0], entropy_weights(logits[[0, 2]])[:, 0])
    torch.testing.assert_close(weights[:, 1], entropy_weights(logits)[:, 1])  # nobody there: still finite


def test_extreme_logits_stay_finite():
    logits = torch.tensor([[[1e4, -1e4, 0.0]], [[0.0, 0.0, 0.0]]])
    assert torch.isfinite(entropy_weights(logits)).all()
    assert torch.isfinite(batch_entropy_weights(logits.expand(2, 3, 3))).all()


def test_released_weights_come_from_the_softmax_over_the_batch():
    torch.manual_seed(0)
    logits = torch.randn(2, 5, 3, dtype=torch.float64)

    def entropy(z):
        p = z.exp() / z.exp().sum(0)
        return float(-(p * p.log()).sum())

    a, b = entropy(logits[0]), entropy(logits[1])
    expected = math.exp(max(a, b) - a) / (math.exp(max(a, b) - a) + math.exp(max(a, b) - b))
    assert abs(float(batch_entropy_weights(logits)[0]) - expected) < 1e-12
    assert not torch.allclose(batch_entropy_weights(logits), batch_entropy_weights(logits[:, :3]))
