from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from counterpoise.analysis import SplitLoss, filter_directions, interpolate, loss_surface
from counterpoise.methods import Joint
from counterpoise.testing import task, tiny_model


def quadratic(w, A):
    return lambda: iter([0.25 * w @ A @ w, 0.25 * w @ A @ w])  # two batches of half the loss each


def test_surface_of_a_quadratic():
    A = torch.tensor([[3.0, 1.0], [1.0, 2.0]], dtype=torch.float64)
    w = torch.tensor([0.5, -1.0], dtype=torch.float64, requires_grad=True)
    first, second = [torch.tensor([1.0, 0.0]).double()], [torch.tensor([0.0, 2.0]).double()]
    start = w.detach().clone()
    seen = []
    surface = loss_surface(
        quadratic(w, A), [w], first, second, radius=0.5, points=5, progress=lambda i, n: seen.append((i, n))
    )
    for row, y in enumerate(surface.y):
        for column, x in enumerate(surface.x):
            p = start.numpy() + np.array([x, 2 * y])
            assert surface.loss[row, column] == pytest.approx(0.5 * p @ A.numpy() @ p, abs=1e-12)
    assert surface.x.tolist() == [-0.5, -0.25, 0, 0.25, 0.5]
    assert surface.centre == pytest.approx(surface.loss[2, 2], abs=1e-14)
    corners = [surface.loss[i, j] - surface.centre for i in (0, -1) for j in (0, -1)]
    assert surface.corners.tolist() == corners
    # x' A x / 2 over the corners (+-1/2, +-1): the linear and mixed terms cancel, (3 / 4 + 2) / 2 is left
    assert surface.rise == pytest.approx(1.375)
    # along the first direction alone, (0.5 + x, -1): 3/2 (0.5 + x)^2 - (0.5 + x) + 1
    np.testing.assert_allclose(surface.line, 1.5 * (0.5 + surface.x) ** 2 - (0.5 + surface.x) + 1, atol=1e-12)
    assert torch.equal(w.detach(), start)
    assert seen == [(i, 25) for i in range(1, 26)]


class TwoParameters(nn.Module):
    """loss = (a b - 1)^2: valleys along a b = 1, known by hand."""

    def __init__(self, a: float, b: float):
        super().__init__()
        self.a, self.b = nn.Parameter(torch.tensor([[a]])), nn.Parameter(torch.tensor([[b]]))

    def forward(self):
        yield ((self.a * self.b - 1) ** 2).sum()


def test_filter_normalisation_makes_rescaled_networks_look_alike():
    # a b = 1 at both, and scaling (a, b) -> (4 a, b / 4) changes no output: the surfaces must agree, point by point
    surfaces = []
    for a, b in ((1.0, 1.0), (4.0, 0.25)):
        net = TwoParameters(a, b)
        params = list(net.parameters())
        directions = [filter_directions(params, seed) for seed in (0, 1)]
        surfaces.append(loss_surface(net, params, *directions, points=5))
        signs = [[float(torch.sign(d)) for d in direction] for direction in directions]
    np.testing.assert_allclose(surfaces[0].loss, surfaces[1].loss, atol=1e-5)
    # one number per filter: its direction is plus or minus the weight, so L = ((1 + s)(1 + t) - 1)^2
    for row, y in enumerate(surfaces[0].y):
        for column, x in enumerate(surfaces[0].x):
            s, t = (x * signs[0][k] + y * signs[1][k] for k in (0, 1))
            assert surfaces[0].loss[row, column] == pytest.approx(((1 + s) * (1 + t) - 1) ** 2, abs=1e-5)


