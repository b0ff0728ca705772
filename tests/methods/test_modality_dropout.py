from __future__ import annotations

from functools import partial

import pytest
import torch
from one_step import first_step, fitted, gradients, step_on

from counterpoise.functional.dropping import sample_uniform
from counterpoise.method import Method
from counterpoise.methods.modality_dropout import ModalityDropout
from counterpoise.testing import trainer_for

NAMES = ("first", "second", "third")


def masks(step, rates):
    """Who keeps what, from the same stream."""
    generator = torch.Generator().manual_seed(0)
    generator.set_state(step.generator.get_state())
    keep = sample_uniform(step.batch.index, len(rates), generator) >= torch.tensor(rates)
    return keep | ~keep.any(1, keepdim=True)


@pytest.mark.parametrize("fusion", ["Concat", "Late", "Attention", "Gated"])
@pytest.mark.parametrize("count", [2, 3])
def test_each_sample_is_predicted_from_what_it_keeps(count, fusion):
    names = NAMES[:count]
    trainer, step = first_step(partial(ModalityDropout, p=0.5), names, fusion)
    keep = masks(step, [0.5] * count)
    assert not keep.all()
    output, loss, _ = gradients(trainer, step)
    losses = []
    for i, row in enumerate(keep):
        z = {
            m: trainer.model.encoders[m](step.batch.inputs[m][i : i + 1]) for m, k in zip(names, row, strict=True) if k
        }
        logits = trainer.model.fuse(z).logits
        torch.testing.assert_close(output.logits[i : i + 1], logits, atol=1e-5, rtol=1e-4)
        losses.append(torch.nn.functional.cross_entropy(logits, step.batch.target[i : i + 1]))
    torch.testing.assert_close(loss, torch.stack(losses).mean())


def test_hidden_samples_give_their_encoder_no_gradient():
    trainer, step = first_step(partial(ModalityDropout, p={"second": 0.999}))
    assert not masks(step, [0.0, 0.999])[:, 1].any()
    found = gradients(trainer, step)[2]
    assert not any(g.any() for n, g in found.items() if n.startswith("encoders.second"))
    assert found["encoders.first.0.weight"].any()


def test_it_acts_otherwise():
    joint, dropped = fitted(Method), fitted(ModalityDropout)
    assert any(not torch.equal(joint[k], dropped[k]) for k in joint)


def test_rates_are_those_asked_for_and_new_in_every_batch():
    trainer, step = first_step(partial(ModalityDropout, p=0.3), rows=slice(0, 54))
    hidden = []
    for _ in range(60):
        step.generator.manual_seed(len(hidden))
        keep = masks(step, [0.3, 0.3])
        hidden.append((~keep).float().mean())
    assert torch.stack(hidden).mean().item() == pytest.approx(0.3 - 0.3**2, abs=0.02)  # minus those who lost both
    first = trainer.method(step).logits
    assert not torch.equal(first, trainer.method(step).logits)


def test_a_sample_keeps_the_only_modality_it_has():
    trainer, step = first_step(partial(ModalityDropout, p=0.9), absent=0.4)
    output, _, found = gradients(trainer, step)
    assert (output.logits - trainer.model.fusion.bias).abs().sum(1).min() > 0
    assert all(g.isfinite().all() for g in found.values())


def test_evaluation_hides_nothing():
    trainer, data = trainer_for(partial(ModalityDropout, p=0.9))
    trainer.fit(data.train, data.val)
    trainer.model.eval()
    plain = trainer.model({m: data.val.batch(range(len(data.val)), m, None) for m in NAMES[:2]}).logits
    torch.testing.assert_close(trainer.predict(data.val).fused, plain)


def test_one_class_stays_finite():
    trainer, _ = first_step(ModalityDropout)
    step = step_on(trainer, (trainer.current.train_split.target == 0).nonzero().flatten()[:6])
    assert all(g.isfinite().all() for g in gradients(trainer, step)[2].values())


def test_arguments():
    with pytest.raises(ValueError, match="p must be"):
        ModalityDropout(p=1.0)
    with pytest.raises(ValueError, match=r"p\['first'\] must be"):
        ModalityDropout(p={"first": -0.1})
    trainer, data = trainer_for(partial(ModalityDropout, p={"secnd": 0.1}))
    with pytest.raises(ValueError, match="Did you mean 'second'"):
        trainer.fit(data.train, data.val)
