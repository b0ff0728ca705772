from __future__ import annotations

import math
from functools import partial
from itertools import combinations

import pytest
import torch
import torch.nn.functional as F
from one_step import first_step, fitted, gradients, in_other_order, step_on

from counterpoise.engine import Adam
from counterpoise.fusions import Gated
from counterpoise.method import Method
from counterpoise.methods.agm import AGM
from counterpoise.testing import trainer_for

NAMES = ("first", "second", "third", "fourth")


def all_logits(model, inputs):
    """f(S) for every non-empty set of modalities, in float64."""
    z = {m: model.encoders[m](x.double()) for m, x in inputs.items()}
    sets = [s for k in range(1, len(z) + 1) for s in combinations(z, k)]
    return {frozenset(s): model.fuse({m: z[m] for m in z if m in s}).logits for s in sets}


def responses(f, names):
    """Shapley values with f(empty) = 0, straight from the sum over subsets."""
    count, phi = len(names), {}
    for m in names:
        others = [j for j in names if j != m]
        terms = []
        for k in range(count):
            weight = math.factorial(k) * math.factorial(count - k - 1) / math.factorial(count)
            for s in combinations(others, k):
                gain = f[frozenset({*s, m})] - (f[frozenset(s)] if s else 0)
                terms.append(weight * gain)
        phi[m] = torch.stack(terms).sum(0)
    return phi


def reference(trainer, step, means, alpha, cap):
    """Scores, coefficients and gradients of one batch in float64, from the equations."""
    model, y = trainer.model.double(), step.batch.target
    names = model.modalities
    phi = responses(all_logits(model, step.batch.inputs), names)
    s = [F.cross_entropy(phi[m], y).item() for m in names]
    count = len(names)

    def lead(values, m):
        return math.exp(sum(values[j] - values[m] for j in range(count) if j != m) / (count - 1))

    kappa = [math.exp(alpha * min(lead(means, m) - lead(s, m), cap)) for m in range(count)]
    total = torch.stack([*phi.values()]).sum(0)
    dz = torch.autograd.grad(F.cross_entropy(total, y), total, retain_graph=True)[0]
    surrogate = sum(k * (dz * p).sum() for k, p in zip(kappa, phi.values(), strict=True))
    gradient = dict(
        zip(
            [n for n, _ in model.named_parameters()],
            torch.autograd.grad(surrogate, list(model.parameters())),
            strict=True,
        )
    )
    model.float()
    return s, kappa, gradient


