import math

import numpy as np
import pool_reference as reference
import pytest
import torch
from torch.nn import functional as F

from counterpoise.functional import Pool, fit_label_pools, fit_pool, pool_fitting, pooled, pooled_labels
from counterpoise.functional.pool_fitting import evidence, folds, minimise, trust
from counterpoise.functional.pooling import floored

torch.set_num_threads(1)


def draw(n=63, classes=4, clear=(2.0, 1.0, 0.5), noise=(1.0, 1.0, 1.0), seed=0, absent=0.0):
    """Logits that show the class as clearly as they say, the labels, and who is there."""
    g = torch.Generator().manual_seed(seed)
    y = torch.randint(0, classes, (n,), generator=g)
    shown = [
        a * F.one_hot(y, classes) + b * torch.randn(n, classes, generator=g) for a, b in zip(clear, noise, strict=True)
    ]
    there = torch.rand(len(clear), n, generator=g) >= absent
    there[0] |= ~there.any(0)
    return torch.stack(shown).double(), y, there


def assert_close(a, b, atol=1e-7):
    for name in Pool._fields:
        torch.testing.assert_close(getattr(a, name), getattr(b, name), rtol=0, atol=atol, msg=name)


CASES = {
    "three experts": draw(),
    "two classes": draw(40, 2, (1.5, 1.0), (1.0, 3.0), seed=1),
    "absent experts": draw(210, 5, (2.0, 1.0, 0.7, 0.5), (1.0, 2.0, 3.0, 4.0), seed=2, absent=0.3),
    "one expert": draw(24, 3, (2.0,), (1.0,), seed=3),
    "one that is too sure and one that misleads": draw(90, 3, (9.0, -6.0), (9.0, 1.0), seed=4),
    "a class without a sample": (lambda u, y, there: (u[:, y != 2], y[y != 2], there[:, y != 2]))(*draw(seed=5)),
    "hardly a word": (lambda u, y, there: (0.0045 * u, y, there))(*draw(120, seed=6)),
    "separable": draw(64, 4, (30.0, 20.0), (1.0, 1.0), seed=7),
}


@pytest.mark.parametrize("case", CASES)
def test_agrees_with_the_equations_by_other_solvers(case):
    u, y, there = CASES[case]
    fitted, expected = fit_pool(u, y, there), reference.fit(u.numpy(), y.numpy(), there.numpy())
    parts = (fitted.temperature, fitted.weight, fitted.scale, fitted.bias, fitted.loss, fitted.trust)
    for part, number in zip(parts, expected, strict=True):
        np.testing.assert_allclose(part.numpy(), number, rtol=1e-6, atol=1e-6)
    fresh, _, present = draw(300, u.shape[-1], (0.0,) * len(u), (1.0,) * len(u), seed=99, absent=0.3)
    fresh = 2 * u.std() * fresh
    predicted = reference.predict(expected, fresh.numpy(), present.numpy())
    atol = 1e-6 if case == "hardly a word" else 1e-8  # a scale of 131 magnifies every error
    np.testing.assert_allclose(pooled(fitted, fresh, present).exp().numpy(), predicted, rtol=0, atol=atol)


def test_the_temperature_is_bounded_and_the_bound_is_reached():
    assert fit_pool(*CASES["one that is too sure and one that misleads"]).temperature[1] == pytest.approx(math.exp(3))
    assert fit_pool(*CASES["hardly a word"]).temperature[0] == pytest.approx(math.exp(-3))
    separable = fit_pool(*CASES["separable"])
    assert separable.temperature.min() >= math.exp(-3)
    assert all(value.isfinite().all() for value in separable)


def test_the_gradients_are_exact():
    u, y, there = (value[:2, :12] if value.ndim > 1 else value[:12] for value in draw(classes=3))
    objectives = []

    def record(objective, *start):
        objectives.append((objective, start))
        return minimise(objective, *start)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pool_fitting, "minimise", record)
        pool_fitting._fit(u, y, there, None)
    assert [len(start) for _, start in objectives] == [1, 2, 1]  # temperatures, weights and scale, bias
    g = torch.Generator().manual_seed(1)
    for objective, start in objectives:
        at = [value + 0.3 * torch.randn(value.shape, generator=g, dtype=value.dtype) for value in start]
        assert torch.autograd.gradcheck(objective, [value.requires_grad_() for value in at])


