"""A run directory belongs to one process."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys

import pytest

from counterpoise._files import Lock, OwnedError
from counterpoise.engine import Observer, RunDirectory, RunDirectoryError
from counterpoise.engine.saving import Checkpoints
from counterpoise.methods import Joint
from counterpoise.testing import trainer_for
from power_cut import PowerCut

OWNS = """
import sys, time
from pathlib import Path
from counterpoise._files import Lock
Path(sys.argv[1]).mkdir(exist_ok=True)
held = Lock(Path(sys.argv[1]) / ".lock")
print("held", flush=True)
time.sleep(600)
"""


@pytest.fixture
def owner(tmp_path):
    """Another process that owns ``tmp_path / "run"``."""
    command = [sys.executable, "-c", OWNS, str(tmp_path / "run")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


@pytest.mark.parametrize("resume", [False, True])
def test_a_second_process_is_refused_and_the_first_named(tmp_path, owner, resume):
    trainer, data = trainer_for(Joint, run_dir=tmp_path / "run")
    with pytest.raises(RunDirectoryError, match=rf"run is in use: process {owner.pid} on .*, since 20.* writes there"):
        trainer.run(data, resume=resume)
    assert os.listdir(tmp_path / "run") == [".lock"]


def test_the_lock_of_a_killed_process_is_taken_over(tmp_path, owner):
    owner.send_signal(signal.SIGKILL)
    owner.wait()
    assert (tmp_path / "run" / ".lock").exists()
    trainer, data = trainer_for(Joint, run_dir=tmp_path / "run", epochs=1)
    trainer.run(data)
    assert (tmp_path / "run" / "result.json").exists()
    assert not (tmp_path / "run" / ".lock").exists()


class Tries(Observer):
    """Opens the directory of the run that it watches, once for everything that may be going on."""

    def __init__(self, run_dir):
        self.run_dir, self.refused = run_dir, []

    def on_fit_start(self, trainer):
        self.attempt(trainer)

    def on_epoch_end(self, trainer, record):
        self.attempt(trainer)

    def on_fit_end(self, trainer):
        self.attempt(trainer)

    def attempt(self, trainer):
        with pytest.raises(RunDirectoryError, match=rf"in use: process {os.getpid()} on") as error:
            RunDirectory(self.run_dir, resume=True)
        self.refused.append(error)


@pytest.mark.parametrize("whole", [True, False])
def test_it_is_held_until_the_result_is_written_and_free_afterwards(tmp_path, monkeypatch, whole):
    watch = Tries(tmp_path / "run")
    trainer, data = trainer_for(Joint, run_dir=tmp_path / "run", observers=[watch], epochs=1)
    write = Checkpoints.write_result
    monkeypatch.setattr(Checkpoints, "write_result", lambda *given: (watch.attempt(trainer), write(*given))[1])
    trainer.run(data) if whole else trainer.fit(data.train, data.val)
    assert len(watch.refused) == 3 + whole
    assert not (tmp_path / "run" / ".lock").exists()
    Lock(tmp_path / "run" / ".lock").release()


def test_a_run_that_fails_lets_go(tmp_path):
    trainer, data = trainer_for(Joint, run_dir=tmp_path / "run", observers=[PowerCut(2)])
    with pytest.raises(RuntimeError, match="power cut"):
        trainer.run(data)
    assert not (tmp_path / "run" / ".lock").exists()
    again, _ = trainer_for(Joint, run_dir=tmp_path / "run")
    again.run(data, resume=True)


def test_a_directory_that_is_refused_is_left_without_a_lock(tmp_path):
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(RunDirectoryError, match="not a run of ours"):
        RunDirectory(tmp_path)
    assert os.listdir(tmp_path) == ["thesis.tex"]


def test_a_link_is_not_followed(tmp_path):
    theirs = tmp_path / "theirs.txt"
    theirs.write_text("do not touch")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".lock").symlink_to(theirs)
    with pytest.raises(RunDirectoryError, match="cannot be written"):
        RunDirectory(tmp_path / "run")
    assert theirs.read_text() == "do not touch"


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_workers_that_outlive_their_owner_hold_nothing(tmp_path):
    lock = Lock(tmp_path / ".lock")
    context = multiprocessing.get_context("fork")
    end, forked = context.Event(), context.Event()
    worker = context.Process(target=lambda: (forked.set(), end.wait()))
    worker.start()
    forked.wait()
    with pytest.raises(OwnedError, match=str(os.getpid())):
        Lock(tmp_path / ".lock")
    lock._file.close()  # as the system does when the owner is killed
    Lock(tmp_path / ".lock").release()
    end.set()
    worker.join()


@pytest.mark.parametrize("said", ["", "\x1b[31mprocess 1\nand more\x07", "x" * 1000])
def test_what_the_file_says_is_shown_as_text(tmp_path, said):
    lock = Lock(tmp_path / ".lock")
    (tmp_path / ".lock").write_text(said)
    with pytest.raises(OwnedError) as error:
        Lock(tmp_path / ".lock")
    assert str(error.value).isprintable()
    assert 0 < len(str(error.value)) <= 200
    lock.release()
