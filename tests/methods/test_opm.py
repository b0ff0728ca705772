from __future__ import annotations

import math
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from one_step import first_step, fitted, gradients, in_other_order, step_on

from counterpoise.functional.dropping import sample_uniform
from counterpoise.fusions import Gated
from counterpoise.method import Method
from counterpoise.methods.opm import OPM
from counterpoise.testing import check_method, trainer_for, trains

NAMES = ("first", "second", "third")
always = partial(OPM, p=1, warmup=0)


def reference_rates(model, step, q_base, strength):
    """The rule in float64 with Python floats, from the weights of a concatenation."""
    names, y, s = model.modalities, step.batch.target, {}
    for m in names:
        z = model.encoders[m](step.batch.inputs[m]).detach().double()
        u = z @ model.fusion.blocks[m].weight.detach().double().T + model.fusion.bias.detach().double() / len(names)
        s[m] = sum(math.exp(u[i][y[i]]) / sum(math.exp(v) for v in u[i]) for i in range(len(y)))
    q = []
    for m in names:
        r = s[m] / (sum(s[j] for j in names if j != m) / (len(names) - 1))
        q.append(min(max(q_base * (1 + strength * math.tanh(r - 1)), 0), 1) if r > 1 else 0.0)
    return q


@pytest.mark.parametrize("count", [2, 3])
def test_the_head_gets_dropped_and_rescaled_features(count):
    names = NAMES[:count]
    trainer, step = first_step(always, names)
    q = reference_rates(trainer.model, step, 0.5, 0.5)
    assert max(q) > 0.4
    assert min(q) == 0
    # the stream: one number for "this batch?", then the key of the samples
    generator = torch.Generator().manual_seed(0)
    generator.set_state(step.generator.get_state())
    torch.rand((), generator=generator)
    keep = sample_uniform(step.batch.index, count, generator) >= torch.tensor(q)
    assert not keep.all()
    theta = sum(5 * v for v in q) / (5 * count)
    model = trainer.model
    expected = model.fusion.bias.double()
    for i, m in enumerate(names):
        z = model.encoders[m](step.batch.inputs[m]).double() * keep[:, i : i + 1] / (1 - theta)
        expected = expected + z @ model.fusion.blocks[m].weight.double().T
    output, loss, _ = gradients(trainer, step)
    torch.testing.assert_close(output.logits.double(), expected, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(loss.double(), F.cross_entropy(expected, step.batch.target), atol=1e-5, rtol=1e-4)


def test_scale_of_two_equal_widths():
    q = torch.tensor([0.690399, 0.0])
    assert (q.mean()).item() == pytest.approx(0.345199, abs=1e-6)
    assert (1 / (1 - q.mean())).item() == pytest.approx(1.527182, abs=1e-5)


def test_dropped_samples_give_their_encoder_no_gradient():
    trainer, step = first_step(partial(always, q_base=1.0, strength=1.0))
    rates = reference_rates(trainer.model, step, 1.0, 1.0)
    leader = NAMES[rates.index(1.0)]
    found = gradients(trainer, step)[2]
    assert not any(g.any() for n, g in found.items() if n.startswith(f"encoders.{leader}"))
    follower = NAMES[1 - rates.index(1.0)]
    assert found[f"encoders.{follower}.0.weight"].abs().max() > 0


def test_it_acts_otherwise_and_after_the_warmup():
    joint, opm, late = fitted(Method), fitted(always), fitted(partial(OPM, p=1, warmup=2))
    assert any(not torch.equal(joint[k], opm[k]) for k in joint)
    assert any(not torch.equal(joint[k], late[k]) for k in joint)


def test_order_of_the_modalities_does_not_matter_for_the_rates():
    """The masks themselves are drawn by place; with q of the leader at 1 nothing is left to chance."""
    forward, backward = in_other_order(partial(always, q_base=1.0, strength=1.0), NAMES)
    for name, gradient in forward.items():
        torch.testing.assert_close(gradient, backward[name], atol=1e-6, rtol=1e-4)


def test_evaluation_drops_nothing():
    trainer, data = trainer_for(always)
    trainer.fit(data.train, data.val)
    trainer.model.eval()
    plain = trainer.model({m: data.val.batch(range(len(data.val)), m, None) for m in NAMES[:2]}).logits
    torch.testing.assert_close(trainer.predict(data.val).fused, plain)


def test_a_sample_keeps_the_only_modality_it_has():
    trainer, step = first_step(partial(always, q_base=1.0, strength=1.0), absent=0.4)
    output, _, _ = gradients(trainer, step)
    bias_only = trainer.model.fusion.bias
    assert (output.logits - bias_only).abs().sum(1).min() > 0


def test_nobody_complete_means_no_dropping():
    trainer, step = first_step(always)
    first = torch.arange(18) % 2 == 0
    step.batch = step.batch._replace(present={"first": first, "second": ~first})
    torch.testing.assert_close(gradients(trainer, step)[0].logits, step.forward().logits, atol=0, rtol=0)


def test_one_class_all_right_stays_finite():
    trainer, step = first_step(always)
    with torch.no_grad():
        trainer.model.fusion.bias[0] = 100.0
    step = step_on(trainer, (trainer.current.train_split.target == 0).nonzero().flatten()[:6])
    _, loss, found = gradients(trainer, step)
    assert loss.item() == 0
    assert all(g.isfinite().all() for g in found.values())


def test_fusions_without_unimodal_logits_are_refused_and_heads_help():
    trainer, data = trainer_for(OPM, fusion="Attention")
    with pytest.raises(ValueError, match=r"Use fusion Concat, Sum or Late.*heads=True"):
        trainer.fit(data.train, data.val)
    trainer, step = first_step(always, fusion=lambda d, c: Gated(d, c, dim=4, heads=True))
    found = gradients(trainer, step)[2]
    assert found["fusion.own_heads.first.weight"].abs().max() > 0


def test_trains():
    check_method(always, modalities=3, checks=[trains])


@pytest.mark.parametrize("arguments", [{"q_base": 1.1}, {"strength": -1}, {"p": 2}, {"warmup": -1}])
def test_arguments(arguments):
    with pytest.raises(ValueError, match=f"{next(iter(arguments))} must be"):
        OPM(**arguments)