def test_neither_the_order_of_samples_nor_of_experts_nor_of_classes_counts():
    u, y, there = draw(80, absent=0.2)
    fitted = fit_pool(u, y, there)
    n = torch.randperm(80, generator=torch.Generator().manual_seed(1))
    assert_close(fit_pool(u[:, n], y[n], there[:, n]), fitted)
    m = torch.tensor([2, 0, 1])
    by_expert = fitted._replace(temperature=fitted.temperature[m], weight=fitted.weight[m], loss=fitted.loss[m])
    assert_close(fit_pool(u[m], y, there[m]), by_expert)
    c = torch.tensor([3, 1, 0, 2])  # the class that was c[k] is k now
    assert_close(fit_pool(u[..., c], c.argsort()[y], there), fitted._replace(bias=fitted.bias[c]))


def test_nor_does_the_order_of_samples_count_where_experts_only_vote():
    y, n = torch.arange(60) % 3, torch.randperm(60, generator=torch.Generator().manual_seed(1))
    wrong = torch.rand(3, 60, generator=torch.Generator().manual_seed(0)) < torch.tensor([[0.2], [0.3], [0.4]])
    votes = 2.0 * F.one_hot((y + wrong) % 3, 3).double()  # equal losses, differently placed, in many samples
    assert_close(fit_pool(votes[:, n], y[n]), fit_pool(votes, y))


def test_identical_experts_share_equally():
    u, y, _ = draw()
    assert fit_pool(u[[0, 0, 0]], y).weight.tolist() == pytest.approx([1 / 3] * 3, abs=1e-12)


def test_what_absent_samples_hold_and_samples_without_any_expert_do_not_count():
    u, y, there = draw(80, absent=0.3)
    there[:, 7] = False
    fitted = fit_pool(u, y, there)
    assert_close(fit_pool(u.masked_fill(~there.unsqueeze(-1), 1e3), y, there), fitted, atol=0)
    keep = torch.arange(80) != 7
    assert_close(fit_pool(u[:, keep], y[keep], there[:, keep]), fitted, atol=0)


@pytest.mark.parametrize("inference", [False, True])
def test_it_fits_where_no_gradient_is_recorded_and_leaves_its_input_alone(inference):
    u, y, there = draw()
    before = u.clone()
    with torch.inference_mode(inference), torch.no_grad():
        fitted = fit_pool(u.float(), y, there)
    assert all(value.dtype == torch.float64 and not value.is_inference() for value in fitted)
    assert torch.equal(u, before)
    assert_close(fitted, fit_pool(u, y, there), atol=1e-4)


# -- too little to go by ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("samples", [0, 1, 9])
def test_nothing_is_fitted_on_fewer_than_ten_samples(samples):
    u, y, there = draw(samples)
    assert_close(fit_pool(u, y, there), Pool.equal(3, 4, 0.01), atol=0)


def test_ten_samples_are_fitted_and_samples_without_an_expert_are_none():
    u, y, there = draw(10)
    assert fit_pool(u, y).temperature[0] != 1
    there[:, 3] = False
    assert_close(fit_pool(u, y, there), Pool.equal(3, 4, 0.01), atol=0)


def test_an_expert_with_few_samples_keeps_its_temperature_and_an_equal_weight():
    u, y, there = draw(90)
    there[1] = torch.arange(90) < 9
    fitted = fit_pool(u, y, there)
    assert fitted.temperature[1] == 1
    assert fitted.loss[1] == math.log(4)
    there[1] = False
    assert fit_pool(u, y, there).weight[1] == pytest.approx(1 / 3)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 0.7])
def test_an_expert_that_is_broken_or_constant_drops_out(value):
    u, y, there = draw(absent=0.2)
    u[1] = value
    fitted, without = fit_pool(u, y, there), fit_pool(u[[0, 2]], y, there[[0, 2]])
    assert fitted.weight[1] == 0
    keep = torch.tensor([0, 2])
    kept = fitted._replace(temperature=fitted.temperature[keep], weight=fitted.weight[keep], loss=fitted.loss[keep])
    assert_close(kept, without, atol=0)
    fresh, _, _ = draw(50, seed=8)
    torch.testing.assert_close(pooled(fitted, fresh), pooled(without, fresh[keep]))
    alone = torch.tensor([[False], [True], [False]]).expand(3, 50)
    fitted = fitted._replace(trust=torch.zeros_like(fitted.trust))
    by_itself = fitted.scale * floored(fresh, fitted.floor)[1] + fitted.bias
    assert torch.equal(pooled(fitted, fresh, alone).argmax(-1), by_itself.argmax(-1))


