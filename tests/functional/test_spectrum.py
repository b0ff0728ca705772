from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from counterpoise.functional import (
    collect_inputs,
    flat_directions,
    input_rows,
    input_shape,
    project_inputs,
    rls_update,
    second_moment,
    spectrum,
    thin_flat_directions,
)

CONVS = [
    nn.Conv1d(3, 4, 3, stride=2, padding=1),
    nn.Conv2d(4, 6, (3, 2), stride=(2, 1), padding=(1, 0), dilation=(1, 2)),
    nn.Conv2d(4, 6, 3, groups=2, padding="same", dilation=2),
    nn.Conv2d(4, 4, 2, groups=4, padding="valid"),
    nn.Conv2d(4, 6, 3, padding=1, padding_mode="reflect"),
    nn.Conv3d(2, 3, (2, 3, 1), stride=(1, 2, 1)),
]


def random_moment(d=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    a = torch.randn(9, d, generator=generator, dtype=torch.float64)
    return a.T @ a


@pytest.mark.parametrize("tau", [0.0, 0.4, 1.3, 20.0])
def test_symmetric_with_spectrum_between_exp_minus_tau_and_one(tau):
    T = flat_directions(random_moment(), tau)
    assert torch.equal(T, T.T)
    values = torch.linalg.eigvalsh(T)
    assert values.min() >= math.exp(-tau) - 1e-12
    assert values.max() <= 1 + 1e-12
    torch.testing.assert_close(values.min().item(), math.exp(-tau))
    torch.testing.assert_close(values.max().item(), 1.0)


def test_follows_the_equation():
    Y = random_moment()
    values, vectors = torch.linalg.eigh(Y)
    s = [math.exp(-0.4 * float((v - values.min()) / (values.max() - values.min()))) for v in values]
    reference = sum(s_i * torch.outer(v, v) for s_i, v in zip(s, vectors.T, strict=True))
    torch.testing.assert_close(flat_directions(Y, 0.4), reference, rtol=0, atol=1e-12)


def test_shrinks_the_used_direction_and_keeps_the_unused():
    r = torch.tensor([3.0, 4.0]) / 5
    T = flat_directions(7 * torch.outer(r, r), 0.4)
    torch.testing.assert_close(T @ r.double(), math.exp(-0.4) * r.double(), rtol=0, atol=1e-7)
    q = torch.tensor([-4.0, 3.0]).double() / 5
    torch.testing.assert_close(T @ q, q, rtol=0, atol=1e-7)


@pytest.mark.parametrize("scale", [1e-12, 1.0 / 558, 1e9])
def test_scaling_changes_nothing(scale):
    torch.testing.assert_close(flat_directions(scale * random_moment(), 0.4), flat_directions(random_moment(), 0.4))


@pytest.mark.parametrize("moment", [torch.zeros(4, 4), 3 * torch.eye(4), torch.eye(1), torch.full((1, 1), 7.0)])
def test_equal_eigenvalues_give_the_identity(moment):
    assert torch.equal(flat_directions(moment, 0.4), torch.eye(len(moment), dtype=torch.float64))


def test_eigenvalues_equal_up_to_rounding_give_the_identity():
    q, _ = torch.linalg.qr(torch.randn(5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0)))
    assert torch.equal(flat_directions(q @ torch.eye(5).double() @ q.T * 0.3, 0.4), torch.eye(5).double())


def test_tau_zero_is_exactly_the_identity():
    assert torch.equal(flat_directions(random_moment(), 0.0), torch.eye(6, dtype=torch.float64))


def test_negative_eigenvalues_from_rounding_count_as_zero():
    Y = torch.diag(torch.tensor([-1e-9, 0.0, 1.0], dtype=torch.float64))
    expected = torch.diag(torch.tensor([1.0, 1.0, math.exp(-0.4)], dtype=torch.float64))
    assert torch.equal(flat_directions(Y, 0.4), expected)


