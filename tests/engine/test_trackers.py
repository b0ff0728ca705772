"""Scores in trackers, in one run of each however often a run is resumed."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from test_record import Died, DiesAfter

from counterpoise.engine import CSV, MLflow, TensorBoard, Trackio, Trainer, WandB
from counterpoise.methods import Joint
from counterpoise.testing import trainer_for

EPOCHS = 4
QUIET = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


def cut_and_resumed(path: Path, logger: Any, again: Any = None) -> Trainer:
    """A run that dies in its third epoch and is resumed, to its scores on test."""
    cut, data = trainer_for(Joint, run_dir=path, logger=logger, observers=[DiesAfter(3)])
    with pytest.raises(Died):
        cut.run(data)
    trainer, _ = trainer_for(Joint, run_dir=path, logger=again or logger)
    trainer.run(data, resume=True)
    return trainer


def test_nothing_is_tracked_unless_asked_for(tmp_path: Path):
    trainer, data = trainer_for(Joint, run_dir=tmp_path)
    trainer.fit(data.train, data.val)
    assert not list(tmp_path.glob("events.out.*"))
    assert not (tmp_path / "tracker.json").exists()


def test_tensorboard_gets_every_score_once(tmp_path: Path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    trainer = cut_and_resumed(tmp_path, "tensorboard")
    events = accumulator.EventAccumulator(str(tmp_path)).Reload()
    assert {"train/loss", "val/fused/accuracy", "val/first/accuracy", "test/fused/accuracy"} <= set(
        events.Tags()["scalars"]
    )
    points = events.Scalars("train/loss")
    assert [p.step for p in points] == [1, 2, 3, 4]
    assert [p.value for p in points] == pytest.approx([r["train/loss"] for r in trainer.history])


def test_csv_has_a_row_an_epoch(tmp_path: Path):
    trainer = cut_and_resumed(tmp_path, CSV())
    with open(tmp_path / "csv" / "metrics.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    losses = {int(row["step"]): float(row["train/loss"]) for row in rows if row["train/loss"]}
    assert losses == pytest.approx({r["epoch"]: r["train/loss"] for r in trainer.history})
    assert any(row["test/fused/accuracy"] for row in rows)


@pytest.mark.slow
class TestOthers:
    """With the real packages, offline."""

    pytestmark = QUIET

    def test_mlflow(self, tmp_path: Path):
        mlflow = pytest.importorskip("mlflow")
        uri = f"sqlite:///{tmp_path}/mlflow.db"
        trainer = cut_and_resumed(tmp_path / "run", MLflow(uri, "tried"))
        client = mlflow.MlflowClient(uri)
        (run,) = client.search_runs([client.get_experiment_by_name("tried").experiment_id])
        assert (run.info.run_name, run.info.status) == ("run", "FINISHED")
        assert run.data.params["trainer.epochs"] == str(EPOCHS)
        points = client.get_metric_history(run.info.run_id, "train/loss")
        assert [(p.step, p.value) for p in points] == [(r["epoch"], r["train/loss"]) for r in trainer.history]
        assert run.data.metrics["test/fused/accuracy"] >= 0

    def test_trackio(self, tmp_path: Path):
        pytest.importorskip("trackio")
        from trackio import sqlite_storage  # pyright: ignore[reportMissingImports]

        project = f"tried-{tmp_path.name}"
        trainer = cut_and_resumed(tmp_path / "run", Trackio(project))
        (name,) = sqlite_storage.SQLiteStorage.get_runs(project)
        assert name.startswith("run-")
        logs = [line for line in sqlite_storage.SQLiteStorage.get_logs(project, name) if "train/loss" in line]
        assert [(line["step"], line["train/loss"]) for line in logs] == [
            (r["epoch"], r["train/loss"]) for r in trainer.history
        ]

    def test_wandb(self, tmp_path: Path):
        pytest.importorskip("wandb")
        cut_and_resumed(tmp_path / "run", WandB("tried", "offline"))
        version = json.loads((tmp_path / "run" / "tracker.json").read_text())["run"]
        files = list((tmp_path / "run" / "wandb").glob("offline-run-*"))
        assert len(files) == 2  # written offline, to be synced into one run
        assert all(file.name.endswith(version) for file in files)

    def test_a_logger_of_lightning(self, tmp_path: Path):
        pytest.importorskip("mlflow")
        loggers = pytest.importorskip("lightning.pytorch.loggers")
        uri = f"sqlite:///{tmp_path}/mlflow.db"
        first = loggers.MLFlowLogger("tried", tracking_uri=uri)
        other = loggers.MLFlowLogger("tried", tracking_uri=uri)
        with pytest.raises(ValueError, match=f"run {first.version!r}, and this logger writes to {other.version!r}"):
            cut_and_resumed(tmp_path / "run", first, other)
        again, data = trainer_for(
            Joint,
            run_dir=tmp_path / "run",
            logger=loggers.MLFlowLogger("tried", tracking_uri=uri, run_id=first.version),
        )
        again.run(data, resume=True)
        points = first.experiment.get_metric_history(first.version, "train/loss")
        assert [p.step for p in points] == [1, 2, 3, 4]


class Memory:
    """A logger of somebody's own."""

    def __init__(self, version: str = "one"):
        self.version, self.lines, self.settings, self.ends = version, [], [], []

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        self.lines.append((step, metrics))

    def log_hyperparams(self, params: dict[str, Any]) -> None:
        self.settings.append(params)

    def finalize(self, status: str) -> None:
        self.ends.append(status)