def test_an_expert_that_is_broken_for_some_samples_is_absent_there():
    u, y, there = draw(absent=0.1)
    spoilt, less = u.clone(), there.clone()
    spoilt[0, ::9, 1] = math.nan
    less[0, ::9] = False
    assert_close(fit_pool(spoilt, y, there), fit_pool(u, y, less), atol=0)


@pytest.mark.parametrize("value", [math.nan, 0.0])
def test_all_experts_broken_or_constant_leaves_equal_weights(value):
    u, y, _ = draw()
    fitted = fit_pool(torch.full_like(u, value), y)
    assert_close(fitted, Pool.equal(3, 4, 0.01), atol=0)
    torch.testing.assert_close(pooled(fitted, torch.full_like(u, math.nan)).exp(), torch.full((63, 4), 0.25).double())


def test_samples_that_only_a_dropped_expert_is_there_for_are_none():
    u, y, there = draw()
    u[2], there[:2] = 1.0, torch.arange(63) < 9
    assert_close(fit_pool(u, y, there), Pool.equal(3, 4, 0.01), atol=0)


def test_a_class_without_a_sample_is_neither_raised_nor_lowered():
    u, y, there = CASES["a class without a sample"]
    fitted = fit_pool(u, y, there)
    assert fitted.bias[2] == 0
    assert fitted.bias.sum() == pytest.approx(0, abs=1e-9)
    assert fitted.bias.abs().max() > 0.01


def test_evidence_counts_what_there_is():
    u, y, there = draw(20, absent=0.3)
    u[1, 4:7] = math.nan
    there[:, 9] = False
    seen = evidence(u, y, there)
    assert torch.equal(seen.there, there & u.isfinite().all(-1))
    assert seen.broken.tolist() == [0, int(there[1, 4:7].sum()), 0]
    assert seen.per_class.tolist() == torch.bincount(y[seen.there.any(0)], minlength=4).tolist()
    assert seen.samples == int(seen.there.any(0).sum())
    assert not seen.dropped.any()
    u[2] = 1.0
    assert evidence(u, y).dropped.tolist() == [False, False, True]


def test_a_single_sample_is_no_constant():
    u, y, _ = draw(1)
    assert not evidence(u, y).constant.any()


# -- folds and fallback ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("samples", "count"), [(10, 8), (199, 8), (200, 5), (1000, 5)])
def test_folds_hold_every_class_and_difficulty_in_proportion(samples, count):
    g = torch.Generator().manual_seed(samples)
    y, difficulty = torch.randint(0, 3, (samples,), generator=g), torch.rand(samples, generator=g).double()
    fold = folds(difficulty.expand(2, -1), torch.ones(2, samples).bool(), y)
    sizes = torch.bincount(fold, minlength=count)
    assert len(sizes) == count
    assert sizes.max() - sizes.min() <= 1
    for k in range(3):
        sizes = torch.bincount(fold[y == k], minlength=count)
        assert sizes.max() - sizes.min() <= 1
    if samples >= 199:
        means = torch.stack([difficulty[fold == k].mean() for k in range(count)])
        assert means.max() - means.min() < 0.1  # of random folds of 25: about 0.2


def test_trust_by_the_formula_and_at_its_ends():
    d = torch.tensor([0.5, -0.2, 0.1, 0.4]).double()
    z = d.mean() / (d.std() / 2)
    assert trust(d) == pytest.approx(1 / (1 + math.exp(-2 * z)))
    assert trust(torch.zeros(10).double()) == 0.5
    assert trust(torch.full((10,), 0.1).double()) == 1
    assert trust(torch.full((10,), -0.1).double()) == 0


def accuracy(log_p, y):
    return float((log_p.argmax(-1) == y).double().mean())


@pytest.mark.slow
def test_a_strong_expert_among_noisy_ones_is_not_lost_on_63_samples():
    clear, below = (2.5, 0.3, 0.3, 0.3, 0.3), []
    for seed in range(50):
        u, y, _ = draw(63, 5, clear, (1.0,) * 5, seed=seed)
        fresh, target, _ = draw(2000, 5, clear, (1.0,) * 5, seed=1000 + seed)
        below.append(accuracy(fresh[0], target) - accuracy(pooled(fit_pool(u, y), fresh), target))
    assert np.mean(below) <= 0.0065