def test_stays_a_descent_direction():
    T = flat_directions(random_moment(), 0.4)
    g = torch.randn(3, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    inner = (g * project_inputs(g, T)).sum()
    assert inner >= math.exp(-0.4) * g.square().sum() > 0


def test_groups_are_independent():
    Y = torch.stack([random_moment(4, 0), random_moment(4, 1)])
    T = flat_directions(Y, 0.4)
    for k in range(2):
        torch.testing.assert_close(T[k], flat_directions(Y[k], 0.4))
    g = torch.randn(6, 2, 2, 1, dtype=torch.float64)
    out = project_inputs(g, T)
    torch.testing.assert_close(out[:3].flatten(1), g[:3].flatten(1) @ T[0])
    torch.testing.assert_close(out[3:].flatten(1), g[3:].flatten(1) @ T[1])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: flat_directions(torch.eye(2), -0.1), "tau"),
        (lambda: flat_directions(torch.full((2, 2), math.nan), 0.4), "NaN"),
        (lambda: flat_directions(torch.zeros(2, 3), 0.4), "shape"),
        (lambda: project_inputs(torch.zeros(3, 4), torch.eye(5)), "does not fit"),
        (lambda: rls_update(torch.eye(2), torch.ones(2), 0.0), "a must be"),
        (lambda: collect_inputs({"x": nn.Linear(2, 2)}, "mean"), "statistic"),
    ],
)
def test_refuses(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("layer", [nn.BatchNorm1d(3), nn.ConvTranspose2d(2, 3, 2), nn.Embedding(4, 3)])
def test_refuses_other_layers(layer):
    with pytest.raises(TypeError, match=type(layer).__name__):
        collect_inputs({"x": layer})


@pytest.mark.parametrize("conv", CONVS, ids=str)
def test_rows_of_a_convolution_reproduce_it(conv):
    torch.manual_seed(0)
    x = torch.randn(2, conv.in_channels, *[7] * len(conv.kernel_size))
    rows, out = input_rows(conv, x), conv(x)
    weight = conv.weight.flatten(1).unflatten(0, (conv.groups, -1))
    rows = rows if conv.groups > 1 else rows.unsqueeze(1)
    assert input_shape(conv)[-1] == rows.shape[-1]
    result = torch.einsum("bgpd,god->bgop", rows, weight).flatten(1, 2) + conv.bias[:, None]
    torch.testing.assert_close(result, out.flatten(2), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("layer", [nn.Linear(5, 4), *CONVS], ids=str)
@pytest.mark.parametrize("statistic", ["batch_mean", "sample"])
def test_collected_moment_is_that_of_the_rows(layer, statistic):
    torch.manual_seed(0)
    spatial = () if isinstance(layer, nn.Linear) else tuple([7] * len(layer.kernel_size))
    width = layer.in_features if isinstance(layer, nn.Linear) else layer.in_channels
    batches = [torch.randn(3, width, *spatial) for _ in range(2)]
    with torch.no_grad(), collect_inputs({"it": layer}, statistic) as moments:
        for x in batches:
            layer(x)
    expected = torch.zeros(input_shape(layer), dtype=torch.float64)
    for x in batches:
        rows = input_rows(layer, x.double())
        rows = rows if rows.dim() == 4 else rows.unsqueeze(1)  # (samples, groups, positions, d)
        rows = rows.mean(0, keepdim=True) if statistic == "batch_mean" else rows
        expected += torch.einsum("bgpi,bgpj->gij", rows, rows).view_as(expected)
    torch.testing.assert_close(moments["it"], expected, rtol=1e-9, atol=1e-9)
    assert moments["it"].dtype == torch.float64
    assert moments.batches == {"it": 2}


def test_second_moment_of_rows():
    rows = torch.tensor([[[1.0, 0.0]], [[3.0, 2.0]]])
    assert second_moment(rows).tolist() == [[4.0, 2.0], [2.0, 1.0]]
    assert second_moment(rows, "sample").tolist() == [[10.0, 6.0], [6.0, 4.0]]


def test_collects_in_anyones_loop_and_only_inside_the_block():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 3), nn.ReLU(inplace=True), nn.Linear(3, 2))
    x = torch.randn(5, 4)
    net(x)
    moments = collect_inputs({"first": net[0], "last": net[2]})
    assert torch.equal(moments["first"], torch.zeros(4, 4, dtype=torch.float64))
    for order in ([0, 1], [1, 0]):
        with moments:
            for k in order:
                net(x + k)
    net(x)
    assert moments.batches == {"first": 4, "last": 4}
    assert list(moments) == ["first", "last"]
    means = [(x + k).mean(0).double() for k in (0, 1)]
    torch.testing.assert_close(moments["first"], 2 * sum(torch.outer(a, a) for a in means))
    hidden = [torch.relu(net[0](x + k)).mean(0).double() for k in (0, 1)]
    torch.testing.assert_close(moments["last"], 2 * sum(torch.outer(a, a) for a in hidden).detach())
    assert not moments["last"].requires_grad
    with pytest.raises(KeyError):
        moments["middle"]


def test_hooks_are_gone_after_an_exception():
    layer = nn.Linear(2, 2)
    with pytest.raises(RuntimeError), collect_inputs({"it": layer}) as moments:
        layer(torch.zeros(1, 3))
    layer(torch.ones(1, 2))
    assert moments.batches["it"] <= 1
    assert not layer._forward_pre_hooks


def test_mean_over_processes_sees_the_batch_mean():
    layer, x = nn.Linear(2, 2), torch.tensor([[1.0, 0.0], [3.0, 4.0]])
    with collect_inputs({"it": layer}, mean=lambda v: v + 1) as moments:
        layer(x)
    assert moments["it"].tolist() == [[9.0, 9.0], [9.0, 9.0]]


