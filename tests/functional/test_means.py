from __future__ import annotations

import numpy as np
import pytest
import torch

from counterpoise.functional.means import masked_mean


@pytest.mark.parametrize("weight", [[True, False, True, True], [0.5, 2.0, 0.0, 1.5], [False, False, False, True]])
def test_it_is_the_weighted_mean(weight: list) -> None:
    values = torch.tensor([0.3, -2.0, 4.0, 1.0], dtype=torch.float64, requires_grad=True)
    mean = masked_mean(values, torch.tensor(weight))
    assert mean.item() == pytest.approx(np.average(values.detach(), weights=weight))
    (grad,) = torch.autograd.grad(mean, values)
    np.testing.assert_allclose(grad, np.asarray(weight, float) / np.sum(weight))


def test_without_weights_all_count_and_without_any_weight_it_is_zero() -> None:
    values = torch.tensor([1.0, 2.0, 6.0], requires_grad=True)
    assert masked_mean(values, None).item() == 3
    none = masked_mean(values, torch.zeros(3, dtype=torch.bool))
    assert none.item() == 0
    assert torch.autograd.grad(none, values)[0].tolist() == [0, 0, 0]


@pytest.mark.parametrize("weights", [[[1.0, 1.0], [1.0, 0.0]], [[0.0, 0.0], [2.0, 1.0]], [[0.0, 0.0], [0.0, 0.0]]])
def test_parts_of_a_batch_average_to_the_whole(weights: list[list[float]]) -> None:
    values, parts = torch.tensor([[1.0, 5.0], [2.0, 9.0]]), torch.tensor(weights)
    counts = parts.sum(1).mean()
    found = torch.stack([masked_mean(v, w, lambda _: counts) for v, w in zip(values, parts, strict=True)]).mean()
    torch.testing.assert_close(found, masked_mean(values.flatten(), parts.flatten()))
