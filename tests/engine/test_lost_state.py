"""Everything that a run goes on with is in its checkpoint: what is lost, whatever it is, changes how the run ends."""

import os
import signal
import warnings
from dataclasses import fields

import pytest
import torch
from torch import nn

from counterpoise import build_model
from counterpoise.engine import SGD, CheckpointError, Interrupted, Observer, Plateau, Run, Trainer
from counterpoise.engine.state import State
from counterpoise.methods import Joint
from counterpoise.testing import DIM, assert_same, everything, task
from counterpoise.types import Phase

TWO = ("first", "second")
MEASURED = {"seconds": 1e6, "cpu_seconds": 1e6, "peak_memory": 2**50, "rise": 2**50}
"""What depends on the machine; the watcher adds this much, so that what is lost shows."""


class Demanding(Joint):
    """Uses all that a method may: buffers, random numbers, rows, masks, what is frozen, rates, early ends of phases."""

    def setup(self, run):
        self.register_buffer("seen", torch.ones(()))

    def phase(self, index, run):
        trains = (("first",), ("second",), None)  # so that the end of the second is the first that may be selected
        return Phase((1, 4, 2)[index], trains[index], TWO, fresh_optimizer=index == 1) if index < 3 else None

    def loss(self, output, step):
        noise = 1 + 0.5 * torch.rand((), generator=step.generator)
        self.seen += noise
        away = (1.0, -0.1, -0.1, -9.0, -9.0)[step.epoch]  # so that it does not get better once it may be selected
        return super().loss(output, step) * noise * away * (1 + 1 / self.seen)

    def on_epoch_start(self, run):
        if run.epoch == 2:
            run.stop()

    def on_epoch_end(self, run, scores):
        rows = torch.randint(len(run.train_split), (54,), generator=run.generator)
        shown = {"second": torch.rand(54, generator=run.generator) < 0.7}
        run.resample(rows, shown, ordered=run.epoch % 2 == 1)  # the epochs that are stopped inside have an order
        if run.epoch == 0:
            run.freeze("first")
            run.rescale("second", 0.5)


class Falling(Plateau):
    """Depends on the epoch, the span and the scores."""

    def shape(self, epoch, epochs):
        return super().shape(epoch, epochs) * (1 - 0.5 * epoch / epochs)


class Watch(Observer):
    """Counts batches, adds to what is measured at the first, and stops the process inside an epoch."""

    def __init__(self, stops):
        self.stops, self.batches = stops, 0

    def on_fit_start(self, run):
        self.batches = 0

    def on_batch_end(self, run):
        self.batches += 1
        if self.batches == 1:
            for name, amount in MEASURED.items():
                setattr(run.state, name, getattr(run.state, name) + amount)
        if (run.epoch, run.state.batch_in_epoch) == (self.stops, 2):
            os.kill(os.getpid(), signal.SIGINT)

    def state_dict(self):
        return {"batches": self.batches}

    def load_state_dict(self, state):
        self.batches = state["batches"]


def trainer(path=None, *, stops=None):
    torch.manual_seed(1)
    encoders = {m: nn.Sequential(nn.Linear(DIM, 8), nn.Dropout(0.3), nn.ReLU(), nn.Linear(8, 5)) for m in TWO}
    data = task(TWO)
    model = build_model(encoders, "Concat", num_classes=3, example=data.train)
    made = Trainer(
        model, Demanding(), epochs=3, batch_size=18, optimizer=SGD(lr=0.4), schedule=Falling(patience=0, gamma=0.5),
        sam=1e-12, run_dir=path, observers=[Watch(stops)], accelerator="cpu", progress=False,
    )  # fmt: skip
    return made, data


def interrupted(path, epoch=2, *, resume=False):
    cut, data = trainer(path, stops=epoch)
    try:
        cut.fit(data.train, data.val, resume=resume)
    except Interrupted:
        return cut, data
    raise AssertionError(f"there was no second batch of epoch {epoch}")


def end(made):
    """How a run ended, without what depends on the machine."""
    state = made.current.state.state_dict()
    return {
        "history": [{**record, "seconds": 0} for record in made.history],
        "batches": made.current.observers[0].batches,
        "state": {name: value // MEASURED.get(name, 1) if name in MEASURED else value for name, value in state.items()},
    }


def check(path):
    """Stopped inside two epochs and resumed, it ends like one that was not, and has said the same."""
    whole, data = trainer()
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        whole.fit(data.train, data.val)
    with warnings.catch_warnings(record=True) as parts:
        warnings.simplefilter("always")
        interrupted(path)  # when the phase is about to end early
        interrupted(path, 4, resume=True)
        again, _ = trainer(path)
        again.fit(data.train, data.val, resume=True)
    assert_same(everything(whole), everything(again))
    assert end(whole) == end(again)
    assert len(said) == len(parts) == 1
    assert "SAM radius" in str(said[0].message)


def test_nothing_is_lost(tmp_path):
    check(tmp_path)


def names():
    made, data = trainer()
    made.check(data.train)
    made.current.make_optimizer()
    return list(made.current.state_dict())


@pytest.mark.parametrize("lost", [*names(), "resampled.ordered", *(f"state.{field.name}" for field in fields(State))])
def test_nothing_is_lost_mutation(monkeypatch, tmp_path, lost):
    load, (name, _, inner) = Run.load_state_dict, lost.partition(".")

    def forgets(run, saved):
        fresh = run.state_dict()[name]
        load(run, {**saved, name: {**saved[name], inner: fresh[inner]} if inner else fresh})

    monkeypatch.setattr(Run, "load_state_dict", forgets)
    with pytest.raises((AssertionError, LookupError, CheckpointError, TypeError, FloatingPointError)):
        check(tmp_path)


def plain(value):
    """Tensors as lists."""
    if isinstance(value, torch.Tensor):
        return value.tolist()
    if isinstance(value, dict):
        return {key: plain(inner) for key, inner in value.items()}
    return [plain(inner) for inner in value] if isinstance(value, list | tuple) else value


@pytest.mark.filterwarnings("ignore:SAM radius")
def test_all_that_changes_comes_back(tmp_path):
    """Attributes that nobody has thought of yet included."""
    cut, data = interrupted(tmp_path)
    again, _ = trainer()
    again.check(data.train)
    again.current.make_optimizer()
    again.current.load_state_dict(cut.current.state_dict())
    made_anew = {"model", "method", "loss", "fabric", "train", "observers", "schedule", "optimizer_settings", "task"}
    made_anew |= {"splits", "loaders", "evaluator", "_own", "best"}  # the best weights have a file of their own
    for name in vars(cut.current).keys() - made_anew:
        kept, back = (getattr(made.current, name) for made in (cut, again))
        if name == "generator":
            kept, back = kept.get_state(), back.get_state()
        if hasattr(kept, "state_dict"):
            kept, back = kept.state_dict(), back.state_dict()
        assert plain(kept) == plain(back), name
