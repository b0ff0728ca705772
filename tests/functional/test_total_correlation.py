import itertools
import math

import pytest
import torch
import torch.nn.functional as F

from counterpoise.functional.total_correlation import log_partition, log_partition_of_sums
from example_e import UA, UT, UV, Y

TWO, THREE = torch.stack([UA, UV]), torch.stack([UA, UV, UT])


def loss(unimodal, target, present=None):
    return log_partition_of_sums(unimodal, present) - unimodal.sum(0).gather(1, target[:, None]).mean()


def brute_force(unimodal, target):
    rows = range(unimodal.shape[1])
    every = [
        sum(u[j] for u, j in zip(unimodal, js, strict=True)) for js in itertools.product(rows, repeat=len(unimodal))
    ]
    return torch.stack(every).exp().mean().log() - unimodal.sum(0)[rows, target].mean()


@pytest.mark.parametrize(("unimodal", "value"), [(TWO, -0.5922723446), (THREE, -0.9421027083)])
def test_oracles(unimodal, value):
    assert float(loss(unimodal, Y)) == pytest.approx(value, abs=1e-9)
    torch.testing.assert_close(loss(unimodal, Y), brute_force(unimodal, Y), atol=1e-12, rtol=0)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("shape", [(2, 5, 4), (3, 4, 2), (1, 6, 3)])
def test_the_factorised_mean_is_that_over_all_combinations(shape, seed):
    generator = torch.Generator().manual_seed(seed)
    unimodal = 3 * torch.randn(shape, dtype=torch.float64, generator=generator)
    target = torch.randint(shape[2], shape[1:2], generator=generator)
    torch.testing.assert_close(loss(unimodal, target), brute_force(unimodal, target), atol=1e-12, rtol=0)


def test_gradient_oracle():
    unimodal = TWO.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(unimodal, Y), unimodal)
    assert gradient[0, 0].tolist() == pytest.approx([-0.0658736590, 0.0852109593, 0.0361967308], abs=1e-9)
    assert gradient[0].sum().abs() < 1e-12


def test_one_sample_and_equal_samples_are_cross_entropy():
    one, equal = TWO[:, :1], TWO[:, :1].expand(2, 4, 3)
    expected = float(F.cross_entropy(one.sum(0), Y[:1])) - math.log(3)
    assert float(loss(one, Y[:1])) == pytest.approx(-0.6910063242, abs=1e-9)
    assert float(loss(one, Y[:1])) == pytest.approx(expected, abs=1e-12)
    assert float(loss(equal, torch.zeros(4, dtype=torch.int64))) == pytest.approx(expected, abs=1e-12)


def test_drawn_combinations():
    pairs = torch.tensor([(0, 1), (1, 2), (2, 0), (0, 0)])
    drawn = UA[pairs[:, 0]] + UV[pairs[:, 1]]
    value = log_partition(drawn) - (UA + UV).gather(1, Y[:, None]).mean()
    assert float(value) == pytest.approx(-0.8699098757, abs=1e-9)


def test_all_combinations_drawn_is_the_factorised_mean():
    every = (UA[:, None] + UV[None]).reshape(-1, 3)
    torch.testing.assert_close(log_partition(every), log_partition_of_sums(TWO), atol=1e-12, rtol=0)


def test_invariances():
    assert float(loss(torch.zeros_like(TWO), Y)) == pytest.approx(0, abs=1e-12)
    torch.testing.assert_close(loss(TWO + torch.tensor([7.0, -3.0])[:, None, None], Y), loss(TWO, Y))
    torch.testing.assert_close(loss(TWO.flip(0), Y), loss(TWO, Y))
    order = torch.tensor([2, 0, 1])
    torch.testing.assert_close(loss(TWO[:, order], Y[order]), loss(TWO, Y))


@pytest.mark.parametrize("scale", [60.0, 1e4])
def test_large_logits_stay_finite(scale):
    unimodal = (scale * TWO.float()).requires_grad_()
    value = loss(unimodal, Y)
    value.backward()
    assert value.isfinite()
    assert unimodal.grad.isfinite().all()


def test_absent_rows_lend_nothing():
    present = torch.tensor([[True, True, False], [True, True, True]])
    combinations = torch.stack([UA[i] + UV[j] for i in range(2) for j in range(3)])
    torch.testing.assert_close(log_partition_of_sums(TWO, present), log_partition(combinations))
    nobody = torch.tensor([[False] * 3, [True] * 3])
    assert log_partition_of_sums(TWO, nobody).isfinite()
