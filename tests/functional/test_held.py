import pytest
import torch
from torch import nn

from counterpoise.functional.gradients import held


def test_gradients_go_through_and_not_to_it():
    layer, x = nn.Linear(3, 2), torch.randn(4, 3, requires_grad=True)
    with held(layer):
        inside = layer(x).sum()
    (inside + layer(x.detach()).square().sum()).backward()
    expected = layer.weight.detach().sum(0).expand(4, 3)
    torch.testing.assert_close(x.grad, expected)
    (plain,) = torch.autograd.grad(layer(x.detach()).square().sum(), layer.weight)
    torch.testing.assert_close(layer.weight.grad, plain)


def test_what_did_not_train_before_does_not_after():
    layer = nn.Linear(3, 2)
    layer.bias.requires_grad_(False)
    with pytest.raises(ZeroDivisionError), held(layer):
        assert not any(p.requires_grad for p in layer.parameters()) / 0
    assert layer.weight.requires_grad
    assert not layer.bias.requires_grad
