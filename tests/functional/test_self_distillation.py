import itertools

import pytest
import torch

from counterpoise.functional.self_distillation import distilled
from example_e import UA, UT, UV, Y


def test_oracles():
    told = distilled(UA, UV, Y)
    assert told.weight.tolist() == pytest.approx([0.5750444845, 0.0891240710, 0.4165901616], abs=1e-9)
    assert told.squared.tolist() == pytest.approx([1.6666666667, 0.6666666667, 0.8333333333], abs=1e-9)
    assert told.divergence.tolist() == pytest.approx([0.7793650531, 0.0538081763, 0.4142615598], abs=1e-9)
    assert float((told.weight * told.squared).mean()) == pytest.approx(0.4549939965, abs=1e-9)
    assert float((told.weight * told.divergence).mean()) == pytest.approx(0.2085141564, abs=1e-9)


def test_oracles_of_three_modalities():
    pairs = [distilled(a, b, Y) for a, b in itertools.combinations([UA, UV, UT], 2)]
    squared = torch.stack([(told.weight * told.squared).mean() for told in pairs]).mean()
    divergence = torch.stack([(told.weight * told.divergence).mean() for told in pairs]).mean()
    assert float(squared) == pytest.approx(0.4235837929, abs=1e-9)
    assert float(divergence) == pytest.approx(0.1839171914, abs=1e-9)


def test_nobody_right_means_weight_zero():
    a, b = torch.tensor([[3.0, 0, 0]]), torch.tensor([[0.0, 2, 0]])
    assert distilled(a, b, torch.tensor([2])).weight.tolist() == [0]
    assert distilled(a, b, torch.tensor([1])).weight.item() > 0


def test_equal_logits_and_the_order_of_the_pair():
    told = distilled(UA, UA, Y)
    assert all(not part.any() for part in told)
    for there, back in zip(distilled(UA, UV, Y), distilled(UV, UA, Y), strict=True):
        torch.testing.assert_close(there, back)


def test_only_the_weaker_learns_from_the_divergence_and_nothing_from_the_weight():
    a, b = UA.clone().requires_grad_(), UV.clone().requires_grad_()
    told = distilled(a, b, Y)
    assert not told.weight.requires_grad
    g_a, g_b = torch.autograd.grad(told.divergence.sum(), (a, b))
    for i in range(3):
        a_leads = UA[i].softmax(0)[Y[i]] > UV[i].softmax(0)[Y[i]]
        weak, strong, g = (UV[i], UA[i], g_b[i]) if a_leads else (UA[i], UV[i], g_a[i])
        torch.testing.assert_close(g, weak.softmax(0) - strong.softmax(0))
        assert not (g_a[i] if a_leads else g_b[i]).any()


def test_ties_are_taught_by_the_first():
    a = torch.tensor([[1.0, 0, 2]], requires_grad=True)
    b = torch.tensor([[1.0, 2, 0]], requires_grad=True)
    g_a, g_b = torch.autograd.grad(distilled(a, b, torch.tensor([0])).divergence.sum(), (a, b))
    assert not g_a.any()
    assert g_b.any()
