from __future__ import annotations

import itertools
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from one_step import first_step, gradients, in_other_order, step_on

from counterpoise.fusions import Late
from counterpoise.losses import CrossEntropy
from counterpoise.methods.tcmax import TCMax
from counterpoise.testing import check_method, same_on_replicas, trainer_for

NAMES = ("first", "second", "third")
SUMS = ["Concat", "Sum", partial(Late, rule="sum")]


def rows_of(model, step, m):
    return model.encoders[m](step.batch.inputs[m]).double()


def reference(model, step, there, weight):
    """The loss and its gradients in float64, every combination of rows written out; fusion Sum."""
    y = step.batch.target
    u = {}
    for m in model.modalities:
        layer = model.fusion.own_heads[m]
        u[m] = rows_of(model, step, m) @ layer.weight.double().T + layer.bias.double()
    lent = [[j for j in range(len(y)) if there[m][j]] for m in model.modalities]
    every = [sum(u[m][j] for m, j in zip(u, js, strict=True)) for js in itertools.product(*lent)]
    log_z = torch.stack(every).exp().mean().log()
    total = torch.zeros((), dtype=torch.float64)
    for i in range(len(y)):
        f = sum(u[m][i] for m in u if there[m][i])
        complete = all(there[m][i] for m in u)
        total = total + weight[i] * ((log_z if complete else f.exp().sum().log()) - f[y[i]])
    return total / weight.sum()


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("absent", [0.0, 0.4])
@pytest.mark.parametrize("count", [2, 3])
def test_loss_and_gradients_against_the_reference(count, absent, weighted):
    options = {"loss": CrossEntropy(class_weight=[1.0, 3.0, 0.5])} if weighted else {}
    trainer, step = first_step(TCMax, NAMES[:count], "Sum", absent=absent, rows=slice(8, 16), **options)
    everyone = torch.ones(8, dtype=torch.bool)
    there = {m: everyone if step.present(m) is None else step.present(m) for m in NAMES[:count]}
    complete = torch.stack(list(there.values())).all(0)
    assert complete.any()
    assert complete.all() == (absent == 0)
    weight = torch.tensor([1.0, 3.0, 0.5])[step.batch.target] if weighted else torch.ones(8)
    _, loss, found = gradients(trainer, step)
    expected = reference(trainer.model, step, there, weight.double())
    torch.testing.assert_close(loss.double(), expected, atol=1e-6, rtol=1e-5)
    names, parameters = zip(*trainer.model.named_parameters(), strict=True)
    for name, g in zip(names, torch.autograd.grad(expected, parameters), strict=True):
        torch.testing.assert_close(found[name], g, atol=1e-6, rtol=1e-4, msg=name)


@pytest.mark.parametrize("fusion", SUMS)
def test_one_sample_is_joint_training(fusion):
    trainer, step = first_step(TCMax, NAMES[:2], fusion, rows=slice(3, 4))
    _, _, found = gradients(trainer, step)
    trainer.model.zero_grad()
    F.cross_entropy(trainer.model(step.batch.inputs).logits, step.batch.target).backward()
    for name, p in trainer.model.named_parameters():
        torch.testing.assert_close(found[name], p.grad, msg=name)


def test_modalities_may_be_in_any_order():
    forward, backward = in_other_order(TCMax, NAMES, "Sum")
    for name, gradient in forward.items():
        torch.testing.assert_close(gradient, backward[name], atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("fusion", ["Gated", "Late"])
def test_drawn_combinations_against_the_reference(fusion):
    """Where logits do not add up: rows of a stream that starts where the method's does."""
    trainer, step = first_step(partial(TCMax, negatives=7), NAMES, fusion)
    generator = torch.Generator()
    generator.set_state(step.generator.get_state())
    model, y = trainer.model, step.batch.target
    features = {m: model.encoders[m](step.batch.inputs[m]) for m in NAMES}
    rows = {m: torch.randint(18, (7,), generator=generator) for m in NAMES}
    assert len({tuple(r.tolist()) for r in rows.values()}) == 3
    drawn = model.fuse({m: z[rows[m]] for m, z in features.items()}).logits.double()
    expected = drawn.exp().mean().log() - model.fuse(features).logits.double()[range(18), y].mean()
    torch.testing.assert_close(gradients(trainer, step)[1].double(), expected, atol=1e-6, rtol=1e-5)


def test_rows_that_lack_a_modality_are_not_drawn():
    trainer, step = first_step(partial(TCMax, negatives=200), NAMES[:2], "Gated")
    there = torch.arange(18) % 3 > 0
    step.batch = step.batch._replace(present={"first": there})
    fuse, given = step.fuse, []
    step.fuse = lambda features, present=None, **how: given.append(features) or fuse(features, present, **how)
    output = trainer.method(step)
    trainer.method.loss(output, step)
    allowed = {tuple(row.tolist()) for row in output.features["first"][there]}
    assert {tuple(row.tolist()) for row in given[-1]["first"]} == allowed
    assert len({tuple(row.tolist()) for row in given[-1]["second"]}) == 18


@pytest.mark.parametrize("fusion", ["Concat", "Gated"])
def test_a_batch_in_which_nobody_is_complete_is_cross_entropy(fusion):
    trainer, step = first_step(TCMax, NAMES[:2], fusion)
    nobody = torch.zeros(18, dtype=torch.bool)
    step.batch = step.batch._replace(present={"first": nobody})
    output, loss, found = gradients(trainer, step)
    torch.testing.assert_close(loss, F.cross_entropy(output.logits, step.batch.target))
    assert all(g is None or g.isfinite().all() for g in found.values())


def test_one_process_equals_two_where_rows_are_drawn():
    check_method(partial(TCMax, negatives=50), modalities=2, fusion="Gated", checks=[same_on_replicas])


def test_large_logits_stay_finite():
    trainer, _ = first_step(TCMax, NAMES[:2])
    with torch.no_grad():
        for p in trainer.model.fusion.parameters():
            p.mul_(1e4)
    _, loss, found = gradients(trainer, step_on(trainer, torch.arange(18)))
    assert loss.isfinite()
    assert all(g.isfinite().all() for g in found.values())


def test_what_is_predicted_is_the_fused_prediction():
    trainer, data = trainer_for(TCMax)
    trainer.fit(data.train, data.val)
    trainer.model.eval()
    plain = trainer.model({m: data.val.batch(range(len(data.val)), m, None) for m in NAMES[:2]}).logits
    torch.testing.assert_close(trainer.predict(data.val).fused, plain)


def test_settings_out_of_range():
    with pytest.raises(ValueError, match="negatives"):
        TCMax(negatives=0)
