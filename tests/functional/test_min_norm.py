import math

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from counterpoise.functional.gradients import flatten
from counterpoise.functional.min_norm import min_norm_pair, pareto_gradient


def weights(g, u):
    g, u = torch.tensor(g), torch.tensor(u)
    return [float(a) for a in min_norm_pair(g @ g, u @ u, g @ u)]


# g, u, a_g, a_u, n, |n|, |g + u|
ORACLES = [
    ((1.0, 0.0), (-1.0, 1.0), 0.6, 0.4, (0.4, 0.8), 0.8944, 1.0),
    ((1.0, 0.0), (-3.0, 1.0), 0.76471, 0.23529, (0.1176, 0.4706), 0.4851, 2.2361),
    ((0.1, 0.0), (-3.0, 1.0), 0.97078, 0.02922, (0.0189, 0.0584), 0.0614, 3.0676),
    ((1.0, 0.0), (0.0, 1.0), 0.5, 0.5, (1.0, 1.0), 1.4142, 1.4142),
]


@pytest.mark.parametrize(("g", "u", "a_g", "a_u", "n", "norm", "norm_sum"), ORACLES)
def test_oracles(g, u, a_g, a_u, n, norm, norm_sum):
    assert weights(g, u) == pytest.approx([a_g, a_u], abs=1e-5)
    got = 2 * (weights(g, u)[0] * torch.tensor(g) + weights(g, u)[1] * torch.tensor(u))
    assert got.tolist() == pytest.approx(n, abs=1e-4)
    assert float(got.norm()) == pytest.approx(norm, abs=1e-4)
    final = pareto_gradient([torch.tensor(g)], [torch.tensor(u)], gamma=1.0)[0]
    assert float(final.norm()) == pytest.approx(max(norm, norm_sum), abs=1e-4)


def test_first_oracle_with_the_papers_gamma():
    final = pareto_gradient([torch.tensor([1.0, 0.0])], [torch.tensor([-1.0, 1.0])])[0]
    assert final.tolist() == pytest.approx([0.6708, 1.3416], abs=1e-4)
    assert float(final.norm()) == pytest.approx(1.5, abs=1e-5)


def reference(g, u, gamma):
    """The rule in float64, with the weights found by search instead of the closed form."""
    g, u = g.double(), u.double()
    if g @ u > 0 or not g.any() or not u.any():
        return gamma * (g + u)
    a, b = 0.0, 1.0
    for _ in range(200):  # ternary search of a convex function
        p, q = a + (b - a) / 3, b - (b - a) / 3
        if (p * g + (1 - p) * u).norm() < (q * g + (1 - q) * u).norm():
            b = q
        else:
            a = p
    n = 2 * (a * g + (1 - a) * u)
    return gamma * max(1.0, float((g + u).norm() / n.norm())) * n


@pytest.mark.parametrize("seed", range(6))
def test_against_the_reference(seed):
    generator = torch.Generator().manual_seed(seed)
    shapes = [(3, 4), (5,), (2, 2)]
    g = [torch.randn(s, generator=generator, dtype=torch.float64) for s in shapes]
    u = [torch.randn(s, generator=generator, dtype=torch.float64) * 3 - 0.8 * a for s, a in zip(shapes, g, strict=True)]
    got = flatten(pareto_gradient(g, u, gamma=1.5))
    torch.testing.assert_close(got, reference(flatten(g), flatten(u), 1.5), rtol=1e-6, atol=1e-8)


vectors = st.lists(st.floats(-10, 10, allow_nan=False), min_size=3, max_size=3)


@settings(max_examples=100, deadline=None)
@given(vectors, vectors, st.floats(0.1, 10))
@example([0.0, 1.0, 0.0], [0.0, -1e-22, 0.0], 1.0)  # opposed, one of them tiny
def test_theorems(a, b, c):
    g, u = torch.tensor(a, dtype=torch.float64), torch.tensor(b, dtype=torch.float64)
    (final,), total = pareto_gradient([g], [u], gamma=1.5), g + u
    assert final.isfinite().all()
    torch.testing.assert_close(pareto_gradient([u], [g], gamma=1.5)[0], final)
    size = max(float(g.norm() * u.norm()), 1e-12)
    if g @ u > 1e-9 * size:
        torch.testing.assert_close(final, 1.5 * total)
    else:
        assert final @ g >= -1e-6 * max(size, float(g @ g))
        assert final @ u >= -1e-6 * max(size, float(u @ u))
        opposed = float(g @ u) <= -(1 - 1e-8) * float(g.norm() * u.norm())  # what is left is rounding
        if g.any() and u.any() and not opposed:
            assert float(final.norm()) >= 1.5 * float(total.norm()) * (1 - 1e-9)
    if float(g.norm()) > 1e-3 and float(u.norm()) > 1e-3:
        torch.testing.assert_close(pareto_gradient([c * g], [c * u], gamma=1.5)[0], c * final, rtol=1e-6, atol=1e-6)


