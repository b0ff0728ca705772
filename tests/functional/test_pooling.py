import math

import pytest
import torch
from torch import nn

from counterpoise.functional import Pool, pooled, pooled_labels
from counterpoise.functional.pooling import floored, shares

torch.set_num_threads(1)


def draw(experts=3, samples=5, classes=4, seed=0):
    g = torch.Generator().manual_seed(seed)
    return 2 * torch.randn(experts, samples, classes, generator=g, dtype=torch.float64)


def pool(experts=3, classes=4, **other):
    """A pool in which every part does something."""
    parts = {
        "floor": torch.tensor(0.01),
        "temperature": torch.linspace(0.5, 2, experts),
        "weight": torch.arange(1, experts + 1) / sum(range(1, experts + 1)),
        "scale": torch.tensor(1.7),
        "bias": torch.linspace(-0.4, 0.3, classes),
        "loss": torch.linspace(0.9, 0.5, experts),  # the last is the best
        "trust": torch.tensor(0.3),
    }
    return Pool(**{name: torch.as_tensor(value).double() for name, value in {**parts, **other}.items()})


def by_hand(pool, u, there):
    """Probabilities (classes,) of one sample, expert by expert."""
    u, there = u.tolist(), [m for m, t in enumerate(there) if t]
    classes = len(u[0])
    log_p = {}
    for m in there:
        e = [math.exp(x) for x in u[m]]
        v = [math.log((1 - pool.floor.item()) * x / sum(e) + pool.floor.item() / classes) for x in e]
        e = [math.exp(x / pool.temperature[m].item()) for x in v]
        log_p[m] = [math.log(x / sum(e)) for x in e]
    total = sum(pool.weight[m].item() for m in there)
    z = [
        pool.scale.item() * sum(pool.weight[m].item() / total * log_p[m][c] for m in there) + pool.bias[c].item()
        for c in range(classes)
    ]
    q = [math.exp(x) / sum(map(math.exp, z)) for x in z]
    best = min(there, key=lambda m: pool.loss[m].item())
    t = pool.trust.item()
    return torch.tensor([t * math.exp(a) + (1 - t) * b for a, b in zip(log_p[best], q, strict=True)]).double()


def test_the_equations_sample_by_sample_with_whoever_is_there():
    u, present = draw(), torch.tensor([[1, 1, 0, 1, 0], [1, 0, 1, 1, 1], [1, 1, 1, 0, 0]]).bool()
    out = pooled(pool(), u, present).exp()
    for i in range(5):
        torch.testing.assert_close(out[i], by_hand(pool(), u[:, i], present[:, i]), rtol=0, atol=1e-7)


def test_before_the_fit_it_is_the_normalised_mean_of_log_probabilities():
    u = draw()
    torch.testing.assert_close(pooled(Pool.equal(3, 4, 0.0), u), u.log_softmax(-1).mean(0).log_softmax(-1))


def test_all_trust_is_the_best_expert_and_one_expert_is_itself():
    u = draw()
    alone = pooled(pool(trust=1.0), u)
    torch.testing.assert_close(alone, (floored(u, torch.tensor(0.01))[2] / 2).log_softmax(-1))
    torch.testing.assert_close(pooled(Pool.equal(1, 4, 0.0), u[:1]), u[0].log_softmax(-1))


def test_the_floor_bounds_a_wild_input():
    u = draw()
    u[0] = torch.tensor([6921.0, 0, 0, 0])
    assert floored(u, torch.tensor(0.01))[0].min() == pytest.approx(math.log(0.01 / 4))
    assert pooled(pool(), u).isfinite().all()
    assert torch.equal(floored(u, torch.tensor(0.0)), u.log_softmax(-1))


@pytest.mark.parametrize("broken", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_absent_after_the_fit_and_seen_before(broken):
    u, present = draw().requires_grad_(), torch.ones(3, 5).bool()
    spoilt = u.clone()
    spoilt[1, 2, 0] = broken
    present[1, 2] = False
    out = pooled(pool(), spoilt)
    torch.testing.assert_close(out, pooled(pool(), u, present))
    out.sum().backward()
    assert u.grad is not None
    assert u.grad.isfinite().all()
    assert not pooled(Pool.equal(3, 4, 0.0), spoilt)[2].isfinite().all()


def test_a_sample_of_which_nothing_is_finite_gets_the_bias_alone():
    u = torch.full((3, 1, 4), math.nan)
    q = pooled(pool(trust=0.0), u).squeeze(0)
    torch.testing.assert_close(q, pool().bias.log_softmax(-1))


def test_experts_of_weight_0_count_only_where_no_other_is_there():
    w = torch.tensor([0.0, 1.0, 0.0])
    there = torch.tensor([[1, 1, 1], [1, 0, 0], [0, 1, 0]]).bool()
    assert shares(w, there).T.tolist() == [[0, 1, 0], [0.5, 0, 0.5], [1, 0, 0]]


def test_neither_the_order_of_experts_nor_that_of_classes_counts():
    u, p = draw(), pool()
    m, c = torch.tensor([2, 0, 1]), torch.tensor([3, 1, 0, 2])
    moved = p._replace(temperature=p.temperature[m], weight=p.weight[m], loss=p.loss[m], bias=p.bias[c])
    torch.testing.assert_close(pooled(moved, u[m][..., c]), pooled(p, u)[:, c])


@pytest.mark.parametrize("seen", [False, True])
def test_first_and_second_derivatives(seen):
    u, present = draw(2, 3, 3).requires_grad_(), torch.tensor([[1, 0, 1], [1, 1, 0]]).bool()
    p = pool(2, 3) if seen else Pool.equal(2, 3, 0.0)
    assert torch.autograd.gradcheck(lambda v: pooled(p, v, present), (u,))
    assert torch.autograd.gradgradcheck(lambda v: pooled(p, v, present), (u,))


def test_a_graph_can_be_exported_for_any_batch_and_any_presence():
    class Exported(nn.Module):
        def forward(self, u, present):
            return pooled(pool(), u, present)

    batch = torch.export.Dim("batch", min=2, max=64)
    program = torch.export.export(
        Exported(), (draw(), torch.ones(3, 5).bool()), dynamic_shapes=({1: batch}, {1: batch}), strict=True
    )
    u, present = draw(samples=11, seed=3), torch.rand(3, 11, generator=torch.Generator().manual_seed(1)) > 0.4
    u[1, 4] = math.nan
    torch.testing.assert_close(program.module()(u, present), pooled(pool(), u, present))


def test_pools_of_labels_are_pools_of_no_and_yes():
    u = draw(classes=2)
    pools = [pool(classes=2), pool(classes=2, trust=0.0, weight=torch.tensor([0.6, 0.2, 0.2]))]
    stacked = Pool(*(torch.stack(values) for values in zip(*pools, strict=True)))
    present = torch.tensor([[1, 1, 0, 1, 0], [1, 0, 1, 1, 1], [1, 1, 1, 0, 0]]).bool()
    out = pooled_labels(stacked, u, present)
    for k, one in enumerate(pools):
        two = torch.stack([torch.zeros_like(u[..., k]), u[..., k]], -1)
        torch.testing.assert_close(out[:, k].sigmoid(), pooled(one, two, present).exp()[:, 1])
