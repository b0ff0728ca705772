from __future__ import annotations

import math
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from one_step import first_step, fitted, gradients, in_other_order, step_on
from torch import nn

from counterpoise.engine import Adam
from counterpoise.fusions import Concat, Gated, Late
from counterpoise.method import Method
from counterpoise.methods.ogm import OGM, OGMGE
from counterpoise.model import MultimodalModel
from counterpoise.testing import assert_same, check_method, trainer_for, trains

NAMES = ("first", "second", "third")


def reference_coefficients(model, step, alpha, ratio="mean", rows=None):
    """Eq. 8 to 10 in float64 with Python floats, from the weights of a concatenation."""
    names, y = model.modalities, step.batch.target
    rows = range(len(y)) if rows is None else rows
    s = {}
    for m in names:
        z = model.encoders[m](step.batch.inputs[m]).detach().double()
        u = z @ model.fusion.blocks[m].weight.detach().double().T + model.fusion.bias.detach().double() / len(names)
        s[m] = sum(math.exp(u[i][y[i]]) / sum(math.exp(v) for v in u[i]) for i in rows)
    k = {}
    for m in names:
        others = [s[m] / s[j] for j in names if j != m]
        rho = sum(others) / len(others) if ratio == "mean" else s[m] / min(s.values())
        k[m] = 1 - math.tanh(alpha * rho) if rho > 1 else 1.0
    return k


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("ratio", ["mean", "weakest"])
def test_encoder_gradients_are_scaled_and_no_others(count, ratio):
    trainer, step = first_step(partial(OGM, alpha=0.3, ratio=ratio), NAMES[:count])
    output, _, found = gradients(trainer, step)
    torch.testing.assert_close(sum(output.unimodal.values()), output.logits, atol=1e-5, rtol=0)
    k = reference_coefficients(trainer.model, step, 0.3, ratio)
    assert min(k.values()) < 1
    plain = gradients(_as(trainer, Method()), step)[2]
    for name, gradient in found.items():
        scale = k[name.split(".")[1]] if name.startswith("encoders") and gradient.ndim >= 2 else 1.0
        torch.testing.assert_close(gradient, scale * plain[name], atol=1e-7, rtol=1e-4)
        if scale == 1.0:
            assert torch.equal(gradient, plain[name])


def _as(trainer, method):
    """The same model under another method."""
    trainer.method = method
    return trainer


def test_it_acts_otherwise():
    joint, ogm = fitted(Method), fitted(OGM)
    assert any(not torch.equal(joint[k], ogm[k]) for k in joint)


def test_window_is_inclusive_at_both_ends():
    acts = []
    for epoch in range(1, 6):
        trainer, step = first_step(partial(OGM, start=2, end=4), epoch=epoch)
        found = gradients(trainer, step)[2]
        plain = gradients(_as(trainer, Method()), step)[2]
        acts.append(any(not torch.equal(found[n], plain[n]) for n in found))
    assert acts == [False, True, True, True, False]


@pytest.mark.parametrize(("scope", "scaled"), [("weights", {4, 2}), ("conv", {4}), ("all", {4, 2, 1})])
def test_scope(scope, scaled):
    torch.manual_seed(0)
    encoders = {
        m: nn.Sequential(
            nn.Unflatten(1, (1, 2, 3)), nn.Conv2d(1, 4, 2), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(8, 5)
        )
        for m in NAMES[:2]
    }
    trainer, step = first_step(partial(OGM, scope=scope))
    trainer.model = step.model = MultimodalModel(encoders, Concat(dict.fromkeys(encoders, 5), 3))
    found = gradients(trainer, step)[2]
    plain = gradients(_as(trainer, Method()), step)[2]
    changed = {p.ndim for n, p in trainer.model.named_parameters() if not torch.equal(found[n], plain[n])}
    assert changed == scaled


def test_noise_on_every_modality_from_the_stream_of_the_step():
    trainer, step = first_step(partial(OGM, alpha=0.5))
    scaled = gradients(trainer, step)[2]
    noisy = []
    for _ in range(2):
        trainer, step = first_step(partial(OGM, alpha=0.5, ge=True))
        noisy.append(gradients(trainer, step)[2])
    plain = gradients(_as(trainer, Method()), step)[2]
    for name, gradient in noisy[0].items():
        assert torch.equal(gradient, noisy[1][name])
        noise = gradient - scaled[name]
        if name.startswith("encoders") and gradient.ndim >= 2:
            spread = noise.std() / plain[name].std()  # of the gradient before it was scaled
            assert 0.5 < spread < 1.6
        else:
            assert not noise.any()


def test_ogmge_is_ogm_with_ge():
    assert_same(fitted(OGMGE), fitted(partial(OGM, ge=True)))
    assert OGMGE(0.3, 1, 2, "weakest", "conv").end == 2


