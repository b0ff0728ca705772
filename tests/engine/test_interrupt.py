import os
import random
import signal
import threading

import numpy as np
import pytest
import torch
from engine_child import EPOCHS, METHODS, build, result
from test_kill import follow, start

from counterpoise.engine import Interrupted, Observer
from counterpoise.engine.checkpoint import load
from counterpoise.engine.interrupt import Interrupt
from counterpoise.methods import Joint
from counterpoise.testing import trainer_for
from counterpoise.types import Phase


def assert_equal(a, b):
    assert a["history"] == b["history"]
    assert a["tensors"].keys() == b["tensors"].keys()
    assert [k for k, v in a["tensors"].items() if not torch.equal(v, b["tensors"][k])] == []


# -- a real process ------------------------------------------------------------------------------------
@pytest.mark.slow  # fresh processes
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_after_the_batch_and_says_how_to_go_on(tmp_path, number):
    process = start("Joint", tmp_path)
    assert follow(process, 8)  # batch 2 of epoch 2
    process.send_signal(number)
    said, errors = process.communicate()
    assert process.returncode == 130, errors
    assert "Stopped after epoch" in said
    assert "--resume" in said
    assert "last.ckpt" in said
    state = load(tmp_path / "run" / "last.ckpt")["state"]
    done = state["epoch"] * 6 + state["batch_in_epoch"]
    assert 8 <= done < 6 * EPOCHS
    assert f"Stopped after epoch {state['epoch']}, batch {state['batch_in_epoch']}." in said
    trainer, data = build("Joint", tmp_path / "run")
    trainer.fit(data.train, data.val, resume=True)
    whole, _ = build("Joint")
    assert_equal(result(whole.fit(data.train, data.val)), result(trainer))


# -- the same within this process, where the moment is exact ---------------------------------------------
class Signals(Observer):
    """Sends this process signals after so many batches."""

    def __init__(self, batches, times=1):
        self.left, self.times = batches, times

    def on_batch_end(self, trainer):
        self.left -= 1
        if self.left == 0:
            for _ in range(self.times):
                os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("batches", [2, 6, 10, 15])
def test_resumed_inside_an_epoch_it_ends_the_same(tmp_path, name, batches):
    whole, data = build(name)
    whole.fit(data.train, data.val)
    cut, _ = build(name, tmp_path / "run", [Signals(batches)])
    with pytest.raises(Interrupted, match=r"Saved .*last.ckpt; run the same command with --resume"):
        cut.fit(data.train, data.val)
    state = load(tmp_path / "run" / "last.ckpt")["state"]
    assert state["epoch"] * 6 + state["batch_in_epoch"] == batches
    again, _ = build(name, tmp_path / "run")
    again.fit(data.train, data.val, resume=True)
    assert_equal(result(whole), result(again))


def test_random_numbers_of_numpy_and_python_go_on_too(tmp_path):
    drawn = []

    class Draws(Joint):
        def step(self, step):
            drawn.append((random.gauss(0, 1), np.random.normal(), float(torch.randn(()))))
            return super().step(step)

    trainer, data = trainer_for(Draws)
    trainer.fit(data.train, data.val)
    whole, drawn[:] = drawn[:], []
    trainer, _ = trainer_for(Draws, run_dir=tmp_path, observers=[Signals(4)])
    with pytest.raises(Interrupted):
        trainer.fit(data.train, data.val)
    random.seed(3)
    np.random.seed(3)
    trainer, _ = trainer_for(Draws, run_dir=tmp_path)
    trainer.fit(data.train, data.val, resume=True)
    assert drawn == whole


def test_a_stop_that_was_asked_for_before_the_interruption_still_happens(tmp_path):
    class Stops(Joint):
        def on_epoch_start(self, trainer):
            if trainer.epoch == 1:
                trainer.stop()

    trainer, data = trainer_for(Stops, run_dir=tmp_path, observers=[Signals(4)])
    with pytest.raises(Interrupted):
        trainer.fit(data.train, data.val)
    trainer, _ = trainer_for(Stops, run_dir=tmp_path)
    trainer.fit(data.train, data.val, resume=True)
    assert len(trainer.history) == 2