@pytest.mark.parametrize("fusion", ["Concat", partial(Gated, dim=4), "Attention"])
@pytest.mark.parametrize("count", [2, 3])
def test_gradients_and_running_means_over_three_batches(count, fusion):
    names = NAMES[:count]
    trainer, _ = first_step(partial(AGM, alpha=1.5, cap=10), names, fusion)
    means = [0.0] * count
    for t in range(1, 4):
        step = step_on(trainer, torch.arange(18 * (t - 1), 18 * t))
        s, kappa, expected = reference(trainer, step, means, 1.5, 10)
        output, loss, found = gradients(trainer, step)
        assert any(abs(k - 1) > 1e-3 for k in kappa)
        torch.testing.assert_close(sum(output.unimodal.values()), output.logits, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(loss, F.cross_entropy(output.logits, step.batch.target))
        for name, gradient in found.items():
            torch.testing.assert_close(gradient.double(), expected[name], atol=1e-5, rtol=1e-3)
        means = [a * (t - 1) / t + b / t for a, b in zip(means, s, strict=True)]
        torch.testing.assert_close(
            trainer.method.means.double(), torch.tensor(means, dtype=torch.float64), atol=1e-5, rtol=1e-5
        )
        assert trainer.method.steps == t


@pytest.mark.parametrize("count", [2, 3, 4])
@pytest.mark.parametrize("fusion", ["Concat", "FiLM", "Late"])
def test_responses_add_up_to_the_prediction(count, fusion):
    trainer, step = first_step(AGM, NAMES[:count], fusion)
    output = trainer.method(step)
    torch.testing.assert_close(sum(output.unimodal.values()), output.logits, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(output.logits, step.forward().logits, atol=0, rtol=0)


def test_additive_fusion_scales_encoders_by_their_coefficient_and_the_bias_by_the_mean():
    trainer, step = first_step(partial(AGM, alpha=1.0), NAMES[:3])
    _, kappa, _ = reference(trainer, step, [0.0] * 3, 1.0, 10)
    found = gradients(trainer, step)[2]
    trainer.method = Method()
    plain = gradients(trainer, step)[2]
    for k, m in zip(kappa, NAMES, strict=False):
        for name in (f"encoders.{m}.0.weight", f"encoders.{m}.3.bias", f"fusion.blocks.{m}.weight"):
            torch.testing.assert_close(found[name], k * plain[name], atol=1e-6, rtol=1e-3)
    torch.testing.assert_close(found["fusion.bias"], sum(kappa) / 3 * plain["fusion.bias"], atol=1e-6, rtol=1e-3)


def test_identity_for_two_modalities():
    """0.5 (ka + kv) J_f(av) dz + 0.5 (ka - kv) (J_f(a) - J_f(v)) dz."""
    trainer, step = first_step(AGM, fusion=partial(Gated, dim=4))
    _, (ka, kv), _ = reference(trainer, step, [0.0, 0.0], 1.5, 10)
    found = gradients(trainer, step)[2]
    model = trainer.model.double()
    f = all_logits(model, step.batch.inputs)
    av, a, v = f[frozenset(NAMES[:2])], f[frozenset(NAMES[:1])], f[frozenset(NAMES[1:2])]
    dz = torch.autograd.grad(F.cross_entropy(av, step.batch.target), av, retain_graph=True)[0]
    value = 0.5 * (ka + kv) * (av * dz).sum() + 0.5 * (ka - kv) * ((a - v) * dz).sum()
    expected = torch.autograd.grad(value, list(model.parameters()))
    for gradient, e in zip(found.values(), expected, strict=True):
        torch.testing.assert_close(gradient.double(), e, atol=1e-5, rtol=1e-3)


def test_it_acts_otherwise():
    joint, agm = fitted(Method), fitted(AGM)
    assert any(not torch.equal(joint[k], agm[k]) for k in joint)


def test_stationary_scores_give_the_plain_gradient():
    trainer, step = first_step(AGM)
    gradients(trainer, step)
    again = gradients(trainer, step)[2]  # the means now are this batch's scores
    trainer.method = Method()
    plain = gradients(trainer, step)[2]
    for name in again:
        torch.testing.assert_close(again[name], plain[name], atol=1e-6, rtol=1e-4)


def test_running_means_move_once_per_batch_under_sam():
    trainer, data = trainer_for(AGM, sam=0.05, epochs=2)
    trainer.fit(data.train, data.val)
    assert trainer.method.steps == 2 * (len(data.train) // 18)


def test_order_of_the_modalities_does_not_matter():
    forward, backward = in_other_order(AGM, NAMES[:3])
    for name, gradient in forward.items():
        torch.testing.assert_close(gradient, backward[name], atol=1e-5, rtol=1e-3)


def test_scores_are_over_complete_samples_and_absent_responses_are_zero():
    trainer, step = first_step(AGM, absent=0.3)
    output, _, _ = gradients(trainer, step)
    there = torch.stack([step.present(m) for m in NAMES[:2]])
    for m, here in zip(NAMES, there, strict=False):
        assert not output.unimodal[m][~here].any()
        rows = there.all(0)
        expected = F.cross_entropy(output.unimodal[m][rows], step.batch.target[rows])
        torch.testing.assert_close(trainer.method.means[NAMES.index(m)], expected.detach())


def test_nobody_complete_changes_nothing():
    trainer, step = first_step(AGM)
    first = torch.arange(18) % 2 == 0
    step.batch = step.batch._replace(present={"first": first, "second": ~first})
    found = gradients(trainer, step)[2]
    assert trainer.method.steps == 0
    assert not trainer.method.means.any()
    trainer.method = Method()
    plain = gradients(trainer, step)[2]
    for name in found:
        torch.testing.assert_close(found[name], plain[name], atol=1e-7, rtol=1e-5)


def test_certain_and_hopeless_responses_stay_finite():
    trainer, step = first_step(partial(AGM, alpha=4.0, cap=None))
    with torch.no_grad():
        trainer.model.encoders["first"][3].bias.fill_(500.0)
        trainer.model.encoders["second"][3].bias.fill_(-500.0)
    trainer.method.means.copy_(torch.tensor([0.001, 18.0]))
    _, loss, found = gradients(trainer, step)
    assert loss.isfinite()
    assert all(g.isfinite().all() for g in found.values())
    assert trainer.method.means.isfinite().all()


def test_one_class_all_right_stays_finite():
    trainer, step = first_step(AGM)
    with torch.no_grad():
        trainer.model.fusion.bias[0] = 100.0
    step = step_on(trainer, (trainer.current.train_split.target == 0).nonzero().flatten()[:6])
    _, loss, found = gradients(trainer, step)
    assert loss.item() == 0
    assert all(g.isfinite().all() for g in found.values())


def test_trains_with_clipping():
    trainer, data = trainer_for(AGM, NAMES[:3], clip_norm=1.0, epochs=8)
    before = trainer.evaluate(data.train)["fused/loss"]
    trainer.fit(data.train, data.val)
    assert trainer.evaluate(data.train)["fused/loss"] < before


def test_adam_is_warned_about():
    trainer, data = trainer_for(AGM, optimizer=Adam(lr=1e-3), epochs=1)
    with pytest.warns(UserWarning, match="scales gradients"):
        trainer.fit(data.train, data.val)


@pytest.mark.parametrize("arguments", [{"alpha": -1}, {"cap": -1}, {"cap": math.nan}])
def test_arguments(arguments):
    with pytest.raises(ValueError, match=f"{next(iter(arguments))} must be"):
        AGM(**arguments)