def test_filters_get_the_length_of_their_weights():
    net = nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.Flatten(), nn.Linear(5, 4))
    params = list(net.parameters())
    found = filter_directions(params, seed=3)
    for p, d in zip(params, found, strict=True):
        if p.dim() < 2:
            assert not d.any()
        else:
            torch.testing.assert_close(d.flatten(1).norm(dim=1), p.detach().flatten(1).norm(dim=1))
    for p, d in zip(params, filter_directions(params, seed=3, vectors=True), strict=True):
        torch.testing.assert_close(d.norm(), p.detach().norm())
    assert all(torch.equal(a, b) for a, b in zip(found, filter_directions(params, seed=3), strict=True))
    assert not torch.equal(found[0], filter_directions(params, seed=4)[0])


def test_directions_are_uncorrelated_gaussians_before_scaling():
    w = torch.ones(1, 20000)
    a, b = (filter_directions([w], seed)[0].flatten() for seed in (0, 1))
    assert abs(float(a @ b) / 20000) < 0.03
    assert float((a.abs() < 1).float().mean()) == pytest.approx(0.683, abs=0.015)


def test_a_zero_filter_does_not_move():
    w = torch.zeros(2, 3)
    w[1] = 1
    (d,) = filter_directions([w])
    assert not d[0].any()
    assert torch.isfinite(d).all()


@pytest.mark.parametrize("statistics", ["kept", "recomputed"])
@pytest.mark.parametrize("prediction", ["fused", "second"])
def test_weights_come_back_after_an_error(statistics, prediction):
    names = ("first", "second")
    model = tiny_model(Joint(), names, "Late")
    before = {k: v.clone() for k, v in model.state_dict().items()}
    modes = [m.training for m in model.modules()]
    loss = SplitLoss(model, task(names).train, prediction, statistics=statistics)
    params = list(loss.parameters().values())
    directions = [filter_directions(params, seed) for seed in (0, 1)]
    surface = loss_surface(loss, params, *directions, points=3)
    assert surface.loss[1, 1] == surface.centre
    assert np.unique(surface.loss).size == 9

    def stop(done, total):
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        loss_surface(loss, params, *directions, points=3, progress=stop)
    with pytest.raises(KeyboardInterrupt):
        interpolate(loss, params, params, directions[0], progress=stop)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert [m.training for m in model.modules()] == modes


def test_a_line_between_two_minima():
    w = torch.tensor([7.0], dtype=torch.float64, requires_grad=True)
    loss = lambda: [((w**2 - 1) ** 2).sum()]  # noqa: E731 - minima at -1 and 1, barrier 1 at 0
    ends = [torch.tensor([-1.0]).double()], [torch.tensor([1.0]).double()]
    path = interpolate(loss, [w], *ends, positions=[0, 0.25, 0.5, 0.75, 1])
    np.testing.assert_allclose(path.loss, [0, 0.5625, 1, 0.5625, 0], atol=1e-12)
    assert path.barrier == pytest.approx(1)
    assert w.tolist() == [7]
    whole = interpolate(loss, [w], *ends)
    assert whole.barrier == pytest.approx(1)  # what lies outside 0..1 is no part of it
    assert whole.loss[0] > 8
    assert (whole.position[0], whole.position[-1], len(whole.loss)) == (-0.5, 1.5, 25)


def test_no_barrier_in_a_bowl():
    w = torch.zeros(1, requires_grad=True)
    path = interpolate(lambda: [(w**2).sum()], [w], [torch.tensor([1.0])], [torch.tensor([3.0])], [0, 0.5, 1])
    np.testing.assert_allclose(path.loss, [1, 4, 9])
    assert path.barrier == 0


def test_settings_are_checked():
    w = torch.zeros(1, requires_grad=True)
    loss = lambda: [(w**2).sum()]  # noqa: E731
    with pytest.raises(ValueError, match="radius"):
        loss_surface(loss, [w], [w], [w], radius=0)
    with pytest.raises(ValueError, match="points"):
        loss_surface(loss, [w], [w], [w], points=1)
    with pytest.raises(ValueError, match="points=5"):
        _ = loss_surface(loss, [w], [w], [w], points=4).line
    with pytest.raises(ValueError, match="increasing"):
        interpolate(loss, [w], [w], [w], [0, 0])
