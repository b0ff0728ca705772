import json
import os
import stat
import subprocess
from pathlib import Path

import pytest

from counterpoise.engine import Observer, RunDirectory, RunDirectoryError
from counterpoise.engine.record import environment
from counterpoise.methods import Joint
from counterpoise.metrics.result import read_result
from counterpoise.testing import trainer_for

FILES = {"config.yaml", "model.json", "environment.json", "metrics.jsonl", "last.ckpt", "best.ckpt"}


class Died(BaseException):
    pass


class DiesAfter(Observer):
    def __init__(self, epochs):
        self.epochs = epochs

    def on_epoch_end(self, trainer, record):
        if record["epoch"] == self.epochs:
            raise Died


def run(path, epochs_until_death=None, **options):
    observers = [] if epochs_until_death is None else [DiesAfter(epochs_until_death)]
    trainer, data = trainer_for(Joint, run_dir=path, observers=observers, **options)
    return trainer, data


def lines(path):
    return [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]


def test_a_finished_run_holds_everything_and_is_not_overwritten(tmp_path):
    path = tmp_path / "deep" / "run"
    trainer, data = run(path)
    result = trainer.run(data, data="made up")
    names = {p.name for p in path.iterdir()}
    assert names == FILES | {"result.json"}
    assert read_result(path) == result
    assert result["data"] == "made up"
    assert result["epochs"] == 4
    assert set(result["subsets"]) == {"first", "second", "first+second"}
    assert {"fused/accuracy", "first/macro_f1", "second/ece", "fused/loss"} <= set(result["test"])
    assert [line["epoch"] for line in lines(path)] == [1, 2, 3, 4]
    assert lines(path) == trainer.history
    written = json.loads((path / "environment.json").read_text())
    assert "torch" in written["packages"]
    assert written["run"] == {name: result[name] for name in ("method", "label", "seed", "data")}
    before = {p.name: p.read_bytes() for p in path.iterdir()}
    for resume in (False, True):
        with pytest.raises(RunDirectoryError, match="holds a finished run"):
            run(path)[0].fit(data.train, data.val, resume=resume)
    assert before == {p.name: p.read_bytes() for p in path.iterdir()}


def test_the_state_of_the_working_tree_is_written(tmp_path, monkeypatch):
    git = ["git", "-c", "user.name=n", "-c", "user.email=e"]
    monkeypatch.chdir(tmp_path)
    assert environment()["git"] is None
    subprocess.run([*git, "init", "-q"], check=True)
    Path("kept.py").write_text("1")
    assert environment()["git"] is None  # no commit yet
    subprocess.run([*git, "add", "."], check=True)
    subprocess.run([*git, "commit", "-qm", "one"], check=True)
    commit = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
    assert environment()["git"] == {"commit": commit, "changed_files": 0}
    Path("kept.py").write_text("2")
    Path("new.py").touch()
    assert environment()["git"] == {"commit": commit, "changed_files": 2}


def test_an_unfinished_run_is_continued_only_when_asked(tmp_path):
    cut, data = run(tmp_path, 2)
    with pytest.raises(Died):
        cut.fit(data.train, data.val)
    with pytest.raises(RunDirectoryError, match=r"unfinished run. Pass --resume \(resume=True\)"):
        run(tmp_path)[0].fit(data.train, data.val)
    again, _ = run(tmp_path)
    again.fit(data.train, data.val, resume=True)
    assert [line["epoch"] for line in lines(tmp_path)] == [1, 2, 3, 4]


def test_lines_that_no_checkpoint_covers_are_cut_and_missing_ones_written(tmp_path):
    cut, data = run(tmp_path, 2)
    with pytest.raises(Died):
        cut.fit(data.train, data.val)
    metrics = tmp_path / "metrics.jsonl"
    whole = metrics.read_text()
    for damaged in (whole + '{"epoch": 3, "half a li', whole.splitlines(keepends=True)[0], ""):
        metrics.write_text(damaged)
        again, _ = run(tmp_path, 3)
        if "half" in damaged:
            with pytest.raises(Died):
                again.fit(data.train, data.val, resume=True)
            assert [line["epoch"] for line in lines(tmp_path)] == [1, 2]  # it died before the checkpoint of epoch 3
        else:
            again, _ = run(tmp_path)
            again.fit(data.train, data.val, resume=True)
            assert [line["epoch"] for line in lines(tmp_path)] == [1, 2, 3, 4]


def test_resuming_where_nothing_is_starts(tmp_path):
    trainer, data = run(tmp_path / "new")
    trainer.fit(data.train, data.val, resume=True)
    assert len(trainer.history) == 4


@pytest.mark.parametrize("resume", [False, True])
def test_a_foreign_directory_is_left_alone(tmp_path, resume):
    (tmp_path / "thesis.tex").write_text("do not touch")
    trainer, data = run(tmp_path)
    with pytest.raises(RunDirectoryError, match=r"not a run of ours .it holds 'thesis.tex'"):
        trainer.fit(data.train, data.val, resume=resume)
    assert os.listdir(tmp_path) == ["thesis.tex"]


@pytest.mark.parametrize("name", ["config.yaml", ".environment.json.1a2b.part", ".lock", "log.txt"])
def test_what_a_run_leaves_that_dies_before_it_begins(tmp_path, name):
    (tmp_path / name).write_text("")
    RunDirectory(tmp_path, resume=True).release()


def test_a_file_where_the_directory_should_be(tmp_path):
    (tmp_path / "run").write_text("")
    for path in ("run", "run/inside"):
        trainer, data = run(tmp_path / path)
        with pytest.raises(RunDirectoryError, match="must be a directory; a file is in the way"):
            trainer.fit(data.train, data.val)


@pytest.mark.parametrize("call", ["mkdir", "open"])
def test_a_path_without_permission(tmp_path, monkeypatch, call):
    def denied(self, *_, **__):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(
        type(tmp_path) if call == "mkdir" else os, call, denied
    )  # root may write everywhere, so the mode alone shows nothing
    with pytest.raises(RunDirectoryError, match=r"run_dir .*run cannot be written: .*Permission denied"):
        RunDirectory(tmp_path / "run")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_path_without_permission_for_real(tmp_path):
    tmp_path.chmod(stat.S_IRUSR | stat.S_IXUSR)
    with pytest.raises(RunDirectoryError, match="cannot be written"):
        RunDirectory(tmp_path / "run")


def test_a_full_disk_while_metrics_are_written(tmp_path, monkeypatch):
    directory = RunDirectory(tmp_path)
    directory.start([], "", {}, {})
    original = Path.open

    def full(self, mode="r", *args, **options):
        if self.name.endswith(".part"):
            raise OSError(28, "No space left on device")
        return original(self, mode, *args, **options)

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(RunDirectoryError, match=r"metrics.jsonl: .*No space left on device.*resume"):
        directory.append({"epoch": 1})
    with pytest.raises(RunDirectoryError, match=r"Could not write .*result.json: .*No space left"):
        directory.write_result({})
    assert not (tmp_path / "result.json").exists()
    directory.release()
