import pytest
import torch

from counterpoise.functional.confidence import confidence_rise
from example_e import UA, UT, UV, Y

BIAS = torch.tensor([0.1, -0.1, 0], dtype=torch.float64)
FULL = UA + UV + BIAS


@pytest.mark.parametrize(("less", "value"), [(UV + BIAS, 0.0443111796), (UA + BIAS, 0.0361465918)])
def test_oracles(less, value):
    assert float(confidence_rise(FULL, less, Y).mean()) == pytest.approx(value, abs=1e-9)


def test_oracle_of_three_modalities():
    chain = [UA + UV + UT + BIAS, UA + UV + BIAS, UV + BIAS]
    found = sum(float(confidence_rise(chain[k], chain[k + 1], Y).mean()) for k in range(2))
    assert found == pytest.approx(0.0661961183, abs=1e-9)


def test_right_against_wrong_deserves_its_confidence():
    """The first of the two samples is told right by the smaller set alone."""
    a = torch.tensor([[3.0, 0, 0], [0, 0, 3]], dtype=torch.float64)
    v = torch.tensor([[-4.0, 4.5, 0], [0, 0, -4]], dtype=torch.float64)
    target = torch.tensor([0, 2])
    assert confidence_rise(a + v, a, target).tolist() == [0, 0]
    rise = (a.softmax(1).amax(1) - (a + v).softmax(1).amax(1)).clamp(min=0)
    assert float(rise.mean()) == pytest.approx(0.2435621001, abs=1e-9)
    # where both are wrong it counts again
    torch.testing.assert_close(confidence_rise(a + v, a, torch.tensor([2, 1])), rise)


def test_falling_and_equal_confidence_costs_nothing():
    assert not confidence_rise(2 * UA, UA, Y).any()
    logits = UA.clone().requires_grad_()
    (g,) = torch.autograd.grad(confidence_rise(logits, UA, Y).sum(), logits)
    assert not g.any()


@pytest.mark.parametrize("hold_wrong", [False, True])
def test_the_larger_set_is_held_where_both_are_wrong(hold_wrong):
    more = torch.tensor([[1.0, 0, 0], [0, 1, 0]], dtype=torch.float64, requires_grad=True)
    less = (3 * more).detach().requires_grad_()
    target = torch.tensor([2, 1])  # wrong, right
    h = confidence_rise(more, less, target, hold_wrong)
    assert (h > 0).all()
    g_more, g_less = torch.autograd.grad(h.sum(), (more, less))
    assert g_less.any(1).all()
    assert g_more.any(1).tolist() == [not hold_wrong, True]
