import math

import pytest
import torch
import torch.nn.functional as F

from counterpoise.functional import agreement_share, distillation_losses, geodesic, geodesic_weights

F64 = torch.float64
U_A = torch.tensor([[2.0, 0, 0], [0, 1, 0], [0.5, 0, 1.5]], dtype=F64)
U_V = torch.tensor([[0.0, 1, 0], [0, 2, 1], [1, 0, 0]], dtype=F64)


def test_oracle():
    a, b, lam = torch.tensor([[3.0, 4]], dtype=F64), torch.tensor([[2.0, 0]], dtype=F64), torch.tensor(0.7, dtype=F64)
    first, second = geodesic_weights(torch.tensor(math.cos(0.9272952180), dtype=F64), lam)
    assert (first.item(), second.item()) == pytest.approx((0.7555937312, 0.3432678838), abs=1e-9)
    point = geodesic(a, b, lam)
    assert point.flatten().tolist() == pytest.approx([0.7966241225, 0.6044749849], abs=1e-9)
    assert point.norm().item() == pytest.approx(1)


def test_shares_of_the_worked_example():
    fused = (U_A + U_V) / 2
    K = [distillation_losses(fused, u).mean() for u in (U_A, U_V)]
    assert [k.item() for k in K] == pytest.approx([0.0992507158, 0.1018311747], abs=1e-9)
    assert agreement_share(*K).item() == pytest.approx(0.5064164378, abs=1e-9)
    assert agreement_share(torch.zeros(()), torch.zeros(())) == 0.5
    assert agreement_share(torch.zeros(()), torch.ones(())) == 1


def test_the_moving_share_of_the_worked_example():
    lam, seen = torch.tensor(0.5, dtype=F64), []
    for omega in (0.9, 0.9, 0.6, 0.3):
        lam = lam.lerp(torch.tensor(omega, dtype=F64), 0.2)
        seen.append(lam.item())
    assert seen == pytest.approx([0.58, 0.644, 0.6352, 0.56816], abs=1e-12)


@pytest.mark.parametrize("lam", [0.0, 0.3, 0.5, 1.0])
def test_points_have_length_one_and_do_not_know_lengths(lam):
    torch.manual_seed(0)
    a, b, lam = torch.randn(50, 7, dtype=F64), torch.randn(50, 7, dtype=F64), torch.tensor(lam, dtype=F64)
    point = geodesic(a, b, lam)
    torch.testing.assert_close(point.norm(dim=1), torch.ones(50, dtype=F64))
    torch.testing.assert_close(geodesic(3 * a, 0.1 * b, lam), point)
    torch.testing.assert_close(geodesic(b, a, 1 - lam), point)


def test_the_ends_are_the_modalities():
    torch.manual_seed(0)
    a, b = torch.randn(9, 4, dtype=F64), torch.randn(9, 4, dtype=F64)
    torch.testing.assert_close(geodesic(a, b, torch.ones((), dtype=F64)), F.normalize(a, dim=1))
    torch.testing.assert_close(geodesic(a, b, torch.zeros((), dtype=F64)), F.normalize(b, dim=1))


@pytest.mark.parametrize("dtype", [torch.float32, F64])
@pytest.mark.parametrize("angle", [0.0, 1e-7, 1e-3, 0.0099, 0.0101, 0.1])
def test_near_vectors_give_the_limit_with_its_derivative(angle, dtype):
    lam = 0.7
    cosine = torch.tensor(math.cos(angle), dtype=dtype, requires_grad=True)
    first, second = geodesic_weights(cosine, torch.tensor(lam, dtype=dtype))
    expected = [math.sin(s * angle) / math.sin(angle) if angle else s for s in (lam, 1 - lam)]
    # float32 knows the angle to 1e-7 / angle, and the weights move with its square
    assert [first.item(), second.item()] == pytest.approx(expected, abs=1e-6)
    (slope,) = torch.autograd.grad(first, cosine)
    assert slope.item() == pytest.approx(-lam * (1 - lam**2) / 3, abs=0.01)


def test_opposite_and_missing_directions_stay_finite():
    a = torch.tensor([[1.0, 0], [0, 0], [0, 0], [2, 0]], requires_grad=True)
    b = torch.tensor([[-1.0, 0], [0, 3], [0, 0], [1, 0]], requires_grad=True)
    point = geodesic(a, b, torch.tensor(0.75))
    torch.testing.assert_close(point[0], torch.tensor([0.5, 0]))  # the linear mix
    torch.testing.assert_close(point[3], torch.tensor([1.0, 0]))
    assert point[1][0] == 0
    assert torch.equal(point[2], torch.zeros(2))
    point.square().sum().backward()
    assert a.grad.isfinite().all()
    assert b.grad.isfinite().all()
