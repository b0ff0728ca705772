import warnings

import pytest
import torch
from torch import nn

from counterpoise.engine import SGD, Step
from counterpoise.methods import Joint
from counterpoise.testing import assert_same, everything, trainer_for
from counterpoise.types import Batch


def started(make=Joint, sam=0.05, **options):
    """A trainer in the state it has inside an epoch, and a step on the first rows."""
    trainer, data = trainer_for(make, sam=sam, **options)
    trainer.current.open(data.train, data.val)
    trainer.method.setup(trainer.current)
    trainer.current.make_optimizer()
    trainer.current.select()
    rows = torch.arange(18)
    inputs = {m: data.train.batch(rows.tolist(), m, None) for m in trainer.model.modalities}
    return trainer, Step(trainer.current, Batch(inputs, data.train.target[:18], rows), 0, 3)


def weights(trainer):
    return [p.detach().clone() for p in trainer.model.parameters()]


def test_weights_come_back_bit_for_bit():
    trainer, step = started()
    before = weights(trainer)
    with step.ascent(trainer.method.objective):
        inside = weights(trainer)
        step.backward(trainer.method.objective(step))
    assert all(torch.equal(a, b) for a, b in zip(before, weights(trainer), strict=True))
    changed = sum(int((a != b).sum()) for a, b in zip(before, inside, strict=True))
    assert changed / sum(a.numel() for a in before) > 0.9
    radius = torch.stack([(a - b).norm() for a, b in zip(before, inside, strict=True)]).norm()
    assert radius == pytest.approx(0.05, rel=1e-4)


def test_weights_come_back_when_the_body_raises():
    trainer, step = started()
    before = everything(trainer)
    with pytest.raises(RuntimeError, match="in the body"), step.ascent(trainer.method.objective):
        raise RuntimeError("in the body")
    now = everything(trainer)
    assert_same(*({k: v for k, v in t.items() if "running" not in k and "tracked" not in k} for t in (before, now)))
    assert all(m.track_running_stats for m in trainer.model.modules() if isinstance(m, nn.BatchNorm1d))


def test_the_gradient_is_that_of_the_worst_point():
    trainer, step = started(norm=False)
    params = list(trainer.model.parameters())
    g = torch.autograd.grad(trainer.method.objective(step), params)
    norm = torch.stack([x.norm() for x in g]).norm()
    with torch.no_grad():
        for p, x in zip(params, g, strict=True):
            p += 0.05 * x / norm
    expected = torch.autograd.grad(trainer.method.objective(step), params)
    trainer, step = started(norm=False)
    with step.ascent(trainer.method.objective):
        step.backward(trainer.method.objective(step))
    for p, x in zip(trainer.model.parameters(), expected, strict=True):
        torch.testing.assert_close(p.grad, x, rtol=1e-5, atol=1e-7)


def test_statistics_move_once_a_step():
    plain, data = trainer_for(Joint, epochs=1, optimizer=SGD(lr=0.0))
    sam, _ = trainer_for(Joint, epochs=1, optimizer=SGD(lr=0.0), sam=0.5)
    assert_same(*(everything(t.fit(data.train, data.val)) for t in (plain, sam)))
    counters = [v for k, v in everything(sam).items() if k.endswith("num_batches_tracked")]
    assert len(counters) == 2
    assert all(int(c) == sam.current.num_batches for c in counters)


def test_a_zero_gradient_moves_nothing():
    trainer, step = started()
    before = weights(trainer)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with step.ascent(lambda step: trainer.method.objective(step) * 0):
            inside = weights(trainer)
    assert all(torch.equal(a, b) for a, b in zip(before, inside, strict=True))


@pytest.mark.parametrize("rho", [1e-10, 1e-15])
def test_a_radius_below_the_resolution_warns_once(rho):
    trainer, data = trainer_for(Joint, sam=rho, epochs=3)
    with pytest.warns(UserWarning, match="changes only") as caught:
        trainer.fit(data.train, data.val)
    assert len([w for w in caught if "changes only" in str(w.message)]) == 1


def test_a_usual_radius_does_not_warn():
    trainer, data = trainer_for(Joint, sam=0.05, epochs=2)
    trainer.fit(data.train, data.val)  # warnings are errors


def test_gradients_near_zero_are_not_blamed_on_the_radius():
    class MostlyFlat(Joint):
        def loss(self, output, step):
            return 1e-14 * super().loss(output, step) + step.model.encoders["first"][0].bias.square().sum()

    trainer, data = trainer_for(MostlyFlat, sam=0.05, epochs=1)
    trainer.fit(data.train, data.val)  # warnings are errors
    trainer, data = trainer_for(MostlyFlat, sam=1e-15, epochs=1)
    with pytest.warns(UserWarning, match="changes only 0.00%"):
        trainer.fit(data.train, data.val)


def test_radius_zero_is_plain_training():
    class Explicit(Joint):
        def step(self, step):
            with step.ascent(self.objective, 0.0):
                loss = self.objective(step)
                step.backward(loss)
            step.update()
            return loss.detach()

    plain, data = trainer_for(Joint)
    zero, _ = trainer_for(Joint, sam=0.0)
    explicit, _ = trainer_for(Explicit, sam=0.3)  # the method's own radius wins, 0 included
    results = [everything(t.fit(data.train, data.val)) for t in (plain, zero, explicit)]
    assert_same(results[0], results[1])
    assert_same(results[0], results[2])


def test_both_evaluations_draw_the_same_numbers():
    drawn = []

    class Draws(Joint):
        def forward(self, step):
            drawn.append(torch.rand(2, generator=step.generator).tolist())
            return step.forward()

    trainer, data = trainer_for(Draws, sam=0.05, epochs=2)
    trainer.fit(data.train, data.val)
    assert drawn[0::2] == drawn[1::2]
    assert len({tuple(d) for d in drawn}) == len(drawn) / 2
    with_sam, drawn[:] = drawn[0::2], []
    trainer, data = trainer_for(Draws, epochs=2)
    trainer.fit(data.train, data.val)
    assert drawn == with_sam  # and the stream goes on as without SAM


def test_only_what_trains_is_moved():
    trainer, step = started()
    for p in trainer.model.parameters_of("second"):
        p.requires_grad_(False)
    before = weights(trainer)
    with step.ascent(trainer.method.objective):
        inside = weights(trainer)
    moved = {id(p) for p, a, b in zip(trainer.model.parameters(), before, inside, strict=True) if not torch.equal(a, b)}
    assert moved
    assert moved <= {id(p) for p in trainer.current.trainable()}
