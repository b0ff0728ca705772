"""Processes killed with SIGKILL at any moment, and started again until they are done."""

import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from engine_child import EPOCHS, METHODS, build, result

from counterpoise.engine import Observer

CHILD = Path(__file__).with_name("engine_child.py")
BATCHES = EPOCHS * 6


def start(name, path):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    arguments = [sys.executable, str(CHILD), name, str(path)]
    return subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def follow(process, until):
    """Read what the run says until it is past a batch; False when it ends before."""
    return any(int(line.split()[1]) >= until for line in process.stdout)


def assert_same_result(path, expected):
    found = torch.load(path / "result.pt", weights_only=True)
    assert found["history"] == expected["history"]
    assert found["tensors"].keys() == expected["tensors"].keys()
    assert [k for k, v in expected["tensors"].items() if not torch.equal(found["tensors"][k], v)] == []


def uninterrupted(name):
    trainer, data = build(name)
    assert trainer.model.encoders["first"][3].p > 0  # drops out
    expected = result(trainer.fit(data.train, data.val))
    assert trainer.current.num_batches * EPOCHS == BATCHES
    return expected


@pytest.mark.slow
def test_a_killed_command_is_started_again(tmp_path):
    process = start("Joint", tmp_path)
    assert follow(process, random.Random(0).randrange(7, BATCHES))
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert not (tmp_path / "result.pt").exists()
    process = start("Joint", tmp_path)
    _, errors = process.communicate()
    assert process.returncode == 0, errors
    assert_same_result(tmp_path, uninterrupted("Joint"))


class Tells(Observer):
    def __init__(self, pipe):
        self.pipe = pipe

    def on_batch_end(self, trainer):
        self.pipe.send(trainer.state.epoch * trainer.num_batches + trainer.state.batch_in_epoch)
        time.sleep(0.01)  # so that the run does not end before whoever follows it has decided to kill it


def run(name, path, pipe):
    torch.set_num_threads(1)
    trainer, data = build(name, path / "run", [Tells(pipe)])
    trainer.fit(data.train, data.val, resume=True)
    torch.save(result(trainer), path / "result.part")
    os.replace(path / "result.part", path / "result.pt")


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name == "IGM" else pytest.mark.slow) for name in METHODS]
)
def test_killed_at_many_moments(tmp_path, name):
    """Forked, so that a start costs nothing; killed inside batches, evaluations and writes alike."""
    draw, context, killed = random.Random(name), multiprocessing.get_context("fork"), 0
    for point in [*sorted(draw.sample(range(1, BATCHES), 8)), None]:
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(target=run, args=(name, tmp_path, theirs))
        process.start()
        theirs.close()
        if point is not None:
            try:
                while ours.recv() < point:
                    pass
                time.sleep(draw.uniform(0, 0.03))
            except EOFError:
                pass  # it was done before
            process.kill()
        process.join()
        ours.close()
        killed += process.exitcode == -signal.SIGKILL
        if (tmp_path / "result.pt").exists():
            break
    assert killed >= 4
    assert_same_result(tmp_path, uninterrupted(name))
