from __future__ import annotations

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from one_step import first_step, fit_to_the_last, gradients, in_other_order, step_on
from torch import nn

from counterpoise.build import build_model
from counterpoise.data.arrays import from_arrays
from counterpoise.engine import SGD, AdamW, Step, Trainer
from counterpoise.fusions import Gated
from counterpoise.methods.dgl import DGL
from counterpoise.testing import trainer_for
from counterpoise.types import Batch

NAMES = ("first", "second", "third")
X = {"a": [[1.0, 2], [0, 1]], "v": [[1.0, -1], [2, 0]]}
ENCODERS = {"a": [[0.5, 0], [0.1, 0.3]], "v": [[0.2, -0.4], [0, 0.6]]}
BLOCKS = {"a": [[0.3, -0.2], [0.1, 0.4]], "v": [[-0.1, 0.2], [0.5, 0]]}
GRADIENTS = {
    "encoders.a.weight": [[-0.1920042639, -0.1620968338], [0.5760127918, 0.4862905015]],
    "encoders.v.weight": [[-0.6718085147, -0.6239872082], [0.2239361716, 0.2079957361]],
    "fusion.blocks.a.weight": [[-0.1496719150, -0.1352906560], [0.1496719150, 0.1352906560]],
    "fusion.blocks.v.weight": [[-0.0806062647, 0.1796062980], [0.0806062647, -0.1796062980]],
    "fusion.bias": [-0.0518437467, 0.0518437467],
}


