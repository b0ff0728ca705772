from __future__ import annotations

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from one_step import first_step, fitted, gradients
from torch import nn

from counterpoise.fusions import Gated
from counterpoise.losses import CrossEntropy
from counterpoise.method import Method
from counterpoise.methods.cml import CML
from counterpoise.testing import trainer_for

NAMES = ("first", "second", "third")


def mean(values, weight):
    return (values * weight).sum() / weight.sum().clamp(min=1e-12)


def reference(model, step, order, weight, lam):
    """Loss in float64 from the weights of a model in float64."""
    y, present = step.batch.target, step.batch.present
    z = model.encode({m: x.double() for m, x in step.batch.inputs.items()}, None, present)
    everyone = torch.ones(len(y), dtype=torch.bool)
    left, logits, rows = list(model.modalities), [], []
    for gone in [None, *order[:-1]]:
        left = [m for m in left if m != gone]
        logits.append(model.fuse({m: z[m] for m in left}, present).logits)
        rows.append(torch.stack([everyone if present is None else present[m] for m in left]).any(0))
    cls = sum(mean(F.cross_entropy(f, y, reduction="none"), weight * r) for f, r in zip(logits, rows, strict=True))
    reg = 0
    for k in range(len(logits) - 1):
        for i in range(len(y)):
            (p, q), right = (logits[k][i].softmax(0), logits[k + 1][i].softmax(0)), y[i]
            deserved = q.argmax() == right and p.argmax() != right
            if rows[k + 1][i] and not deserved:
                reg = reg + weight[i] * max(q.max() - p.max(), 0) / (weight * rows[k + 1]).sum()
    return cls / len(logits) + lam * reg


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("absent", [0.0, 0.4])
@pytest.mark.parametrize(("count", "fusion"), [(2, "Concat"), (3, "Late"), (3, partial(Gated, dim=4))])
def test_loss_and_gradients_against_the_reference(count, fusion, absent, weighted):
    options = {"loss": CrossEntropy(class_weight=[1.0, 3.0, 0.5])} if weighted else {}
    trainer, step = first_step(partial(CML, lam=1.5), NAMES[:count], fusion, absent=absent, **options)
    with torch.no_grad():
        for i, p in enumerate(trainer.model.fusion.parameters()):  # so that modalities contradict each other
            p.mul_(-5 if i % 2 else 4)
    generator = torch.Generator()
    generator.set_state(step.generator.get_state())
    order = [NAMES[i] for i in torch.randperm(count, generator=generator)]
    _, loss, found = gradients(trainer, step)
    model = trainer.model.double()
    weight = torch.tensor([1.0, 3.0, 0.5] if weighted else [1.0] * 3).double()[step.batch.target]
    expected = reference(model, step, order, weight, 1.5)
    torch.testing.assert_close(loss.double(), expected, atol=1e-5, rtol=1e-4)
    assert float((loss - reference(model, step, order, weight, 0.0)).detach()) > 1e-3  # the penalty is not 0
    names, parameters = zip(*model.named_parameters(), strict=True)
    grads = torch.autograd.grad(expected, parameters, allow_unused=True)
    for name, g in zip(names, grads, strict=True):
        assert (g is None) == (found[name] is None)
        if g is not None:
            torch.testing.assert_close(found[name].double(), g, atol=1e-5, rtol=1e-3, msg=name)


def test_oracle():
    """Cross-entropies of the chain and the penalty make the loss of the worked example."""
    assert pytest.approx(0.8114044454) == 0.8069733274 + 0.1 * 0.0443111796


def test_the_order_is_drawn_for_every_batch():
    trainer, step = first_step(CML, NAMES)
    fuse, seen = step.fuse, set()

    def watched(features, present=None, **how):
        seen.add(tuple(features))
        return fuse(features, present, **how)

    step.fuse = watched
    output = step.forward()
    for _ in range(40):
        trainer.method.loss(output, step)
    alone, pairs = {s for s in seen if len(s) == 1}, {s for s in seen if len(s) == 2}
    assert len(alone) == len(pairs) == 3


@pytest.mark.parametrize("arguments", [{"lam": 0}, {"lam": 5, "subset_loss": False}, {"lam": 5, "hold_wrong": True}])
def test_each_term_acts(arguments):
    other = fitted(partial(CML, lam=5)) if "hold_wrong" in arguments else fitted(Method)
    mine = fitted(partial(CML, **arguments))
    assert any(not torch.equal(other[k], mine[k]) for k in other)


def test_nobody_left_stays_finite():
    trainer, step = first_step(CML, NAMES[:2])
    step.batch = step.batch._replace(present={"first": torch.zeros(18, dtype=torch.bool)})
    for _ in range(4):  # whichever goes first
        _, loss, found = gradients(trainer, step)
        assert loss.isfinite()
        assert all(g is None or g.isfinite().all() for g in found.values())


def test_statistics_of_a_fusion_move_once_a_step():
    class Normed(Gated):
        def __init__(self, dims, num_classes):
            super().__init__(dims, num_classes, dim=4)
            self.norm = nn.BatchNorm1d(4)

        def fuse(self, features, present):
            return self.classify(self.norm(torch.stack([self.values[m](z) for m, z in features.items()]).sum(0)))

        def split(self, features, present):
            return {m: z.new_zeros(len(z), self.num_classes) for m, z in features.items()}

    trainer, step = first_step(CML, NAMES, Normed)
    gradients(trainer, step)
    assert int(trainer.model.fusion.norm.num_batches_tracked) == 1


def test_settings_out_of_range():
    with pytest.raises(ValueError, match="lam must be"):
        CML(lam=-1)


def test_evaluation_is_as_usual():
    trainer, data = trainer_for(CML)
    trainer.fit(data.train, data.val)
    trainer.model.eval()
    plain = trainer.model({m: data.val.batch(range(len(data.val)), m, None) for m in NAMES[:2]}).logits
    torch.testing.assert_close(trainer.predict(data.val).fused, plain)
