from __future__ import annotations

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from one_step import first_step, in_other_order, step_on

from counterpoise.engine import SGD, Constant
from counterpoise.fusions import Geodesic
from counterpoise.methods import IPRM, Joint
from counterpoise.testing import everything, trainer_for
from multitask import MultiTask

NAMES = ("first", "second", "third")
SINGLE = partial(Geodesic, single=True)


def opened(make, count, fusion=None, names=NAMES, **options):
    """A trainer that can take steps, by plain gradient descent, and its first step."""
    options = {"optimizer": SGD(lr=0.1, momentum=0, weight_decay=0), "schedule": Constant(), **options}
    trainer, step = first_step(make, names[:count], fusion, **options)
    trainer.current.make_optimizer()
    return trainer, step


def after_a_step(model, step, alpha, lam):
    """Parameters and shares after one step, in float64 and from the equations, and the loss."""
    model = model.double()
    y, rows = step.batch.target, torch.arange(len(step.batch.target))
    z = model.encode({m: x.double() for m, x in step.batch.inputs.items()}, None, step.batch.present)
    has = {m: torch.ones_like(y, dtype=torch.bool) if step.present(m) is None else step.present(m) for m in z}
    unit = {m: F.normalize(v, dim=1) for m, v in z.items()}
    own = {m: model.fusion.own_heads[m](v) for m, v in z.items()}
    loss = sum(F.cross_entropy(own[m][has[m]], y[has[m]]) for m in z)
    new = lam.clone()
    for i, (a, b) in enumerate(model.fusion.pairs):
        both = rows[has[a] & has[b]]

        def mixed(share, a=a, b=b, both=both, i=i):
            theta = torch.acos((unit[a] * unit[b])[both].sum(1, keepdim=True))
            ends = torch.sin(share * theta) * unit[a][both], torch.sin((1 - share) * theta) * unit[b][both]
            return model.fusion.mixers[i](sum(ends) / torch.sin(theta))

        p = {m: own[m][both].softmax(1) for m in (a, b)}
        log_f = mixed(lam[i]).log_softmax(1)
        K = {m: (p[m] * (p[m].log() - log_f)).sum(1).mean().detach() for m in (a, b)}
        omega = K[b] / (K[a] + K[b])
        loss = loss + F.cross_entropy(mixed(omega), y[both])
        new[i] = alpha * lam[i] + (1 - alpha) * omega
    params = dict(model.named_parameters())
    grads = torch.autograd.grad(loss, list(params.values()))
    return loss, {n: p - 0.1 * g for (n, p), g in zip(params.items(), grads, strict=True)}, new


@pytest.mark.parametrize("absent", [0.0, 0.4])
@pytest.mark.parametrize("count", [2, 3])
def test_one_step_against_the_reference(count, absent):
    trainer, step = opened(partial(IPRM, alpha=0.6), count, absent=absent)
    fusion = trainer.model.fusion
    fusion.lam.copy_(torch.tensor([0.2, 0.7, 0.4][: len(fusion.pairs)]))
    other, _ = opened(IPRM, count)
    other.model.load_state_dict(trainer.model.state_dict())
    loss = trainer.method.step(step)
    wanted_loss, params, lam = after_a_step(other.model, step, 0.6, fusion.lam.new_tensor([0.2, 0.7, 0.4]).double())
    torch.testing.assert_close(loss.double(), wanted_loss.detach(), atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(fusion.lam.double(), lam[: len(fusion.pairs)], atol=1e-5, rtol=0)
    for name, p in trainer.model.named_parameters():
        torch.testing.assert_close(p.double(), params[name], atol=1e-6, rtol=1e-4, msg=name)


def test_with_alpha_one_the_shares_stay_at_a_half_and_only_batches_are_probed():
    trainer, data = trainer_for(partial(IPRM, alpha=1), epochs=2)
    trainer.fit(data.train, data.val)
    assert torch.equal(trainer.model.fusion.lam, torch.tensor([0.5]))
    joint, data = trainer_for(MultiTask, fusion=partial(Geodesic, heads=True), epochs=2)
    joint.fit(data.train, data.val)
    assert not torch.equal(joint.model.fusion.mixers[0].weight, trainer.model.fusion.mixers[0].weight)


def test_where_no_sample_has_a_pair_its_share_and_layer_rest():
    trainer, step = opened(IPRM, 3)
    step.batch = step.batch._replace(present={"first": torch.arange(18) < 9, "second": torch.arange(18) >= 9})
    start = {n: v.clone() for n, v in everything(trainer).items()}
    trainer.method.step(step)
    index = trainer.model.fusion.pairs.index(("first", "second"))
    lam, before = trainer.model.fusion.lam, start["model.fusion.lam"]
    assert [bool(lam[i] == before[i]) for i in range(3)] == [i == index for i in range(3)]
    assert torch.equal(trainer.model.fusion.mixers[index].weight, start[f"model.fusion.mixers.{index}.weight"])


def test_one_layer_for_all_pairs_is_asked_of_one_pair_per_batch():
    trainer, _ = opened(IPRM, 3, SINGLE)
    moved = set()
    for _ in range(12):
        before = trainer.model.fusion.lam.clone()
        trainer.method.step(step_on(trainer, torch.arange(18)))
        different = (trainer.model.fusion.lam != before).nonzero().flatten().tolist()
        assert len(different) == 1
        moved.update(different)
    assert moved == {0, 1, 2}


def test_the_prediction_sums_and_is_the_modality_where_there_is_one():
    trainer, data = trainer_for(IPRM, NAMES, absent=0.5, epochs=1)
    trainer.fit(data.train, data.val)
    model, method, split = trainer.model.eval(), trainer.method, data.train
    inputs = {m: split.batch(range(len(split)), m, None) for m in NAMES}
    with torch.no_grad():
        output = model(inputs, present=split.present)
        logits = method.predict(output, model)
    has = torch.stack([split.present[m] for m in NAMES])
    for i in range(len(split)):
        own = sum(output.unimodal[m][i] for m in NAMES if split.present[m][i])
        wanted = own + output.logits[i] if has[:, i].sum() > 1 else own
        torch.testing.assert_close(logits[i], wanted)
    alone = method.decide(output, model).unimodal
    assert all(torch.equal(alone[m], output.unimodal[m]) for m in NAMES)


def test_modalities_may_be_in_any_order():
    forward, backward = (opened(IPRM, 3, names=names)[0] for names in (NAMES, NAMES[::-1]))
    backward.model.load_state_dict(forward.model.state_dict())
    backward.current.open(forward.current.train_split, None)
    for trainer in (forward, backward):
        trainer.method.step(step_on(trainer, torch.arange(18)))
    other = backward.model.state_dict()
    for name, value in forward.model.state_dict().items():
        torch.testing.assert_close(value, other[name], atol=1e-6, rtol=1e-5, msg=name)


def test_joint_training_on_the_sphere_has_gradients_everywhere():
    forward, backward = in_other_order(Joint, NAMES, Geodesic)
    for name, gradient in forward.items():
        torch.testing.assert_close(gradient, backward[name], atol=1e-6, rtol=1e-4)


def test_other_fusions_are_refused():
    trainer, data = trainer_for(IPRM, fusion="Concat")
    with pytest.raises(ValueError, match="IPRM mixes features on the sphere; this model has fusion=Concat"):
        trainer.fit(data.train, data.val)


@pytest.mark.parametrize("alpha", [-0.1, 1.1])
def test_settings_out_of_range(alpha):
    with pytest.raises(ValueError, match="alpha must be"):
        IPRM(alpha=alpha)