@pytest.mark.parametrize("names", ["av", "va"])
def test_oracle(names):
    inputs = {m: torch.tensor(X[m]).repeat(8, 1) for m in names}
    target = torch.tensor([0, 1])
    data = from_arrays(inputs, target.repeat(8), val=0.25, test=0.25)
    model = build_model({m: nn.Linear(2, 2, bias=False) for m in names}, num_classes=2, example=data.train)
    with torch.no_grad():
        for m in names:
            model.encoders[m].weight.copy_(torch.tensor(ENCODERS[m]))
            model.fusion.blocks[m].weight.copy_(torch.tensor(BLOCKS[m]))
        model.fusion.bias.copy_(torch.tensor([0.1, -0.3]))
    trainer = Trainer(model, DGL(alpha=4), epochs=1, batch_size=2, progress=False, accelerator="cpu")
    trainer.current.open(data.train, data.val)
    batch = Batch({m: torch.tensor(X[m]) for m in names}, target, torch.arange(2))
    _, loss, found = gradients(trainer, Step(trainer.current, batch, 0, 1))
    assert loss.item() == pytest.approx(4 * 1.4867113633 + 0.7981062161, abs=1e-5)
    for name, g in found.items():
        torch.testing.assert_close(g, torch.tensor(GRADIENTS[name]), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("absent", [0.0, 0.4])
@pytest.mark.parametrize("fusion", ["Concat", "Sum", "Late", partial(Gated, dim=4, heads=True)])
def test_gradients_against_the_reference(fusion, absent):
    """Two backward passes in float64, of which each reaches what it may and no more."""
    trainer, step = first_step(partial(DGL, alpha=2.5), NAMES, fusion, absent=absent)
    _, loss, found = gradients(trainer, step)
    model, y = trainer.model.double(), step.batch.target
    z = model.encode({m: x.double() for m, x in step.batch.inputs.items()}, None, step.batch.present)
    everyone = torch.ones(len(y), dtype=torch.bool)
    own = torch.zeros((), dtype=torch.float64)
    for m in NAMES:
        rows = everyone if step.present(m) is None else step.present(m)
        own = own + F.cross_entropy(model.fuse({m: z[m][rows]}).logits, y[rows])
    fused = F.cross_entropy(model.fuse({m: f.detach() for m, f in z.items()}, step.batch.present).logits, y)
    torch.testing.assert_close(loss.double(), 2.5 * own.detach() + fused.detach(), atol=1e-6, rtol=1e-5)
    for name, p in model.named_parameters():
        of = 2.5 * own if name.startswith("encoders.") else fused
        (g,) = torch.autograd.grad(of, p, retain_graph=True, allow_unused=True)
        if g is None:
            assert found[name] is None, name
        else:
            torch.testing.assert_close(found[name].double(), g, atol=1e-6, rtol=1e-4, msg=name)


def test_the_fusion_does_not_know_alpha_and_encoders_are_linear_in_it():
    found = {}
    for alpha in (1.0, 3.0):
        trainer, step = first_step(partial(DGL, alpha=alpha), NAMES)
        found[alpha] = gradients(trainer, step)[2]
    for name, one in found[1.0].items():
        factor = 3 if name.startswith("encoders.") else 1
        torch.testing.assert_close(found[3.0][name], factor * one, atol=1e-7, rtol=1e-5)


def test_what_an_encoder_learns_does_not_depend_on_the_other_inputs():
    trainer, step = first_step(DGL, NAMES)
    before = gradients(trainer, step)[2]
    inputs = {m: x if m == "first" else x + 3 for m, x in step.batch.inputs.items()}
    step.batch = step.batch._replace(inputs=inputs)
    after = gradients(trainer, step)[2]
    assert torch.equal(before["encoders.first.0.weight"], after["encoders.first.0.weight"])
    assert not torch.equal(before["encoders.second.0.weight"], after["encoders.second.0.weight"])


@pytest.mark.parametrize("optimizer", [SGD(lr=0.05, momentum=0.9, weight_decay=0.1), AdamW(lr=0.01, weight_decay=0.1)])
def test_alpha_zero_trains_the_fusion_alone(optimizer):
    trainer, data = trainer_for(partial(DGL, alpha=0), optimizer=optimizer, norm=False)
    start = {n: p.detach().clone() for n, p in trainer.model.named_parameters()}
    fit_to_the_last(trainer, data)
    for name, p in trainer.model.named_parameters():
        assert torch.equal(p, start[name]) == name.startswith("encoders."), name


@pytest.mark.parametrize("optimizer", [SGD(lr=0.05, momentum=0.9, weight_decay=0.1), AdamW(lr=0.01, weight_decay=0.1)])
def test_the_encoder_of_a_modality_that_nobody_has_rests(optimizer):
    trainer, step = first_step(DGL, NAMES, optimizer=optimizer)
    trainer.current.make_optimizer()
    trainer.method.step(step_on(trainer, torch.arange(18)))  # momentum
    start = {n: p.detach().clone() for n, p in trainer.model.named_parameters()}
    step.batch = step.batch._replace(present={"second": torch.zeros(18, dtype=torch.bool)})
    trainer.method.step(step)
    for name, p in trainer.model.encoders.named_parameters():
        assert torch.equal(p, start[f"encoders.{name}"]) == name.startswith("second."), name


def test_modalities_may_be_in_any_order():
    forward, backward = in_other_order(DGL, NAMES)
    for name, gradient in forward.items():
        torch.testing.assert_close(gradient, backward[name], atol=1e-6, rtol=1e-4)


def test_statistics_of_a_fusion_move_once_a_step():
    class Normed(Gated):
        def __init__(self, dims, num_classes):
            super().__init__(dims, num_classes, dim=4)
            self.norm = nn.BatchNorm1d(4)

        def fuse(self, features, present):
            h = torch.stack([self.values[m](z) for m, z in features.items()]).sum(0)
            return self.classify(self.norm(h))

        def split(self, features, present):
            return {m: z.new_zeros(len(z), self.num_classes) for m, z in features.items()}

    trainer, step = first_step(DGL, NAMES[:2], Normed)
    gradients(trainer, step)
    assert int(trainer.model.fusion.norm.num_batches_tracked) == 1


def test_settings_out_of_range():
    with pytest.raises(ValueError, match="alpha"):
        DGL(alpha=-1)