def test_trace_is_the_sum_of_squared_batch_means():
    layer, batches = nn.Linear(3, 2), torch.randn(4, 6, 3)
    with collect_inputs({"it": layer}) as moments:
        for x in batches:
            layer(x)
    torch.testing.assert_close(moments["it"].trace(), batches.double().mean(1).square().sum())


def test_rls_worked_example():
    P = rls_update(torch.eye(2).double(), torch.tensor([1.0, 0.0]), 0.1)
    torch.testing.assert_close(P, torch.tensor([[0.0909, 0], [0, 1]]).double(), rtol=0, atol=5e-5)
    P = rls_update(P, torch.tensor([1.0, 1.0]), 0.1)
    expected = torch.tensor([[0.0840, -0.0763], [-0.0763, 0.1603]]).double()
    torch.testing.assert_close(P, expected, rtol=0, atol=5e-5)


def test_rls_is_the_regularised_inverse():
    torch.manual_seed(0)
    P, R, a = torch.eye(6).double(), torch.randn(40, 6).double(), 0.3
    trace = P.trace()
    for r in R:
        new = rls_update(P, r, a)
        torch.testing.assert_close(new @ r, a / (a + r @ P @ r) * (P @ r))
        assert new.trace() <= trace + 1e-12
        P, trace = new, new.trace()
    expected = a * torch.linalg.inv(R.T @ R + a * torch.eye(6).double())
    torch.testing.assert_close(P, expected, rtol=0, atol=1e-10)
    assert torch.equal(P, P.T)
    values = torch.linalg.eigvalsh(P)
    assert values.min() > 0
    assert values.max() <= 1


@pytest.mark.parametrize("n", [1, 10, 100])
def test_rls_of_a_repeated_unit_vector(n):
    P, r = torch.eye(3).double(), torch.tensor([0.6, 0.8, 0.0]).double()
    for _ in range(n):
        P = rls_update(P, r, 0.1)
    torch.testing.assert_close((r @ P @ r).item(), 0.1 / (0.1 + n))


def test_a_long_run_removes_every_direction():
    # The head ends up frozen: the reason MLA's card speaks of it.
    torch.manual_seed(0)
    P = torch.eye(4).double()
    for r in torch.randn(5000, 4).double():
        P = rls_update(P, r, 0.01)
    assert 0 < P.trace() < 1e-4


# -- few vectors, many dimensions ------------------------------------------------------------------------
@pytest.mark.parametrize("tau", [0.0, 0.4, 3.0])
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize("shape", [(1, 2), (5, 40), (39, 40), (3, 7, 30)], ids=str)
def test_the_thin_way_is_the_dense_one(shape, scale, tau):
    rows = scale * torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).abs()
    rows[..., :1, :] = rows[..., -1:, :]  # of lower rank than it has rows
    dense = flat_directions(rows.mT @ rows, tau)
    torch.testing.assert_close(thin_flat_directions(rows, tau), dense, rtol=0, atol=1e-10)


def test_the_thin_way_of_nothing_is_the_identity():
    assert torch.equal(thin_flat_directions(torch.zeros(3, 5), 0.4), torch.eye(5, dtype=torch.float64))


@pytest.mark.parametrize(("rows", "said"), [(torch.ones(5, 5), "n < d"), (torch.tensor([[1.0, torch.nan]]), "NaN")])
def test_what_the_thin_way_refuses(rows, said):
    with pytest.raises(ValueError, match=said):
        thin_flat_directions(rows, 0.4)


@pytest.mark.parametrize("batches", [1, 4, 5, 12])
@pytest.mark.parametrize("layer", [nn.Linear(8, 2), nn.Conv2d(4, 4, (1, 3), groups=2)], ids=["linear", "grouped"])
def test_collected_matrices_do_not_depend_on_the_way(layer, batches, monkeypatch):
    generator = torch.Generator().manual_seed(1)
    x = [torch.randn(6, *((8,) if isinstance(layer, nn.Linear) else (4, 1, 3)), generator=generator) for _ in range(12)]

    def collected():
        with torch.no_grad(), collect_inputs({"layer": layer}) as moments:
            for batch in x[:batches]:
                layer(batch)
        return moments

    thin = collected()
    assert ("layer" in thin._rows) == (batches <= (4 if isinstance(layer, nn.Linear) else 3))
    monkeypatch.setattr(spectrum, "_FEW", 0)
    dense = collected()
    assert not dense._rows
    assert thin.batches == dense.batches
    torch.testing.assert_close(thin["layer"], dense["layer"], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(
        thin.flat_directions("layer", 0.4), flat_directions(dense["layer"], 0.4), rtol=0, atol=1e-10
    )
