from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call, jacrev

from counterpoise.analysis import (
    SplitLoss,
    gradient_norm,
    hessian_product,
    sam_sharpness,
    top_eigenvalues,
    trace,
    value,
)
from counterpoise.methods import Joint
from counterpoise.testing import task, tiny_model


def symmetric(n, seed=0):
    A = torch.randn(n, n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return (A + A.T) / 2


def quadratic(A):
    w = torch.randn(len(A), dtype=torch.float64, requires_grad=True, generator=torch.Generator().manual_seed(9))
    return w, lambda: iter([w @ A @ w / 4, w @ A @ w / 4])


@pytest.fixture(scope="module")
def tiny():
    """A tiny network, its loss, its flat parameters, and its exact Hessian."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 3)).double()
    x, y = torch.randn(20, 3, dtype=torch.float64), torch.arange(20) % 3
    params = list(net.parameters())

    def loss():
        for part in torch.arange(20).split(7):
            yield F.cross_entropy(net(x[part]), y[part], reduction="sum") / 20

    named = {name: p.detach() for name, p in net.named_parameters()}

    def flat_loss(vector):
        pieces = vector.split([p.numel() for p in params])
        weights = {n: piece.view_as(p) for (n, p), piece in zip(named.items(), pieces, strict=True)}
        return F.cross_entropy(functional_call(net, weights, (x,)), y)

    return loss, params, jacrev(jacrev(flat_loss))(torch.cat([p.flatten() for p in named.values()]))


def test_product_with_the_exact_hessian(tiny):
    loss, params, H = tiny
    for seed in range(3):
        v = torch.randn(len(H), dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
        torch.testing.assert_close(hessian_product(loss, params, v), H @ v)
    assert all(p.grad is None for p in params)


def test_top_eigenvalues_of_the_exact_hessian(tiny):
    loss, params, H = tiny
    exact = torch.linalg.eigvalsh(H).flip(0).numpy()
    found = top_eigenvalues(loss, params, k=4, steps=25, tolerance=1e-9)
    np.testing.assert_allclose(found.values, exact[:4], rtol=1e-6, atol=1e-9)
    every = top_eigenvalues(loss, params, k=len(H), steps=len(H), tolerance=0)
    np.testing.assert_allclose(every.values, exact, atol=1e-9)
    assert every.lowest == pytest.approx(exact[-1], abs=1e-9)


def test_trace_of_the_exact_hessian(tiny):
    loss, params, H = tiny
    found = trace(loss, params, samples=400)
    assert found.dimension == len(H)
    assert abs(found.mean - float(H.trace())) < 4 * found.standard_error
    # the variance of v'Hv with random signs is 2 sum of the squared entries off the diagonal
    off = float((H - H.diag().diag()).square().sum())
    assert found.estimates.var(ddof=1) == pytest.approx(2 * off, rel=0.3)


def test_trace_is_exact_for_a_diagonal():
    w, loss = quadratic(torch.diag(torch.tensor([1.0, -2.0, 5.0]).double()))
    found = trace(loss, [w], samples=3)
    np.testing.assert_allclose(found.estimates, 4)
    assert np.isnan(trace(loss, [w], samples=1).standard_error)


def test_residuals_bound_the_error():
    A = symmetric(60)
    w, loss = quadratic(A)
    exact = torch.linalg.eigvalsh(A).numpy()
    found = top_eigenvalues(loss, [w], k=3, steps=20, tolerance=0)
    assert found.steps == 20
    for v, r in zip(found.values, found.residuals, strict=True):
        assert np.abs(exact - v).min() <= r + 1e-10
    loose, tight = (top_eigenvalues(loss, [w], k=3, steps=60, tolerance=t) for t in (1e-2, 1e-8))
    assert loose.steps < tight.steps
    np.testing.assert_allclose(tight.values, exact[::-1][:3], rtol=1e-8)


def test_largest_means_by_value_not_by_magnitude():
    w, loss = quadratic(torch.diag(torch.tensor([-9.0, 2.0, 1.0, 0.5]).double()))
    found = top_eigenvalues(loss, [w], k=2)
    np.testing.assert_allclose(found.values, [2, 1], atol=1e-10)
    assert found.lowest == pytest.approx(-9)


def test_repeated_eigenvalues_and_flat_losses():
    w, loss = quadratic(torch.diag(torch.tensor([3.0, 3.0, 3.0, 1.0, 0.0, 0.0]).double()))
    np.testing.assert_allclose(top_eigenvalues(loss, [w], k=6).values, [3, 3, 3, 1, 0, 0], atol=1e-10)
    np.testing.assert_allclose(top_eigenvalues(lambda: [3 * w.sum()], [w], k=2).values, [0, 0])
    one = torch.tensor([2.0], requires_grad=True)
    np.testing.assert_allclose(top_eigenvalues(lambda: [(one**2).sum()], [one], k=5).values, [2])


def test_an_infinite_hessian_is_an_error():
    w = torch.zeros(2, requires_grad=True)
    with pytest.raises(FloatingPointError, match="NaN"):
        top_eigenvalues(lambda: [w.sqrt().sum()], [w], k=1)


def test_sharpness_of_a_quadratic():
    A = torch.diag(torch.tensor([4.0, 1.0]).double())
    w = torch.tensor([1.0, 0.0], dtype=torch.float64, requires_grad=True)
    found = sam_sharpness(lambda: [w @ A @ w / 2], [w], rho=0.1)
    assert (found.loss, found.perturbed) == (pytest.approx(2.0), pytest.approx(2 * 1.1**2))  # along the first axis
    assert found.increase == pytest.approx(0.42)
    assert w.tolist() == [1, 0]
    assert gradient_norm(lambda: [w @ A @ w / 2], [w]) == pytest.approx(4)
    still = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    assert sam_sharpness(lambda: [still @ A @ still / 2], [still], rho=0.1).increase == 0
    assert sam_sharpness(lambda: [w @ A @ w / 2], [w], rho=0).increase == 0


@pytest.mark.parametrize(("a", "b"), [(1.0, 1.0), (4.0, 0.25), (0.5, 3.0)])
def test_of_a_model_of_two_parameters(a, b):
    """loss = (a b - 1)^2: gradient, Hessian and the loss after an ascent step are known."""
    params = [torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in (a, b)]

    def loss():
        yield (params[0] * params[1] - 1) ** 2

    mixed, slope = 4 * a * b - 2, 2 * (a * b - 1)
    H = torch.tensor([[2 * b * b, mixed], [mixed, 2 * a * a]], dtype=torch.float64)
    found = top_eigenvalues(loss, params, k=2)
    np.testing.assert_allclose(found.values, torch.linalg.eigvalsh(H).flip(0), atol=1e-10)
    if a * b == 1:  # a valley of minima: flat along it, and sharper the less the two are alike
        np.testing.assert_allclose(found.values, [2 * (a * a + b * b), 0], atol=1e-10)
    signs = trace(loss, params, samples=200)
    np.testing.assert_allclose(
        np.unique(signs.estimates.round(9)), np.unique(np.round([float(H.sum()), float(H.trace()) - 2 * mixed], 9))
    )
    g = slope * np.array([b, a])
    assert gradient_norm(loss, params) == pytest.approx(np.hypot(*g))
    step = 0.1 * g / max(np.hypot(*g), 1e-12)
    assert sam_sharpness(loss, params, 0.1).perturbed == pytest.approx(((a + step[0]) * (b + step[1]) - 1) ** 2)


def test_of_a_model_with_batch_normalisation_single_and_double():
    names = ("first", "second")
    model = tiny_model(Joint(), names, "Concat")
    before = {k: v.clone() for k, v in model.state_dict().items()}
    split = task(names).train
    results = []
    for double in (False, True):
        loss = SplitLoss(model, split, "first", batch_size=20, double=double)
        params = list(loss.parameters().values())
        results.append(top_eigenvalues(loss, params, k=2, steps=40, tolerance=1e-5).values)
        assert sam_sharpness(loss, params, 0.05).increase > 0
    np.testing.assert_allclose(results[0], results[1], rtol=1e-3)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_recurrent_and_attention_layers_have_curvature():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention = nn.TransformerEncoderLayer(4, 2, 8, dropout=0.1, batch_first=True)
            self.gru = nn.GRU(4, 3, batch_first=True)

        def forward(self, x):
            return self.gru(self.attention(x))[0].square().mean()

    torch.manual_seed(0)
    net, x = Net().double().eval(), torch.randn(2, 5, 4, dtype=torch.float64)
    params = list(net.parameters())
    v = torch.randn(sum(p.numel() for p in params), dtype=torch.float64)

    def shifted(t):
        from counterpoise.analysis import gradient
        from counterpoise.analysis.objective import put, weights_kept

        with weights_kept(params) as start:
            pieces = v.split([p.numel() for p in params])
            put(params, [s + t * d.view_as(s) for s, d in zip(start, pieces, strict=True)])
            return torch.cat([g.flatten() for g in gradient(lambda: [net(x)], params)])

    difference = (shifted(1e-5) - shifted(-1e-5)) / 2e-5
    torch.testing.assert_close(hessian_product(lambda: [net(x)], params, v), difference, atol=1e-6, rtol=1e-5)


def test_value_sums_in_float64():
    assert value(lambda: [torch.tensor(1.0), torch.tensor(2.0**-30)]) == 1 + 2.0**-30
