from __future__ import annotations

import pytest
import torch
from torch import nn

from counterpoise.functional import assign, cosine, flatten, global_norm, unflatten


def shapes():
    return [torch.arange(6.0).view(2, 3), torch.tensor(7.0), torch.tensor([8.0, 9.0])]


def test_flatten_and_unflatten_are_inverse():
    tensors = shapes()
    vector = flatten(tensors)
    assert vector.tolist() == [0, 1, 2, 3, 4, 5, 7, 8, 9]
    back = unflatten(vector, tensors)
    assert all(torch.equal(a, b) for a, b in zip(back, tensors, strict=True))


def test_flatten_takes_non_contiguous_tensors():
    assert flatten([torch.arange(6.0).view(2, 3).T]).tolist() == [0, 3, 1, 4, 2, 5]


@pytest.mark.parametrize("bad", [torch.zeros(8), torch.zeros(10), torch.zeros(3, 3)])
def test_unflatten_refuses_other_sizes(bad):
    with pytest.raises(ValueError, match=r"shape \(9,\)"):
        unflatten(bad, shapes())


def test_flatten_refuses_nothing():
    with pytest.raises(ValueError, match="at least one tensor"):
        flatten([])


def test_assign_from_vector_and_from_list():
    params = [nn.Parameter(t) for t in shapes()]
    assign(params, torch.arange(9.0))
    assert torch.equal(flatten(p.grad for p in params), torch.arange(9.0))
    assign(params, [torch.full_like(p, 2.0) for p in params])
    assert torch.equal(flatten(p.grad for p in params), torch.full((9,), 2.0))
    with pytest.raises(ValueError, match="one tensor per parameter"):
        assign(params, [torch.zeros(2, 3)])


def test_global_norm_is_one_norm_over_everything():
    tensors = [torch.tensor([3.0]), torch.tensor([[0.0, 4.0]]), torch.tensor(12.0)]
    assert global_norm(tensors).item() == pytest.approx(13.0)


def test_cosine():
    a, b = torch.tensor([1.0, 0.0]), torch.tensor([1.0, 1.0])
    assert cosine(a, b).item() == pytest.approx(2**-0.5)
    assert cosine(a, -3 * a).item() == -1.0
    assert cosine(a, torch.zeros(2)).item() == 0.0
    assert cosine(torch.zeros(2), torch.zeros(2)).item() == 0.0
    assert cosine([a, b], [a, b]).item() == pytest.approx(1.0)
    assert cosine(1e-25 * a, 1e-25 * b).item() == pytest.approx(2**-0.5)