def test_a_resumed_run_goes_on_in_the_same_run_of_the_tracker(tmp_path: Path):
    logger = Memory()
    trainer = cut_and_resumed(tmp_path, logger)
    *epochs, (last, test) = logger.lines
    assert [step for step, _ in epochs] == [1, 2, 3, 4]
    assert [metrics["train/loss"] for _, metrics in epochs] == [r["train/loss"] for r in trainer.history]
    assert last == EPOCHS
    assert "test/fused/accuracy" in test
    assert logger.ends == ["failed", "success"]
    (settings,) = logger.settings
    assert settings["trainer.epochs"] == str(EPOCHS)
    assert json.loads((tmp_path / "tracker.json").read_text()) == {"tracker": "Memory", "run": "one", "epoch": EPOCHS}


def test_another_run_of_the_tracker_is_refused_before_training(tmp_path: Path):
    other = Memory("two")
    with pytest.raises(ValueError, match="run 'one', and this logger writes to 'two'"):
        cut_and_resumed(tmp_path, Memory("one"), other)
    assert not other.lines


def test_a_tracker_that_comes_later_gets_all_epochs(tmp_path: Path):
    logger = Memory()
    cut_and_resumed(tmp_path, None, logger)
    assert [step for step, _ in logger.lines] == [1, 2, 3, 4, 4]


@pytest.mark.parametrize(
    ("logger", "message"),
    [
        ("tensorbord", "Did you mean 'TensorBoard'"),
        (3, "logger must be a name"),
        (TensorBoard, "logger must be a name"),
    ],
)
def test_what_is_no_logger_is_refused(logger: Any, message: str, tmp_path: Path):
    with pytest.raises(ValueError, match=message):
        trainer_for(Joint, run_dir=tmp_path, logger=logger)


def test_a_logger_needs_a_run_directory():
    with pytest.raises(ValueError, match="needs a run_dir"):
        trainer_for(Joint, logger="csv")


@pytest.mark.parametrize(("logger", "package"), [("mlflow", "mlflow"), ("wandb", "wandb"), ("trackio", "trackio")])
def test_a_missing_package_is_named_with_the_command(
    logger: str, package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    import sys

    monkeypatch.setitem(sys.modules, package, None)
    trainer, data = trainer_for(Joint, run_dir=tmp_path, logger=logger)
    with pytest.raises(ImportError, match=rf"pip install 'counterpoise\[{package}\]'"):
        trainer.fit(data.train, data.val)
