from __future__ import annotations

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from one_step import first_step, fitted, gradients, step_on

from counterpoise.methods.amco import AMCo
from counterpoise.testing import trainer_for
from multitask import MultiTask

NAMES = ("first", "second", "third")


def flagged(make, names, flags, fusion="Concat", **options):
    """A step near the end of training at which these modalities are depended on."""
    trainer, step = first_step(make, names, fusion, **{"epoch": 3, **options})
    trainer.method.dependent.copy_(torch.tensor(flags))
    return trainer, step


@pytest.mark.parametrize(("epoch", "hidden"), [(0, 0), (1, 2), (2, 4), (3, 5)])
@pytest.mark.parametrize("flags", [(True, False), (False, False), (True, True), (True, False, True)])
def test_features_and_loss_against_the_reference(flags, epoch, hidden):
    """Masks over 3 of 4 epochs: sin(pi / 6 e) of 5 entries, floored; the stream is that of the step."""
    names = NAMES[: len(flags)]
    trainer, step = flagged(partial(AMCo, eps=0.75), names, flags, epoch=epoch)
    generator = torch.Generator()
    generator.set_state(step.generator.get_state())
    model, y = trainer.model, step.batch.target
    expected, own = model.fusion.bias.detach().double(), torch.zeros((), dtype=torch.float64)
    for m, flag in zip(names, flags, strict=True):
        kept = torch.randperm(5, generator=generator) >= hidden
        z = model.encoders[m](step.batch.inputs[m]).detach().double()
        z = torch.where(kept, z, 0.0) if flag else z
        part = z @ model.fusion.blocks[m].weight.detach().double().T
        expected = expected + part
        own = own + F.cross_entropy(part + model.fusion.bias.detach().double() / len(names), y)
    output, loss, found = gradients(trainer, step)
    torch.testing.assert_close(output.logits.double(), expected, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(loss.double(), F.cross_entropy(expected, y) + own, atol=1e-5, rtol=1e-4)
    for m, flag in zip(names, flags, strict=True):
        nothing_left = flag and hidden == 5
        assert found[f"encoders.{m}.3.weight"].any() != nothing_left


def test_flags_follow_the_dependence():
    trainer, step = first_step(AMCo, NAMES)
    with torch.no_grad():
        trainer.model.fusion.bias.zero_()
        trainer.model.fusion.blocks["second"].weight.mul_(20)
    output, _, _ = gradients(trainer, step)
    whole = torch.cat([u.detach().double() for u in output.unimodal.values()], 1).softmax(1)
    shares = [float(whole[:, 3 * i : 3 * i + 3].sum(1).mean()) for i in range(3)]
    assert trainer.method.dependent.tolist() == [share > 1 / 3 for share in shares] == [False, True, False]
    for m, share in zip(NAMES, shares, strict=True):
        assert float(trainer.current.totals[f"{m}/dependence"][0]) == pytest.approx(share, rel=1e-4)


def test_a_tie_is_not_depended_on():
    trainer, step = first_step(AMCo, NAMES[:2])
    with torch.no_grad():
        for p in trainer.model.fusion.parameters():
            p.zero_()
    gradients(trainer, step)
    assert trainer.method.dependent.tolist() == [False, False]


@pytest.mark.parametrize("sigma", [0.45, 0.55])
def test_sigma_is_the_threshold(sigma):
    trainer, step = first_step(partial(AMCo, sigma=sigma), NAMES[:2])
    gradients(trainer, step)
    assert trainer.method.dependent.all() == (sigma < 0.5)


def test_dependence_is_of_complete_rows_and_stays_where_there_are_none():
    trainer, step = flagged(AMCo, NAMES[:2], (True, False))
    first = torch.arange(18) % 2 == 0
    step.batch = step.batch._replace(present={"first": first, "second": ~first})
    gradients(trainer, step)
    assert trainer.method.dependent.tolist() == [True, False]
    trainer, step = first_step(AMCo, NAMES[:2], absent=0.3)
    output, _, _ = gradients(trainer, step)
    complete = torch.stack(list(step.batch.present.values())).all(0)
    assert 0 < complete.sum() < 18
    whole = torch.cat([u.detach() for u in output.unimodal.values()], 1).softmax(1)[complete]
    expected = float(whole[:, :3].sum(1).mean())
    assert float(trainer.current.totals["first/dependence"][0]) == pytest.approx(expected, rel=1e-4)


def test_masks_grow_within_an_epoch():
    trainer, _ = flagged(partial(AMCo, eps=1.0), NAMES[:2], (True, False), epoch=0)
    step = step_on(trainer, torch.arange(18))
    step.index, step.num_batches = 3, 4
    z = trainer.method(step).features["first"]
    assert int((z == 0).all(0).sum()) == 1  # floor(5 sin(pi/2 * 3/16))


def test_a_cap_leaves_something():
    trainer, step = flagged(partial(AMCo, cap=0.5), NAMES[:2], (True, False))
    z = trainer.method(step).features["first"]
    assert int((z == 0).all(0).sum()) == 2


def test_it_acts_otherwise():
    plain, mine = fitted(MultiTask), fitted(AMCo)
    assert any(not torch.equal(plain[k], mine[k]) for k in plain)


def test_evaluation_hides_nothing():
    trainer, data = trainer_for(AMCo)
    trainer.fit(data.train, data.val)
    trainer.method.dependent.fill_(True)
    trainer.model.eval()
    plain = trainer.model({m: data.val.batch(range(len(data.val)), m, None) for m in NAMES[:2]}).logits
    torch.testing.assert_close(trainer.predict(data.val).fused, plain)


@pytest.mark.parametrize("arguments", [{"sigma": 0}, {"eps": 0}, {"eps": 1.5}, {"cap": 2}])
def test_settings_out_of_range(arguments):
    with pytest.raises(ValueError, match=f"{next(iter(arguments))} must be"):
        AMCo(**arguments)