def test_interior_solution_serves_both_alike():
    g, u = torch.tensor([1.0, 0.2]), torch.tensor([-0.7, 0.9])
    a_g, a_u = min_norm_pair(g @ g, u @ u, g @ u)
    n = 2 * (a_g * g + a_u * u)
    assert float(n @ g) == pytest.approx(float(n @ n) / 2, rel=1e-5)
    assert float(n @ u) == pytest.approx(float(n @ n) / 2, rel=1e-5)


@pytest.mark.parametrize("rescale", ["encoder", "tensor"])
@pytest.mark.parametrize(
    ("g", "u", "expected"),
    [
        ((1.0, 0.0), (-1.0, 0.0), (0.0, 0.0)),
        ((1.0, 0.0), (-0.5, 0.0), (0.0, 0.0)),
        ((0.1, 0.3), (-0.7, -2.1), (0.0, 0.0)),
        ((0.0, 0.0), (2.0, -1.0), (3.0, -1.5)),
        ((2.0, -1.0), (0.0, 0.0), (3.0, -1.5)),
        ((0.0, 0.0), (0.0, 0.0), (0.0, 0.0)),
        ((1.0, 0.0), (0.0, 2.0), (3.0, 1.5)),  # at a right angle it is a conflict: not 1.5 (g + u)
    ],
)
def test_degenerate_pairs(g, u, expected, rescale):
    final = pareto_gradient([torch.tensor(g)], [torch.tensor(u)], rescale=rescale)[0]
    torch.testing.assert_close(final, torch.tensor(expected), atol=1e-5, rtol=0)


def test_rescale_per_tensor_changes_the_direction():
    g = [torch.tensor([1.0, 0.0]), torch.tensor([0.1, 0.0])]
    u = [torch.tensor([-3.0, 1.0]), torch.tensor([0.0, 0.2])]
    whole, each = pareto_gradient(g, u, rescale="encoder"), pareto_gradient(g, u, rescale="tensor")
    a_g, a_u = min_norm_pair(
        *(sum((a * b).sum() for a, b in zip(x, y, strict=True)) for x, y in ((g, g), (u, u), (g, u)))
    )
    for i in range(2):
        n = 2 * (a_g * g[i] + a_u * u[i])
        growth = max(1.0, float((g[i] + u[i]).norm() / n.norm()))
        torch.testing.assert_close(each[i], 1.5 * growth * n)
    assert math.isclose(float(flatten(whole).norm()), 1.5 * float((flatten(g) + flatten(u)).norm()), rel_tol=1e-5)
    cosine = torch.cosine_similarity(flatten(whole), flatten(each), dim=0)
    assert float(cosine) < 0.999


def test_known_total_is_returned_exactly():
    g, u = [torch.tensor([1.0, 2.0])], [torch.tensor([0.3, 0.1])]
    total = [torch.tensor([1.25, 2.125])]
    assert torch.equal(pareto_gradient(g, u, gamma=1.0, total=total)[0], total[0])


def test_unknown_rescale_is_refused():
    with pytest.raises(ValueError, match="encoder"):
        pareto_gradient([torch.ones(2)], [torch.ones(2)], rescale="encodr")


def test_a_tiny_gradient_against_a_long_one_keeps_its_digits():
    g, u = torch.tensor([6e-5, 0.0, 1e-5]), torch.tensor([-4.0, 0.0, 1.0])
    got = pareto_gradient([g], [u], gamma=1.0)[0]
    torch.testing.assert_close(got.double(), reference(g, u, 1.0), rtol=1e-4, atol=1e-6)
