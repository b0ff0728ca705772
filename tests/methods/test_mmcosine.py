from __future__ import annotations

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from one_step import first_step, gradients, in_other_order, step_on

from counterpoise.fusions import Concat, Late, Shared
from counterpoise.methods.mmcosine import MMCosine
from counterpoise.testing import everything, trainer_for

NAMES = ("first", "second", "third")


def reference(model, inputs, scale):
    """Scaled sum of cosines in float64."""
    total = 0
    for m, x in inputs.items():
        z, w = model.encoders[m](x).double(), model.head_of(m).weight.double()
        total = total + F.cosine_similarity(z[:, None], w[None], dim=2)
    return scale * total


@pytest.mark.parametrize("fusion", ["Concat", "Sum", partial(Shared, rule="sum")])
@pytest.mark.parametrize("count", [2, 3])
def test_loss_and_gradients(count, fusion):
    trainer, step = first_step(partial(MMCosine, scale=4.0), NAMES[:count], fusion)
    output, loss, found = gradients(trainer, step)
    f = reference(trainer.model, step.batch.inputs, 4.0)
    torch.testing.assert_close(output.logits.double(), f, atol=1e-5, rtol=1e-4)
    assert output.logits.abs().max() <= 4.0 * count
    expected = F.cross_entropy(f, step.batch.target)
    torch.testing.assert_close(loss.double(), expected, atol=1e-5, rtol=1e-4)
    named = [(n, p) for n, p in trainer.model.named_parameters() if found[n] is not None]
    for (name, _), g in zip(named, torch.autograd.grad(expected, [p for _, p in named]), strict=True):
        torch.testing.assert_close(found[name], g.float(), atol=1e-6, rtol=1e-3)


def test_bias_has_no_gradient_and_stays():
    trainer, step = first_step(MMCosine)
    assert gradients(trainer, step)[2]["fusion.bias"] is None
    trainer, data = trainer_for(MMCosine)
    before = trainer.model.fusion.bias.detach().clone()
    trainer.fit(data.train, data.val)
    assert torch.equal(trainer.model.fusion.bias, before)


def test_lengths_of_features_and_weights_do_not_matter():
    trainer, step = first_step(MMCosine)
    before = gradients(trainer, step)[0].logits
    with torch.no_grad():
        trainer.model.fusion.blocks["first"].weight *= 7
        trainer.model.encoders["second"][3].weight *= 0.1
        trainer.model.encoders["second"][3].bias *= 0.1
    torch.testing.assert_close(gradients(trainer, step)[0].logits, before, atol=1e-4, rtol=1e-4)


def test_prediction_is_the_cosine_one():
    trainer, data = trainer_for(MMCosine)
    trainer.fit(data.train, data.val)
    trainer.model.eval()
    inputs = {m: data.val.batch(range(len(data.val)), m, None) for m in NAMES[:2]}
    expected = reference(trainer.model, inputs, 10.0).detach()
    torch.testing.assert_close(trainer.predict(data.val).fused.double(), expected, atol=1e-4, rtol=1e-4)
    one = {m: inputs[m] for m in NAMES[1:2]}
    found = trainer.predict(data.val, only=NAMES[1:2]).fused
    torch.testing.assert_close(found.double(), reference(trainer.model, one, 10.0).detach(), atol=1e-4, rtol=1e-4)


def test_order_of_the_modalities_does_not_matter():
    forward, backward = in_other_order(MMCosine, NAMES)
    for name, gradient in forward.items():
        if gradient is not None:
            torch.testing.assert_close(gradient, backward[name], atol=1e-6, rtol=1e-4)


def test_absent_modalities_add_nothing():
    trainer, step = first_step(MMCosine, absent=0.4)
    output = trainer.method(step)
    lacking = ~step.present("second")
    assert lacking.any()
    torch.testing.assert_close(output.logits[lacking], output.unimodal["first"][lacking])


def test_zero_features_and_one_class_stay_finite():
    trainer, step = first_step(MMCosine)
    with torch.no_grad():
        for p in trainer.model.encoders["first"].parameters():
            p.zero_()
    step = step_on(trainer, (trainer.current.train_split.target == 0).nonzero().flatten()[:6])
    _, loss, found = gradients(trainer, step)
    assert loss.isfinite()
    assert all(g is None or (g.isfinite().all() and g.abs().max() < 1e3) for g in found.values())


@pytest.mark.parametrize(
    "fusion",
    [
        "Gated",
        partial(Late, rule="mean", hidden=()),
        partial(Late, rule="sum", hidden=(4,)),
        lambda d, c: Concat(d, c, heads=True),
    ],
)
def test_other_fusions_are_refused(fusion):
    trainer, data = trainer_for(MMCosine, fusion=fusion)
    with pytest.raises(ValueError, match="Use fusion Concat"):
        trainer.fit(data.train, data.val)


def test_trains():
    trainer, data = trainer_for(MMCosine)
    before = everything(trainer)
    trainer.fit(data.train, data.val)
    assert any(not torch.equal(v, before[k]) for k, v in everything(trainer).items())


def test_arguments():
    with pytest.raises(ValueError, match="scale must be"):
        MMCosine(scale=0)