def test_interrupted_between_epochs_it_loses_nothing(tmp_path):
    class AtTheEnd(Joint):
        def on_epoch_end(self, trainer, scores):
            if trainer.epoch == 1:
                os.kill(os.getpid(), signal.SIGINT)

    trainer, data = trainer_for(AtTheEnd, run_dir=tmp_path)
    with pytest.raises(Interrupted, match="Stopped after epoch 2, batch 0"):
        trainer.fit(data.train, data.val)
    assert load(tmp_path / "last.ckpt")["state"]["epoch"] == 2


def test_the_second_signal_stops_at_once(tmp_path):
    trainer, data = trainer_for(Joint, run_dir=tmp_path, observers=[Signals(2, times=2)])
    with pytest.raises(KeyboardInterrupt) as caught:
        trainer.fit(data.train, data.val)
    assert not isinstance(caught.value, Interrupted)
    assert not (tmp_path / "last.ckpt").exists()


def test_without_a_directory_it_says_that_nothing_was_saved():
    trainer, data = trainer_for(Joint, observers=[Signals(2)])
    with pytest.raises(Interrupted, match="Without run_dir nothing was saved"):
        trainer.fit(data.train, data.val)


def test_interrupted_inside_a_trial_the_run_goes_on_from_its_last_epoch(tmp_path):
    class Tries(Joint):
        signals = True

        def on_epoch_end(self, trainer, scores):
            if trainer.epoch == 1:
                trial = trainer.fork(Joint(), 2)
                if self.signals:
                    trial.observers.append(Signals(2))
                trial.fit()

    whole, data = trainer_for(Joint)
    whole.fit(data.train, data.val)
    trainer, _ = trainer_for(Tries, run_dir=tmp_path)
    with pytest.raises(Interrupted, match="during a trial run"):
        trainer.fit(data.train, data.val)
    assert load(tmp_path / "last.ckpt")["state"]["epoch"] == 1
    Tries.signals = False
    again, _ = trainer_for(Tries, run_dir=tmp_path)
    again.fit(data.train, data.val, resume=True)
    assert_equal(result(whole), result(again))


def test_handlers_are_put_back_and_shared_by_nested_use():
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    interrupt = Interrupt()
    with interrupt, interrupt as inner:
        os.kill(os.getpid(), signal.SIGTERM)
        assert inner.requested
    assert not interrupt.requested
    assert before == (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM))


def test_training_in_another_thread_leaves_the_handlers():
    trainer, data = trainer_for(Joint, epochs=1)
    thread = threading.Thread(target=trainer.fit, args=(data.train, data.val))
    thread.start()
    thread.join()
    assert len(trainer.history) == 1


class SignalsAtTheEnd(Observer):
    """The checkpoint of the epoch is written, the next phase is not entered."""

    def on_epoch_end(self, trainer, record):
        if record["epoch"] == 2:
            os.kill(os.getpid(), signal.SIGINT)


def test_random_numbers_at_a_phase_boundary_are_the_same_after_a_restart(tmp_path):
    drawn = []

    class DrawsAtBoundaries(Joint):
        def phase(self, index, trainer):
            drawn.append(float(torch.rand(())))
            return Phase(2) if index < 2 else None

    trainer, data = trainer_for(DrawsAtBoundaries)
    trainer.fit(data.train, data.val)
    whole, drawn[:] = drawn[:], []
    trainer, _ = trainer_for(DrawsAtBoundaries, run_dir=tmp_path, observers=[SignalsAtTheEnd()])
    with pytest.raises(Interrupted):
        trainer.fit(data.train, data.val)
    assert drawn == whole[:1]
    trainer, _ = trainer_for(DrawsAtBoundaries, run_dir=tmp_path)
    trainer.fit(data.train, data.val, resume=True)
    assert drawn == whole
