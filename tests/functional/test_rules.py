import pytest
import torch
from torch.nn import functional as F

from counterpoise.functional import Pool, entropy_weights, pooled, rules
from counterpoise.functional.entropy import class_certainty

torch.set_num_threads(1)


def draw(modalities=3, batch=5, classes=4, seed=0):
    g = torch.Generator().manual_seed(seed)
    return 2 * torch.randn(modalities, batch, classes, generator=g, dtype=torch.float64)


POOL = Pool(
    floor=torch.tensor(0.01).double(),
    temperature=torch.tensor([0.5, 1.2, 2.0]).double(),
    weight=torch.tensor([0.2, 0.3, 0.5]).double(),
    scale=torch.tensor(1.7).double(),
    bias=torch.tensor([0.3, -0.1, 0.0, -0.2]).double(),
    loss=torch.tensor([0.8, 0.9, 0.7]).double(),
    trust=torch.tensor(0.3).double(),
)


def pool(logits, present=None, rows=None):
    rows = torch.arange(len(logits)) if rows is None else rows
    some = POOL._replace(temperature=POOL.temperature[rows], weight=POOL.weight[rows], loss=POOL.loss[rows])
    return pooled(some._replace(bias=POOL.bias[: logits.shape[-1]]), logits, present)


def entropy(u, present=None):
    return rules.by_certainty(u, class_certainty(u), present)


RULES = {"mean": rules.mean, "entropy": entropy, "sum": rules.total, "pool": pool}


def test_every_rule_has_a_function_here():
    assert set(RULES) == set(rules.RULES)


def test_entropy_weights_by_hand():
    u = torch.tensor([[[2.0, 0.0, 0.0]], [[0.0, 0.0, 0.0]]], dtype=torch.float64)
    assert entropy_weights(u).flatten().tolist() == pytest.approx([0.6066, 0.3934], abs=5e-5)
    assert entropy(u).flatten().tolist() == pytest.approx([1.2132, 0.0, 0.0], abs=5e-5)


def test_entropy_weighs_each_sample_by_its_own_classes():
    u = draw()
    one_by_one = torch.cat([entropy(u[:, i : i + 1]) for i in range(u.shape[1])])
    torch.testing.assert_close(entropy(u), one_by_one)


def test_mean_is_the_log_of_the_mean_probability():
    u = draw()
    torch.testing.assert_close(rules.mean(u).exp(), u.softmax(-1).mean(0))


def test_mean_of_confident_contradictions_is_finite_with_gradient():
    u = torch.tensor([[[2000.0, 0.0]], [[0.0, 2000.0]]], requires_grad=True)
    out = rules.mean(u)
    torch.testing.assert_close(out.exp(), torch.full((1, 2), 0.5))
    F.cross_entropy(out, torch.tensor([0])).backward()
    assert u.grad is not None
    assert u.grad.isfinite().all()


def test_sum():
    u = draw()
    torch.testing.assert_close(rules.total(u), u[0] + u[1] + u[2])


@pytest.mark.parametrize("rule", RULES)
def test_only_the_modalities_there_count(rule):
    u = draw()
    present = torch.tensor([[1, 1, 1, 0, 1], [1, 0, 1, 1, 0], [1, 0, 0, 1, 1]]).bool()
    out = RULES[rule](u, present)
    for i in range(u.shape[1]):
        rows = present[:, i]
        only = {"rows": rows} if rule == "pool" else {}
        alone = RULES[rule](u[rows, i : i + 1], **only)
        torch.testing.assert_close(out[i : i + 1], alone)


@pytest.mark.parametrize("rule", RULES)
def test_masks_of_ones_change_nothing_and_order_does_not_matter(rule):
    u = draw()
    everyone = torch.ones(3, 5, dtype=torch.bool)
    torch.testing.assert_close(RULES[rule](u, everyone), RULES[rule](u))
    if rule != "pool":
        torch.testing.assert_close(RULES[rule](u.flip(0)), RULES[rule](u))


@pytest.mark.parametrize("rule", RULES)
def test_a_sample_with_nothing_there_is_finite_with_gradient(rule):
    u = draw().requires_grad_()
    present = torch.ones(3, 5, dtype=torch.bool)
    present[:, 2] = False
    out = RULES[rule](u, present)
    out.logsumexp(-1).sum().backward()
    assert out.isfinite().all()
    assert u.grad is not None
    assert u.grad.isfinite().all()


@pytest.mark.parametrize("rule", RULES)
def test_gradients_and_second_derivatives_are_right(rule):
    u = draw(2, 3, 3).requires_grad_()
    present = torch.tensor([[1, 0, 1], [1, 1, 0]]).bool()
    assert torch.autograd.gradcheck(lambda v: RULES[rule](v, present), (u,))
    assert torch.autograd.gradgradcheck(lambda v: RULES[rule](v, present), (u,))
