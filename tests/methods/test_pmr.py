from __future__ import annotations

import math
from functools import partial

import pytest
import torch
from one_step import first_step, fitted, gradients, in_other_order, step_on

from counterpoise.method import Method
from counterpoise.methods.pmr import PMR
from counterpoise.testing import check_method, trainer_for, trains

NAMES = ("first", "second", "third")


def ready(make=PMR, modalities=NAMES[:2], fusion=None, **options):
    """A step after the prototypes were computed."""
    trainer, step = first_step(make, modalities, fusion, **options)
    trainer.method.on_epoch_start(trainer.current)
    return trainer, step


def reference(trainer, step, alpha, mu, early):
    """Eq. 7 to 13 (M >= 2) in float64 with Python floats: the terms that are added to the cross-entropy."""
    y = step.batch.target.tolist()
    names, q = trainer.model.modalities, {}
    for m in names:
        h = trainer.model.encoders[m](step.batch.inputs[m]).double().tolist()
        c = trainer.method.get_buffer(f"prototypes_{m}").double().tolist()
        q[m] = []
        for x in h:
            e = [math.exp(-math.dist(x, k)) for k in c]
            q[m].append([v / sum(e) for v in e])
    s = {m: sum(q[m][i][k] for i, k in enumerate(y)) for m in names}
    added = 0.0
    for m in names:
        beta = min(max(max(s.values()) / s[m] - 1, 0), 1)
        gamma = min(max(s[m] / min(s.values()) - 1, 0), 1)
        pce = sum(-math.log(q[m][i][k]) for i, k in enumerate(y)) / len(y)
        entropy = sum(-sum(v * math.log(v) for v in row) for row in q[m]) / len(y)
        added += alpha * beta * pce - (mu * gamma * entropy if early else 0.0)
    return added


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("epoch", [0, 4, 5])
def test_loss(count, epoch):
    trainer, step = ready(partial(PMR, alpha=2.0, mu=0.5), NAMES[:count], epoch=epoch)
    _, loss, _ = gradients(trainer, step)
    plain = step.criterion(step.forward().logits)
    added = reference(trainer, step, 2.0, 0.5, early=epoch < 5)
    assert abs(added) > 1e-3
    assert (loss - plain).item() == pytest.approx(added, abs=1e-5)


def test_prototypes_are_class_means_of_the_part():
    trainer, _ = ready(partial(PMR, fraction=0.5, momentum=0.25))
    part, method = trainer.current.train_split.subset(trainer.method._rows), trainer.method
    assert part.target.bincount().tolist() == [9, 9, 9]
    trainer.model.eval()
    for m in NAMES[:2]:
        z = trainer.model.encoders[m](part.batch(range(len(part)), m, None)).detach()
        means = torch.stack([z[part.target == k].mean(0) for k in range(3)])
        torch.testing.assert_close(method.get_buffer(f"prototypes_{m}"), means)  # no momentum the first time
        assert method.get_buffer(f"seen_{m}").all()
    old = method.get_buffer("prototypes_first").clone()
    with torch.no_grad():
        trainer.model.encoders["first"][3].bias += 1.0
    method.on_epoch_start(trainer.current)
    torch.testing.assert_close(method.get_buffer("prototypes_first"), old + 0.75)


@pytest.mark.parametrize(("momentum", "moved"), [(0.0, 1.0), (1.0, 0.0)])
def test_momentum_ends(momentum, moved):
    trainer, _ = ready(partial(PMR, momentum=momentum))
    old = trainer.method.get_buffer("prototypes_second").clone()
    with torch.no_grad():
        trainer.model.encoders["second"][3].bias += 1.0
    trainer.method.on_epoch_start(trainer.current)
    torch.testing.assert_close(trainer.method.get_buffer("prototypes_second"), old + moved)


def without(trainer, label):
    """No sample of a class in the part that prototypes are of."""
    rows = trainer.method._rows
    trainer.method._rows = rows[trainer.current.train_split.target[rows] != label]


def test_a_class_without_samples_keeps_its_prototype():
    trainer, _ = ready()
    old = trainer.method.get_buffer("prototypes_first").clone()
    without(trainer, 1)
    with torch.no_grad():
        trainer.model.encoders["first"][3].bias += 1.0
    trainer.method.on_epoch_start(trainer.current)
    new = trainer.method.get_buffer("prototypes_first")
    assert torch.equal(new[1], old[1])
    assert (new[[0, 2]] != old[[0, 2]]).any(1).all()


def test_a_class_never_seen_takes_no_part():
    trainer, step = first_step(PMR)
    without(trainer, 1)
    trainer.method.on_epoch_start(trainer.current)
    assert trainer.method.get_buffer("seen_first").tolist() == [True, False, True]
    _, loss, found = gradients(trainer, step)
    assert 0 < loss.item() < 20  # a sample of that class would add the distance to a prototype at infinity
    assert all(g.isfinite().all() for g in found.values())