def test_order_of_the_modalities_does_not_matter():
    forward, backward = in_other_order(OGM, NAMES)
    for name, gradient in forward.items():
        torch.testing.assert_close(gradient, backward[name], atol=1e-6, rtol=1e-4)


def test_scores_are_over_complete_samples():
    trainer, step = first_step(partial(OGM, alpha=0.3), absent=0.3)
    complete = torch.stack([step.present(m) for m in NAMES[:2]]).all(0)
    assert 0 < complete.sum() < len(complete)
    found = gradients(trainer, step)[2]
    k = reference_coefficients(trainer.model, step, 0.3, rows=complete.nonzero().flatten().tolist())
    plain = gradients(_as(trainer, Method()), step)[2]
    for m in NAMES[:2]:
        name = f"encoders.{m}.0.weight"
        torch.testing.assert_close(found[name], k[m] * plain[name], atol=1e-7, rtol=1e-4)


def test_nobody_complete_means_no_modulation():
    trainer, step = first_step(OGM)
    first = torch.arange(18) % 2 == 0
    step.batch = step.batch._replace(present={"first": first, "second": ~first})
    found = gradients(trainer, step)[2]
    plain = gradients(_as(trainer, Method()), step)[2]
    assert all(torch.equal(found[n], plain[n]) for n in found)


def test_frozen_parameters_are_left_alone():
    trainer, step = first_step(OGMGE)
    for p in trainer.model.encoders["first"].parameters():
        p.requires_grad_(False)
    found = gradients(trainer, step)[2]
    assert found["encoders.first.0.weight"] is None
    assert found["encoders.second.0.weight"].isfinite().all()


def test_fusions_without_unimodal_logits_are_refused():
    trainer, data = trainer_for(OGM, fusion="Gated")
    with pytest.raises(ValueError, match=r"Use fusion Concat, Sum or Late.*heads=True"):
        trainer.fit(data.train, data.val)


@pytest.mark.parametrize("fusion", [partial(Gated, dim=4), Concat])
def test_heads_beside_the_fusion_learn_to_read_and_teach_nothing(fusion):
    fusion = _with_heads(fusion)
    trainer, step = first_step(partial(OGM, alpha=0), fusion=fusion)
    found = gradients(trainer, step)[2]
    plain = gradients(_as(trainer, Method()), step)[2]
    for name, gradient in found.items():
        if "own_heads" in name:
            assert gradient.abs().max() > 0
            assert plain[name] is None
        else:
            assert torch.equal(gradient, plain[name])
    logits = trainer.model.fusion.own_heads["first"](trainer.model.encoders["first"](step.batch.inputs["first"]))
    weight = trainer.model.fusion.own_heads["first"].weight
    expected = torch.autograd.grad(F.cross_entropy(logits, step.batch.target), weight)[0]
    torch.testing.assert_close(found["fusion.own_heads.first.weight"], expected)


def _with_heads(fusion):
    return lambda dims, classes: fusion(dims, classes, heads=True)


def test_late_heads_are_part_of_the_prediction_and_get_no_second_loss():
    trainer, step = first_step(partial(OGM, alpha=0), fusion=partial(Late, rule="mean", hidden=()))
    found = gradients(trainer, step)[2]
    plain = gradients(_as(trainer, Method()), step)[2]
    assert all(torch.equal(found[n], plain[n]) for n in found)


@pytest.mark.parametrize("method", [OGM, OGMGE])
def test_adam_is_warned_about(method):
    trainer, data = trainer_for(method, optimizer=Adam(lr=1e-3), epochs=1)
    with pytest.warns(UserWarning, match="scales gradients"):
        trainer.fit(data.train, data.val)


@pytest.mark.parametrize("make", [OGM, OGMGE, partial(OGM, start=0, end=0, ratio="weakest")])
def test_trains(make):
    check_method(make, modalities=3, checks=[trains])


def test_zero_gradient_and_one_class_stay_finite():
    trainer, step = first_step(OGMGE)
    rows = (trainer.current.train_split.target == 0).nonzero().flatten()[:6]
    with torch.no_grad():
        trainer.model.fusion.bias[0] = 100.0  # all right with certainty: the loss and its gradient are zero
    step = step_on(trainer, rows)
    _, loss, found = gradients(trainer, step)
    assert loss.item() == 0
    assert all(g.isfinite().all() for g in found.values())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"alpha": -1}, "alpha must be"),
        ({"alpha": math.nan}, "alpha must be"),
        ({"start": 3, "end": 2}, "end must be"),
        ({"ratio": "sum"}, "mean, weakest"),
        ({"scope": "cnv"}, "Did you mean 'conv'"),
    ],
)
def test_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        OGM(**arguments)
