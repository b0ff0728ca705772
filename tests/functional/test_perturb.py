from __future__ import annotations

import pytest
import torch
from torch import nn

from counterpoise.functional import ascended, changed_fraction, flatten


def model_and_grads(dtype=torch.float32):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3)).to(dtype)
    x = torch.randn(7, 5, dtype=dtype)
    params = list(model.parameters())
    return model, x, params, torch.autograd.grad(model(x).square().mean(), params)


@pytest.mark.parametrize("rho", [1e-12, 0.05, 3.0])
def test_stands_at_the_global_norm_point_and_restores_bit_exactly(rho):
    model, x, params, grads = model_and_grads(torch.float64)
    before = [p.detach().clone() for p in params]
    g = flatten(grads)
    with ascended(params, grads, rho):
        torch.testing.assert_close(flatten(params), flatten(before) + rho * g / g.norm(), rtol=0, atol=1e-14)
        assert model(x).requires_grad
    assert all(torch.equal(a, b) for a, b in zip(before, params, strict=True))


def test_restores_after_an_exception():
    _, _, params, grads = model_and_grads()
    before = [p.detach().clone() for p in params]
    with pytest.raises(KeyboardInterrupt), ascended(params, grads, 0.1):
        raise KeyboardInterrupt
    assert all(torch.equal(a, b) for a, b in zip(before, params, strict=True))


def test_restoring_does_not_subtract():
    # 1e8 + 1 - 1e8 is not 1 in float32: only a copy gives the weight back.
    p = nn.Parameter(torch.tensor([0.1, 1e-8]))
    with ascended([p], [torch.tensor([1.0, 1.0])], 1e8):
        assert p[0] > 1e7
    assert torch.equal(p.detach(), torch.tensor([0.1, 1e-8]))


def test_zero_and_missing_gradients_move_nothing():
    _, _, params, grads = model_and_grads()
    before = [p.detach().clone() for p in params]
    with ascended(params, [torch.zeros_like(g) for g in grads], 0.05):
        assert all(torch.equal(a, b) for a, b in zip(before, params, strict=True))
    with ascended(params, [*grads[:2], None, None], 0.05):
        assert torch.equal(params[2], before[2])
        assert not torch.equal(params[0], before[0])
    with ascended(params, grads, 0.0):
        assert all(torch.equal(a, b) for a, b in zip(before, params, strict=True))


def test_gradient_inside_is_that_of_the_perturbed_weights():
    model, x, params, grads = model_and_grads(torch.float64)
    with ascended(params, grads, 0.5):
        model(x).square().mean().backward()
    norm = flatten(grads).norm()
    moved = [(p.detach() + 0.5 * g / norm).requires_grad_() for p, g in zip(params, grads, strict=True)]
    w1, b1, w2, b2 = moved
    expected = torch.autograd.grad(((torch.tanh(x @ w1.T + b1)) @ w2.T + b2).square().mean(), moved)
    torch.testing.assert_close([p.grad for p in params], list(expected), rtol=0, atol=1e-14)


@pytest.mark.parametrize("rho", [-0.1, float("nan"), float("inf")])
def test_refuses_a_bad_radius(rho):
    _, _, params, grads = model_and_grads()
    with pytest.raises(ValueError, match="rho"), ascended(params, grads, rho):
        pass


def test_refuses_a_gradient_list_of_another_length():
    _, _, params, grads = model_and_grads()
    with pytest.raises(ValueError, match="one gradient per parameter"), ascended(params, grads[:2], 0.1):
        pass


def test_changed_fraction_shows_a_radius_below_float_resolution():
    _, _, params, grads = model_and_grads()
    with ascended(params, grads, 0.05) as start:
        assert changed_fraction(start, params) == 1.0
    with ascended(params, grads, 1e-10) as start:
        assert changed_fraction(start, params) < 0.1
    a = torch.zeros(8)
    b = a.clone()
    b[:2] = 1
    assert changed_fraction([a], [b]).item() == 0.25


def test_no_graph_survives_the_block():
    model, x, params, grads = model_and_grads()
    before = model(x).square().mean()
    with ascended(params, grads, 0.5):
        inside = model(x).square().mean()
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            before.backward()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        inside.backward()


def test_weights_are_the_same_memory_afterwards():
    _, _, params, grads = model_and_grads()
    places = [p.data_ptr() for p in params]
    with ascended(params, grads, 0.5):
        pass
    assert [p.data_ptr() for p in params] == places


def test_leaves_the_gradients_alone():
    _, _, params, grads = model_and_grads()
    copies = [g.clone() for g in grads]
    with ascended(params, grads, 0.5):
        pass
    assert all(torch.equal(a, b) for a, b in zip(copies, grads, strict=True))