def test_prototype_losses_reach_their_own_encoder_only():
    trainer, step = ready(partial(PMR, alpha=2.0, mu=0.1))
    found = gradients(trainer, step)[2]
    method, trainer.method = trainer.method, Method()
    plain = gradients(trainer, step)[2]
    changed = {n for n in found if not torch.equal(found[n], plain[n])}
    assert changed
    assert all(n.startswith("encoders") for n in changed)
    assert not any(b.requires_grad for b in method.buffers())
    trainer.method = partial(PMR, alpha=2.0, mu=0.0)()
    trainer.method.setup(trainer.current)
    trainer.method.on_epoch_start(trainer.current)
    found = gradients(trainer, step)[2]
    changed = {n.split(".")[1] for n in found if not torch.equal(found[n], plain[n])}
    assert len(changed) == 1  # the weaker one


def test_released_rule_switches_and_has_no_entropy():
    trainer, step = ready(partial(PMR, alpha=2.0, mu=100.0, rule="switch"))
    _, loss, _ = gradients(trainer, step)
    plain = step.criterion(step.forward().logits)
    y, pce, s = step.batch.target, {}, {}
    for m in NAMES[:2]:
        z = trainer.model.encoders[m](step.batch.inputs[m]).detach()
        c = trainer.method.get_buffer(f"prototypes_{m}")
        q = (-(z[:, None] - c[None]).norm(dim=2)).softmax(1)[torch.arange(len(y)), y]
        pce[m], s[m] = -q.log().mean(), q.sum()
    weaker = min(s, key=lambda m: s[m].item())
    torch.testing.assert_close(loss - plain, 2.0 * pce[weaker], atol=1e-5, rtol=1e-4)


def test_it_acts_otherwise():
    joint, pmr = fitted(Method), fitted(PMR)
    assert any(not torch.equal(joint[k], pmr[k]) for k in joint)


def test_batch_statistics_are_left_alone_by_the_prototypes():
    trainer, data = trainer_for(PMR)
    trainer.current.open(data.train, data.val)
    trainer.method.setup(trainer.current)
    before = {k: v.clone() for k, v in trainer.model.state_dict().items()}
    trainer.method.on_epoch_start(trainer.current)
    assert all(torch.equal(v, before[k]) for k, v in trainer.model.state_dict().items())
    assert trainer.model.training


def test_order_of_the_modalities_does_not_matter():
    forward, backward = in_other_order(partial(PMR, alpha=2.0, mu=0.5), NAMES)
    for name, gradient in forward.items():
        torch.testing.assert_close(gradient, backward[name], atol=1e-6, rtol=1e-4)


def test_absent_samples_are_in_no_prototype_and_no_loss():
    trainer, step = ready(partial(PMR, fraction=1.0), absent=0.3)
    split = trainer.current.train_split
    assert len(trainer.method._rows) == len(split)
    trainer.model.eval()
    z = trainer.model.encoders["second"](split.batch(range(len(split)), "second", None)).detach()
    rows = (split.target == 0) & split.present["second"]
    torch.testing.assert_close(trainer.method.get_buffer("prototypes_second")[0], z[rows].mean(0))
    trainer.method.mu = 0.0
    _, loss, _ = gradients(trainer, step)
    y, there, nll = step.batch.target, torch.stack([step.present(m) for m in NAMES[:2]]), {}
    for m in NAMES[:2]:
        z = trainer.model.encoders[m](step.batch.inputs[m]).detach()
        distance = (z[:, None] - trainer.method.get_buffer(f"prototypes_{m}")[None]).norm(dim=2)
        nll[m] = -(-distance).log_softmax(1)[torch.arange(len(y)), y]
    s = [(-nll[m][there.all(0)]).exp().sum() for m in NAMES[:2]]  # compared on complete samples
    added = sum(
        (max(s) / own - 1).clamp(0, 1) * nll[m][here].mean() for m, own, here in zip(NAMES, s, there, strict=False)
    )
    assert added > 1e-3
    torch.testing.assert_close(loss - step.criterion(step.forward().logits), added, atol=1e-5, rtol=1e-4)


def test_nobody_complete_means_the_plain_loss():
    trainer, step = ready()
    first = torch.arange(18) % 2 == 0
    step.batch = step.batch._replace(present={"first": first, "second": ~first})
    _, loss, _ = gradients(trainer, step)
    assert loss.item() == step.criterion(step.forward().logits).item()


def test_features_on_their_prototypes_and_one_class_stay_finite():
    trainer, _ = ready()
    with torch.no_grad():
        for m in NAMES[:2]:
            for p in trainer.model.encoders[m].parameters():
                p.zero_()
    trainer.method.on_epoch_start(trainer.current)
    step = step_on(trainer, (trainer.current.train_split.target == 0).nonzero().flatten()[:6])
    _, loss, found = gradients(trainer, step)
    assert loss.isfinite()
    assert all(g.isfinite().all() for g in found.values())


@pytest.mark.parametrize("make", [PMR, partial(PMR, rule="switch", momentum=0.0)])
def test_trains(make):
    check_method(make, modalities=3, fusion="FiLM", checks=[trains])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"alpha": -1}, "alpha must be"),
        ({"mu": -1}, "mu must be"),
        ({"momentum": 1.5}, "momentum must be"),
        ({"fraction": 0}, "fraction must be"),
        ({"rule": "clipp"}, "Did you mean 'clip'"),
    ],
)
def test_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        PMR(**arguments)