def wild(seed, n):
    """The strong expert reads an input of 6,921 standard deviations in one sample of twenty."""
    u, y, _ = draw(n, 5, (2.5, 0.3, 0.3, 0.3, 0.3), (1.0,) * 5, seed=seed)
    g = torch.Generator().manual_seed(seed)
    far = torch.rand(n, generator=g) < 0.05
    u[0, far] = 6921 * torch.randn(int(far.sum()), 5, generator=g, dtype=torch.float64)
    return u, y


@pytest.mark.slow
def test_a_few_wild_inputs_do_not_switch_the_best_expert_off(monkeypatch):
    below = {0.01: [], 1e-12: []}
    for floor, gaps in below.items():
        monkeypatch.setattr(pool_fitting, "FLOOR", floor)
        for seed in range(8):
            fitted, (fresh, target) = fit_pool(*wild(seed, 63)), wild(1000 + seed, 2000)
            gaps.append(accuracy(fresh[0], target) - accuracy(pooled(fitted, fresh), target))
    assert np.mean(below[0.01]) <= 0.0065
    assert np.mean(below[1e-12]) > 0.02  # what the floor is for


# -- several labels --------------------------------------------------------------------------------------------------


def draw_labels(n=60, labels=3, experts=2, seed=0):
    g = torch.Generator().manual_seed(seed)
    y = torch.rand(n, labels, generator=g) < torch.tensor([0.5, 0.3, 0.05])
    clear = torch.tensor([[2.0, 0.5], [0.5, 2.0], [1.0, 1.0]])
    u = torch.stack([(y * 2.0 - 1) * clear[:, m] + torch.randn(n, labels, generator=g) for m in range(experts)])
    return u.double(), y


def test_labels_shrink_towards_what_they_have_in_common():
    u, y = draw_labels()
    cells, cell_target = u.movedim(-1, 1).flatten(1), y.T.flatten().long()
    two = torch.stack([torch.zeros_like(cells), cells], -1)
    common = fit_pool(two, cell_target)
    pools = fit_label_pools(u, y)
    assert pools.temperature.tolist() == [common.temperature.tolist()] * 3
    for k in range(3):
        label = torch.stack([torch.zeros_like(u[..., k]), u[..., k]], -1)
        one = fit_pool(label, y[:, k].long(), None, common)
        assert_close(Pool(*(value[k] for value in pools)), one, atol=0)
        # at the minimum of the mean loss and the divergence from the common weights
        log_p = (torch.log(0.99 * label.softmax(-1) + 0.005) / common.temperature[:, None, None]).log_softmax(-1)

        def objective(weight, scale, log_p=log_p, k=k):
            q = (scale * (weight[:, None, None] * log_p).sum(0)).log_softmax(-1)
            divergence = (common.weight * (common.weight / weight).log()).sum()
            shrinkage = 5 * divergence + (scale.log() - common.scale.log()) ** 2 / 2
            return F.nll_loss(q, y[:, k].long()) + shrinkage / 60

        least = objective(one.weight, one.scale)
        for step in (-0.01, 0.01):
            assert objective(one.weight + torch.tensor([step, -step]), one.scale) > least
            assert objective(one.weight, one.scale * (1 + step)) > least


def test_a_label_that_validation_never_shows_leaves_the_others_alone():
    u, y = draw_labels(200)
    y[:, 2] = False
    pools = fit_label_pools(u, y)
    assert all(value.isfinite().all() for value in pools)
    assert pools.bias[2].tolist() == [0, 0]
    fresh, target = draw_labels(2000, seed=9)
    out = pooled_labels(pools, fresh)
    assert out.shape == (2000, 3)
    for k in (0, 1):
        best, right = (float(((u[:, k] > 0) == target[:, k]).double().mean()) for u in (fresh[k], out))
        assert right > best - 0.0065


def test_labels_with_absent_experts_and_too_few_samples():
    u, y = draw_labels(8)
    assert_close(fit_label_pools(u, y), Pool(*(torch.stack([v] * 3) for v in Pool.equal(2, 2, 0.01))), atol=0)
    u, y = draw_labels(60)
    there = torch.ones(2, 60).bool()
    there[0, ::4] = False
    spoilt = u.masked_fill(~there.unsqueeze(-1), 50.0)
    assert_close(fit_label_pools(spoilt, y, there), fit_label_pools(u, y, there), atol=0)
