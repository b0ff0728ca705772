import pytest
import torch
from torch import nn

from counterpoise.build import build_model
from counterpoise.engine import SGD, Observer, Trainer
from counterpoise.functional.gradients import flatten
from counterpoise.method import Method
from counterpoise.methods.mmpareto import MMPareto
from counterpoise.testing import CHECKS, CLASSES, NAMES, assert_same, check_method, everything, task, trainer_for


class MultiTask(Method):
    info = MMPareto.info
    own_heads = True

    def loss(self, output, step):
        return step.criterion(output.logits) + sum(step.unimodal_loss(output, m) for m in output.unimodal)


class TwoPasses(MultiTask):
    """The same loss, one backward pass for its fused part and one for the others."""

    def step(self, step):
        output = self(step)
        own = torch.stack([step.unimodal_loss(output, m) for m in output.unimodal]).sum()
        fused = step.criterion(output.logits)
        step.backward(fused, retain=True)
        step.backward(own)
        step.update()
        return (fused + own).detach()


@pytest.mark.parametrize("fusion", ["Late", "Gated", "Sum", "Attention"])
def test_other_fusions(fusion):
    check_method(lambda: MMPareto(rescale="tensor"), modalities=2, fusion=fusion, checks=[CHECKS[0]])


class _Kept(Observer):
    """Keeps the gradients of the first update."""

    def __init__(self):
        self.grads = None

    def before_update(self, trainer):
        if self.grads is None:
            self.grads = {n: p.grad.clone() for n, p in trainer.model.named_parameters() if p.grad is not None}


def first_gradients(make, modalities=NAMES[:3]):
    kept = _Kept()
    trainer, data = trainer_for(make, modalities, epochs=1, observers=[kept])
    trainer.fit(data.train, data.val)
    return kept.grads


def test_gradients_against_the_reference():
    """The gradient of the first update, rebuilt in float64 by plain autograd on a copy of the model."""
    seen = []

    class Recording(MMPareto):
        def step(self, step):
            if not seen:
                state = {
                    k: v.detach().double().clone() for k, v in step.model.state_dict().items() if v.is_floating_point()
                }
                seen.append((state, {m: x.double() for m, x in step.batch.inputs.items()}, step.batch.target))
            return super().step(step)

    got = first_gradients(Recording)
    (state, inputs, target), names = seen[0], NAMES[:3]
    trainer, _ = trainer_for(MMPareto, names)
    model = trainer.model.double()
    model.load_state_dict(state, strict=False)
    model.train()
    output = model(inputs)
    ce = nn.functional.cross_entropy
    fused = ce(output.logits, target)
    conflicts = 0
    for m in names:
        params = list(model.encoders[m].parameters())
        g = flatten(torch.autograd.grad(fused, params, retain_graph=True))
        u = flatten(torch.autograd.grad(ce(output.unimodal[m], target), params, retain_graph=True))
        expected = g + u
        if g @ u <= 0:
            conflicts += 1
            a = ((u @ (u - g)) / (u - g).square().sum()).clamp(0, 1)
            n = 2 * (a * g + (1 - a) * u)
            expected = max(1.0, float((g + u).norm() / n.norm())) * n
        mine = flatten([got[f"encoders.{m}.{k}"] for k, _ in model.encoders[m].named_parameters()])
        torch.testing.assert_close(mine.double(), 1.5 * expected, rtol=1e-4, atol=1e-5)
    assert conflicts > 0, "the example should have at least one conflict"


def test_heads_take_the_plain_sum():
    mine, plain = first_gradients(MMPareto), first_gradients(MultiTask)
    heads = [name for name in plain if not name.startswith("encoders.")]
    assert heads
    assert all(torch.equal(mine[name], plain[name]) for name in heads)
    assert any(not torch.equal(mine[name], plain[name]) for name in plain)


def test_without_conflict_and_with_gamma_one_it_is_multi_task_training():
    """Own heads proportional to the fused blocks: g and u are parallel at every step of the encoder's last layer."""
    results = []
    for make in (lambda: MMPareto(gamma=1.0), TwoPasses, MultiTask):
        torch.manual_seed(0)
        model = build_model(
            {m: nn.Linear(6, 5) for m in NAMES[:2]},
            "Concat",
            num_classes=CLASSES,
            heads=True,
            example=task(NAMES[:2]).train,
        )
        with torch.no_grad():
            for m in NAMES[:2]:
                model.fusion.own_heads[m].weight.copy_(model.fusion.blocks[m].weight)
        data = task(NAMES[:2])
        trainer = Trainer(
            model, make(), epochs=2, batch_size=18, optimizer=SGD(lr=0.01), progress=False, accelerator="cpu"
        )
        trainer.fit(data.train, data.val)
        results.append(everything(trainer))
    mine, passes, plain = results
    assert_same(mine, passes)
    for name, value in plain.items():  # which adds up in another order
        torch.testing.assert_close(mine[name], value, rtol=1e-5, atol=1e-6, msg=name)


@pytest.mark.parametrize("rescale", ["encoder", "tensor"])
def test_opposed_and_vanishing_gradients_stay_finite(rescale):
    """Heads that ask for the exact opposite, then heads that ask for nothing."""
    for factor in (-1.0, 0.0):
        trainer, data = trainer_for(lambda: MMPareto(rescale=rescale), NAMES[:2], norm=False, epochs=1)
        with torch.no_grad():
            for m in NAMES[:2]:
                trainer.model.fusion.own_heads[m].weight.copy_(factor * trainer.model.fusion.blocks[m].weight)
        trainer.fit(data.train, data.val)
        assert all(v.isfinite().all() for v in everything(trainer).values())


def test_conditions_are_checked():
    data = task(NAMES[:2])
    encoders = {m: nn.Linear(6, 5) for m in NAMES[:2]}
    model = build_model(encoders, "Concat", num_classes=CLASSES, example=data.train)
    with pytest.raises(ValueError, match="heads=True"):
        Trainer(model, MMPareto(), epochs=1, batch_size=18, progress=False, accelerator="cpu")
    tied = nn.Linear(6, 5)
    encoders = {m: nn.Sequential(tied) for m in NAMES[:2]}
    model = build_model(encoders, "Concat", num_classes=CLASSES, heads=True, example=data.train)
    trainer = Trainer(model, MMPareto(), epochs=1, batch_size=18, progress=False, accelerator="cpu")
    with pytest.raises(ValueError, match="share no parameter"):
        trainer.fit(data.train, data.val)


@pytest.mark.parametrize("arguments", [{"gamma": 0.0}, {"rescale": "both"}])
def test_settings_out_of_range(arguments):
    with pytest.raises(ValueError, match=next(iter(arguments))):
        MMPareto(**arguments)
