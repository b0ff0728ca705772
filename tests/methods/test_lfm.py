import copy
import math
from itertools import combinations

import pytest
import torch
from torch import nn

from counterpoise.build import build_model
from counterpoise.engine import Trainer
from counterpoise.methods.joint import Joint
from counterpoise.methods.lfm import LFM
from counterpoise.testing import CHECKS, CLASSES, NAMES, assert_same, check_method, task, trainer_for

TWO, THREE = NAMES[:2], NAMES[:3]


def fitted(make, names=TWO, **options):
    trainer, data = trainer_for(make, names, **{"fusion": "Sum", **options})
    trainer.fit(data.train, data.val)
    return trainer


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("schedule", ["heuristic", "learned"])
def test_contract(check, schedule):
    check_method(lambda: LFM(schedule, alpha=0.5), modalities=2, checks=[check])


def test_alpha_one_tells_the_heads_nothing_of_the_labels():
    start, _ = trainer_for(Joint, TWO, "Sum")
    trainer = fitted(lambda: LFM("constant", alpha=1.0))
    for m in TWO:
        for a, b in zip(start.model.head_of(m).parameters(), trainer.model.head_of(m).parameters(), strict=True):
            assert torch.equal(a, b)
    moved = zip(start.model.encoders.parameters(), trainer.model.encoders.parameters(), strict=True)
    assert any(not torch.equal(a, b) for a, b in moved)


def reference(output, target, alpha, tau):
    """The loss in float64, written out."""
    total = nn.functional.cross_entropy(output.logits.double(), target) * (1 - alpha)
    pairs = list(combinations(output.features, 2))
    for a, b in pairs:
        s = [[torch.cosine_similarity(x, y, dim=0) / tau for y in output.features[b].double()] for x in
             output.features[a].double()]  # fmt: skip
        s = torch.stack([torch.stack(row) for row in s])
        n = len(s)
        ask = sum(s[i, i] - s[i].exp().sum().log() for i in range(n))
        answer = sum(s[i, i] - s[:, i].exp().sum().log() for i in range(n))
        total = total - alpha * (ask + answer) / (2 * n) / len(pairs)
    return total


@pytest.mark.parametrize("names", [TWO, THREE])
def test_heuristic_loss_against_the_reference(names):
    epochs = []

    class Checked(LFM):
        def loss(self, output, step):
            total = super().loss(output, step)
            if step.index == 0:
                epochs.append(step.epoch)
                alpha = 1 - math.exp(-1 / (step.epoch + 1))
                expected = reference(output, step.batch.target, alpha, self.tau)
                torch.testing.assert_close(total.double(), expected, rtol=1e-5, atol=1e-6)
            return total

    fitted(lambda: Checked(tau=0.5), names, epochs=3)
    assert epochs == [0, 1, 2]


def test_learned_weight_follows_the_look_ahead():
    """The first move of alpha, rebuilt with plain autograd."""
    checked = []

    class Checked(LFM):
        def _learn(self, step):
            before, model = self.weight.clone(), copy.deepcopy(step.model)
            super()._learn(step)
            assert_same(model.state_dict(), step.model.state_dict())  # statistics, too
            if checked:
                return
            params = [p for p in model.parameters() if p.requires_grad]
            output = model(step.batch.inputs)
            cls = nn.functional.cross_entropy(output.logits, step.batch.target)
            align = (reference(output, step.batch.target, 1.0, self.tau)).float()
            held = nn.functional.cross_entropy(model(self._unseen.inputs).logits, self._unseen.target)

            def flat(loss):
                grads = torch.autograd.grad(loss, params, retain_graph=True, materialize_grads=True, allow_unused=True)
                return torch.cat([g.flatten() for g in grads])

            inner = (flat(align) - flat(cls)) @ flat(held)
            torch.testing.assert_close(self.weight - before, self.alpha_lr * inner, rtol=1e-3, atol=1e-5)
            checked.append(float(inner))

    trainer = fitted(lambda: Checked("learned", alpha=0.5, alpha_lr=0.1), epochs=2)
    assert checked
    assert checked[0] != 0.0
    assert 0.0 <= trainer.method.weight.item() <= 1.0


def test_held_out_samples_are_not_trained_on():
    seen, held = set(), set()

    class Listing(LFM):
        def step(self, step):
            seen.update(step.batch.index.tolist())
            assert self._unseen is not None
            assert len(self._unseen.target) == 27  # more than a batch
            return super().step(step)

        def on_start(self, trainer):
            super().on_start(trainer)
            held.update(self._parts(trainer)[1].tolist())

    fitted(lambda: Listing("learned", held=27), epochs=8)
    assert len(held) == 27
    assert seen
    assert not seen & held


def test_conditions_are_checked():
    with pytest.raises(ValueError, match="Use fusion Sum"):
        fitted(LFM, fusion="Gated")
    data = task(TWO)
    encoders = {"first": nn.Linear(6, 5), "second": nn.Linear(6, 4)}
    model = build_model(encoders, "Sum", num_classes=CLASSES, example=data.train)
    trainer = Trainer(model, LFM(), epochs=1, batch_size=18, progress=False, accelerator="cpu")
    with pytest.raises(ValueError, match=r"one width.*common width"):
        trainer.fit(data.train, data.val)
    with pytest.raises(ValueError, match="held must be less"):
        fitted(lambda: LFM("learned", held=1000))


@pytest.mark.parametrize(
    "arguments",
    [
        {"schedule": "fixed"},
        {"tau": 0.0},
        {"alpha": 1.5},
        {"alpha_lr": -1.0},
        {"low": -0.1},
        {"high": 2.0},
        {"held": 0},
    ],
)
def test_settings_out_of_range(arguments):
    with pytest.raises(ValueError, match=next(iter(arguments))):
        LFM(**arguments)
