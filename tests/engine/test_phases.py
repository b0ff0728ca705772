"""Phases, freezing, learning rates, resampling: what a method may ask of the trainer."""

import pytest
import torch

from counterpoise.engine import SGD, AdamW, Cosine, Observer
from counterpoise.methods import Joint
from counterpoise.testing import assert_same, everything, trainer_for
from counterpoise.types import Phase

TWO = ("first", "second")


class Freezes(Joint):
    """Freezes a modality after two epochs and remembers its tensors."""

    def on_epoch_end(self, trainer, scores):
        if trainer.epoch == 1:
            trainer.freeze("first")
            self.kept = snapshot(trainer, "first")
            self.other = snapshot(trainer, "second")


def snapshot(trainer, m):
    tensors = [t for part in trainer.model.modules_of(m) for t in [*part.parameters(), *part.buffers()]]
    state = [v for p in trainer.model.parameters_of(m) for v in trainer.optimizer.state.get(p, {}).values()]
    return [t.detach().clone() for t in [*tensors, *(v for v in state if isinstance(v, torch.Tensor))]]


@pytest.mark.parametrize("optimizer", [SGD(lr=0.1, weight_decay=0.1), AdamW(lr=0.1, weight_decay=0.1)])
@pytest.mark.parametrize("fusion", ["Concat", "Late"])
def test_frozen_means_frozen(optimizer, fusion):
    last = []

    class Watch(Observer):
        def on_epoch_end(self, trainer, record):
            last[:] = [snapshot(trainer, m) for m in TWO]

    trainer, data = trainer_for(Freezes, fusion=fusion, optimizer=optimizer, epochs=4, observers=[Watch()])
    trainer.fit(data.train, data.val)
    kept, other = trainer.method.kept, trainer.method.other
    assert len(kept) == len(last[0])
    assert all(torch.equal(a, b) for a, b in zip(kept, last[0], strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(other, last[1], strict=True) if a.ndim > 0)


@pytest.mark.parametrize("optimizer", [SGD(lr=0.1, weight_decay=0.1), AdamW(lr=0.1, weight_decay=0.1)])
def test_what_a_phase_does_not_train_rests_optimizer_state_included(optimizer):
    seen = {}

    class Turns(Joint):
        def phase(self, index, trainer):
            seen[index] = {m: snapshot(trainer, m) for m in TWO}
            return Phase(2, train=(TWO[index % 2],)) if index < 4 else None

        def forward(self, step):
            return step.forward(step.phase.train)

    trainer, data = trainer_for(Turns, optimizer=optimizer)
    trainer.fit(data.train, data.val)
    for index in range(4):
        moved, rested = TWO[index % 2], TWO[(index + 1) % 2]
        assert all(torch.equal(a, b) for a, b in zip(seen[index][rested], seen[index + 1][rested], strict=True))
        pairs = zip(seen[index][moved], seen[index + 1][moved], strict=False)
        assert not any(torch.equal(a, b) for a, b in pairs if a.ndim > 0)


def test_a_gradient_left_over_from_a_phase_moves_nothing():
    class LeavesGradients(Joint):
        def phase(self, index, trainer):
            if index == 1:
                for p in trainer.model.parameters_of("first"):
                    p.grad = torch.ones_like(p)
                self.kept = snapshot(trainer, "first")
            return Phase(1, train=(TWO[index],)) if index < 2 else None

        def forward(self, step):
            return step.forward(step.phase.train)

        def on_epoch_end(self, trainer, scores):
            self.last = snapshot(trainer, "first")

    trainer, data = trainer_for(LeavesGradients)
    trainer.fit(data.train, data.val)
    assert all(torch.equal(a, b) for a, b in zip(trainer.method.kept, trainer.method.last, strict=True))


@pytest.mark.parametrize("fresh", [True, False])
def test_a_fresh_optimizer_forgets_momentum_and_restarts_the_schedule(fresh):
    found = {}

    class Two(Joint):
        def phase(self, index, trainer):
            return Phase((3, 2)[index], fresh_optimizer=fresh) if index < 2 else None

        def on_epoch_start(self, trainer):
            found[trainer.epoch] = len(trainer.optimizer.state)

    trainer, data = trainer_for(Two, epochs=5, schedule=Cosine())
    trainer.fit(data.train, data.val)
    assert bool(found[3]) != fresh
    at = [(e, 3) for e in (1, 2, 3)] + [(1, 2), (2, 2)] if fresh else [(e, 5) for e in (1, 2, 3, 4, 5)]
    expected = [0.05 * Cosine().factor(*where) for where in at]
    assert [r["lr"] for r in trainer.history] == pytest.approx(expected)


@pytest.mark.parametrize("optimizer", [SGD(lr=0.05), AdamW(lr=0.05, weight_decay=0.0)])
def test_rescale_acts_whatever_the_optimizer(optimizer):
    def moved(factor):
        class Rescaled(Joint):
            def on_start(self, trainer):
                trainer.rescale("first", factor)

        trainer, data = trainer_for(Rescaled, optimizer=optimizer, norm=False, epochs=1, batch_size=54)
        before = everything(trainer)
        trainer.fit(data.train, data.val)
        return {k: v - before[k] for k, v in everything(trainer).items()}

    whole, half, zero = moved(1.0), moved(0.5), moved(0.0)
    for name, change in whole.items():
        mine = ".first." in name
        torch.testing.assert_close(half[name], change * (0.5 if mine else 1), rtol=1e-4, atol=1e-7)
        assert bool(zero[name].any()) != mine


@pytest.mark.parametrize("verb", ["freeze", "rescale"])
def test_verbs_name_the_modality_they_do_not_know(verb):
    trainer, _ = trainer_for(Joint)
    with pytest.raises(ValueError, match="Did you mean 'first'"):
        getattr(trainer.current, verb)(*(["frist", 0.5] if verb == "rescale" else ["frist"]))


def test_stop_ends_the_phase_and_not_the_run():
    class Stops(Joint):
        def phase(self, index, trainer):
            return Phase(5, name=str(index)) if index < 2 else None

        def on_epoch_end(self, trainer, scores):
            if trainer.epoch == 1:
                trainer.stop()

    trainer, data = trainer_for(Stops, epochs=10)
    trainer.fit(data.train, data.val)
    assert [r["phase"] for r in trainer.history] == ["0"] * 2 + ["1"] * 5


def test_resampled_rows_train_from_the_next_epoch_on():
    seen = []

    class Resamples(Joint):
        def step(self, step):
            seen.append((step.epoch, step.batch.index.tolist(), step.present("second")))
            return super().step(step)

        def on_epoch_end(self, trainer, scores):
            if trainer.epoch == 0:
                trainer.resample(torch.tensor([3, 5] * 18), {"second": torch.tensor([True, False] * 18)})
            else:
                trainer.resample(None)

    trainer, data = trainer_for(Resamples, epochs=3)
    trainer.fit(data.train, data.val)
    second = [(rows, mask) for epoch, rows, mask in seen if epoch == 1]
    assert len(second) == 2
    for rows, mask in second:
        assert {(row, bool(there)) for row, there in zip(rows, mask, strict=True)} <= {(3, True), (5, False)}
    assert len({row for epoch, rows, _ in seen for row in rows if epoch == 2}) > 40


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((torch.arange(5),), "leaves 5 training samples, fewer than batch_size=18"),
        ((torch.arange(20), {"second": torch.ones(3, dtype=torch.bool)}), "one entry per row: 20 rows, 3 entries"),
        ((torch.arange(20), {"secnd": torch.ones(20, dtype=torch.bool)}), "Did you mean 'second'"),
    ],
)
def test_rows_that_cannot_be_trained_on(arguments, message):
    class Resamples(Joint):
        def on_start(self, trainer):
            trainer.resample(*arguments)

    trainer, data = trainer_for(Resamples)
    with pytest.raises(ValueError, match=message):
        trainer.fit(data.train, data.val)


def test_load_best_puts_the_best_weights_so_far_back():
    found = []

    class Loads(Joint):
        def on_epoch_end(self, trainer, scores):
            if trainer.epoch == 3:
                trainer.load_best()
                found.append((everything(trainer), trainer.best["model"]))

    trainer, data = trainer_for(Loads)
    trainer.fit(data.train, data.val)
    ((now, best),) = found
    assert_same({f"model.{k}": v for k, v in best.items()}, now)
