import math

import pytest
import torch
import torch.nn.functional as F

from counterpoise.functional.alignment import distillation_losses, feature_distances, gap_weight, info_nce, look_ahead
from example_e import UA, UV


def test_schedule_oracle():
    got = [gap_weight(t) for t in (1, 2, 5, 10, 50, 100)]
    assert got == pytest.approx([0.632121, 0.393469, 0.181269, 0.095163, 0.019801, 0.009950], abs=1e-6)


def test_info_nce_oracle():
    z_v = F.normalize(torch.tensor([[1.0, 1.0], [0.0, 1.0]]), dim=1)
    assert float(info_nce(torch.eye(2), z_v, tau=1.0)) == pytest.approx(0.491157, abs=1e-6)


def reference(a, b, tau):
    """Written out with sums of exponentials."""
    a, b = a.double(), b.double()
    n = len(a)
    s = [[float(a[i] @ b[k] / (a[i].norm() * b[k].norm())) / tau for k in range(n)] for i in range(n)]
    total = 0.0
    for i in range(n):
        total += s[i][i] - math.log(sum(math.exp(s[i][k]) for k in range(n)))
        total += s[i][i] - math.log(sum(math.exp(s[k][i]) for k in range(n)))
    return -total / (2 * n)


@pytest.mark.parametrize("tau", [0.07, 0.5, 1.0])
def test_info_nce_against_the_reference(tau):
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(7, 5, generator=generator, dtype=torch.float64) for _ in range(2))
    assert float(info_nce(a, b, tau)) == pytest.approx(reference(a, b, tau), rel=1e-10)


def test_info_nce_invariants():
    generator = torch.Generator().manual_seed(1)
    a, b = (torch.randn(6, 4, generator=generator, dtype=torch.float64) for _ in range(2))
    loss = info_nce(a, b)
    torch.testing.assert_close(info_nce(b, a), loss)
    scale = torch.rand(6, 1, generator=generator, dtype=torch.float64) + 0.1
    torch.testing.assert_close(info_nce(3 * a, scale * b), loss)
    order = torch.randperm(6, generator=generator)
    torch.testing.assert_close(info_nce(a[order], b[order]), loss)
    assert float(info_nce(torch.eye(4), torch.eye(4), tau=0.01)) == pytest.approx(0.0, abs=1e-12)
    assert float(info_nce(a[:1], b[:1])) == 0.0


def test_info_nce_of_those_who_have_both():
    generator = torch.Generator().manual_seed(2)
    a, b = (torch.randn(6, 4, generator=generator) for _ in range(2))
    there = torch.tensor([True, False, True, True, False, True])
    torch.testing.assert_close(info_nce(a, b, present=there), info_nce(a[there], b[there]))
    torch.testing.assert_close(info_nce(a, b, present=torch.ones(6, dtype=torch.bool)), info_nce(a, b))


@pytest.mark.parametrize("present", [None, torch.zeros(4, dtype=torch.bool)])
def test_info_nce_of_zeros_is_finite(present):
    a = torch.zeros(4, 3, requires_grad=True)
    b = torch.eye(4, 3)  # one row of zeros, others to point at
    loss = info_nce(a, b, present=present)
    loss.backward()
    assert loss.isfinite()
    assert a.grad.abs().max() < 100  # finite is not enough: dividing by a floor of 1e-12 makes it 1e12
    if present is not None:
        assert loss.item() == 0.0
        assert not a.grad.any()


def test_look_ahead_descends_on_the_held_out_loss():
    """A quadratic task: the step must go the way that lowers the loss after one training step."""
    generator = torch.Generator().manual_seed(3)
    theta, m, c, v = (torch.randn(5, generator=generator, dtype=torch.float64) for _ in range(4))
    eta, alpha = 0.1, torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    g_m, g_c, g_v = theta - m, theta - c, None
    ahead = theta - eta * ((1 - alpha) * g_c + alpha * g_m)
    loss = ((ahead - v) ** 2).sum() / 2
    (slope,) = torch.autograd.grad(loss, alpha)
    g_v = ahead.detach() - v  # the exact gradient one step ahead
    moved = look_ahead(alpha.detach(), g_m, g_c, g_v, rate=1e-3, low=0.0, high=1.0)
    assert float(moved - alpha.detach()) == pytest.approx(-1e-3 * float(slope) / eta, rel=1e-9)


def test_look_ahead_stays_in_its_bounds():
    alpha, one = torch.tensor(0.5), torch.ones(1)
    assert float(look_ahead(alpha, one, -one, one, 100.0, 0.05, 0.95)) == pytest.approx(0.95)
    assert float(look_ahead(alpha, -one, one, one, 100.0, 0.05, 0.95)) == pytest.approx(0.05)
    assert float(look_ahead(alpha, one, -one, one, 0.0, 0.0, 1.0)) == 0.5


def test_feature_distance_oracle():
    student = torch.tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True)
    teacher = torch.tensor([[1.0, 0.0], [0.0, 4.0]], requires_grad=True)
    distance = feature_distances(student, teacher)
    assert distance.mean().item() == pytest.approx(3.25)
    distance.sum().backward()
    assert teacher.grad is None
    assert student.grad.tolist() == [[0.0, 2.0], [3.0, 0.0]]


@pytest.mark.parametrize("call", [lambda: gap_weight(0), lambda: info_nce(torch.eye(2), torch.eye(2), tau=0.0)])
def test_settings_out_of_range(call):
    with pytest.raises(ValueError):
        call()


@pytest.mark.parametrize(
    ("temperature", "values"), [(1.0, (0.2379652377, 0.2622699591)), (2.0, (0.3837668808, 0.2795789385))]
)
def test_distillation_oracles(temperature, values):
    t_a = torch.diag(torch.tensor([3.0, 2, 3], dtype=torch.float64))
    t_v = torch.tensor([[0.0, 0, 0], [0, 1, 1], [1, 0, 1]], dtype=torch.float64)
    found = [float(distillation_losses(UA + UV, t, temperature).mean()) for t in (t_a, t_v)]
    assert found == pytest.approx(values, abs=1e-9)


def test_no_gradient_reaches_the_teacher():
    student, teacher = UA.clone().requires_grad_(), UV.clone().requires_grad_()
    distillation_losses(student, teacher).sum().backward()
    assert teacher.grad is None
    torch.testing.assert_close(student.grad, UA.softmax(1) - UV.softmax(1))
